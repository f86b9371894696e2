"""Which kind of data DATA is, and which images of it are learned from and which are tested on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from d3ssl.data.image_set import ANNOTATIONS
from d3ssl.data.semantic import SemanticSet, from_instances
from d3ssl.data.semantic_files import open_ade, open_voc
from d3ssl.data.semantic_panoptic import is_panoptic, open_panoptic
from d3ssl.data.shards.find import find_shards
from d3ssl.data.sources import open_images
from d3ssl.data.trees import ade_folder, voc_folder
from d3ssl.errors import InputError
from d3ssl.evaluate.splits import is_tested, open_splits

_KINDS = (
    "DATA is a folder of `d3ssl scenes`, a folder with annotations.json beside images/, a COCO file (instances or "
    "panoptic), COCO's folder with annotations/ in it, a VOC tree (VOCdevkit/VOC2012) or ADEChallengeData2016."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SemanticSplits:
    """Images with semantic maps of the same classes."""

    train: SemanticSet
    tested: dict[str, SemanticSet]
    """As in ``Splits``."""
    rule: str
    """How the splits came about, for people."""

    @property
    def val(self) -> SemanticSet:
        """Images like those of train."""
        return self.tested["val"]


def open_semantic(data: str | Path, val_share: float) -> SemanticSplits:
    """Open DATA, whose kind is recognised by its folders and files:

    - Pascal VOC: ``VOCdevkit``, ``VOCdevkit/VOC2012`` or the folder above; splits by ImageSets/Segmentation;
    - ADE20K scene parsing: ``ADEChallengeData2016`` or the folder above; training and validation;
    - COCO: the folder with ``annotations/instances_train2017.json`` and ``instances_val2017.json``, or the same with
      ``panoptic_…`` and its folders of PNGs (where both are there, name the file); or one of these files: with its
      counterpart of the other split beside it, that is the validation set; by itself, it is split;
    - `d3ssl scenes`: a folder with train, val and, if any, val_NAME (see ``TESTED``);
    - one COCO set (a folder with ``annotations.json``, a file, or tar shards with ``annotations.json`` beside): split
      by a hash of the image id.

    Args:
        val_share: share of the images that is tested on, where one set is split.

    Raises:
        InputError: nothing of the kind, missing images or maps, an empty split, or splits of other classes.
    """
    root = Path(data)
    if find_shards(root) is not None:
        return _open_instances(root, val_share)
    if not root.exists():
        raise InputError("no such file or folder", path=root, remedy=_KINDS)
    if root.is_file():
        return _open_file(root, val_share)
    if voc := voc_folder(root):
        return _checked(open_voc(voc, "train"), open_voc(voc, "val"), "Pascal VOC's lists train.txt and val.txt")
    if ade := ade_folder(root):
        return _checked(open_ade(ade, "training"), open_ade(ade, "validation"), "ADE20K's training and validation")
    if file := _coco_file(root):
        return _open_file(file, val_share)
    if (root / ANNOTATIONS).exists() or (root / "train" / ANNOTATIONS).exists():
        return _open_instances(root, val_share)
    raise InputError("holds no data with classes of pixels that d3ssl knows", path=root, remedy=_KINDS)


def _open_instances(root: Path, val_share: float) -> SemanticSplits:
    splits = open_splits(root, val_share)
    return SemanticSplits(
        train=from_instances(splits.train),
        tested={name: from_instances(images) for name, images in splits.tested.items()},
        rule=splits.rule,
    )


def _coco_file(root: Path) -> Path | None:
    """The training file of COCO's own layout."""
    kinds = ("instances", "panoptic")
    found = [file for kind in kinds for file in sorted((root / "annotations").glob(f"{kind}_train*.json"))]
    if len(found) > 1:
        listed = ", ".join(file.name for file in found)
        raise InputError(
            f"has several sets of annotations: {listed}", path=root, remedy=f"name one, such as {found[-1]}."
        )
    return found[0] if found else None


def _open_file(file: Path, val_share: float) -> SemanticSplits:
    other = file.with_name(file.name.replace("train", "val"))
    panoptic = is_panoptic(file)
    if other != file and other.is_file():
        rule = f"the files {file.name} and {other.name}"
        pair = [open_panoptic(one) if panoptic else from_instances(open_images(one)) for one in (file, other)]
        return _checked(pair[0], pair[1], rule)
    if not panoptic:
        return _open_instances(file, val_share)
    images = open_panoptic(file)
    tested = is_tested(images.ids, val_share)
    if tested.all() or not tested.any():
        problem = f"{len(images)} images are too few to be split into training and validation"
        raise InputError(problem, path=file, remedy="give more images, or another --val_share.")
    rule = f"one set, {val_share:.0%} of it for validation by a hash of the image id"
    return _checked(images.subset(np.flatnonzero(~tested)), images.subset(np.flatnonzero(tested)), rule)


def _checked(train: SemanticSet, val: SemanticSet, rule: str) -> SemanticSplits:
    if train.names != val.names:
        problem = f"has other classes than {train.root}"
        raise InputError(problem, path=val.root, remedy="write the same classes, in the same order, into both.")
    return SemanticSplits(train=train, tested={"val": val}, rule=rule)
