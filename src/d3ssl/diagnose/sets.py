"""What a probe set is made of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int64, UInt8

from d3ssl.files import digest

DISTANCES = ("touching", "far")
"""Of a neighbour: its box touches the object's box at one of four sides; or it stands in a corner of the image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """Objects under conditions: one image and one box each."""

    images: UInt8[np.ndarray, "O C S S ch"]
    boxes: Float32[np.ndarray, "O C 4"]
    """The object's tight box, xyxy, px."""
    alpha: UInt8[np.ndarray, "O a a"] | None = None
    """Opacity of the object, 0..255, laid at the upper left corner of its box in all its conditions; zero beyond the
    box. None: not known, and then nothing is measured by masks."""

    def masks(self, rows: Int64[np.ndarray, "n"]) -> Float32[np.ndarray, "n S S"] | None:
        """The objects' shares of the pixels of some images, counted object by object, condition by condition."""
        if self.alpha is None:
            return None
        conditions, size = self.images.shape[1:3]
        found = np.zeros((len(rows), size, size), dtype=np.float32)
        for place, row in enumerate(rows.tolist()):
            left, top, right, bottom = self.boxes[row // conditions, row % conditions].astype(int).tolist()
            shape = self.alpha[row // conditions, : bottom - top, : right - left]
            found[place, top:bottom, left:right] = shape / np.float32(255)
        return found

    def first(self, count: int) -> Probe:
        """The first objects, copied."""
        alpha = None if self.alpha is None else self.alpha[:count].copy()
        return Probe(images=self.images[:count].copy(), boxes=self.boxes[:count].copy(), alpha=alpha)


@dataclass(frozen=True, slots=True, kw_only=True)
class NeighbourProbe:
    """The object in the middle on grey with one neighbour; every object with every class at every distance, so that
    the neighbour's class tells nothing of the object's."""

    shown: Probe
    label: Int64[np.ndarray, "C"]
    """Class of the neighbour under each condition."""
    distance: Int64[np.ndarray, "C"]
    """Index into ``DISTANCES``."""
    fold: Int64[np.ndarray, "O"]
    """Objects and neighbours of different folds have no cut-out in common, in all probe sets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SizedProbe:
    """The probes of context and place once more, with objects of another size."""

    side: float
    """Longer side of every object, share of the image."""
    context: Probe
    position: Probe


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeSet:
    """All probes of one seed, of the same objects in the same order."""

    context: Probe
    """The object in the middle at one scale; contexts are drawn for every object by itself."""
    position: Probe
    """The object on grey at one scale; place c = row · grid + column is the same for all objects."""
    identities: Int64[np.ndarray, "O"]
    """Annotation ids of the objects."""
    labels: Int64[np.ndarray, "O"]
    digest: str
    """Identifies pixels, boxes and all else (see ``identify``)."""
    neighbour: NeighbourProbe | None = None
    """None: not made, or the data have too few objects for it."""
    sizes: tuple[SizedProbe, ...] = ()

    def probes(self) -> Iterator[tuple[str, Probe]]:
        """All probes with their names."""
        yield "context", self.context
        yield "position", self.position
        if self.neighbour is not None:
            yield "neighbour", self.neighbour.shown
        for number, sized in enumerate(self.sizes):
            yield f"size{number}/context", sized.context
            yield f"size{number}/position", sized.position

    def first(self, count: int) -> ProbeSet:
        """The first objects, for pictures: without neighbours and sizes, of the same digest."""
        return ProbeSet(
            context=self.context.first(count),
            position=self.position.first(count),
            identities=self.identities[:count].copy(),
            labels=self.labels[:count].copy(),
            digest=self.digest,
        )


def arrays(probes: ProbeSet) -> dict[str, np.ndarray]:
    """Everything that a probe set consists of, by name."""
    found = {"identities": probes.identities, "labels": probes.labels}
    for name, probe in probes.probes():
        found |= {f"{name}/images": probe.images, f"{name}/boxes": probe.boxes}
        if probe.alpha is not None:
            found[f"{name}/alpha"] = probe.alpha
    if probes.neighbour is not None:
        own = probes.neighbour
        found |= {"neighbour/label": own.label, "neighbour/distance": own.distance, "neighbour/fold": own.fold}
    for number, sized in enumerate(probes.sizes):
        found[f"size{number}/side"] = np.array(sized.side)
    return found


def from_arrays(found: dict[str, np.ndarray]) -> ProbeSet:
    """The inverse of ``arrays``.

    Raises:
        KeyError: something is missing.
    """

    def probe(name: str) -> Probe:
        return Probe(images=found[f"{name}/images"], boxes=found[f"{name}/boxes"], alpha=found.get(f"{name}/alpha"))

    neighbour = None
    if "neighbour/label" in found:
        own = {key: found[f"neighbour/{key}"] for key in ("label", "distance", "fold")}
        neighbour = NeighbourProbe(shown=probe("neighbour"), **own)
    count = sum(name.endswith("/side") for name in found)
    return ProbeSet(
        context=probe("context"),
        position=probe("position"),
        identities=found["identities"],
        labels=found["labels"],
        digest=identify(found),
        neighbour=neighbour,
        sizes=tuple(
            SizedProbe(
                side=float(found[f"size{n}/side"]),
                context=probe(f"size{n}/context"),
                position=probe(f"size{n}/position"),
            )
            for n in range(count)
        ),
    )


def identify(found: dict[str, np.ndarray]) -> str:
    """A checksum (SHA-256, 16 digits) of names, types, shapes and contents."""
    parts: list[str | bytes] = []
    for name in sorted(found):
        array = np.ascontiguousarray(found[name])
        parts += [f"{name} {array.dtype.str} {found[name].shape}", array.tobytes()]
    return digest(*parts)
