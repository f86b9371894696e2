"""The retrieval protocol: cells are named by the most similar cells of the training images, nothing is trained."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float32
from torch import Tensor
from torch.nn.functional import normalize

from d3ssl.evaluate.segmentation.config import SegmentationConfig
from d3ssl.evaluate.segmentation.features import cells_of
from d3ssl.evaluate.segmentation.pool import CellPool

_SIMILARITIES_AT_A_TIME = 20_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class CellMemory:
    """Cells to look up (Hummingbird: Balažević et al., "Towards In-Context Scene Understanding", arXiv 2306.01667).

    A cell q gets the label distribution Σ_i a_i·y_i, where i runs over the ``neighbours`` cells k_i of the memory with
    the greatest cosine similarity, a = softmax(cos(q, k_i) / temperature) and y_i are the shares of the classes in cell
    i. With several levels the similarity is the mean of the levels' cosines, so that none outweighs the others by its
    scale; with one (ViTs) it is the published formula, unless the cells are
    centred first (an option).
    """

    keys: Float32[Tensor, "M D"]
    """Every level of norm 1/√levels: the scalar product of two cells is the mean of the cosines."""
    values: Float32[Tensor, "M classes"]
    centre: Float32[Tensor, "D"]
    """Taken from every feature first: the mean cell, or zeros."""
    widths: tuple[int, ...]
    """Features of each level."""
    neighbours: int
    temperature: float

    def scores(self, maps: Float[Tensor, "B D h w"]) -> Float[Tensor, "B classes h w"]:
        """The label distribution of every cell."""
        queries = _unit(cells_of(maps).float() - self.centre, self.widths)
        part = max(1, _SIMILARITIES_AT_A_TIME // len(self.keys))
        found = torch.cat([self._look_up(some) for some in queries.split(part)])
        count, _, height, width = maps.shape
        return found.reshape(count, height, width, -1).permute(0, 3, 1, 2)

    def _look_up(self, queries: Float[Tensor, "N D"]) -> Float[Tensor, "N classes"]:
        near = (queries @ self.keys.T).topk(min(self.neighbours, len(self.keys)), dim=1)
        attention = (near.values / self.temperature).softmax(dim=1)
        return torch.einsum("nk,nkc->nc", attention, self.values[near.indices])


def remember(pool: CellPool, config: SegmentationConfig, device: torch.device) -> CellMemory:
    """A memory of all cells of a pool (``CellPool.draw`` bounds it)."""
    x = pool.x.to(device)
    centre = x.mean(dim=0) if config.retrieval_centre else torch.zeros_like(x[0])
    return CellMemory(
        keys=_unit(x - centre, pool.widths),
        values=pool.y.to(device),
        centre=centre,
        widths=pool.widths,
        neighbours=config.neighbours,
        temperature=config.temperature,
    )


def _unit(x: Float[Tensor, "N D"], widths: tuple[int, ...]) -> Float[Tensor, "N D"]:
    levels = [normalize(own, dim=1) for own in x.split(list(widths), dim=1)]
    return torch.cat(levels, dim=1) / len(widths) ** 0.5
