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
import torch
from PIL import Image

from d3ssl.cli.main import main
from d3ssl.data.scenes import ScenesConfig, make_scenes
from d3ssl.data.shards.pack import pack_shards
from d3ssl.data.sources import open_images
from d3ssl.doctor.annotations import bad_objects
from d3ssl.doctor.config import DoctorConfig
from d3ssl.doctor.estimates import amount, duration, sizes_of_run
from d3ssl.doctor.examination import Examination
from d3ssl.doctor.run import examine
from d3ssl.errors import D3sslError, InputError
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
    data = good_images(tmp_path / "data", 16)
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


# ------------------------------------------------------------------------------------------- the command and its files


def quick(extra: list[str]) -> list[str]:
    small = ["--proposals.method", "grid", "--proposals.workers", "1", "--canvas.size", "40", "--views.size", "32"]
    return ["--recipe", "quickstart", "--train.batch_size", "4", *small, "--workers", "1", "--draws", "5", *extra]


def test_exit_codes_files_and_report(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    data = good_images(tmp_path / "data", 5)
    shutil.copy(data / "good_002.png", data / "again.png")
    out, file = tmp_path / "out", tmp_path / "other.json"
    assert main(["doctor", str(data), *quick(["--out", str(out), "--json", str(file)])]) == 0  # warnings alone
    found = json.loads((out / "doctor.json").read_text())
    assert found == json.loads(file.read_text())
    assert (found["images"], found["fails"]) == (6, False)
    page = (out / "report.html").read_text()
    assert "Nothing was found that would make training fail" in page and page.count("<img") >= 2
    assert "exact duplicates" in capsys.readouterr().out
    save_truncated(data / "cut.jpg")
    assert main(["doctor", str(data), *quick([])]) == 1
    told = " ".join(capsys.readouterr().err.split())
    assert "training would fail: unreadable files" in told and "cut.jpg" in told and "What to do" in told
    assert main(["doctor", str(tmp_path / "none")]) == 2
    assert main(["doctor", str(data), "--near_bits", "99"]) == 2
    assert main(["doctor", str(data), "--train.batch_size", "1"]) == 2
    assert main(["doctor", str(data), "--unknown", "1"]) == 2
    (tmp_path / "empty").mkdir()
    assert main(["doctor", str(tmp_path / "empty")]) == 2


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    make_scenes(folder / "set", ScenesConfig(images=80, val_images=1, size=48, workers=1))
    return folder / "set" / "train"


def plain(found: Examination) -> str:
    summary = found.summary()
    del summary["estimates"]
    return json.dumps(summary)


def test_processes_change_nothing(scenes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = examine(scenes, RUN, LOOSE)
    monkeypatch.setattr("d3ssl.doctor.scan._FEW", 10)
    assert plain(examine(scenes, RUN, replace(LOOSE, workers=2))) == plain(alone)


def test_shards_are_told_of_as_their_folder_is(scenes: Path, tmp_path: Path) -> None:
    shards = pack_shards(scenes, tmp_path / "shards", "200KB")
    assert len(list(shards.glob("*.tar"))) > 1
    of_folder, of_shards = examine(scenes, RUN, LOOSE), examine(shards, RUN, LOOSE)
    assert np.array_equal(of_shards.scan.facts, of_folder.scan.facts)
    assert statuses(of_shards) == statuses(of_folder)


def test_a_sample_is_chosen_by_the_ids(scenes: Path, tmp_path: Path) -> None:
    found = examine(scenes, RUN, replace(LOOSE, sample=20))
    assert len(found.chosen) == 20 and len(found.images) == 80
    names = {found.images.ids[index] for index in found.chosen}
    for name in list(names)[:10]:  # of fewer images, those of the sample that are there are chosen again
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(scenes / "images" / name, tmp_path / name)
    others = [name for name in found.images.ids if name not in names]
    for name in others[:30]:
        shutil.copy(scenes / "images" / name, tmp_path / name)
    again = examine(tmp_path, RUN, replace(LOOSE, sample=10))
    assert {again.images.ids[index] for index in again.chosen} == set(list(names)[:10])


def test_bias_is_told_for_scenes_with_habits(scenes: Path) -> None:
    found = examine(scenes, RUN, LOOSE)
    assert statuses(found)["company of classes"] == statuses(found)["places of classes"] == "note"
    assert found.objects is not None
    assert found.objects.figures["company_bias"]["value"] > 0.2
    assert all(pair["deviations"] > 4 or pair["deviations"] < -4 for pair in found.objects.figures["pairs"])


def test_the_size_of_a_checkpoint_and_the_time_of_steps(scenes: Path, tmp_path: Path) -> None:
    found = examine(scenes, RUN, replace(LOOSE, time=True))
    estimates = found.estimates
    assert estimates["steps"] == 10 and estimates["images_seen"] == 40
    assert estimates["training_images_per_s"] > 0
    assert estimates["training_s"] >= 40 / estimates["training_images_per_s"] - 1e-6
    pretrain(replace(RUN, data=str(scenes), out=str(tmp_path / "run")))
    saved = (tmp_path / "run/checkpoint.pt").stat().st_size
    assert estimates["checkpoint_bytes"] == pytest.approx(saved, rel=0.1)
    kept = (tmp_path / "run/backbone.safetensors").stat().st_size
    assert estimates["backbone_bytes"] == pytest.approx(kept, rel=0.1)


@pytest.mark.parametrize("name", ["adamw", "lars", "sgd"])
def test_optimizer_state_is_counted(name: str) -> None:
    run = replace(RUN, optimizer=replace(RUN.optimizer, name=name))
    sizes, none = sizes_of_run(run, 1), sizes_of_run(replace(run, optimizer=replace(run.optimizer, momentum=0.0)), 1)
    trained = sizes["weights_bytes"] - sizes["checkpoint_bytes"]  # the gradients
    if name == "adamw":
        assert sizes["checkpoint_bytes"] > 3 * trained
    else:
        assert none["checkpoint_bytes"] < sizes["checkpoint_bytes"]


def test_batch_memory_is_that_of_the_views() -> None:
    sizes = sizes_of_run(RUN, workers=2)
    canvas = 4 * 40 * 40 * 3
    plan = RUN.plan
    assert sorted(plan.used_views) == ["x1", "x1_cut", "x2", "x2_small_cut", "x3"]  # four of 32 px, one of 16
    views = 4 * (4 * 32 * 32 + 16 * 16) * 3 * torch.finfo(torch.float32).bits // 8
    assert sizes["batch_bytes"] == canvas + views
    assert sizes["loader_bytes"] == canvas * 9


def test_a_step_that_fails_is_a_failure(scenes: Path) -> None:
    run = replace(RUN, views=replace(RUN.views, min_visible=1.0, min_side=31.0))
    found = examine(scenes, run, replace(LOOSE, time=True))
    assert statuses(found)["a training step"] == "fail"
    with pytest.raises(InputError, match="draws"):
        examine(scenes, RUN, replace(LOOSE, draws=1))


def test_words_for_amounts() -> None:
    assert [amount(n) for n in (7, 1500, 2.5e6, 3e9)] == ["7 B", "1.5 kB", "2.5 MB", "3.0 GB"]
    assert [duration(n) for n in (7, 120, 5400, 200_000)] == ["7 s", "2.0 min", "1.5 h", "2.3 days"]
