"""Masks of another program become regions."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from faster_coco_eval.core import mask as rle
from PIL import Image

from d3ssl.cli.main import main
from d3ssl.data.mask_files import with_masks
from d3ssl.data.sources import open_images
from d3ssl.errors import InputError
from d3ssl.regions.table import read_regions
from tests.data.format_samples import BOXES, HEIGHT, WIDTH, coco_document, segments, write


def results(names: list[str]) -> list[dict]:
    """As segmenters write them: packed run lengths, no box."""
    found = []
    for name in names:
        for number in (1, 2):
            coded = rle.encode(np.asfortranarray(segments(0) == number, dtype=np.uint8))
            shape = {"size": [HEIGHT, WIDTH], "counts": coded["counts"].decode()}
            found.append({"image_id": name, "category_id": 1, "score": 0.9, "segmentation": shape})
    return found


def write_maps(folder: Path, names: list[str]) -> None:
    folder.mkdir()
    for name in names:
        Image.fromarray(segments(0) * 3).save(folder / name)  # numbers need not follow one another


@pytest.mark.parametrize("kind", ["results", "stems", "instances", "folder"])
def test_masks_become_regions(kind: str, tmp_path: Path) -> None:
    names = write(tmp_path / "photos", 4)
    place = tmp_path / ("maps" if kind == "folder" else "masks.json")
    if kind == "folder":
        write_maps(place, names[:3])
    elif kind == "instances":
        place.write_text(json.dumps(coco_document(names[:3])))
    else:
        own = [name.removesuffix(".png") if kind == "stems" else name for name in names[:3]]
        place.write_text(json.dumps(results(own)))
    out = tmp_path / "regions.parquet"
    arguments = ["regions", str(tmp_path / "photos"), "--out", str(out), "--masks", str(place), "--workers", "1"]
    assert main(arguments) == 0
    table = read_regions(out)
    assert len(table) == 4
    for row in range(3):
        assert sorted(map(tuple, table.boxes[row].tolist())) == sorted(tuple(map(float, box)) for box in BOXES)
        label_map = table.label_maps[row]
        assert label_map is not None
        shown = np.asarray(Image.open(io.BytesIO(label_map)))
        assert np.array_equal(shown > 0, segments(0) > 0)
        assert len(np.unique(shown)) == 3
    assert table.boxes[3].tolist() == [[0, 0, WIDTH, HEIGHT]]  # without a mask the whole image


def test_ids_of_the_datas_own_annotations_name_images(tmp_path: Path) -> None:
    names = write(tmp_path / "images", 3)
    (tmp_path / "annotations.json").write_text(json.dumps(coco_document(names)))
    found = results(names)
    for entry in found:
        entry["image_id"] = names.index(entry["image_id"])
    (tmp_path / "masks.json").write_text(json.dumps(found[:2]))
    images = with_masks(open_images(tmp_path), tmp_path / "masks.json")
    assert [len(images.annotated.objects(index).ids) for index in range(3)] == [2, 0, 0]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ([{"image_id": "other.png", "segmentation": [[0, 0, 4, 0, 4, 4]]}], "1 of 1 masks are of images that are not"),
        ([{"image_id": "0000.png"}], "entry 1 has no valid segmentation"),
        (
            [{"image_id": "0000.png", "segmentation": {"size": [2, 2], "counts": "@"}}],
            "entry 1 has no valid segmentation",
        ),
        ([3], "is no list of masks"),
        ({"images": 3}, "is neither a COCO results nor an instances file"),
    ],
)
def test_bad_files_of_masks_are_errors(content: object, says: str, tmp_path: Path) -> None:
    write(tmp_path / "photos", 2)
    (tmp_path / "masks.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=says):
        with_masks(open_images(tmp_path / "photos"), tmp_path / "masks.json")


def test_bad_folders_of_maps_are_errors(tmp_path: Path) -> None:
    names = write(tmp_path / "photos", 2)
    images = open_images(tmp_path / "photos")
    (tmp_path / "maps").mkdir()
    with pytest.raises(InputError, match=r"has a map of none of 2 images, such as 0000\.png"):
        with_masks(images, tmp_path / "maps")
    Image.fromarray(segments(0)[:-1]).save(tmp_path / "maps" / names[1])
    with pytest.raises(InputError, match="is 48×39 px, its image 48×40") as caught:
        with_masks(images, tmp_path / "maps")
    assert Path(str(caught.value.path)).name == names[1]
    with pytest.raises(InputError, match="is no folder and no file of masks"):
        with_masks(images, tmp_path / "none.txt")
