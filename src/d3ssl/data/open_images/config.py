"""What an OpenImage-MINI is made of: every default with its unit or its source."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from d3ssl.errors import InputError

SPLITS = ("train", "validation", "test")
"""The splits of Open Images; train comes first, as it decides which classes there are."""


@dataclass(frozen=True, kw_only=True)
class BuildConfig:
    """Which images of Open Images are chosen: by rule, so that everybody gets the same.

    A box *counts* when it is one object and no picture of one: its class is boxable, IsGroupOf and IsDepiction are 0,
    and it has a width and a height. All boxes of a chosen image stand in the annotations, whether they count or not.
    """

    images: int = 118_287
    """Training images. 118,287: the size of COCO train2017. A smaller number gives the first images of a larger."""
    val_images: int = 5_000
    """Images of the validation split. 5,000: the size of COCO val2017. 0 leaves the split out."""
    test_images: int = 5_000
    """Images of the test split; 0 leaves it out."""
    min_classes: int = 2
    """Least number of distinct classes among an image's boxes that count. 2: as OHMS (Object-aware cropping)."""
    min_boxes: int = 2
    """Least number of an image's boxes that count."""
    min_class_images: int = 900
    """Least number of training images that satisfy the rule and show a class; other classes are left out. 900: as
    OHMS."""
    per_class_cap: int | None = None
    """Most objects of a class that images are chosen for; more come along in images chosen for a rarer class. None: the
    cap that gives the wanted number of images. With a number, the split may become smaller than wanted."""
    unknown_counts: bool = False
    """Whether a box counts whose IsGroupOf or IsDepiction is −1, unknown."""
    seed_text: str = "OpenImage-MINI"
    """Text in front of the image id in the hash that chooses: another text is another draw by the same rule."""
    sizes: str | None = None
    """CSV file with the columns ImageID, Width, Height (px). None: ``image_sizes.csv`` in the metadata folder where
    there is one; else boxes are written for a nominal size until ``download`` knows the images."""
    masks: str | None = None
    """Folder (searched recursively) of the mask PNG files, which then become run lengths in the annotations; needs
    sizes. None: the annotations name the mask files only."""
    chunk_mb: int = 16
    """How much of a CSV file is read at a time, MB. Does not change the result."""

    def wanted(self, split: str) -> int:
        """Images wanted of a split."""
        return {"train": self.images, "validation": self.val_images, "test": self.test_images}[split]

    def identity(self) -> dict[str, Any]:
        """The options that change which images are chosen, as plain data."""
        options = asdict(self)
        for name in ("sizes", "masks", "chunk_mb"):
            del options[name]
        return options

    def check(self) -> None:
        """Raise InputError for values with which no benchmark can be built."""
        rules = [(name, getattr(self, name) >= 0, "is at least 0") for name in ("val_images", "test_images")]
        least = ("images", "min_classes", "min_boxes", "min_class_images")
        rules += [(name, getattr(self, name) >= 1, "is at least 1") for name in least]
        rules += [
            ("per_class_cap", self.per_class_cap is None or self.per_class_cap >= 1, "is at least 1"),
            ("chunk_mb", 1 <= self.chunk_mb <= 1024, "lies in 1..1024 MB"),
            ("seed_text", self.seed_text.isprintable(), "has no control characters"),
        ]
        for name, holds, rule in rules:
            if not holds:
                problem = f"option {name} = {getattr(self, name)!r} is out of range"
                raise InputError(problem, remedy=f"choose {name} such that it {rule}.")
