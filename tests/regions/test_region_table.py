import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from d3ssl.data.image_set import ImageSet
from d3ssl.data.images import image_size
from d3ssl.data.place import file_bytes
from d3ssl.data.sources import open_images
from d3ssl.errors import InputError
from d3ssl.regions.table import RegionTable, check_regions, content_digest, read_regions, write_regions


def make_table(seed: int = 0, images: int = 5) -> RegionTable:
    generator = np.random.default_rng(seed)
    boxes = []
    for _ in range(images):
        low = generator.uniform(0, 40, (generator.integers(1, 6), 2))
        boxes.append(np.concatenate([low, low + generator.uniform(1, 50, low.shape)], axis=1).astype(np.float32))
    return RegionTable(
        ids=tuple(f"folder/{number}.jpg" for number in range(images)),
        sizes=np.full((images, 2), (100, 120), dtype=np.int64),
        boxes=boxes,
        label_maps=[
            None if number % 2 else bytes(generator.integers(0, 256, 20, np.uint8)) for number in range(images)
        ],
        metadata={"method": "grid", "params": {"size": 3}, "skipped": {}},
        file_bytes=np.arange(images, dtype=np.int64),
    )


def assert_equal(a: RegionTable, b: RegionTable) -> None:
    assert a.ids == b.ids
    np.testing.assert_array_equal(a.sizes, b.sizes)
    assert len(a.boxes) == len(b.boxes)
    for one, two in zip(a.boxes, b.boxes, strict=True):
        np.testing.assert_array_equal(one, two)
    assert list(a.label_maps) == list(b.label_maps)
    assert a.metadata == b.metadata
    assert (a.file_bytes is None) == (b.file_bytes is None)


@given(seed=st.integers(0, 2**31), images=st.integers(0, 6))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_written_is_read(tmp_path: Path, seed: int, images: int) -> None:
    table = make_table(seed, images)
    write_regions(tmp_path / "r.parquet", table)
    read = read_regions(tmp_path / "r.parquet")
    assert_equal(table, read)
    assert content_digest(read) == content_digest(table)
    for boxes in read.boxes:
        assert boxes.dtype == np.float32
        assert boxes.flags.writeable


def test_without_file_bytes(tmp_path: Path) -> None:
    table = dataclasses.replace(make_table(), file_bytes=None)
    write_regions(tmp_path / "r.parquet", table)
    assert_equal(table, read_regions(tmp_path / "r.parquet"))


def test_pandas_reads_it(tmp_path: Path) -> None:
    table = make_table()
    write_regions(tmp_path / "r.parquet", table)
    frame = pd.read_parquet(tmp_path / "r.parquet")
    assert list(frame.columns) == ["id", "height", "width", "file_bytes", "boxes", "label_map"]
    assert frame["id"].tolist() == list(table.ids)
    for boxes, expected in zip(frame["boxes"], table.boxes, strict=True):
        np.testing.assert_array_equal(np.stack(boxes), expected)
    assert frame["label_map"].tolist() == list(table.label_maps)


def test_digest_changes_with_a_box_and_with_its_image() -> None:
    table = make_table()
    moved = [boxes.copy() for boxes in table.boxes]
    moved[2][0, 0] += 1
    assert content_digest(dataclasses.replace(table, boxes=moved)) != content_digest(table)
    split = [table.boxes[0][:0], np.concatenate(table.boxes[:2]), *table.boxes[2:]]
    assert content_digest(dataclasses.replace(table, boxes=split)) != content_digest(table)


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "text"])
def test_damaged_files_are_errors(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "r.parquet"
    write_regions(path, make_table())
    whole = path.read_bytes()
    path.write_bytes(
        {"cut": whole[:-40], "flipped": whole[:4] + bytes(300) + whole[304:], "empty": b""}.get(damage, b"hello" * 99)
    )
    with pytest.raises(InputError, match=r"r\.parquet: is not a whole Parquet file.*\n.*make it again"):
        read_regions(path)


def test_other_files_are_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such regions file"):
        read_regions(tmp_path / "none.parquet")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "other.parquet")
    with pytest.raises(InputError, match="not one of d3ssl's regions"):
        read_regions(tmp_path / "other.parquet")


@pytest.mark.parametrize(
    "box", [(5, 5, 5, 9), (9, 5, 5, 9), (-1, 0, 5, 5), (0, 0, 121, 5), (0, 0, 5, 101), (0, 0, np.nan, 5)]
)
def test_impossible_boxes_are_errors(tmp_path: Path, box: tuple[float, ...]) -> None:
    table = make_table()
    table.boxes[3][0] = box  # type: ignore[index]
    write_regions(tmp_path / "r.parquet", table)
    with pytest.raises(InputError, match=r"folder/3\.jpg, which is degenerate or outside"):
        read_regions(tmp_path / "r.parquet")


def test_columns_that_others_added_are_passed_over(tmp_path: Path) -> None:
    """As pandas does with its index, and people with remarks."""
    path = tmp_path / "r.parquet"
    table = make_table()
    write_regions(path, table)
    stored = pq.read_table(path)
    remarks = pa.array(["remark"] * len(stored))
    added = stored.append_column("remark", remarks).append_column("__index_level_0__", pa.array(range(len(stored))))
    order = ["remark", *reversed(stored.column_names), "__index_level_0__"]
    pq.write_table(added.select(order).replace_schema_metadata(stored.schema.metadata), path)
    found = read_regions(path)
    assert found.ids == table.ids
    for one, other in zip(found.boxes, table.boxes, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("height", ["tall"]),
        ("id", [None]),
        ("boxes", [None]),
        ("boxes", [[[1.0, 2.0]]]),
        ("boxes", [[None]]),
        ("boxes", [[[None, 1.0, 2.0, 3.0]]]),
        ("label_map", ["text"]),
        ("height", [2**40]),
        ("width", [None]),
    ],
)
def test_columns_of_other_kinds_are_errors(tmp_path: Path, name: str, values: list[Any]) -> None:
    path = tmp_path / "r.parquet"
    table = make_table()
    write_regions(path, table)
    stored = pq.read_table(path)
    place = stored.column_names.index(name)
    changed = stored.set_column(place, name, pa.array(values * len(stored)))
    pq.write_table(changed.replace_schema_metadata(stored.schema.metadata), path)
    if (name, values) == ("label_map", ["text"]):
        assert read_regions(path).label_maps[0] == b"text"  # no PNG: told where it is decoded
        return
    with pytest.raises(InputError, match=r"r\.parquet: "):
        read_regions(path)


def test_an_image_without_regions_or_named_twice_is_an_error(tmp_path: Path) -> None:
    table = make_table()
    empty = [*table.boxes[:4], np.empty((0, 4), dtype=np.float32)]
    write_regions(tmp_path / "r.parquet", dataclasses.replace(table, boxes=empty))
    with pytest.raises(InputError, match=r"no region for the image folder/4\.jpg"):
        read_regions(tmp_path / "r.parquet")
    write_regions(tmp_path / "r.parquet", dataclasses.replace(table, ids=("a", "b", "a", "c", "d")))
    with pytest.raises(InputError, match="names an image twice"):
        read_regions(tmp_path / "r.parquet")


def table_of(images: ImageSet, *, bytes_known: bool = True) -> RegionTable:
    sizes = [image_size(path) for path in images.paths]
    whole = [np.array([[0, 0, w, h]], dtype=np.float32) for h, w in sizes]
    return RegionTable(
        ids=images.ids,
        sizes=np.array(sizes, dtype=np.int64),
        boxes=whole,
        label_maps=[None] * len(images),
        metadata={"data_digest": images.digest(), "skipped": {}},
        file_bytes=np.array([file_bytes(path) for path in images.paths], dtype=np.int64) if bytes_known else None,
    )


def test_check_accepts_the_same_images_and_some_of_them(photos: ImageSet) -> None:
    table = table_of(photos)
    check_regions(table, photos)
    check_regions(table, photos.subset([4, 1]))
    check_regions(table_of(photos, bytes_known=False), photos.subset([4, 1]))


def test_check_names_images_without_regions(photos: ImageSet) -> None:
    table = table_of(photos.subset([0, 1, 2, 3, 4]))
    with pytest.raises(InputError, match=r"no regions for 2 of 7 images: 5\.jpg, 6\.png"):
        check_regions(table, photos)
    skipped = dataclasses.replace(table, metadata={"skipped": {"5.jpg": "broken", "6.png": "broken"}})
    check_regions(skipped, photos)


@pytest.mark.parametrize("bytes_known", [True, False])
def test_check_names_other_images_of_the_same_name(photos: ImageSet, bytes_known: bool) -> None:
    table = table_of(photos, bytes_known=bytes_known)
    Image.new("RGB", (300, 200), "red").save(photos.root / photos.ids[2])
    with pytest.raises(InputError, match=r"other images of the same names: 2\.png"):
        check_regions(table, open_images(photos.root))


def test_an_image_deleted_since_is_named(photos: ImageSet, tmp_path: Path) -> None:
    write_regions(tmp_path / "r.parquet", table_of(photos))
    (photos.root / photos.ids[2]).unlink()
    with pytest.raises(InputError, match=r"1 images that have regions cannot be found: \S*2\.png\n.*restore them"):
        check_regions(read_regions(tmp_path / "r.parquet"), photos)
