"""The policy for images that cannot be used: a few are left out with a warning, more end the work."""

from __future__ import annotations

from collections.abc import Collection

FEW = 3
"""So many never end the work, as long as they are a tenth of the images at most: 1 % of twenty photographs is none."""
FEW_SHARE = 0.1
SHOWN = 10
"""So many are named."""


def too_many_bad(bad: int, total: int, max_share: float) -> bool:
    """Whether the work is to end.

    Args:
        bad: images that cannot be used: unreadable, of other channels, of another size than annotated.
        total: images that were tried, the bad ones included.
        max_share: the share that the user permits. 0: not a single one, not even a few.
    """
    few = min(FEW, FEW_SHARE * total) if max_share > 0 else 0
    return bad > 0 and (bad == total or bad > max(max_share * total, few))


def listed(messages: Collection[str]) -> str:
    """The first ``SHOWN`` of them, a line each, to stand below a sentence."""
    return "\n  ".join(list(messages)[:SHOWN]) + ("\n  …" if len(messages) > SHOWN else "")
