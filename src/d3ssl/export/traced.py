"""A backbone as one graph of operations, for formats that hold the computation and not the weights alone."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from d3ssl.errors import D3sslError, first_line
from d3ssl.export.target import Sizes, any_sizes
from d3ssl.models.backbone import Backbone


class Maps(nn.Module):
    """Images → all maps of a backbone, as a tuple."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Float[Tensor, "B C H W"]) -> tuple[Tensor, ...]:
        """(B, C_i, h_i, w_i) each, the deepest last."""
        return tuple(self.backbone.maps(images))


def trace(backbone: Backbone) -> ExportedProgram:
    """The graph, by ``torch.export``, for any number of images of any size; of one size unless ``has_free_size``.

    Raises:
        D3sslError: the network's own code cannot be traced.
    """
    free = (0, 2, 3) if has_free_size(backbone) else (0,)
    shapes: Any = (dict.fromkeys(free, Dim.AUTO),)
    count, *size = traced_sizes(backbone)[0]
    images = torch.zeros(count, backbone.in_channels, *size)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own notes on deprecated internals
            return torch.export.export(Maps(backbone), (images,), dynamic_shapes=shapes)
    except Exception as error:  # whatever the network's code runs into
        problem = f"torch.export cannot trace {backbone.architecture} ({type(error).__name__}: {first_line(error)})"
        raise D3sslError(problem, remedy="export it to timm or hf, which keep the weights alone.") from error


def has_free_size(backbone: Backbone) -> bool:
    """Whether the graph takes images of any size. Windows of attention (Swin) are laid out for one size."""
    layout = backbone.layout
    return layout.fixed_size is None and bool(layout.chain or layout.is_grid or backbone.library == "module")


def traced_sizes(backbone: Backbone) -> Sizes:
    """Images to trace and to compare: small ones of two sizes, or the network's own size."""
    if has_free_size(backbone):
        return any_sizes(backbone)
    size = backbone.layout.fixed_size or (backbone.input_size, backbone.input_size)
    return [(2, *size), (1, *size)]


def size_note(backbone: Backbone) -> str:
    """What images the graph takes, in words."""
    if has_free_size(backbone):
        return f"images: float32 (B, {backbone.in_channels}, H, W)"
    height, width = traced_sizes(backbone)[0][1:]
    return f"images: float32 (B, {backbone.in_channels}, {height}, {width}), of no other size"
