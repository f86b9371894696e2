"""Controlled conditions: an object in its own photograph, and pasted where more and more of its context is changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from d3ssl.data.scenes.annotated.hosts import Host, Hosts
from d3ssl.data.scenes.annotated.instances import Instance
from d3ssl.data.scenes.annotated.paste import Cut, blended, paint_over
from d3ssl.data.scenes.compose import Placed, Scene, Split, find_place, paint, put
from d3ssl.data.scenes.config import Blend, OutOfContextConfig
from d3ssl.data.scenes.objects import Sprite
from d3ssl.seeds import numpy_generator

CONDITIONS = ("val", "val_replaced", "val_congruent", "val_elsewhere", "val_anywhere")
"""The splits, each with one more thing changed than the one before."""
MOST_OBJECTS = 255
"""Of an image, as its map of owners has 8 bits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """Draws the same objects in every condition. Image i of every split shows the same object, in front of all others,
    with the same blend, size and pixels; the others are its neighbours, which are not asked about."""

    config: OutOfContextConfig
    names: tuple[str, ...]
    hosts: Hosts
    instances: tuple[Instance, ...]
    """All objects with masks, photograph by photograph: also those that are neighbours in their own photographs only.
    A ``source`` is a place in this list."""
    labels: tuple[int, ...]
    """Of the instances, places in ``names``."""
    usable: tuple[int, ...]
    """Those that may be pasted, ascending."""
    queried: tuple[int, ...]
    """Those that are asked about, ascending."""

    def classes(self) -> list[dict[str, Any]]:
        """What ``scenes.json`` says of each class."""
        return [{"name": name} for name in self.names]

    def splits(self) -> list[Split]:
        """One for each condition."""
        return [Split(name, len(self.queried) * len(self.config.blends)) for name in CONDITIONS]

    def draw(self, split: Split, index: int) -> Scene:
        """Image ``index`` of a split: object by object, of each object blend by blend."""
        turn, which = divmod(index, len(self.config.blends))
        number, blend = self.queried[turn], self.config.blends[which]
        one, label = self.instances[number], self.labels[number]
        about = {"photograph": self.hosts.side.photographs[one.image], "blend": blend}
        if split.name in ("val", "val_replaced"):
            return self._in_place(number, None if split.name == "val" else blend, about)
        if split.name == "val_congruent":
            host = self.hosts.congruent(label, one.image, self._generator("congruent", number))
        else:  # the same photograph for both
            host = self.hosts.elsewhere(label, self._generator("elsewhere", number))
        if split.name == "val_anywhere":
            rng = self._generator("anywhere", number)
            return self._anywhere(host, self._strangers(number, rng), number, blend, about, rng)
        cut = self._cut(number, blend)
        owner = np.zeros((self.config.size,) * 2, np.uint8)
        pixels = put(owner, cut.hard, cut.left, cut.top, 1)
        placed = Placed(label, self._place(cut.hard, cut.left, cut.top), pixels, number)
        return Scene(paint(host.image, [(cut.soft, cut.left, cut.top)]), owner, (placed,), about, host.number)

    def _generator(self, what: str, number: int) -> np.random.Generator:
        """The same for every blend of an object, whatever other objects are asked about."""
        one = self.instances[number]
        return numpy_generator(self.config.seed, what, self.hosts.side.photographs[one.image], one.annotation)

    def _cut(self, number: int, blend: Blend) -> Cut:
        one = self.instances[number]
        return blended(self.hosts.own(one.image), self.hosts.mask(one), blend)

    def _place(self, sprite: Sprite, left: int, top: int) -> tuple[float, float]:
        """As in ``Habits``."""
        height, width = sprite.alpha.shape
        return left / max(self.config.size - width, 1), top / max(self.config.size - height, 1)

    def _in_place(self, number: int, blend: Blend | None, about: Mapping[str, Any]) -> Scene:
        """An object in its own photograph: as it is (None), or cut out, what is behind it painted, and put back."""
        image = self.instances[number].image
        canvas = self.hosts.own(image)
        others = [place for place, one in enumerate(self.instances) if one.image == image and place != number]
        numbers = [*others[: MOST_OBJECTS - 1], number]
        masks = [self.hosts.mask(self.instances[place]) for place in numbers]
        owner = np.zeros(canvas.shape[:2], np.int64)
        for place, mask in enumerate(masks, start=1):
            owner[mask] = place
        seen, owner_of = np.unique(np.append(0, owner), return_inverse=True)  # those that others hide are not annotated
        objects = []
        for place in (seen[1:] - 1).tolist():
            hard, _, left, top = blended(canvas, masks[place], "none")
            where, pixels = self._place(hard, left, top), int(masks[place].sum())
            is_queried = numbers[place] == number
            objects.append(Placed(self.labels[numbers[place]], where, pixels, numbers[place], is_queried))
        if blend is not None:
            _, soft, left, top = blended(canvas, masks[-1], blend)
            canvas = paint(paint_over(canvas, masks[-1]), [(soft, left, top)])
        return Scene(canvas, owner_of[1:].reshape(owner.shape).astype(np.uint8), tuple(objects), about, image)

    def _strangers(self, number: int, rng: np.random.Generator) -> list[int]:
        """Other objects, of classes that are seldom or never seen beside this one's."""
        classes = self.hosts.strangers[self.labels[number]]
        found = [other for other in self.usable if self.labels[other] in classes]
        count = int(rng.integers(self.config.min_objects, self.config.max_objects + 1)) - 1
        return [found[place] for place in rng.permutation(len(found))[:count].tolist()]

    def _anywhere(
        self,
        host: Host,
        strangers: list[int],
        number: int,
        blend: Blend,
        about: Mapping[str, Any],
        rng: np.random.Generator,
    ) -> Scene:
        """An object in front of its neighbours, all at places drawn uniformly; of a large object's neighbours, those
        that it would hide are left out."""
        cuts = [(other, self._cut(other, blend)) for other in [*strangers, number]]
        for first in range(len(cuts)):
            owner = np.zeros((self.config.size,) * 2, np.uint8)
            placed: list[Placed] = []
            layers: list[tuple[Sprite, int, int]] = []
            for other, cut in cuts[first:]:
                found = find_place(owner, placed, cut.hard, None, self.config, rng)
                if found is not None:
                    where, left, top = found
                    pixels = put(owner, cut.hard, left, top, len(placed) + 1)
                    placed.append(Placed(self.labels[other], where, pixels, other, other == number))
                    layers.append((cut.soft, left, top))
            if placed and placed[-1].queried:
                return Scene(paint(host.image, layers), owner, tuple(placed), about, host.number)
        raise AssertionError("an object alone fits anywhere on the canvas that it was cut from")
