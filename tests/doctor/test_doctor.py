"""The doctor on data with planted faults: each is found by name, and the verdict is what training then does."""

from __future__ import annotations

import json
import shutil
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from d3ssl.data.sources import open_images
from d3ssl.doctor.annotations import bad_objects
from d3ssl.doctor.config import DoctorConfig
from d3ssl.doctor.examination import Examination
from d3ssl.doctor.run import examine
from d3ssl.errors import D3sslError
from d3ssl.methods import DepositionConfig
from d3ssl.methods.hosts import Soco
from d3ssl.regions.compute import compute_regions
from d3ssl.regions.config import RegionsConfig
from d3ssl.train import RunConfig, pretrain
from d3ssl.train.config import CanvasConfig, ModelConfig, RuntimeConfig, TrainConfig
from d3ssl.train.optimizer import OptimizerConfig
from d3ssl.views import ViewsConfig

RUN = RunConfig(
    data="",
    out="",
    proposals=RegionsConfig(method="grid", workers=1),
    canvas=CanvasConfig(size=40, max_candidates=9),
    views=ViewsConfig(size=32, regions_per_image=2, min_side=1.0),
    model=ModelConfig(backbone="test_resnet"),
    host=Soco(region_path="c3", roi_size=2, projector_hidden=16, projector_out=8, loss="info_nce"),
    optimizer=OptimizerConfig(name="adamw", lr=1e-3),
    train=TrainConfig(steps=10, batch_size=4),
    runtime=RuntimeConfig(device="cpu", workers=0, tensorboard=False),
)
LOOSE = DoctorConfig(workers=1, draws=5, tiny=10)


def noise(seed: int, shape: tuple[int, ...] = (48, 64, 3)) -> np.ndarray:
    """A different image for every seed, of large spots: its hash is its own."""
    spots = np.random.default_rng(seed).integers(0, 255, (6, 8, *shape[2:]), dtype=np.uint8)
    image = np.kron(spots, np.ones((shape[0] // 6 + 1, shape[1] // 8 + 1, *([1] * (len(shape) - 2))), dtype=np.uint8))
    return image[: shape[0], : shape[1]]


def good_images(folder: Path, count: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        Image.fromarray(noise(number)).save(folder / f"good_{number:03d}.png")
    return folder


def save_bomb(path: Path) -> None:
    """A PNG that says it has 900 million pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b""))


def save_truncated(path: Path) -> None:
    Image.fromarray(noise(77)).save(path, quality=95)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def save_turned(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(noise(78)).save(path, exif=exif, quality=95)


PLANTED: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "unreadable files": ("cut.jpg", save_truncated),
    "oversized images": ("bomb.png", save_bomb),
    "tiny images": ("tiny.png", lambda path: Image.fromarray(noise(80, (8, 9, 3))).save(path)),
    "long images": ("long.png", lambda path: Image.fromarray(noise(81, (20, 70, 3))).save(path)),
    "blank images": ("blank.png", lambda path: Image.new("RGB", (50, 40), (9, 9, 9)).save(path)),
    "channels": ("five.tif", lambda path: tifffile.imwrite(path, noise(82, (40, 50, 5)), planarconfig="contig")),
    "bit depth": ("deep.png", lambda path: Image.fromarray(noise(83, (40, 50)).astype(np.uint16) * 257).save(path)),
    "turned by EXIF": ("turned.jpg", save_turned),
}


def statuses(found: Examination) -> dict[str, str]:
    return {check.name: check.status for check in found.checks}


def named(found: Examination, name: str) -> tuple[str, ...]:
    return next(check for check in found.checks if check.name == name).images


@pytest.mark.parametrize("name", PLANTED)
def test_each_planted_file_is_found_by_name_and_nothing_else(tmp_path: Path, name: str) -> None:
    file, save = PLANTED[name]
    data = good_images(tmp_path / "data", 6)
    before = examine(data, RUN, LOOSE)
    assert not before.fails and set(statuses(before).values()) == {"ok"}
    save(data / file)
    found = examine(data, RUN, LOOSE)
    assert named(found, name) == (file,)
    worse = {check for check, status in statuses(found).items() if status != "ok"}
    assert worse == {name}
    assert found.fails == (name in ("unreadable files", "oversized images", "channels"))


def test_duplicates_are_found_by_name(tmp_path: Path) -> None:
    data = good_images(tmp_path / "data", 6)
    shutil.copy(data / "good_002.png", data / "again.png")
    Image.fromarray(noise(4)).resize((128, 96)).save(data / "larger.jpg", quality=90)
    found = examine(data, RUN, LOOSE)
    assert found.files.groups == {
        "exact": [["again.png", "good_002.png"]],
        "near": [["good_004.png", "larger.jpg"]],
    }
    assert named(found, "exact duplicates") == ("good_002.png",)
    assert not found.fails


def test_bits_of_every_format(tmp_path: Path) -> None:
    grey = noise(1, (40, 50))
    Image.fromarray(grey).save(tmp_path / "a8.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "b16.png")
    Image.fromarray(grey > 99).save(tmp_path / "c1.png")
    np.save(tmp_path / "d16.npy", grey.astype(np.uint16))
    tifffile.imwrite(tmp_path / "e16.tif", noise(2, (40, 50, 3)).astype(np.uint16) * 257, photometric="rgb")
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "f16.tif")
    Image.fromarray(grey).save(tmp_path / "g8.jpg")
    found = examine(tmp_path, RUN, LOOSE)
    assert found.scan.facts["bits"].tolist() == [8, 16, 1, 16, 16, 16, 8]
    assert found.scan.facts["channels"].tolist() == [1, 1, 1, 1, 3, 1, 1]


# ---------------------------------------------------------------------------------- the verdict against training itself


def breaks(data: Path, out: Path, run: RunConfig) -> bool:
    """Whether training on the data fails."""
    try:
        pretrain(replace(run, data=str(data), out=str(out)))
    except D3sslError:
        return True
    return False


@pytest.mark.parametrize(
    ("name", "run", "fails"),
    [
        (None, RUN, False),
        ("cut.jpg", RUN, True),
        ("cut.jpg", replace(RUN, proposals=RegionsConfig(method="grid", workers=1, max_bad_share=0.3)), False),
        ("five.tif", RUN, True),
        ("five.tif", replace(RUN, canvas=CanvasConfig(size=40, max_candidates=9, max_bad_share=0.9)), False),
        (None, replace(RUN, proposals=RegionsConfig(method="annotations", workers=1)), True),
        (None, replace(RUN, dp=DepositionConfig(carried_by="mask")), False),
        (None, replace(RUN, dp=DepositionConfig(carried_by="mask"),
                       proposals=RegionsConfig(method="grid", workers=1, label_maps=False)), True),
    ],
)  # fmt: skip
def test_training_fails_where_the_doctor_says_so(tmp_path: Path, name: str | None, run: RunConfig, fails: bool) -> None:
    data = good_images(tmp_path / "data", 8)
    for file, save in PLANTED.values():
        if file == name:
            save(data / file)
    assert examine(data, run, LOOSE).fails == fails
    assert breaks(data, tmp_path / "run", run) == fails


def test_one_image_is_too_few_and_few_are_a_warning(tmp_path: Path) -> None:
    data = good_images(tmp_path / "data", 1)
    found = examine(data, RUN, LOOSE)
    assert found.fails and statuses(found)["number of images"] == "fail"
    assert breaks(data, tmp_path / "run", RUN)
    good_images(data, 3)
    assert statuses(examine(data, RUN, LOOSE))["number of images"] == "warning"
    assert not breaks(data, tmp_path / "other", RUN)


def test_regions_of_other_images_fail(tmp_path: Path) -> None:
    data, other = good_images(tmp_path / "data", 4), tmp_path / "regions.parquet"
    compute_regions(open_images(data), RUN.proposals, other)
    run = replace(RUN, regions=str(other))
    found = examine(data, run, LOOSE)
    assert not found.fails and "time for regions" not in statuses(found)
    Image.fromarray(noise(99)).save(data / "new.png")
    found = examine(data, run, LOOSE)
    assert statuses(found)["regions"] == "fail" and breaks(data, tmp_path / "run", run)


# --------------------------------------------------------------------------------------------------------- annotations


def build_coco(folder: Path, objects: list[dict[str, Any]], count: int = 4) -> Path:
    good_images(folder / "images", count)
    images = [{"id": n, "file_name": f"good_{n:03d}.png", "height": 48, "width": 64} for n in range(count)]
    document = {
        "images": images,
        "annotations": objects,
        "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
    }
    (folder / "annotations.json").write_text(json.dumps(document))
    return folder


def box(number: int, bbox: list[float] | None, image: int = 0, category: int = 1) -> dict[str, Any]:
    return {"id": number, "image_id": image, "category_id": category, "bbox": bbox}


BAD_OBJECTS = [
    box(1, [0, 0, 5, 5]),
    box(2, [10, 10, 0, 5]),
    box(3, [60, 10, 20, 5]),
    box(4, [0, 0, 5, 5], image=9),
    box(5, [0, 0, 5, 5], category=9),
    box(6, None),
    box(7, [59.5, 0, 5.4, 5]),  # within a pixel: rounding
    box(8, [-3, 0, 5, 5], image=1),
    box(9, [0, 0, 5, -1], image=1),
]


def test_bad_objects_are_counted_by_kind(tmp_path: Path) -> None:
    data = build_coco(tmp_path, BAD_OBJECTS)
    found = bad_objects(json.loads((data / "annotations.json").read_text()))
    assert found is not None
    assert found == (
        {
            "boxes without area": [2, 9],
            "boxes outside images": [3, 8],
            "objects without image": [4],
            "objects without category": [5],
            "objects without box": [6],
        },
        9,
    )
    seen = examine(data, RUN, LOOSE)
    assert seen.fails and len(seen.images) == 4  # the images are looked at all the same
    assert {name for name, status in statuses(seen).items() if status == "fail"} == {*found[0], "annotations"}
    assert breaks(data, tmp_path / "run", RUN)


def test_amounts_of_objects_and_sizes_that_disagree(tmp_path: Path) -> None:
    crowd = box(4, [0, 0, 9, 9], 2) | {"iscrowd": 1}
    data = build_coco(tmp_path, [box(1, [0, 0, 5, 5]), box(2, [9, 9, 5, 5], 0, 2), box(3, [0, 0, 9, 9], 1), crowd])
    found = examine(data, RUN, LOOSE)
    assert named(found, "images without objects") == ("good_002.png", "good_003.png")
    assert named(found, "images with fewer than two objects") == tuple(f"good_00{n}.png" for n in (1, 2, 3))
    assert found.objects is not None
    assert found.objects.figures["images_by_number_of_objects"] == [2, 1, 1]
    assert found.objects.figures["objects"] == 3
    Image.fromarray(noise(1)).resize((48, 64)).save(data / "images/good_001.png")
    by_objects = replace(RUN, proposals=RegionsConfig(method="annotations", workers=1))
    again = examine(data, by_objects, LOOSE)
    assert named(again, "annotated sizes") == ("good_001.png",)
    assert again.fails and breaks(data, tmp_path / "run", by_objects)
    assert not examine(data, RUN, LOOSE).fails


def test_missing_images_are_told_and_the_others_looked_at(tmp_path: Path) -> None:
    data = build_coco(tmp_path, [box(1, [0, 0, 5, 5])])
    (data / "images/good_003.png").unlink()
    found = examine(data, RUN, LOOSE)
    failed = [check for check in found.checks if check.status == "fail"]
    assert [check.name for check in failed] == ["annotations"]
    assert "1 of 4 images that are missing: good_003.png" in failed[0].finding and len(found.images) == 3
