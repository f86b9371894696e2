"""What a set of scenes is made of: every default with its unit or its source."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from d3ssl.errors import InputError

Blend = Literal["none", "feathered", "gaussian"]
_OF_SCENES = ("images", "themes", "cooccurrence", "place_preference", "place_spread", "object_side", "rotation", "flip")
_OF_SCENES += ("brightness",)
_UNCHANGED = "is not given with --conditions true: there, objects keep their size, pose and light"
PROCEDURAL_CLASSES = 24
"""Classes of procedural objects unless ``num_classes`` says otherwise: 8 shapes, each with 3 of the 6 textures."""


@dataclass(frozen=True, kw_only=True)
class ScenesConfig:
    """Scenes of several objects whose classes co-occur and have preferred places, as in photographs.

    A learner that is not made to ignore surroundings and place can take both as shortcuts; ``val_shuffled``, which has
    neither, shows by how much it did.
    """

    images: int = 6000
    """Training scenes."""
    val_images: int | None = None
    """Scenes in each of ``val`` and ``val_shuffled``; None: a sixth of ``images``, at least 200. With ``conditions``:
    the most objects that are asked about."""
    size: int = 128
    """Side of the square scenes, px."""
    num_classes: int | None = None
    """None: 24 procedural classes (at most 48), or every class among the cut-outs. A smaller number than there are
    cut-out classes takes that many of them at random (by ``seed``)."""
    themes: int = 6
    """Groups of classes that share a kind of background; classes are dealt to themes at random, evenly."""
    cooccurrence: float = 0.9
    """Probability that an object, and likewise the background, is drawn from the scene's theme; otherwise it is drawn
    from all. 0.9: the small-scale trial behind the project's first measurements. 0 in ``val_shuffled``."""
    place_preference: float = 0.7
    """Probability that an object stands around its class's place; otherwise its place is uniform. 0.7: as above.
    0 in ``val_shuffled``."""
    place_spread: float = 0.1
    """Standard deviation of the place around the preferred one; share of the range in which the object is inside."""
    min_objects: int = 2
    """Fewest objects in a scene."""
    max_objects: int = 5
    """Most objects in a scene. The number is drawn uniformly; an object that finds no place is then left out."""
    object_side: tuple[float, float] = (0.25, 0.5)
    """Least and greatest √(width·height) of an object before rotation, share of the scene's side (uniform)."""
    min_visible: float = 0.5
    """Least share of an object's pixels that objects in front of it leave visible."""
    rotation: float = 20.0
    """Greatest rotation to either side, degrees (uniform)."""
    flip: float = 0.5
    """Probability that an object is mirrored."""
    brightness: float = 0.25
    """An object's colours are multiplied by 1 − this … 1 + this (uniform)."""
    cutouts: str | None = None
    """Folder (searched recursively) of images with transparency to use as objects; None: procedural objects."""
    class_from: Literal["auto", "folder", "file"] = "auto"
    """What a class of cut-outs is. ``file``: every file is a class, named by its path. ``folder``: every folder that
    directly holds cut-outs is a class, named by its path, at any depth. ``auto``: ``folder`` where the cut-outs lie in
    subfolders, ``file`` where they all lie in ``cutouts`` itself. With ``folder``, files that lie in ``cutouts``
    itself have no class: they are left out with a warning."""
    backgrounds: str | None = None
    """Folder (searched recursively) of photographs to crop backgrounds from; None: procedural, or with --from
    DATA's own that do not show the pasted classes. Folders are dealt to the themes (the photographs of one folder share
    a theme); where there are fewer folders than themes, files are."""
    exclude: tuple[str, ...] = ()
    """Files and subfolders of ``cutouts`` and ``backgrounds`` to leave out: glob patterns, each compared with a name
    (``cartoon``, ``*_dark``) and with the path from the top (``town/flags``). Excluded folders are not opened."""
    max_backgrounds: int = 240
    """Most photographs kept in memory; of more, that many are drawn at random (by ``seed``)."""
    image_format: Literal["jpeg", "png"] = "jpeg"
    """File format of the scenes."""
    quality: int = 92
    """JPEG quality, 1..100, without chroma subsampling."""
    seed: int = 0
    """Scene i of a split depends on (seed, split, i) and the options above alone."""
    workers: int = 0
    """Processes; 0: one a core (one in all for less than some hundred scenes). Does not change the result."""

    def num_val(self) -> int:
        """Scenes in each validation split."""
        return self.val_images if self.val_images is not None else max(200, self.images // 6)

    def identity(self) -> dict[str, Any]:
        """The options that change the result, as plain data."""
        options = asdict(self)
        del options["workers"]
        return {name: list(value) if isinstance(value, tuple) else value for name, value in options.items()}

    def check(self) -> None:
        """Raise InputError for values with which no scenes can be made."""
        shares = ("cooccurrence", "place_preference", "min_visible", "flip")
        rules = [(name, 0 <= getattr(self, name) <= 1, "lies in 0..1") for name in shares]
        low, high = self.object_side
        rules += [
            ("images", self.images >= 1, "is at least 1"),
            ("val_images", self.num_val() >= 1, "is at least 1"),
            ("size", 32 <= self.size <= 4096, "lies in 32..4096 px"),
            ("num_classes", self.num_classes is None or self.num_classes >= 2, "is at least 2"),
            ("themes", self.themes >= 1, "is at least 1"),
            ("min_objects", self.min_objects >= 1, "is at least 1"),
            ("max_objects", self.min_objects <= self.max_objects <= 100, "lies in min_objects..100"),
            ("object_side", 0 < low <= high <= 0.7, "has 0 < least ≤ greatest ≤ 0.7"),
            ("object_side", low * self.size >= 8, "gives objects of at least 8 px"),
            ("place_spread", 0 <= self.place_spread <= 1, "lies in 0..1"),
            ("rotation", 0 <= self.rotation <= 180, "lies in 0..180 degrees"),
            ("brightness", 0 <= self.brightness < 1, "lies in 0..1 (1 not included)"),
            ("quality", 1 <= self.quality <= 100, "lies in 1..100"),
            ("max_backgrounds", self.max_backgrounds >= self.themes, "is at least themes"),
            ("workers", self.workers >= 0, "is at least 0"),
        ]
        for name, holds, rule in rules:
            if not holds:
                problem = f"scenes option {name} = {getattr(self, name)!r} is out of range"
                raise InputError(problem, remedy=f"choose {name} such that it {rule}.")


@dataclass(frozen=True, kw_only=True)
class OutOfContextConfig(ScenesConfig):
    """Scenes of objects that are cut from annotated photographs by their masks (--from DATA)."""

    size: int = 160
    """As above."""
    object_side: tuple[float, float] = (0.3, 0.6)
    """As above."""
    data: str
    """Data with instance masks."""
    conditions: bool = False
    """Controlled conditions instead of scenes: one object is asked about in each image, the same ones in every split.
    OUT/val: in its own photograph. ``val_replaced``: cut out and pasted back (what pasting does). ``val_congruent``: at
    the same place of another photograph that shows its class. ``val_elsewhere``: of one that does not; annotated
    objects of both are painted over. ``val_anywhere``: on the latter at any place, beside ``min_objects`` − 1 to
    ``max_objects`` − 1 neighbours that it never (or most seldom) has. OUT/train is photographs, as with ``train``
    natural. Validation photographs smaller than a scene take no part, nor do objects whose box fills more than half of
    theirs or is less than 16 px wide or high in the scene."""
    blends: tuple[Blend, ...] = ("feathered",)
    """With ``conditions``, how the edges of pasted objects are made: ``none`` (hard), ``feathered`` (fading over 2 px),
    ``gaussian`` (a blurred edge). Of several, each image is made with every one, so that edges tell nothing."""
    train: Literal["scenes", "natural"] = "scenes"
    """What OUT/train is. ``scenes``: pasted too, from DATA's training part (``images`` of them). ``natural``: DATA's
    training photographs as they are, as links, with their objects that have masks: then ``evaluate objects`` learns
    objects where they were photographed and is asked about other objects, pasted where they never were."""
    val_share: float | None = None
    """Of data that is one set: share of its photographs that validation objects are taken from, drawn by ``seed``."""
    classes: tuple[str, ...] = ()
    """Names of the classes to use; empty: all that have objects with masks."""
    min_side: float = 40.0
    """Least shorter side of an object that is cut out, px of its photograph: smaller ones would be blurred. Photographs
    that are taken as they are (``train`` natural) keep all of their objects."""
    min_pixels: int = 900
    """Least number of pixels of the mask of an object that is cut out."""
    max_per_class: int = 500
    """Most objects of a class that are cut out for a split; of more, that many are drawn at random (by ``seed``). They
    are kept in memory: some 50 kB each at 160 px."""

    @property
    def keeps_photographs(self) -> bool:
        """Whether OUT/train is photographs, not scenes."""
        return self.train == "natural" or self.conditions

    def identity(self) -> dict[str, Any]:
        """As above."""
        options = super().identity()
        if not self.conditions:  # scenes made before there were conditions are still the same
            del options["conditions"], options["blends"]
        return options

    def check(self) -> None:
        """Raise InputError for values with which no scenes can be made."""
        super().check()
        rules = [
            ("cutouts", self.cutouts is None, "is not given: objects come from DATA"),
            ("class_from", self.class_from == "auto", "is not given: DATA says what its classes are"),
            ("val_share", self.val_share is None or 0 < self.val_share < 1, "lies between 0 and 1"),
            ("classes", len(set(self.classes)) != 1, "names at least 2 classes"),
            ("min_side", self.min_side >= 1, "is at least 1 px"),
            ("min_pixels", self.min_pixels >= 1, "is at least 1"),
            ("max_per_class", self.max_per_class >= 2, "is at least 2"),
            ("blends", len(set(self.blends)) == len(self.blends) > 0, "names each blend once"),
            ("blends", self.conditions or self.blends == ("feathered",), "is not given without --conditions true"),
        ]
        if self.conditions:
            defaults = {field.name: field.default for field in fields(self)}
            rules += [(name, getattr(self, name) == defaults[name], _UNCHANGED) for name in _OF_SCENES]
        for name, holds, rule in rules:
            if not holds:
                problem = f"scenes option {name} = {getattr(self, name)!r} does not fit --from"
                raise InputError(problem, remedy=f"choose {name} such that it {rule}.")
