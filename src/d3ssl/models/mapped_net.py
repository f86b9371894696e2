"""A module from elsewhere, with a function that reads its maps, in the form that backbones are made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from d3ssl.errors import InputError
from d3ssl.models.layout import Layout, behind_the_maps
from d3ssl.models.modes import evaluating
from d3ssl.seeds import torch_generator

MapsFunction = Callable[[Any, Tensor], Sequence[Tensor]]
"""``module, images (B, C, H, W) -> maps (B, C_i, h_i, w_i)``, the deepest last."""
_PROBES = ((128, 192), (224, 224))
"""Height and width of the images that are tried, px; the second for modules that take no other."""
HOW_TO_PASS = (
    "pass maps=, a function that gives the feature maps, each (B, C, h, w), the deepest last: "
    "load_backbone(module, maps=lambda module, images: [module.features(images)])."
)


class MappedNet(nn.Module):
    """timm's ``forward_intermediates`` by a function of the caller's. The module inside is the caller's own."""

    def __init__(self, module: nn.Module, maps: MapsFunction, in_channels: int) -> None:
        """Run the module once, in evaluation mode, to see its maps' channels and strides.

        Raises:
            InputError: the function fails, or what it gives are no maps.
        """
        super().__init__()
        self.module = module
        self._read = maps
        self.layout = self._find_layout(in_channels)

    def forward_intermediates(self, images: Float[Tensor, "B C H W"], **_: Any) -> list[Tensor]:
        """All maps."""
        return list(self._read(self.module, images))

    def _find_layout(self, in_channels: int) -> Layout:
        problem: Exception | None = None
        device = next((parameter.device for parameter in self.parameters()), torch.device("cpu"))
        with evaluating(self):
            for size in _PROBES:
                images = torch.randn(2, in_channels, *size, generator=torch_generator("probe")).to(device)
                try:
                    with torch.enable_grad():
                        maps = self._read(self.module, images)
                except (RuntimeError, ValueError, TypeError, AssertionError, AttributeError, LookupError) as error:
                    problem = problem or error
                    continue
                return self._layout_of(maps, size)
        text = f"{type(problem).__name__}: {str(problem).splitlines()[0] if str(problem) else ''}"
        raise InputError(
            f"maps= fails on images of {in_channels} channels and {_PROBES[0][0]} × {_PROBES[0][1]} px ({text})",
            remedy=f"say in_channels= if the images have other than {in_channels}; else {HOW_TO_PASS}",
        ) from problem

    def _layout_of(self, maps: Any, size: tuple[int, int]) -> Layout:
        if isinstance(maps, Tensor) or not isinstance(maps, Sequence) or not maps:
            kind = "a tensor" if isinstance(maps, Tensor) else "nothing" if not maps else f"a {type(maps).__name__}"
            raise InputError(f"maps= gives {kind} instead of a list of feature maps", remedy=HOW_TO_PASS)
        strides = [_stride(number, found, size) for number, found in enumerate(maps)]
        return Layout(
            chain=(),
            ends=(),
            cuts=(),
            channels=tuple(found.shape[1] for found in maps),
            strides=tuple(strides),
            is_grid=False,
            fixed_size=None if size == _PROBES[0] else size,
            unused=behind_the_maps(self, maps),
        )


def _stride(number: int, found: Any, size: tuple[int, int]) -> int:
    """px per map px.

    Raises:
        InputError: it is no map of the image.
    """
    where = f"map {number} of maps="
    if not isinstance(found, Tensor) or found.ndim != 4:
        shape = f"has the shape {tuple(found.shape)}" if isinstance(found, Tensor) else f"is a {type(found).__name__}"
        remedy = "give feature maps; reshape a ViT's patch tokens (B, h·w, C) to (B, C, h, w), without its class token."
        raise InputError(f"{where} {shape}, not (B, C, h, w)", remedy=remedy)
    if len(found) != 2:
        raise InputError(f"{where} holds {len(found)} images of a batch of 2", remedy=HOW_TO_PASS)
    rows, columns = found.shape[2:]
    if size[0] % rows or size[1] % columns or size[0] // rows != size[1] // columns:
        problem = f"{where} has {rows} × {columns} cells for an image of {size[0]} × {size[1]} px: no whole stride"
        remedy = "give maps (B, C, h, w), channels first, of convolutions that are padded."
        raise InputError(problem, remedy=remedy)
    return size[0] // rows
