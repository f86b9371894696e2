"""The tokens of a plain ViT: its patches and its [CLS], with a change of the embedded patches on the way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

PatchChange = Callable[[Tensor], Tensor]
"""(B, h, w, D) → the same shape: the patches before positions are added."""


def run_tokens(
    net: nn.Module, images: Float[Tensor, "B C H W"], stride: int, change: PatchChange | None = None
) -> tuple[Float[Tensor, "B D h w"], Float[Tensor, "B D"]]:
    """The patches of the last block, and the [CLS] token, both through the final norm.

    Args:
        net: a plain ViT of timm with a [CLS] token (see ``models.readers.Patch``).
        images: whose sides the patches divide.
        stride: side of a patch, px.
        change: of the embedded patches; None: as they are.
    """
    vit: Any = net
    embedded = vit.patch_embed(images)
    size = images.shape[2] // stride, images.shape[3] // stride
    if change is not None:
        grid = change(embedded if embedded.ndim == 4 else embedded.unflatten(1, size))
        embedded = grid if embedded.ndim == 4 else grid.flatten(1, 2)
    value = vit.norm_pre(vit.patch_drop(vit._pos_embed(embedded)))
    value = vit.norm(vit.blocks(value))
    patches = value[:, vit.num_prefix_tokens :]
    return patches.unflatten(1, size).permute(0, 3, 1, 2).contiguous(), value[:, 0]
