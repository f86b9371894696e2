"""A folder of images of Open Images opens as any other image set, with its objects."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from d3ssl.data.formats.open_images import read_open_images
from d3ssl.data.sources import open_images
from d3ssl.errors import InputError
from tests.data.test_open_images_layout import (
    LABELS,
    MASK_COLUMNS,
    NAMES,
    box_row,
    csv_text,
    image_id,
    random_rows,
    write_release,
)

SIZES = [(40, 30), (64, 48), (25, 50), (33, 21)]
"""Width, height."""


def write_images(folder: Path, split: str) -> list[str]:
    folder.mkdir()
    names = [image_id(number, split) for number in range(len(SIZES))]
    for name, size in zip(names, SIZES, strict=True):
        Image.new("RGB", size).save(folder / f"{name}.jpg")
    (folder / "index.txt").write_text("not an image")
    Image.new("RGB", (8, 8)).save(folder / "holiday.jpg")
    return names


@pytest.mark.parametrize(("split", "version"), [("train", "v4"), ("train", "v6"), ("validation", "v6")])
def test_objects_agree_with_a_naive_reading(tmp_path: Path, split: str, version: str) -> None:
    rows = [row for row in random_rows(30, split) if row["ImageID"] != image_id(2, split)]  # one has none
    names = write_images(tmp_path / "images", split)
    release = write_release(tmp_path / "release", {split: rows}, version)
    found = read_open_images(tmp_path / "images", release, split)
    assert found.ids == tuple(f"{name}.jpg" for name in sorted(names))
    assert found.annotations is not None
    assert found.annotations.names == tuple(name for _, name in sorted(zip(LABELS, NAMES, strict=True)))
    for index, name in enumerate(sorted(names)):
        width, height = SIZES[names.index(name)]
        assert found.annotations.sizes[index].tolist() == [height, width]
        objects = found.annotations.objects(index)
        theirs = zip(objects.boxes.tolist(), objects.labels.tolist(), objects.crowd.tolist(), strict=True)
        shown = sorted(
            (found.annotations.names[label], crowd, np.round(box, 3).tolist()) for box, label, crowd in theirs
        )
        expected = []
        for row in rows:
            if row["ImageID"] == name:
                x = [float(row[side]) * width for side in ("XMin", "XMax")]
                y = [float(row[side]) * height for side in ("YMin", "YMax")]
                box = [x[0], y[0], x[1], y[1]]
                expected.append((NAMES[LABELS.index(row["LabelName"])], row["IsGroupOf"] == "1", box))
        assert len(shown) == len(expected) == (0 if name == image_id(2, split) else len(expected))
        for ours, naive in zip(shown, sorted(expected), strict=True):
            assert ours[:2] == naive[:2]
            np.testing.assert_allclose(ours[2], naive[2], atol=1e-3)


def test_masks_are_decoded_for_the_objects_that_have_one(tmp_path: Path) -> None:
    """The second box's mask: its upper half."""
    (name, *_), boxes = write_images(tmp_path / "images", "train"), [(0.0, 0.5, 0.0, 0.5), (0.5, 1.0, 0.2, 0.8)]
    release = write_release(tmp_path / "release", {"train": [box_row(name, LABELS[2], box) for box in boxes]})
    sides = {f"Box{side}": str(value) for side, value in zip(("XMin", "XMax", "YMin", "YMax"), boxes[1], strict=True)}
    row = {"MaskPath": "a_m0.png", "ImageID": name, "LabelName": LABELS[2], "BoxID": "0", **sides}
    (release / "train-annotations-object-segmentation.csv").write_text(csv_text(MASK_COLUMNS, [row]))
    mask = np.zeros((30, 40), dtype=np.uint8)
    mask[6:15, 20:40] = 255
    (tmp_path / "masks").mkdir()
    Image.fromarray(mask).save(tmp_path / "masks/a_m0.png")
    found = read_open_images(tmp_path / "images", release, "train", masks=tmp_path / "masks").annotations
    assert found is not None
    index = found.file_names.index(f"{name}.jpg")
    first, second = found.objects_of[index].tolist()
    assert not found.has_masks
    np.testing.assert_array_equal(found.segmentations.decode(second, 30, 40), mask > 0)
    with pytest.raises(ValueError, match="has no segmentation"):
        found.segmentations.decode(first, 30, 40)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    release = write_release(tmp_path / "release", {"train": random_rows(3)})
    with pytest.raises(InputError, match="holds no images named by their ids"):
        read_open_images(tmp_path, release, "train")
    write_images(tmp_path / "images", "train")
    with pytest.raises(InputError, match=r"has no test-annotations-bbox\.csv"):
        read_open_images(tmp_path / "images", release, "test")
    with pytest.raises(InputError, match=r"has no train-annotations-object-segmentation\.csv"):
        read_open_images(tmp_path / "images", release, "train", masks=tmp_path)


@pytest.mark.parametrize(
    ("version", "name"), [("v4", "train-annotations-bbox.csv"), ("v6", "oidv6-train-annotations-bbox.csv")]
)
def test_a_file_of_boxes_is_data(tmp_path: Path, version: str, name: str) -> None:
    release = write_release(tmp_path / "release", {"train": random_rows(30)}, version)
    (tmp_path / "images").mkdir()
    with pytest.raises(InputError, match="no folder of images near it"):
        open_images(release / name)
    write_images(tmp_path / "images" / "train", "train")
    found, wanted = open_images(release / name), read_open_images(tmp_path / "images" / "train", release, "train")
    assert found.annotations is not None and wanted.annotations is not None
    assert (found.ids, found.digest()) == (wanted.ids, wanted.digest())
    np.testing.assert_array_equal(found.annotations.boxes, wanted.annotations.boxes)
    assert not found.annotations.has_masks
    other = release / "boxes.csv"
    other.write_text("x\n1\n")
    with pytest.raises(InputError, match="is no file of boxes of Open Images by its name"):
        open_images(other)
