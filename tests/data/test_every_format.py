"""One set of photographs in every format that DATA may have: the commands read them all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from d3ssl.cli.main import main
from d3ssl.data.shards.pack import pack_shards
from tests.data.annotated_shapes import OBJECTS, write_part
from tests.data.test_arrow import BOX_FEATURES, write_stream
from tests.data.test_formats import voc_xml
from tests.train.conftest import TINY

COUNT = 8


@pytest.fixture(scope="module")
def coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In COCO format, one object each."""
    folder = tmp_path_factory.mktemp("coco") / "train"
    write_part(folder, dict.fromkeys(OBJECTS, COUNT // len(OBJECTS)), 0)
    return folder


def _entries(coco: Path) -> list[tuple[Path, str, list[float]]]:
    """Image, class, and its object's box: x, y, width, height, px."""
    document = json.loads((coco / "annotations.json").read_text())
    names = {own["id"]: own["name"] for own in document["categories"]}
    files = {own["id"]: coco / "images" / own["file_name"] for own in document["images"]}
    return [(files[own["image_id"]], names[own["category_id"]], own["bbox"]) for own in document["annotations"]]


def as_folder(coco: Path, out: Path) -> Path:
    return Path(shutil.copytree(coco / "images", out))


def as_list(coco: Path, out: Path) -> Path:
    as_folder(coco, out)
    (out / "list.txt").write_text("".join(f"{file.name}\n" for file in sorted(out.iterdir())))
    return out / "list.txt"


def as_coco(coco: Path, out: Path) -> Path:
    return Path(shutil.copytree(coco, out))


def as_voc(coco: Path, out: Path) -> Path:
    for name in ("JPEGImages", "Annotations"):
        (out / name).mkdir(parents=True)
    for file, name, (x, y, width, height) in _entries(coco):
        shutil.copy(file, out / "JPEGImages")
        with Image.open(file) as image:
            text = voc_xml([(name, (x + 1, y + 1, x + width, y + height), 0)], image.size)
        (out / "Annotations" / f"{file.stem}.xml").write_text(text)
    return out


def as_yolo(coco: Path, out: Path) -> Path:
    for name in ("images", "labels"):
        (out / name).mkdir(parents=True)
    for file, name, (x, y, width, height) in _entries(coco):
        shutil.copy(file, out / "images")
        with Image.open(file) as image:
            w, h = image.size
        row = [list(OBJECTS).index(name), (x + width / 2) / w, (y + height / 2) / h, width / w, height / h]
        (out / "labels" / f"{file.stem}.txt").write_text(" ".join(map(str, row)))
    (out / "data.yaml").write_text(f"train: images\nnames: {list(OBJECTS)}\n")
    return out / "data.yaml"


def as_arrow(coco: Path, out: Path) -> Path:
    entries = _entries(coco)
    images = [{"bytes": file.read_bytes(), "path": file.name} for file, _, _ in entries]
    objects = [{"bbox": [box], "category": [list(OBJECTS).index(name)]} for _, name, box in entries]
    label = {"feature": {"names": list(OBJECTS), "_type": "ClassLabel"}, "_type": "Sequence"}
    return write_stream(out, images, objects, BOX_FEATURES | {"category": label})


def as_shards(coco: Path, out: Path) -> Path:
    return pack_shards(coco, out)


FORMATS: dict[str, tuple[Callable[[Path, Path], Path], bool]] = {
    "folder": (as_folder, False),
    "list": (as_list, False),
    "coco": (as_coco, True),
    "voc": (as_voc, True),
    "yolo": (as_yolo, True),
    "arrow": (as_arrow, True),
    "shards": (as_shards, True),
}
"""How to write it, and whether it holds objects."""


@pytest.mark.parametrize("name", FORMATS)
def test_every_command_reads_it(name: str, coco: Path, tmp_path: Path) -> None:
    write, has_objects = FORMATS[name]
    data = write(coco, tmp_path / name)
    regions, recipe = tmp_path / "regions.parquet", tmp_path / "tiny.yaml"
    recipe.write_text(TINY)
    method = "annotations" if has_objects else "grid"
    assert main(["regions", str(data), "--out", str(regions), "--method", method, "--workers", "1"]) == 0
    boxes = pq.read_table(regions).num_rows
    assert boxes == COUNT
    planned = ["--config", str(recipe), "--regions", str(regions), "--proposals.method", method]
    assert main(["doctor", str(data), *planned, "--json", str(tmp_path / "doctor.json")]) == 0
    found = json.loads((tmp_path / "doctor.json").read_text())
    assert (found["objects"]["objects"] if has_objects else COUNT) == COUNT
    assert main(["pretrain", str(data), "--out", str(tmp_path / "run"), *planned, "--train.steps", "1"]) == 0
    words = ["embed", str(tmp_path / "run"), str(data), "--out", str(tmp_path / "f.parquet"), "--size", "64"]
    assert main([*words, "--of", "boxes" if has_objects else "images", "--workers", "0"]) == 0
    assert pq.read_table(tmp_path / "f.parquet").num_rows == COUNT
