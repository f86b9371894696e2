"""Hugging Face data sets: how objects may be kept, and what cannot be read in place."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from d3ssl.data.images import read_image
from d3ssl.data.shards.pack import pack_shards
from d3ssl.data.sources import open_images
from d3ssl.errors import InputError
from tests.data.format_samples import HEIGHT, TRAIN, WIDTH, hugging_face_table, png, write_arrow, write_parquet


def save(folder: Path, table: pa.Table, options: pa.ipc.IpcWriteOptions | None = None) -> Path:
    folder.mkdir()
    with (
        pa.OSFile(str(folder / "data.arrow"), "wb") as sink,
        pa.ipc.new_stream(sink, table.schema, options=options) as writer,
    ):
        writer.write_table(table)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data.arrow"}]}))
    (folder / "dataset_info.json").write_text("{}")
    return folder


def rows(objects: list[Any]) -> pa.Table:
    return pa.Table.from_pylist(
        [{"image": {"bytes": png(n), "path": None}, "objects": o} for n, o in enumerate(objects)]
    )


@pytest.mark.parametrize("number", [0, 3, 11])
def test_images_are_the_bytes_that_were_saved(number: int, tmp_path: Path) -> None:
    """Of both files, read in any order."""
    for name, write in (("arrow", write_arrow), ("parquet", write_parquet)):
        (tmp_path / name).mkdir()
        images = open_images(write(tmp_path / name).data)
        for index in (number, TRAIN - 1 - number):
            with images.paths[index].open() as file:  # type: ignore[call-arg]
                assert file.read() == png(index)


def test_a_split_by_its_folder_or_file(tmp_path: Path) -> None:
    write_arrow(tmp_path)
    assert len(open_images(tmp_path / "validation")) == 6
    write_parquet(tmp_path / "validation")
    assert len(open_images(tmp_path / "validation/data/validation-00000-of-00001.parquet")) == 6


def test_objects_as_lists_of_structs_and_classes_as_words(tmp_path: Path) -> None:
    objects = [[{"bbox": [1, 2, 3, 4], "category": "dog"}, {"bbox": [5, 5, 9, 9], "category": "cat"}], [], None]
    annotations = open_images(save(tmp_path / "set", rows(objects))).annotated
    assert annotations.names == ("cat", "dog")
    assert annotations.objects(0).boxes.tolist() == [[1, 2, 4, 6], [5, 5, 14, 14]]
    assert annotations.objects(0).labels.tolist() == [1, 0]
    assert [len(own) for own in annotations.objects_of] == [2, 0, 0]


def test_bytes_alone_are_images(tmp_path: Path) -> None:
    pq.write_table(pa.table({"img": [png(0), png(1)], "label": [0, 1]}), tmp_path / "all.parquet")
    images = open_images(tmp_path / "all.parquet")
    assert images.annotations is None and read_image(images.paths[1]).shape == (HEIGHT, WIDTH, 3)


def test_shards_are_packed_from_parquet(tmp_path: Path) -> None:
    pq.write_table(hugging_face_table(0, 6).drop_columns("objects"), tmp_path / "all.parquet", row_group_size=4)
    pack_shards(tmp_path / "all.parquet", tmp_path / "shards", "1MB")
    packed = open_images(tmp_path / "shards")
    with packed.paths[5].open() as file:  # type: ignore[call-arg]
        assert len(packed) == 6 and file.read() == png(5)


def test_a_file_of_regions_beside_images_is_none(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(0))
    pq.write_table(pa.table({"id": ["a.png"]}), tmp_path / "regions.parquet")
    assert open_images(tmp_path).ids == ("a.png",)


def test_damaged_offsets_are_not_followed(tmp_path: Path) -> None:
    """They lead out of the file: without a check the process would be killed."""
    folder = save(tmp_path / "set", hugging_face_table(0, 4).select(["image"]))
    content, sizes = (folder / "data.arrow").read_bytes(), [len(png(n)) for n in range(4)]
    ends = struct.pack("<4i", sizes[0], sum(sizes[:2]), sum(sizes[:3]), sum(sizes))
    assert content.count(ends) == 1
    (folder / "data.arrow").write_bytes(content.replace(ends, struct.pack("<4i", sizes[0], 1 << 30, -5, sum(sizes))))
    with pytest.raises(InputError, match=r"data\.arrow: cannot be read"):
        open_images(folder)


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    table = hugging_face_table(0, 4)
    compressed = save(tmp_path / "zipped", table, pa.ipc.IpcWriteOptions(compression="zstd"))
    with pytest.raises(InputError, match=r"data\.arrow: is compressed"):
        open_images(compressed)
    empty = pa.Table.from_pylist([{"image": {"bytes": None, "path": "a.png"}}], schema=table.select(["image"]).schema)
    with pytest.raises(InputError, match="row 0 has no bytes of an image"):
        open_images(save(tmp_path / "paths", empty))
    with pytest.raises(InputError, match="row 0 has objects without 'bbox'"):
        open_images(save(tmp_path / "boxless", rows([{"category": [1]}])))
    bad = [{"bbox": [], "category": []}, {"bbox": [[1.0, 1.0, 0.0, 3.0]], "category": [0]}]
    with pytest.raises(InputError, match=r"object 1 \(row 1 .*degenerate"):
        open_images(save(tmp_path / "flat", rows(bad)))
    (tmp_path / "zipped/state.json").write_text('{"_data_files": [{"filename": "gone.arrow"}]}')
    with pytest.raises(InputError, match=r"state\.json: names files that are not there: gone\.arrow"):
        open_images(tmp_path / "zipped")
    (tmp_path / "zipped/state.json").write_text("[]")
    with pytest.raises(InputError, match=r"state\.json: names no data files"):
        open_images(tmp_path / "zipped")
