"""COCO's twelve statistics of detections, by faster-coco-eval."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster
from faster_coco_eval.core import mask as rle
from jaxtyping import Bool, Float32, Int64

from d3ssl.data.annotations import CocoAnnotations
from d3ssl.files import read_json

STATISTICS = (
    "ap",
    "ap50",
    "ap75",
    "ap_small",
    "ap_medium",
    "ap_large",
    "ar_1",
    "ar_10",
    "ar_100",
    "ar_small",
    "ar_medium",
    "ar_large",
)
"""COCO's names and order: AP averaged over IoU 0.5, 0.55, … 0.95; at 0.5; at 0.75; of objects below 32² px, up to 96²,
and above; average recall with at most 1, 10 and 100 detections per image; of objects by size."""
Kind = Literal["bbox", "segm"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Detections:
    """What was found in one image."""

    boxes: Float32[np.ndarray, "n 4"]
    """xyxy, px of the original image."""
    scores: Float32[np.ndarray, "n"]
    labels: Int64[np.ndarray, "n"]
    """0..number of categories − 1."""
    masks: tuple[dict[str, Any], ...] | None = None
    """Packed run lengths (COCO) of the original image's size, one a detection."""


def pack_mask(mask: Bool[np.ndarray, "H W"]) -> dict[str, Any]:
    """COCO's packed run lengths."""
    return rle.encode(np.asfortranarray(mask, dtype=np.uint8))


def annotated_areas(annotations: CocoAnnotations) -> dict[int, float]:
    """Annotation id → the file's ``area``, which decides what counts as small, medium or large.

    Where the file gives none, that of the mask, or of the box if there is no mask either.
    """
    document = read_json(annotations.path)
    areas = {}
    for entry in document["annotations"]:
        if isinstance(entry.get("area"), int | float):
            areas[entry["id"]] = float(entry["area"])
    for index in range(len(annotations)):
        objects = annotations.objects(index)
        lacking = [place for place, number in enumerate(objects.ids.tolist()) if number not in areas]
        if not lacking:
            continue
        boxes = objects.boxes[lacking].astype(np.float64)
        sizes = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
        if annotations.has_masks:
            sizes = annotations.masks(index)[lacking].sum(axis=(1, 2))
        areas |= dict(zip(objects.ids[lacking].tolist(), sizes.astype(float).tolist(), strict=True))
    return areas


class CocoTruth:
    """The annotated objects of some images, as COCO's evaluation takes them.

    An image is named by its place in the order of the file's image ids, for that is the order in which COCO's own code
    takes detections of the same score.
    """

    def __init__(self, annotations: CocoAnnotations, masks: bool) -> None:
        self.annotations, self.masks = annotations, masks
        areas = annotated_areas(annotations)
        ids = [entry["id"] for entry in annotations.entries]
        order = sorted(range(len(ids)), key=lambda index: (isinstance(ids[index], str), ids[index]))
        self.names = {index: place for place, index in enumerate(order)}
        """Position of an image → its name in the evaluation."""
        self.objects: list[dict[str, Any]] = []
        for index in range(len(annotations)):
            own = annotations.objects(index)
            packed = [pack_mask(mask) for mask in annotations.masks(index)] if masks else [None] * len(own.ids)
            for box, label, crowd, number, mask in zip(own.boxes, own.labels, own.crowd, own.ids, packed, strict=True):
                self.objects.append(
                    {
                        "id": len(self.objects) + 1,  # COCO's code takes an object with the id 0 for none
                        "image_id": self.names[index],
                        "category_id": int(label),
                        "bbox": _xywh(box),
                        "area": areas[int(number)],
                        "iscrowd": int(crowd),
                        **({"segmentation": mask} if mask is not None else {}),
                    }
                )

    def evaluate(self, detections: Sequence[Detections], kind: Kind) -> COCOeval_faster:
        """Match detections to objects, and average.

        Args:
            detections: one entry an image, in the order of the annotations.
            kind: ``bbox`` or ``segm`` compares boxes or masks.

        Returns:
            faster-coco-eval's object with ``all_stats``, ``eval`` and ``ious``.
        """
        if len(detections) != len(self.annotations):
            raise ValueError(f"{len(self.annotations)} images, but detections for {len(detections)}")
        found: list[dict[str, Any]] = []
        for index, own in enumerate(detections):
            found += [
                {**entry, "id": len(found) + place, "image_id": self.names[index]}
                for place, entry in enumerate(_entries(own, kind), start=1)
            ]
        judge = COCOeval_faster(self._coco(self.objects), self._coco(found), kind, print_function=_silent)
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
        return judge

    def statistics(self, detections: Sequence[Detections], kind: Kind) -> dict[str, float | None]:
        """The twelve of ``STATISTICS``, 0..1; None where there is no object of that size."""
        return named_statistics(self.evaluate(detections, kind))

    def _coco(self, entries: list[dict[str, Any]]) -> COCO:
        sizes = enumerate(self.annotations.sizes.tolist())
        return COCO(
            {
                "images": [{"id": self.names[index], "height": h, "width": w} for index, (h, w) in sizes],
                "categories": [{"id": label, "name": name} for label, name in enumerate(self.annotations.names)],
                "annotations": [dict(entry) for entry in entries],  # the evaluation writes into them
            }
        )


def _entries(own: Detections, kind: Kind) -> Iterator[dict[str, Any]]:
    """One image's detections as COCO's code takes them."""
    masks = own.masks if kind == "segm" else None
    if kind == "segm" and masks is None:
        raise ValueError("detections without masks")
    for place, (box, score, label) in enumerate(zip(own.boxes, own.scores, own.labels, strict=True)):
        bbox = _xywh(box)
        entry = {"category_id": int(label), "bbox": bbox, "score": float(score), "iscrowd": 0}
        entry["area"] = bbox[2] * bbox[3] if masks is None else float(rle.area(masks[place]))
        yield entry if masks is None else {**entry, "segmentation": masks[place]}


def named_statistics(judge: COCOeval_faster) -> dict[str, float | None]:
    """The twelve statistics of an evaluation that was run, by name."""
    values = [float(value) for value in judge.all_stats[: len(STATISTICS)]]
    return {name: None if value < 0 else value for name, value in zip(STATISTICS, values, strict=True)}


def _xywh(box: Float32[np.ndarray, "4"]) -> list[float]:
    x1, y1, x2, y2 = (float(value) for value in box)
    return [x1, y1, x2 - x1, y2 - y1]


def _silent(*_: object) -> None:
    """What the library would print is shown otherwise."""
