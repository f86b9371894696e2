"""A backbone as one graph of operations, for formats that hold the computation and not the weights alone."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from d3ssl.errors import D3sslError
from d3ssl.export.target import any_sizes
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
    """The graph, by ``torch.export``; the number of images and their size are free unless the network fixes the size.

    Raises:
        D3sslError: the network's own code cannot be traced.
    """
    free = (0,) if backbone.layout.fixed_size is not None else (0, 2, 3)
    shapes: Any = ({axis: Dim.AUTO for axis in free},)
    images = torch.zeros(any_sizes(backbone)[0][0], backbone.in_channels, *any_sizes(backbone)[0][1:])
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own notes on deprecated internals
            return torch.export.export(Maps(backbone), (images,), dynamic_shapes=shapes)
    except Exception as error:  # whatever the network's code runs into
        problem = f"torch.export cannot trace {backbone.architecture} ({type(error).__name__}: {_first_line(error)})"
        raise D3sslError(problem, remedy="export it to timm or hf, which keep the weights alone.") from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), "")
