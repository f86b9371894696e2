"""What a check found, in words and as plain data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

Status = Literal["fail", "warning", "note", "ok"]
ORDER: tuple[Status, ...] = ("fail", "warning", "note", "ok")
"""fail: training would stop; warning: it would be worse or longer than it could be; note: good to know."""
MAX_LISTED = 1000
"""Images that doctor.json lists for a check."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was looked at."""

    name: str
    status: Status
    finding: str
    """One or two sentences, for people."""
    remedy: str = ""
    count: int = 0
    """Images (of annotations: objects) concerned."""
    images: tuple[str, ...] = ()
    """Ids of the images concerned, at most ``MAX_LISTED``."""

    def summary(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "name": self.name,
            "status": self.status,
            "finding": self.finding,
            "remedy": self.remedy,
            "count": self.count,
            "images": list(self.images),
        }


def ordered(checks: Iterable[Check]) -> list[Check]:
    """The worst first, else as they come."""
    return sorted(checks, key=lambda check: ORDER.index(check.status))


def percent(count: int, total: int) -> str:
    """``12 (3.4 %)``."""
    return f"{count} ({100 * count / max(total, 1):.{1 if count * 1000 >= total else 3}f} %)"


def some(names: Iterable[str], most: int = 3) -> str:
    """The first names, and dots if there are more."""
    listed = list(names)
    return ", ".join(listed[:most]) + (", …" if len(listed) > most else "")
