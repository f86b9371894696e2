"""All that was found in a data set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import d3ssl
from d3ssl.data.image_set import ImageSet
from d3ssl.doctor.check import Check
from d3ssl.doctor.files import FileReport
from d3ssl.doctor.objects import ObjectReport
from d3ssl.doctor.scan import Scan

FORMAT = 1
"""Version of doctor.json's layout."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """All that was found."""

    data: str
    images: ImageSet
    chosen: list[int]
    """Positions of the images whose files were looked at."""
    scan: Scan
    files: FileReport
    objects: ObjectReport | None
    checks: list[Check]
    """Of all kinds, the worst first."""
    estimates: dict[str, Any]

    @property
    def fails(self) -> bool:
        """Whether training would fail."""
        return any(check.status == "fail" for check in self.checks)

    def summary(self) -> dict[str, Any]:
        """What doctor.json holds. But for ``estimates``, the same for every number of processes."""
        return {
            "format": FORMAT,
            "d3ssl": d3ssl.__version__,
            "data": self.data,
            "images": len(self.images),
            "looked_at": len(self.chosen),
            "fails": self.fails,
            "checks": [check.summary() for check in self.checks if check.name not in _MEASURED],
            "figures": self.files.figures,
            "duplicates": self.files.groups,
            "objects": None if self.objects is None else self.objects.figures,
            "estimates": self.estimates
            | {"checks": [check.summary() for check in self.checks if check.name in _MEASURED]},
        }


_MEASURED = ("time for regions", "time for training", "memory", "disk", "a training step")
"""Checks whose words differ from call to call."""
