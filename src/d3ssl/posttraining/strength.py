"""The dial: how far the weights go from the start to the end of the training, chosen without labels.

A region of a held-out photograph is looked for among all of them by its feature (nearest neighbour, cosine, centred):
once in another crop of its own photograph (*familiar*), once after it was moved onto another photograph (*unfamiliar*).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from d3ssl.contracts import CanvasBatch
from d3ssl.errors import InputError
from d3ssl.models.backbone import Backbone
from d3ssl.models.modes import evaluating
from d3ssl.models.readers import ReaderConfig
from d3ssl.seeds import Draws
from d3ssl.views.maker import ViewMaker
from d3ssl.views.masks import Carrier
from d3ssl.views.ops import Crop, FillHoles, Photometric, Shift
from d3ssl.views.view import RegionsSpec, ViewSpec

STRENGTHS = tuple(number / 8 for number in range(9))
MAX_FAMILIAR_LOSS = 0.01
"""Share of the regions that may be lost in familiar surroundings (decided here: one point)."""
_PLAIN = Photometric(jitter_p=0.0, grey_p=0.0, blur_p=0.0, solarize_p=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrieval:
    """Shares of the regions that are found, 0..1."""

    strength: float
    familiar: float
    unfamiliar: float


def probe_views(size: int, carried_by: Carrier) -> dict[str, ViewSpec]:
    """The photograph, another crop of it, and that crop with its regions moved onto another photograph."""
    crop = Crop(area=(0.6, 1.0))
    elsewhere = (Shift(mode="each", scale=(0.7, 1.2), carried_by=carried_by), FillHoles())
    return {
        "photograph": ViewSpec(size=size, crop=Crop(area=(1.0, 1.0), flip=0.0), photometric=_PLAIN),
        "familiar": ViewSpec(size=size, source="photograph", crop=crop, photometric=_PLAIN),
        "unfamiliar": ViewSpec(size=size, source="familiar", operations=elsewhere),
    }


class Probes:
    """Views of held-out images, made once, always the same for a seed.

    Args:
        batches: of the held-out images.
        reader: how regions are read.
        size: side of the views, px.

    Raises:
        InputError: fewer than 20 regions.
    """

    def __init__(
        self, batches: Sequence[CanvasBatch], backbone: Backbone, reader: ReaderConfig, regions: RegionsSpec, size: int
    ) -> None:
        carried_by: Carrier = "mask" if all(batch.labels is not None for batch in batches) else "box"
        maker = ViewMaker(probe_views(size, carried_by), regions, backbone.mean, backbone.std)
        self.reader = reader
        with torch.no_grad():
            self.sets = [maker(batch, Draws(seed=0, step=number)) for number, batch in enumerate(batches)]
        self.count = int(sum(int(own.slots.distinct.sum()) for own in self.sets))
        if self.count < 20:
            remedy = "give more images or regions (--canvas.held_out, d3ssl regions), or choose the strength yourself."
            raise InputError(
                f"the held-out images show {self.count} regions, too few to choose a strength", remedy=remedy
            )

    @torch.no_grad()
    def measure(self, backbone: Backbone, tick: Callable[[], None] = lambda: None) -> tuple[float, float]:
        """Shares of the regions that are found in familiar and in unfamiliar surroundings."""
        reader = self.reader.build(backbone)
        found: dict[str, list[Tensor]] = {}
        images: list[Tensor] = []
        with evaluating(backbone):
            for views in self.sets:
                counted = views.slots.distinct.flatten()
                for name, view in views.views.items():
                    features = backbone.features(view.images, [reader.needs])
                    found.setdefault(name, []).append(reader(features, view, views.slots, backbone)[counted])
                images.append(views.slots.index.repeat_interleave(views.slots.distinct.shape[1])[counted])
                tick()
        rows = {name: torch.cat(parts) for name, parts in found.items()}
        return tuple(  # type: ignore[return-value]
            retrieve(rows["photograph"], rows[name], torch.cat(images)) for name in ("familiar", "unfamiliar")
        )


def retrieve(memory: Float[Tensor, "N D"], queries: Float[Tensor, "N D"], image: Int64[Tensor, "N"]) -> float:
    """Share of the queries whose nearest row of the memory is the one of the same number.

    Rows are centred by the mean of the memory and compared by their cosine. Other regions of the query's own image do
    not compete: they may show a part of the same object.
    """
    mean = memory.mean(0)
    similar = F.normalize(queries - mean, dim=1) @ F.normalize(memory - mean, dim=1).T
    number = torch.arange(len(memory))
    rivals = (image[:, None] != image) | (number[:, None] == number)
    return float((similar.masked_fill(~rivals, -torch.inf).argmax(1) == number).float().mean())


def propose(frontier: Sequence[Retrieval]) -> float:
    """The strength with the most unfamiliar gain whose familiar loss is at most a point; 0 if none gains."""
    start = next(own for own in frontier if own.strength == 0)
    allowed = [own for own in frontier if start.familiar - own.familiar <= MAX_FAMILIAR_LOSS + 1e-9]
    best = max(allowed, key=lambda own: (own.unfamiliar, -own.strength))
    return best.strength if best.unfamiliar > start.unfamiliar else 0.0
