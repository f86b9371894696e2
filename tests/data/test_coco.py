"""COCO files: masks agree with pycocotools, objects with a naive reading, and every mistake is named."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as oracle

from benchmarks.coco import made_up
from d3ssl.data.annotations import CocoAnnotations
from d3ssl.data.coco import read_coco
from d3ssl.data.masks import pack_masks
from d3ssl.errors import InputError


def as_text(counts: Any) -> str:
    """The oracle's packed run lengths (bytes) as they stand in a JSON file."""
    return counts.decode("ascii")


def document() -> dict[str, Any]:
    polygon = [[10.0, 10.0, 30.5, 12.0, 25.0, 35.0], [40, 40, 60, 40, 60, 59.5, 40, 59.5]]
    blob = np.zeros((50, 70), dtype=np.uint8)
    blob[5:20, 3:9] = 1
    packed = oracle.encode(np.asfortranarray(blob))
    plain = {"size": [80, 100], "counts": [80 * 10 + 5, 30, 50, 30, 80 * 100 - 80 * 10 - 5 - 110]}
    return {
        "images": [
            {"id": 7, "file_name": "b.jpg", "height": 80, "width": 100, "theme": 3},
            {"id": 2, "file_name": "a.jpg", "height": 50, "width": 70},
            {"id": 5, "file_name": "sub/c.jpg", "height": 40, "width": 40},
        ],
        "categories": [{"id": 90, "name": "zebra"}, {"id": 4, "name": "ant"}],
        "annotations": [
            {
                "id": 11,
                "image_id": 7,
                "category_id": 90,
                "bbox": [10, 10, 50, 49.5],
                "segmentation": polygon,
                "iscrowd": 0,
            },
            {
                "id": 3,
                "image_id": 2,
                "category_id": 4,
                "bbox": [3, 5, 6, 15],
                "segmentation": {"size": [50, 70], "counts": as_text(packed["counts"])},
            },
            {"id": 12, "image_id": 7, "category_id": 4, "bbox": [10, 5, 2, 30], "segmentation": plain, "iscrowd": 1},
        ],
    }


def read(folder: Path, content: Any, **options: float) -> CocoAnnotations:
    (folder / "annotations.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return read_coco(folder / "annotations.json", **options)


def test_objects(tmp_path: Path) -> None:
    coco = read(tmp_path, document())
    assert coco.categories == {4: "ant", 90: "zebra"}
    assert coco.names == ("ant", "zebra")
    assert len(coco) == 3
    assert coco.file_names == ("b.jpg", "a.jpg", "sub/c.jpg")
    assert coco.entries[0]["theme"] == 3
    first = coco.objects(0)
    np.testing.assert_array_equal(first.boxes, np.array([[10, 10, 60, 59.5], [10, 5, 12, 35]], dtype=np.float32))
    assert first.labels.tolist() == [1, 0]
    assert first.crowd.tolist() == [False, True]
    assert first.ids.tolist() == [11, 12]
    assert coco.objects(1).ids.tolist() == [3]
    empty = coco.objects(2)
    assert empty.boxes.shape == (0, 4)
    assert coco.masks(2).shape == (0, 40, 40)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # the oracle's own
def test_masks_of_all_three_notations_agree_with_pycocotools(tmp_path: Path) -> None:
    content = document()
    coco = read(tmp_path, content)
    assert coco.has_masks
    polygon, packed, plain = (entry["segmentation"] for entry in content["annotations"])
    expected = oracle.decode(oracle.merge(oracle.frPyObjects(polygon, 80, 100)))
    masks = coco.masks(0)
    assert masks.dtype == bool
    np.testing.assert_array_equal(masks[0], expected)
    np.testing.assert_array_equal(masks[1], oracle.decode(oracle.frPyObjects(plain, 80, 100)))
    assert masks[1].sum() == 60
    assert masks[1][5:35, 10].all()
    np.testing.assert_array_equal(coco.masks(1)[0], oracle.decode(packed))


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(1, 60))
@settings(max_examples=60, deadline=None)
def test_random_masks_agree_with_pycocotools(seed: int, height: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    polygons = [(rng.random(2 * int(rng.integers(3, 9))) * max(height, width)).tolist() for _ in range(3)]
    bitmap = np.asfortranarray(rng.random((height, width)) < rng.random(), dtype=np.uint8)
    packed = oracle.encode(bitmap)
    flat = bitmap.T.reshape(-1)
    changes = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff(np.concatenate([[0] if not flat[0] else [0, 0], changes, [flat.size]])).tolist()
    sizes = np.array([[height, width]] * 3)
    fields = [
        polygons,
        {"size": [height, width], "counts": as_text(packed["counts"])},
        {"size": [height, width], "counts": counts},
    ]
    masks, bad = pack_masks(fields, sizes)
    assert not bad
    assert masks.complete
    expected = oracle.decode(oracle.merge(oracle.frPyObjects(polygons, height, width)))
    np.testing.assert_array_equal(masks.decode(0, height, width), expected)
    np.testing.assert_array_equal(masks.decode(1, height, width), bitmap)
    np.testing.assert_array_equal(masks.decode(2, height, width), bitmap)


def test_subset_keeps_images_and_objects_together(tmp_path: Path) -> None:
    coco = read(tmp_path, document())
    part = coco.subset(np.array([2, 0]))
    assert part.file_names == ("sub/c.jpg", "b.jpg")
    assert part.objects(1).ids.tolist() == [11, 12]
    np.testing.assert_array_equal(part.masks(1), coco.masks(0))
    assert part.sizes.tolist() == [[40, 40], [80, 100]]
    assert len(coco.subset([])) == 0
    again = pickle.loads(pickle.dumps(part))
    np.testing.assert_array_equal(again.masks(1), coco.masks(0))


def test_a_box_that_rounding_moved_over_the_border_is_clipped(tmp_path: Path) -> None:
    content = document()
    content["annotations"][0]["bbox"] = [-0.4, 30, 100.9, 50.2]
    assert read(tmp_path, content).objects(0).boxes[0].tolist() == [0, 30, 100, 80]


def test_without_masks(tmp_path: Path) -> None:
    content = document()
    del content["annotations"][2]["segmentation"]
    coco = read(tmp_path, content)
    assert not coco.has_masks
    assert coco.masks(1).any()
    with pytest.raises(InputError, match=r"annotations\.json: annotation 12: it has no segmentation"):
        coco.masks(0)


def test_no_objects_at_all(tmp_path: Path) -> None:
    content = document()
    content["annotations"] = []
    coco = read(tmp_path, content)
    assert coco.objects(0).boxes.shape == (0, 4)
    assert coco.boxes.shape == (0, 4)


MISTAKES = [
    (("images", 0, "height"), 10**30, "has more than 18 digits"),
    (("annotations", 0, "id"), 10**30, "has more than 18 digits"),
    (("annotations", 1, "bbox"), [3, 5, 0, 15], r"annotation 3: its bbox \[3, 5, 0, 15\] is degenerate"),
    (("annotations", 1, "bbox"), [3, 5, 6, -1], r"annotation 3: .* is degenerate"),
    (("annotations", 1, "bbox"), [3, 5, 1e-9, 10], r"annotation 3: .* is degenerate"),
    (("annotations", 1, "bbox"), [3, 5, 80, 15], r"annotation 3: .* lies outside its image of 70×50 px"),
    (("annotations", 1, "bbox"), [-9, 5, 20, 15], r"annotation 3: .* lies outside"),
    (("annotations", 1, "bbox"), [500, 5, 6, 15], r"annotation 3: .* lies outside"),
    (("annotations", 1, "bbox"), [3, 5, float("nan"), 15], "annotation 3: its bbox"),
    (("annotations", 1, "bbox"), [float("inf"), 5, float("-inf"), 15], "annotation 3: its bbox"),
    (("annotations", 1, "bbox"), [3, 5, 6], r"annotation 3 has the bbox \[3, 5, 6\]"),
    (("annotations", 1, "bbox"), ["3", 5, 6, 15], "annotation 3 has the bbox"),
    (("annotations", 1, "bbox"), None, "annotation 3 has the bbox None"),
    (("annotations", 1, "category_id"), 5, "annotation 3 has the unknown category_id 5"),
    (("annotations", 1, "image_id"), 99, "annotation 3 has the unknown image_id 99"),
    (("annotations", 1, "image_id"), 2.0, r"annotation 3 has image_id 2\.0; it must be an integer"),
    (("annotations", 1, "id"), 11, "the id 11 stands for more than one annotation"),
    (("annotations", 1, "id"), None, "annotation None has id None"),
    (("annotations", 1, "segmentation"), [[1, 2, 3, 4]], "annotation 3: its polygons"),
    (("annotations", 1, "segmentation"), [[1, 2, 3, 4, 5, 6, 7]], "annotation 3: its polygons"),
    (("annotations", 1, "segmentation"), [1, 2, 3, 4, 5, 6], "annotation 3: its polygons"),
    (("annotations", 1, "segmentation"), [[1, 2, 3, 4, 5, "6"]], "annotation 3: its polygon"),
    (("annotations", 1, "segmentation"), [[1, 2, 3, 4, 5, float("inf")]], "annotation 3: its polygon"),
    (("annotations", 1, "segmentation"), "text", "annotation 3: its segmentation is neither"),
    (("annotations", 1, "segmentation"), {"size": [70, 50], "counts": [3500]}, "annotation 3: .* of size"),
    (("annotations", 1, "segmentation"), {"size": [50, 70], "counts": [3]}, "annotation 3: .* cover 3 of 3500"),
    (("annotations", 1, "segmentation"), {"size": [50, 70], "counts": [3502, -2]}, "annotation 3: .* no valid"),
    (("annotations", 1, "segmentation"), {"size": [50, 70]}, "annotation 3: .* no valid"),
    (("images", 1, "id"), 7, "the id 7 stands for more than one image"),
    (("images", 1, "file_name"), "b.jpg", "the file_name 'b.jpg' stands for more than one image"),
    (("images", 1, "height"), 0, "image 2 has height 0"),
    (("images", 1, "width"), None, "image 2 has width None"),
    (("categories", 1, "id"), 90, "the id 90 stands for more than one category"),
    (("categories", 1, "name"), 3, "category 4 has name 3; it must be a text"),
    (("images",), [], "its list 'images' is empty"),
    (("annotations",), {}, "has no list 'annotations'"),
    (("categories",), [1], "has no list 'categories'"),
]


@pytest.mark.parametrize(("place", "value", "message"), MISTAKES)
def test_mistakes_are_named(tmp_path: Path, place: tuple[Any, ...], value: Any, message: str) -> None:
    content: Any = document()
    entry = content
    for key in place[:-1]:
        entry = entry[key]
    entry[place[-1]] = value
    with pytest.raises(InputError, match=r"annotations\.json: .*" + message) as caught:
        read(tmp_path, content)
    assert "What to do" in str(caught.value)


@pytest.mark.parametrize("content", ["", "{", '{"images": [}', "[]", "3", '{"images": 1}'])
def test_malformed_json(tmp_path: Path, content: str) -> None:
    with pytest.raises(InputError, match=r"annotations\.json: (is not valid JSON|has no list)"):
        read(tmp_path, content)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_coco(tmp_path / "none.json")


@pytest.mark.parametrize("counts", ["garbage", "331N\x01", "é", "", "0"])
def test_damaged_packed_masks_are_errors_when_decoded(tmp_path: Path, counts: str) -> None:
    content = document()
    content["annotations"][1]["segmentation"]["counts"] = counts
    coco = read(tmp_path, content)
    with pytest.raises(InputError, match="annotation 3: its run lengths"):
        coco.masks(1)


def test_a_few_bad_objects_among_many_are_left_out_with_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = made_up(2000)
    content["annotations"][50]["bbox"][3] = 0
    with pytest.raises(InputError, match="annotation 51"):
        read(tmp_path, content)
    worse = copy.deepcopy(content)
    worse["annotations"][90]["segmentation"] = [[1, 2]]
    with pytest.raises(InputError, match=r"annotation 51.* \(and 1 more"):
        read(tmp_path, worse, max_bad_share=1 / 2000)
    coco = read(tmp_path, content, max_bad_share=1 / 2000)
    assert coco.objects(7).ids.tolist() == [50, 52, 53, 54, 55, 56]
    shown = " ".join(capsys.readouterr().err.split())
    assert "1 of 2000 objects are left out" in shown
    assert "annotation 51" in shown
