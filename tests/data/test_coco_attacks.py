"""COCO files that would take gigabytes, or whose fields are of any type: errors that name what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from d3ssl.data.coco import MAX_BAD_SHARE, read_coco
from d3ssl.doctor.annotations import bad_objects, check_objects
from d3ssl.errors import InputError
from d3ssl.files import read_json
from tests.data.test_coco import document, read


@pytest.mark.parametrize(
    "polygon", [[0, 0, 1e8, 0, 1e8, 40], [5e9, 5e9, 5e9, 5e9 + 9, 5e9 + 9, 5e9], [0, 0, 900, 0] * 9000]
)
def test_a_polygon_far_beyond_its_image_is_malformed_and_never_drawn(tmp_path: Path, polygon: list[float]) -> None:
    """Drawing the first takes 7.8 GB."""
    content = document()
    content["annotations"][0]["segmentation"] = [polygon]
    with pytest.raises(InputError, match=r"annotation 11: its polygons have an outline of .* px"):
        read(tmp_path, content)
    coco = read(tmp_path, content, max_bad_share=0.5)
    assert 11 not in coco.objects(0).ids


def test_a_polygon_with_a_long_outline_within_its_image_is_drawn(tmp_path: Path) -> None:
    content = document()
    content["annotations"][0]["segmentation"] = [[0, 0, 90, 0, 90, 60] * 5001]
    assert read(tmp_path, content).masks(0)[0].any()


def test_an_image_that_is_said_to_be_of_more_pixels_than_are_read_is_refused(tmp_path: Path) -> None:
    """Its masks would be drawn at that size: those of three objects of 100,000² px take 30 GB."""
    content = document()
    content["images"][0] |= {"height": 100_000, "width": 100_000}
    content["annotations"] = content["annotations"][:1]
    with pytest.raises(InputError, match="image 7 has height 100000 and width 100000"):
        read(tmp_path, content)


@pytest.mark.parametrize("wrong", [None, True, 1.5, [], {}, [1], {"a": 1}, 2**70, "7", float("nan")])
@pytest.mark.parametrize(
    ("part", "key"),
    [
        ("images", "id"),
        ("images", "height"),
        ("images", "file_name"),
        ("categories", "id"),
        ("categories", "name"),
        ("annotations", "id"),
        ("annotations", "image_id"),
        ("annotations", "category_id"),
        ("annotations", "bbox"),
    ],
)
def test_fields_of_the_wrong_type_are_input_errors(tmp_path: Path, part: str, key: str, wrong: Any) -> None:
    content = document()
    content[part][1][key] = wrong
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    if isinstance(wrong, str) and key in ("file_name", "name"):
        read_coco(tmp_path / "annotations.json")
        return
    with pytest.raises(InputError):
        read_coco(tmp_path / "annotations.json")
    examine_annotations(tmp_path)


def examine_annotations(folder: Path) -> None:
    """What the doctor says of an annotations file; images need not be there."""
    try:
        found = bad_objects(read_json(folder / "annotations.json"))
    except InputError:  # no JSON
        return
    assert found is None or check_objects(*found, MAX_BAD_SHARE)
