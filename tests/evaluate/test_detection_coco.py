"""COCO's statistics agree with pycocotools, whatever the detections; intervals agree with the statistics."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as oracle_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from d3ssl.data.annotations import CocoAnnotations
from d3ssl.data.coco import read_coco
from d3ssl.evaluate.detection.coco_eval import STATISTICS, CocoTruth, Detections, Kind, named_statistics, pack_mask
from d3ssl.evaluate.detection.resampling import average_precisions, bootstrap, find_matches
from d3ssl.seeds import numpy_generator

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # the oracle's own
CATEGORIES = (3, 7, 12, 90)
"""The last has no object at all."""


def blob(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A filled ellipse somewhere in the image, from a few px to nearly all of it."""
    y, x = np.ogrid[:height, :width]
    centre = rng.random(2) * (height, width)
    radii = 2 + rng.random(2) ** 2 * (height / 2, width / 2)
    return ((y - centre[0]) / radii[0]) ** 2 + ((x - centre[1]) / radii[1]) ** 2 <= 1


def box_of(mask: np.ndarray) -> list[float]:
    """x, y, width, height."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    x, y = int(columns[0]), int(rows[0])
    return [float(v) for v in (x, y, columns[-1] + 1 - x, rows[-1] + 1 - y)]


def packed(mask: np.ndarray) -> dict[str, Any]:
    coded = oracle_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": list(coded["size"]), "counts": coded["counts"].decode("ascii")}  # type: ignore[union-attr]


def make_truth(rng: np.random.Generator, images: int) -> tuple[dict[str, Any], list[list[tuple[int, np.ndarray]]]]:
    """A COCO file with image ids in no order, a tenth of the objects crowds, some images without objects; and the
    objects' categories and masks, image by image."""
    ids = rng.permutation(100)[:images].tolist()
    document: dict[str, Any] = {"images": [], "annotations": []}
    document["categories"] = [{"id": number, "name": f"class {number}"} for number in CATEGORIES]
    truth: list[list[tuple[int, np.ndarray]]] = []
    for number in ids:
        height, width = (int(side) for side in rng.integers(40, 160, 2))
        document["images"].append({"id": number, "file_name": f"{number}.png", "height": height, "width": width})
        truth.append([])
        for _ in range(int(rng.integers(0, 8))):
            mask, category = blob(rng, height, width), int(rng.choice(CATEGORIES[:3]))
            if not mask.any():
                continue
            truth[-1].append((category, mask))
            document["annotations"].append(
                {
                    "id": len(document["annotations"]) + 1,
                    "image_id": number,
                    "category_id": category,
                    "bbox": box_of(mask),
                    "area": float(mask.sum()) + 0.25,
                    "iscrowd": int(rng.random() < 0.1),
                    "segmentation": packed(mask),
                }
            )
    return document, truth


def guess(
    rng: np.random.Generator, size: tuple[int, int], truth: list[tuple[int, np.ndarray]], many: int
) -> Detections:
    """Objects moved by a few px, some of them several times, some under a wrong name, and blobs where nothing is."""
    masks, labels = [], []
    for category, mask in truth:
        for _ in range(int(rng.integers(0, 4))):
            masks.append(np.roll(mask, rng.integers(-4, 5, 2), axis=(0, 1)))
            labels.append(CATEGORIES.index(category) if rng.random() < 0.8 else int(rng.integers(0, 4)))
    for _ in range(int(rng.integers(0, many))):
        mask = blob(rng, *size)
        if mask.any():
            masks.append(mask)
            labels.append(int(rng.integers(0, 4)))
    order = rng.permutation(len(masks))
    boxes = np.array([box_of(masks[place]) for place in order], dtype=np.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return Detections(
        boxes=boxes,
        scores=np.round(rng.random(len(masks)), 1).astype(np.float32),  # many ties
        labels=np.array([labels[place] for place in order], dtype=np.int64),
        masks=tuple(pack_mask(masks[place]) for place in order),
    )


def oracle(path: Path, document: dict[str, Any], found: list[Detections], kind: str) -> list[float]:
    results = []
    for image, own in zip(document["images"], found, strict=True):
        assert own.masks is not None
        for box, score, label, mask in zip(own.boxes, own.scores, own.labels, own.masks, strict=True):
            entry = {"image_id": image["id"], "category_id": CATEGORIES[label], "score": float(score)}
            x1, y1, x2, y2 = (float(value) for value in box)
            entry |= {"bbox": [x1, y1, x2 - x1, y2 - y1]} if kind == "bbox" else {"segmentation": mask}
            results.append(entry)
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(path))
        judge = COCOeval(coco, coco.loadRes(results), kind)  # type: ignore[arg-type]
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return [float(value) for value in judge.stats]


def read(folder: Path, document: dict[str, Any]) -> CocoAnnotations:
    (folder / "annotations.json").write_text(json.dumps(document))
    return read_coco(folder / "annotations.json")


def scene(folder: Path, seed: int, images: int = 12, many: int = 12) -> tuple[Any, CocoAnnotations, list[Detections]]:
    rng = np.random.default_rng(seed)
    document, truth = make_truth(rng, images)
    annotations = read(folder, document)
    found = []
    for index, objects in enumerate(truth):
        height, width = annotations.sizes[index].tolist()
        none = rng.random() < 0.15
        found.append(guess(rng, (height, width), [] if none else objects, 1 if none else many))
    return document, annotations, found


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=12, deadline=None)
def test_statistics_agree_with_pycocotools(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    folder = tmp_path_factory.mktemp("coco")
    document, annotations, found = scene(folder, seed)
    if not document["annotations"] or not any(len(own.scores) for own in found):
        return
    truth = CocoTruth(annotations, masks=True)
    for kind in ("bbox", "segm"):
        expected = oracle(folder / "annotations.json", document, found, kind)
        ours = truth.statistics(found, kind)
        assert tuple(ours) == STATISTICS
        for name, value in zip(STATISTICS, expected, strict=True):
            if value < 0:
                assert ours[name] is None
            else:
                assert ours[name] == pytest.approx(value, abs=1e-6), (kind, name)


def test_more_than_a_hundred_detections_of_one_class(tmp_path: Path) -> None:
    document, annotations, found = scene(tmp_path, 5, images=3, many=400)
    found = [Detections(boxes=own.boxes, scores=own.scores, labels=own.labels // 2, masks=own.masks) for own in found]
    assert max(np.bincount(own.labels).max() for own in found) > 100
    expected = oracle(tmp_path / "annotations.json", document, found, "bbox")
    ours = CocoTruth(annotations, masks=True).statistics(found, "bbox")
    assert list(ours.values()) == pytest.approx([None if v < 0 else v for v in expected], abs=1e-6)


def perfect(annotations: CocoAnnotations) -> list[Detections]:
    found = []
    for index in range(len(annotations)):
        own = annotations.objects(index)
        masks = tuple(pack_mask(mask) for mask in annotations.masks(index))
        scores = np.linspace(0.9, 0.5, len(own.ids), dtype=np.float32)
        found.append(Detections(boxes=own.boxes, scores=scores, labels=own.labels, masks=masks))
    return found


def test_what_is_annotated_gives_one_and_nothing_gives_zero(tmp_path: Path) -> None:
    document, annotations, _ = scene(tmp_path, 3)
    assert any(entry["iscrowd"] for entry in document["annotations"])
    truth = CocoTruth(annotations, masks=True)
    none = Detections(
        boxes=np.zeros((0, 4), np.float32), scores=np.zeros(0, np.float32), labels=np.zeros(0, int), masks=()
    )
    kinds: tuple[Kind, ...] = ("bbox", "segm")
    for kind in kinds:
        best = truth.statistics(perfect(annotations), kind)
        assert [best[name] for name in ("ap", "ap50", "ap75", "ar_100")] == pytest.approx([1, 1, 1, 1])
        assert best["ap_large"] in (None, pytest.approx(1))
        worst = truth.statistics([none] * len(annotations), kind)
        assert worst["ap"] == worst["ap50"] == worst["ar_100"] == 0


def test_sizes_are_those_of_the_file_or_measured(tmp_path: Path) -> None:
    """An object of 20 × 20 px that the file calls large is large; without the file's word it is small."""
    image = {"id": 1, "file_name": "a.png", "height": 50, "width": 50}
    entry = {"id": 4, "image_id": 1, "category_id": 3, "bbox": [5, 5, 20, 20], "area": 10_000}
    document = {"images": [image], "annotations": [entry], "categories": [{"id": 3, "name": "a"}]}
    box = np.array([[5, 5, 25, 25]], dtype=np.float32)
    found = [Detections(boxes=box, scores=np.ones(1, np.float32), labels=np.zeros(1, np.int64))]
    given_area = CocoTruth(read(tmp_path, document), masks=False).statistics(found, "bbox")
    assert given_area["ap_large"] == pytest.approx(1) and given_area["ap_small"] is None
    del entry["area"]
    measured = CocoTruth(read(tmp_path, document), masks=False).statistics(found, "bbox")
    assert measured["ap_small"] == pytest.approx(1) and measured["ap_large"] is None
    with pytest.raises(ValueError, match="without masks"):
        CocoTruth(read(tmp_path, document), masks=False).statistics(found, "segm")


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=8, deadline=None)
def test_each_image_once_gives_the_statistics(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    _, annotations, found = scene(tmp_path_factory.mktemp("once"), seed)
    truth = CocoTruth(annotations, masks=True)
    kinds: tuple[Kind, ...] = ("bbox", "segm")
    for kind in kinds:
        judge = truth.evaluate(found, kind)
        values = named_statistics(judge)
        matches = find_matches(judge, len(annotations), len(CATEGORIES))
        (drawn,) = average_precisions(matches, np.ones((1, len(annotations))))
        if values["ap"] is None:
            assert np.isnan(drawn).all()
        else:
            got = [drawn.mean(), drawn[0], drawn[5]]
            assert got == pytest.approx([values["ap"], values["ap50"], values["ap75"]], abs=1e-12)


def test_an_image_drawn_twice_counts_as_two_images(tmp_path: Path) -> None:
    """Against the statistics of a file in which the drawn images really stand, with scores that never tie."""
    document, annotations, found = scene(tmp_path, 11, images=8)
    rng = np.random.default_rng(0)
    found = [
        Detections(boxes=f.boxes, scores=rng.random(len(f.scores)).astype(np.float32), labels=f.labels, masks=f.masks)
        for f in found
    ]
    truth = CocoTruth(annotations, masks=True)
    matches = find_matches(truth.evaluate(found, "bbox"), len(annotations), len(CATEGORIES))
    drawn = [0, 0, 0, 2, 3, 3, 6, 7]
    copied: dict[str, Any] = {"images": [], "annotations": [], "categories": document["categories"]}
    for number, index in enumerate(drawn):
        image = document["images"][index]
        copied["images"].append({**image, "id": number, "file_name": f"copy{number}.png"})
        for entry in document["annotations"]:
            if entry["image_id"] == image["id"]:
                copied["annotations"].append({**entry, "id": len(copied["annotations"]) + 1, "image_id": number})
    expected = CocoTruth(read(tmp_path, copied), masks=True).statistics([found[index] for index in drawn], "bbox")
    times = np.zeros((1, len(annotations)))
    for index in drawn:
        times[0, truth.names[index]] += 1
    (ours,) = average_precisions(matches, times)
    assert ours.mean() == pytest.approx(expected["ap"], abs=1e-12)
    assert ours[5] == pytest.approx(expected["ap75"], abs=1e-12)


def test_intervals_are_as_wide_as_figures_of_other_images_scatter(tmp_path: Path) -> None:
    """The standard deviation over fresh sets of images is what the bootstrap of one set finds, on average."""
    spreads, figures = [], []
    for seed in range(25):
        _, annotations, found = scene(tmp_path, 1000 + seed, images=40)
        judge = CocoTruth(annotations, masks=False).evaluate(found, "bbox")
        matches = find_matches(judge, len(annotations), len(CATEGORIES))
        spreads.append(bootstrap(matches, 60, numpy_generator(seed, "a"))["ap50"].std())
        figures.append(named_statistics(judge)["ap50"])
    assert np.mean(spreads) == pytest.approx(np.std(figures, ddof=1), rel=0.45)


def test_intervals_hold_the_figure_and_are_the_same_again(tmp_path: Path) -> None:
    _, annotations, found = scene(tmp_path, 2, images=30)
    judge = CocoTruth(annotations, masks=False).evaluate(found, "bbox")
    matches = find_matches(judge, len(annotations), len(CATEGORIES))
    drawn = bootstrap(matches, 200, numpy_generator(0, "a"))
    again = bootstrap(matches, 200, numpy_generator(0, "a"))
    value = named_statistics(judge)["ap"]
    assert value is not None
    low, high = np.quantile(drawn["ap"], [0.025, 0.975])
    assert low < value < high and high - low < 0.4
    assert drawn["ap"].mean() == pytest.approx(value, abs=1e-9)
    assert all(np.array_equal(drawn[name], again[name]) for name in ("ap", "ap50", "ap75"))
