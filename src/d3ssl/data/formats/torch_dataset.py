"""Data sets from Python: a ``torch.utils.data.Dataset`` of images, or of images with targets of a detector."""

from __future__ import annotations

import io
import pickle
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from faster_coco_eval.core import mask as rle
from PIL import Image

from d3ssl.console import progress
from d3ssl.data.coco import parse_coco
from d3ssl.data.formats.format import UNREADABLE, Format, Kind
from d3ssl.data.image_set import ImageSet
from d3ssl.data.place import Member, as_file
from d3ssl.errors import InputError, one_line

_REMEDY = "an image is a PIL image, a tensor (C, H, W) of uint8 or of floats in 0..1, or an array (H, W, C) of uint8."
_TARGET_REMEDY = "a target is as torchvision's detectors take it: boxes (N, 4) xyxy px, labels (N,), masks (N, H, W)."


@dataclass(frozen=True, slots=True)
class Item(Member):
    """An image of a data set from Python, which is asked for it each time. Its bytes are those of a NumPy file."""

    dataset: Any = field(repr=False, compare=False)

    def is_there(self) -> bool:
        return True

    def open(self) -> io.BufferedReader:
        buffer = io.BytesIO()
        np.save(buffer, _array(self, self.get()[0]))
        return as_file(buffer.getvalue())

    def get(self) -> tuple[Any, Any]:
        """The image and its target, None where there is none.

        Raises:
            InputError: the data set raised something.
        """
        try:
            found = self.dataset[self.offset]
        except Exception as error:  # it is somebody else's code: what it raises is told of this image
            problem = f"the data set raised {type(error).__name__} ({one_line(error)})"
            raise InputError(problem, path=self, remedy="correct the data set, or leave the image out.") from error
        return (found[0], found[1]) if isinstance(found, (tuple, list)) and len(found) == 2 else (found, None)


@dataclass(frozen=True, kw_only=True)
class TorchDataset(Format):
    """Anything with a length whose items are images, or images with targets.

    Targets are dicts of ``boxes``, ``labels`` and, if any, ``masks`` and ``iscrowd``, in torchvision's form for
    detection; others are passed over. Labels are named by the data set's ``classes``, if it has any.
    Items are asked for again and again, so they must not be drawn at random. To know objects, all items are read once.
    """

    what = "from Python, a torch.utils.data.Dataset, or two for training and validation"
    dataset: Any
    val: Any = None
    """A second data set, for validation."""
    labels: list[int] = field(default_factory=list)
    """Those of both data sets, where there are two."""

    @classmethod
    def detect(cls, path: Path) -> TorchDataset | None:
        return None  # it has no path; see ``given``

    @classmethod
    def given(cls, data: Any) -> TorchDataset:
        """What is handed over from Python: a data set, or a pair of them.

        Raises:
            InputError: it has no length or no items.
        """
        pair = tuple(data) if isinstance(data, (tuple, list)) and len(data) == 2 else (data,)
        for own in pair:
            if not (hasattr(own, "__getitem__") and hasattr(own, "__len__") and len(own)):
                remedy = "give a path, or a torch.utils.data.Dataset with __len__ and __getitem__; see docs/data.md."
                raise InputError(f"{type(own).__name__} is no data set with items", remedy=remedy)
        return cls(path=Path(type(pair[0]).__name__), dataset=pair[0], val=pair[-1] if len(pair) > 1 else None)

    def images(self) -> ImageSet:
        images = self.images_alone()
        if self._targets is None:
            return images
        return replace(images, annotations=parse_coco(self.path, self.document(), self.max_bad_share))

    def images_alone(self) -> ImageSet:
        places = tuple(Item(self.path, f"item {n}", n, 0, self.dataset) for n in range(len(self.dataset)))
        return ImageSet(root=self.path, paths=places, ids=tuple(f"{n:08d}" for n in range(len(places))))

    def parts(self, kind: Kind) -> tuple[Format, Format, str] | None:
        if self.val is None:
            return None
        labels: list[int] = []
        train, val = (
            TorchDataset(path=Path(type(own).__name__), dataset=own, labels=labels) for own in (self.dataset, self.val)
        )
        labels += sorted({*train._labels, *val._labels})
        return train, val, "the two data sets given from Python"

    def document(self) -> Any:
        if self._targets is None:
            return None
        entries, objects = [], []
        for name, ((height, width), found) in zip(self.images_alone().ids, self._targets, strict=True):
            entries.append({"id": name, "file_name": name, "height": height, "width": width})
            objects += [{"id": len(objects) + n, "image_id": name, **own} for n, own in enumerate(found, start=1)]
        names = getattr(self.dataset, "classes", None) or getattr(self.dataset, "categories", None)
        labels = self.labels or self._labels
        if isinstance(names, (list, tuple)) and all(0 <= label < len(names) for label in labels):
            categories = [{"id": number, "name": str(name)} for number, name in enumerate(names)]
        else:
            categories = [{"id": label, "name": f"class {label}"} for label in labels]
        return {"images": entries, "annotations": objects, "categories": categories}

    @property
    def _labels(self) -> list[int]:
        return sorted({own["category_id"] for _, found in self._targets or () for own in found})

    @cached_property
    def _targets(self) -> list[tuple[tuple[int, int], list[dict[str, Any]]]] | None:
        """Of every item the image's height and width and its objects; None: items have no targets."""
        places: list[Any] = list(self.images_alone().paths)
        if not _is_target(places[0].get()[1]):
            return None
        found = []
        with progress("reading targets", len(places)) as ticker:
            for place in places:
                found.append(_read(place))
                ticker.advance()
        return found


def cannot_be_sent(images: ImageSet) -> str | None:
    """Why the images of a data set from Python cannot be read by other processes; None: they can, as others can."""
    if not isinstance(images.paths[0], Item):
        return None
    try:
        pickle.dumps(images.paths[0])
    except Exception as error:  # what pickling somebody else's objects may raise is anything
        return f"{type(error).__name__}: {error}"
    return None


def _is_target(value: Any) -> bool:
    return isinstance(value, dict) and {"boxes", "labels"} <= value.keys()


def _numbers(value: Any) -> np.ndarray:
    """Tensors and lists as arrays."""
    return value.detach().cpu().numpy() if hasattr(value, "detach") else np.asarray(value)


def _array(place: Item, image: Any) -> np.ndarray:
    """The pixels (H, W) or (H, W, C), of 8 or 16 bits."""
    if isinstance(image, Image.Image):
        return np.asarray(
            image if image.mode in ("L", "RGB") or image.mode.startswith("I;16") else image.convert("RGB")
        )
    if not isinstance(image, np.ndarray) and not hasattr(image, "detach"):
        raise InputError(f"is a {type(image).__name__}, no image", path=place, remedy=_REMEDY)
    pixels = _numbers(image)
    if hasattr(image, "detach") and pixels.ndim == 3:
        pixels = np.moveaxis(pixels, 0, 2)
    if pixels.dtype.kind == "f":
        low, high = (float(pixels.min(initial=0.0)), float(pixels.max(initial=0.0)))
        if not 0 <= low <= high <= 1:
            problem = f"has floats from {low:g} to {high:g}"
            raise InputError(problem, path=place, remedy=f"give images before they are normalised; {_REMEDY}")
        pixels = np.rint(pixels * 255).astype(np.uint8)
    return np.ascontiguousarray(pixels)


def _read(place: Item) -> tuple[tuple[int, int], list[dict[str, Any]]]:
    """Height and width of an item's image, and its objects as COCO has them.

    Raises:
        InputError: a malformed target. An image that cannot be read counts as ``UNREADABLE``.
    """
    try:
        image, target = place.get()
        height, width = _array(place, image).shape[:2]
    except InputError:
        return UNREADABLE, []  # it stays in the set: whoever reads it counts it, and says what is wrong
    if not _is_target(target):
        raise InputError("has no target, though the first item has", path=place, remedy=_TARGET_REMEDY)
    boxes, labels = _numbers(target["boxes"]).reshape(-1, 4), _numbers(target["labels"])
    kind = getattr(getattr(target["boxes"], "format", None), "name", "XYXY")
    masks = _numbers(target["masks"]) if "masks" in target else None
    crowds = _numbers(target.get("iscrowd", np.zeros(len(boxes))))
    wrong = masks is not None and masks.shape != (len(boxes), height, width)
    if kind != "XYXY" or labels.shape != (len(boxes),) or len(crowds) != len(boxes) or wrong:
        shapes = f"boxes {boxes.shape} ({kind}), labels {labels.shape}, masks {None if masks is None else masks.shape}"
        problem = f"has a target of other shapes, for an image of {height}×{width} (height × width): {shapes}"
        raise InputError(problem, path=place, remedy=_TARGET_REMEDY)
    found = []
    for row, (left, top, right, bottom) in enumerate(boxes.astype(float).tolist()):
        own = {"category_id": int(labels[row]), "bbox": [left, top, right - left, bottom - top]}
        own |= {"iscrowd": int(crowds[row])}
        if masks is not None:
            coded = rle.encode(np.asfortranarray(masks[row] > 0, dtype=np.uint8))
            own["segmentation"] = {"size": [height, width], "counts": coded["counts"].decode("ascii")}
        found.append(own)
    return (height, width), found
