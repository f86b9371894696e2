"""A Hugging Face data set on disk, written here with pyarrow in the layout of ``save_to_disk``."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from d3ssl.data.images import read_image
from d3ssl.data.sources import open_images
from d3ssl.data.splits import open_parts
from d3ssl.errors import InputError

BOX_FEATURES = {
    "bbox": {"feature": {"feature": {"dtype": "float32", "_type": "Value"}, "length": 4, "_type": "Sequence"}},
    "category": {"feature": {"names": ["cat", "dog"], "_type": "ClassLabel"}, "_type": "Sequence"},
}


def pixels(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (20 + seed, 30, 3), dtype=np.uint8)


def as_png(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


def save(
    folder: Path, names: list[str | None], objects: list[Any] | None = None, files: int = 2, **options: Any
) -> Path:
    """Row r shows ``pixels(r)``."""
    images = [{"bytes": as_png(pixels(row)), "path": name} for row, name in enumerate(names)]
    return write_stream(folder, images, objects, BOX_FEATURES, files, **options)


def write_stream(
    folder: Path,
    images: list[dict[str, Any]],
    objects: list[Any] | None,
    object_features: dict[str, Any],
    files: int = 1,
    **options: Any,
) -> Path:
    """The rows are divided over some files, in record batches of two."""
    folder.mkdir(parents=True)
    columns: dict[str, Any] = {
        "text": [f"row {row}" for row in range(len(images))],
        "image": pa.array(images, type=pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
    }
    features: dict[str, Any] = {"text": {"dtype": "string", "_type": "Value"}, "image": {"_type": "Image"}}
    if objects is not None:
        kind = pa.struct([("bbox", pa.list_(pa.list_(pa.float32(), 4))), ("category", pa.list_(pa.int64()))])
        columns["objects"] = pa.array(objects, type=kind)
        features["objects"] = object_features
    table = pa.table(columns)
    named = [f"data-{number:05d}-of-{files:05d}.arrow" for number in range(files)]
    share = -(-len(table) // files)
    for number, name in enumerate(named):
        own = table.slice(number * share, share)
        with pa.OSFile(str(folder / name), "wb") as out, pa.ipc.new_stream(out, own.schema, **options) as writer:
            writer.write_table(own, max_chunksize=2)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in named]}))
    (folder / "dataset_info.json").write_text(json.dumps({"features": features}))
    return folder


def test_images_are_read_in_place_from_every_file_and_batch(tmp_path: Path) -> None:
    found = open_images(save(tmp_path / "set", ["b.png", "a.png", "e.png", "d.png", "c.png", "f.png", "g.png"]))
    assert found.ids == ("a.png", "b.png", "c.png", "d.png", "e.png", "f.png", "g.png")
    for path, row in zip(found.paths, [1, 0, 4, 3, 2, 5, 6], strict=True):
        np.testing.assert_array_equal(read_image(path), pixels(row))
    assert found.annotations is None


@pytest.mark.parametrize("names", [[None, None, None], ["a.png", "a.png", "b.png"]])
def test_rows_without_names_of_their_own_are_numbered(tmp_path: Path, names: list[str | None]) -> None:
    found = open_images(save(tmp_path / "set", names))
    assert found.ids == ("00000000", "00000001", "00000002")
    np.testing.assert_array_equal(read_image(found.paths[2]), pixels(2))


def test_objects(tmp_path: Path) -> None:
    objects = [{"bbox": [[1, 2, 3, 4], [0, 0, 30, 20]], "category": [1, 0]}, {"bbox": [], "category": []}]
    annotations = open_images(save(tmp_path / "set", ["b.png", "a.png"], objects)).annotations
    assert annotations is not None and annotations.names == ("cat", "dog")
    assert annotations.file_names == ("a.png", "b.png")
    assert annotations.objects(1).boxes.tolist() == [[1, 2, 4, 6], [0, 0, 30, 20]]
    assert annotations.objects(1).labels.tolist() == [1, 0] and not len(annotations.objects(0).labels)
    assert annotations.sizes.tolist() == [[21, 30], [20, 30]]


def test_splits(tmp_path: Path) -> None:
    objects = [{"bbox": [[1, 2, 3, 4]], "category": [1]}] * 2
    for name in ("train", "test"):
        save(tmp_path / "set" / name, ["a.png", "b.png"], objects, files=1)
    (tmp_path / "set" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    parts = open_parts(tmp_path / "set")
    assert parts is not None and parts.rule == "the splits train, test"
    assert open_images(tmp_path / "set").root == tmp_path / "set" / "train"
    (tmp_path / "set" / "dataset_dict.json").write_text('{"splits": ["test"]}')
    with pytest.raises(InputError, match="has no split 'train'; it has: test"):
        open_images(tmp_path / "set")


def test_damaged_ones_are_named(tmp_path: Path) -> None:
    folder = save(tmp_path / "set", ["a.png", "b.png"], files=1)
    file = folder / "data-00000-of-00001.arrow"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"not a whole Arrow stream.*data-00000|data-00000.*not a whole Arrow stream"):
        open_images(folder)
    file.write_bytes(b"")
    with pytest.raises(InputError, match="is empty"):
        open_images(folder)
    file.unlink()
    with pytest.raises(InputError, match=r"named by state\.json and not there"):
        open_images(folder)
    (folder / "state.json").write_text("{}")
    with pytest.raises(InputError, match="names no data files"):
        open_images(folder)
    (folder / "dataset_info.json").write_text("[]")
    with pytest.raises(InputError, match="is not what save_to_disk writes"):
        open_images(folder)
    (folder / "dataset_info.json").write_text('{"features": {"text": {"_type": "Value"}}}')
    with pytest.raises(InputError, match="no image column; its columns: text"):
        open_images(folder)


def test_what_cannot_be_read_in_place_is_refused(tmp_path: Path) -> None:
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pytest.raises(InputError, match="is compressed"):
        open_images(save(tmp_path / "packed", ["a.png"] * 3, files=1, options=options))
    folder = save(tmp_path / "paths", ["a.png"], files=1)
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"image": pa.array([{"bytes": None, "path": "a.png"}], type=kind)})
    file = str(folder / "data-00000-of-00001.arrow")
    with pa.OSFile(file, "wb") as out, pa.ipc.new_stream(out, table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(InputError, match="row 0 holds the path of an image"):
        open_images(folder)
