"""A frozen teacher's rows of regions that look the same at every visit: computed at the first one, then looked up."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from d3ssl.contracts import CanvasBatch, to_device
from d3ssl.methods.learner import Learner
from d3ssl.seeds import Draws
from d3ssl.views.maker import DrawnViews, ViewMaker
from d3ssl.views.view import RegionsSpec

CHUNK = 8
"""Regions that are computed at a time, always as many: the rows do not depend on which regions come together."""


class KeptRows:
    """What the teacher says of the views of a plan that are ``kept``.

    Rows live in memory, 4·D bytes for each region visited, and are computed again when a run is resumed, to the same
    bits.

    Args:
        learner: with a frozen teacher.
    """

    def __init__(self, learner: Learner) -> None:
        plan, backbone = learner.plan, learner.backbone
        self.learner = learner
        single = RegionsSpec(regions_per_image=1, min_visible=0.0, min_side=0.0)
        kept = [name for name in plan.teacher_views if plan.views[name].kept]
        self.makers = {name: ViewMaker(plan.views, single, backbone.mean, backbone.std, [name]) for name in kept}
        self.known: dict[int, dict[tuple[str, str], Float[Tensor, "D"]]] = {}

    @torch.no_grad()
    def rows(self, batch: CanvasBatch, drawn: DrawnViews) -> dict[str, dict[str, Float[Tensor, "N D"]]]:
        """View → head → a row for every slot of every image.

        Args:
            batch, drawn: on the CPU: nothing here waits for the device.
        """
        assert batch.number is not None
        numbers = torch.where(drawn.slots.weight > 0, batch.number.gather(1, drawn.chosen), -1 - batch.index[:, None])
        every: list[int] = numbers.flatten().tolist()
        missing = {number: place for place, number in enumerate(every) if number not in self.known}
        for start in range(0, len(missing), CHUNK):
            self._compute(batch, drawn, dict(list(missing.items())[start : start + CHUNK]))
        return {
            view: {head: torch.stack([self.known[n][view, head] for n in every]) for head in self._heads(view)}
            for view in self.makers
        }

    def _heads(self, view: str) -> list[str]:
        return self.learner.teacher_heads[view]

    def _compute(self, batch: CanvasBatch, drawn: DrawnViews, missing: dict[int, int]) -> None:
        """The rows of regions by their numbers, from their places (image · K + slot) in the batch."""
        places = torch.tensor([*missing.values()])
        padded = torch.cat([places, places[-1:].expand(CHUNK - len(places))])
        single = to_device(_single_regions(batch, drawn, padded), next(self.learner.parameters()).device)
        for view, maker in self.makers.items():
            made = maker(single, Draws(seed=0))
            found = self.learner.read_teacher(made.views[view], made.slots, view)
            for row, number in enumerate(missing):
                self.known.setdefault(number, {}).update({(view, head): rows[row] for head, rows in found.items()})


def has_kept(learner: Learner) -> bool:
    """Whether any row can be kept."""
    return learner.plan.is_frozen and any(learner.plan.views[n].kept for n in learner.plan.teacher_views)


def _single_regions(batch: CanvasBatch, drawn: DrawnViews, places: Int64[Tensor, "N"]) -> CanvasBatch:
    """A batch of one region per image: those of the places."""
    count = drawn.chosen.shape[1]
    image, slot = places // count, places % count
    labels = None
    if batch.labels is not None:
        labels = (batch.labels[image] == (drawn.chosen[image, slot] + 1)[:, None, None]).to(torch.uint8)
    return CanvasBatch(
        canvas=batch.canvas[image],
        image_size=batch.image_size[image],
        boxes=drawn.slots.boxes[image, slot][:, None],
        valid=torch.ones(len(places), 1, dtype=torch.bool),
        labels=labels,
        index=batch.index[image],
    )
