"""Rows of the post-training table: what the teacher sees × what the student sees, and the controls."""

from __future__ import annotations

from dataclasses import dataclass

HOST, DC, DP = (
    ("--method.decouple", dc, "--method.deposition", dp)
    for dc, dp in (("false", "false"), ("true", "false"), ("false", "true"))
)
BOTH = ("--method.decouple", "true", "--method.deposition", "true")
PASTE = (*HOST, "--host.paste", "true")
WHOLE = ("--host.teacher", "whole")
NAIVE = (
    *("--recipe", "scenes-photo", "--model.backbone", "null", "--host.region_path", "map"),
    *("--optimizer.lr", "3e-4", "--train.batch_size", "16", "--views.size", "160", "--canvas.size", "192"),
)
"""The from-scratch recipe, on the map that post-training trains, at its rate and sizes."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One way to train."""

    options: tuple[str, ...] = ()
    """Of ``d3ssl posttrain``, over its recipe; of ``d3ssl pretrain``, if naive."""
    passes: int = 2
    """Views a step that the student sees: all rows of a grid get as many."""
    regions: str = "masks"
    """``masks`` or ``boxes`` of the annotations, or ``contrast``: found without labels."""
    naive: bool = False
    """Not post-training: the from-scratch recipe, started from the weights."""


ROWS = {
    "host": Row(options=HOST),
    "copy-paste": Row(options=PASTE, passes=3),
    "DC": Row(options=DC),
    "DP": Row(options=DP, passes=3),
    "DC + DP": Row(options=BOTH, passes=3),
    "whole, host": Row(options=(*WHOLE, *HOST)),
    "whole, copy-paste": Row(options=(*WHOLE, *PASTE), passes=3),
    "whole, DC": Row(options=(*WHOLE, *DC)),
    "whole, DP": Row(options=(*WHOLE, *DP), passes=3),
    "whole, DC + DP": Row(options=(*WHOLE, *BOTH), passes=3),
    "naive": Row(options=NAIVE, naive=True, passes=3),
    "DC, boxes": Row(options=DC, regions="boxes"),
    "DC, contrast": Row(options=DC, regions="contrast"),
}
"""``DC`` is the default of the recipe."""
REGIONS = {
    "masks": ("--method", "annotations", "--label_maps", "true"),
    "boxes": ("--method", "annotations", "--label_maps", "false"),
    "contrast": ("--method", "contrast", "--label_maps", "true"),
}
"""Options of ``d3ssl regions``."""
