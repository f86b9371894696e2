"""Rows of the post-training table: what the teacher sees × what the student sees, and the controls."""

from __future__ import annotations

from dataclasses import dataclass

MODULES = ("--dc.background", "outside_masks", "--dp.carried_by", "mask", "--dp.scale", "[0.7, 1.2]")
"""De-coupling lays other photographs around the masks, de-positioning moves what the masks cover."""
DC, DP = ("--method.decouple", "true", *MODULES), ("--method.deposition", "true", *MODULES)
WHOLE = ("--host.teacher", "whole")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One way to train."""

    options: tuple[str, ...] = ()
    """Of ``d3ssl posttrain``, over its recipe."""
    passes: int = 2
    """Views a step that the student sees: all rows of a grid get as many."""
    regions: str = "masks"
    """``masks`` or ``boxes`` of the annotations, or ``contrast``: found without labels."""
    naive: bool = False
    """Not post-training: the from-scratch recipe, started from the weights."""


ROWS = {
    "host": Row(),
    "copy-paste": Row(options=("--host.paste", "true"), passes=3),
    "DC": Row(options=DC, passes=3),
    "DP": Row(options=DP, passes=3),
    "DC + DP": Row(options=(*DC, *DP[:2]), passes=4),
    "whole, host": Row(options=WHOLE),
    "whole, copy-paste": Row(options=(*WHOLE, "--host.paste", "true"), passes=3),
    "whole, DC": Row(options=(*WHOLE, *DC), passes=3),
    "whole, DP": Row(options=(*WHOLE, *DP), passes=3),
    "whole, DC + DP": Row(options=(*WHOLE, *DC, *DP[:2]), passes=4),
    "naive": Row(naive=True),
    "host, boxes": Row(regions="boxes"),
    "host, contrast": Row(regions="contrast"),
}
GRID = tuple(list(ROWS)[:10])
REGIONS = {
    "masks": ("--method", "annotations", "--label_maps", "true"),
    "boxes": ("--method", "annotations", "--label_maps", "false"),
    "contrast": ("--method", "contrast", "--label_maps", "true"),
}
"""Options of ``d3ssl regions``."""
