"""How closely a data set is looked at."""

from __future__ import annotations

from dataclasses import dataclass

from d3ssl.errors import InputError


@dataclass(frozen=True, kw_only=True)
class DoctorConfig:
    """Options of ``d3ssl doctor`` besides those of the run that is planned."""

    workers: int = 0
    """Processes; 0: one for each core. The result is the same."""
    sample: int | None = None
    """Open only this many images, chosen by a hash of their ids; duplicates are then looked for among these. None:
    all. Annotations are examined whole."""
    time: bool = False
    """Train some steps of the recipe on this device, for its time and memory."""
    tiny: int | None = None
    """Short side in px below which an image is called tiny; None: a quarter of the canvas."""
    aspect: float = 3.0
    """Ratio of the longer side to the shorter above which an image is called long: the canvas is square."""
    near_bits: int = 6
    """Bits of 128 in which the perceptual hashes of near duplicates may differ, 0..15."""
    draws: int = 20
    """Random assignments of the classes to the objects that stand for 'no bias', at least 5."""

    def check(self) -> None:
        """Raise InputError for values with which nothing can be examined."""
        rules = (
            ("workers", self.workers >= 0, "is at least 0"),
            ("sample", self.sample is None or self.sample >= 2, "is at least 2"),
            ("tiny", self.tiny is None or self.tiny >= 0, "is at least 0 px"),
            ("aspect", self.aspect >= 1, "is at least 1"),
            ("near_bits", 0 <= self.near_bits <= 15, "lies in 0..15"),
            ("draws", self.draws >= 5, "is at least 5"),
        )
        for name, holds, rule in rules:
            if not holds:
                problem = f"doctor's option {name} = {getattr(self, name)!r} is out of range"
                raise InputError(problem, remedy=f"choose {name} such that it {rule}.")
