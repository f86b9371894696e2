"""The same result whatever the number of workers, the kills and the bad images on the way."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from d3ssl.cli.main import main
from d3ssl.data.image_set import ImageSet
from d3ssl.data.images import image_size
from d3ssl.data.sources import open_images
from d3ssl.errors import InputError
from d3ssl.regions import compute
from d3ssl.regions.compute import compute_regions
from d3ssl.regions.config import RegionsConfig
from d3ssl.regions.table import check_regions, read_regions

ONE = RegionsConfig(workers=1)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compute, "CHUNK", 2)


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids of the images that are worked on, in order."""
    seen: list[str] = []
    find = compute.find_in_file

    def watched(images: ImageSet, index: int, config: RegionsConfig):
        seen.append(images.ids[index])
        return find(images, index, config)

    monkeypatch.setattr(compute, "find_in_file", watched)
    return seen


def break_images(photos: ImageSet, *numbers: int) -> ImageSet:
    for number in numbers:
        path = photos.root / photos.ids[number]
        path.write_bytes(path.read_bytes()[:60])
    return open_images(photos.root)


def test_regions_of_all_images(photos: ImageSet, tmp_path: Path) -> None:
    table = compute_regions(photos, ONE, tmp_path / "out" / "r.parquet")
    assert table.ids == photos.ids
    assert table.sizes.tolist() == [list(image_size(path)) for path in photos.paths]
    assert table.metadata["method"] == "selective-search"
    assert table.metadata["params"]["size"] == 192
    assert "workers" not in table.metadata["params"]
    assert table.metadata["data_digest"] == photos.digest()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["r.parquet"]
    read = read_regions(tmp_path / "out" / "r.parquet")
    check_regions(read, photos)
    assert read.metadata == table.metadata


def test_workers_do_not_change_a_byte(photos: ImageSet, tmp_path: Path) -> None:
    images = break_images(photos, 3)
    compute_regions(images, RegionsConfig(workers=1, max_bad_share=0.2), tmp_path / "one.parquet")
    compute_regions(images, RegionsConfig(workers=2, max_bad_share=0.2), tmp_path / "two.parquet")
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()


def test_nothing_is_done_twice(photos: ImageSet, tmp_path: Path, looked_at: list[str]) -> None:
    first = compute_regions(photos, ONE, tmp_path / "r.parquet")
    assert looked_at == list(photos.ids)
    again = compute_regions(photos, RegionsConfig(workers=3, max_bad_share=0.5), tmp_path / "r.parquet")
    assert looked_at == list(photos.ids)
    assert again.metadata == first.metadata


def test_other_options_or_images_are_computed_again(photos: ImageSet, tmp_path: Path, looked_at: list[str]) -> None:
    first = compute_regions(photos, ONE, tmp_path / "r.parquet")
    second = compute_regions(photos, RegionsConfig(workers=1, max_regions=3), tmp_path / "r.parquet")
    assert len(looked_at) == 2 * len(photos)
    assert second.metadata["digest"] != first.metadata["digest"]
    assert max(map(len, second.boxes)) <= 3
    compute_regions(photos.subset(range(4)), ONE, tmp_path / "r.parquet")
    assert read_regions(tmp_path / "r.parquet").ids == photos.ids[:4]


def test_a_damaged_result_is_made_again(photos: ImageSet, tmp_path: Path) -> None:
    compute_regions(photos, ONE, tmp_path / "r.parquet")
    whole = (tmp_path / "r.parquet").read_bytes()
    (tmp_path / "r.parquet").write_bytes(whole[:100])
    compute_regions(photos, ONE, tmp_path / "r.parquet")
    assert (tmp_path / "r.parquet").read_bytes() == whole


_KILLED = """
import sys, time
from d3ssl.data.images import image_size
from d3ssl.data.sources import open_images
from d3ssl.regions import compute
from d3ssl.regions.config import RegionsConfig
compute.CHUNK = 2
find = compute.find_in_file
def slow(images, index, config):
    time.sleep(0.0 if index < 4 else 600)
    return find(images, index, config)
compute.find_in_file = slow
compute.compute_regions(open_images(sys.argv[1]), RegionsConfig(workers=1), sys.argv[2])
"""


def test_a_killed_run_goes_on_with_what_is_missing(photos: ImageSet, tmp_path: Path, looked_at: list[str]) -> None:
    out = tmp_path / "r.parquet"
    process = subprocess.Popen([sys.executable, "-c", _KILLED, str(photos.root), str(out)], stderr=subprocess.DEVNULL)
    parts = tmp_path / "r.parquet.parts"
    deadline = time.monotonic() + 90
    while len(list(parts.glob("*.parquet"))) < 2:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not out.exists()
    assert len(list(parts.iterdir())) == 2

    compute_regions(photos, ONE, out)
    assert looked_at == list(photos.ids[4:])
    assert not parts.exists()
    compute_regions(photos, ONE, tmp_path / "uninterrupted.parquet")
    assert out.read_bytes() == (tmp_path / "uninterrupted.parquet").read_bytes()


def test_damaged_parts_and_those_of_other_images_are_not_taken(
    photos: ImageSet, tmp_path: Path, looked_at: list[str]
) -> None:
    out, parts = tmp_path / "r.parquet", tmp_path / "r.parquet.parts"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compute, "_merge", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            compute_regions(photos, ONE, out)
    names = {compute._part_name(photos, range(start, min(start + 2, 7)), ONE): start for start in (0, 2, 4, 6)}
    assert {path.stem for path in parts.iterdir()} == set(names)
    damaged = next(name for name, start in names.items() if start == 2)
    (parts / f"{damaged}.parquet").write_bytes(b"PAR1")
    Image.new("RGB", (64, 48), "blue").save(photos.root / photos.ids[6])
    looked_at.clear()
    table = compute_regions(open_images(photos.root), ONE, out)
    assert looked_at == [photos.ids[2], photos.ids[3], photos.ids[6]]
    assert table.sizes[6].tolist() == [48, 64]


def test_bad_images_are_left_out_and_listed(
    photos: ImageSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = break_images(photos, 1, 6)
    config = RegionsConfig(workers=1, max_bad_share=0.3)
    table = compute_regions(images, config, tmp_path / "r.parquet")
    assert table.ids == tuple(name for number, name in enumerate(images.ids) if number not in (1, 6))
    assert set(table.metadata["skipped"]) == {images.ids[1], images.ids[6]}
    check_regions(table, images)
    shown = capsys.readouterr().err.replace("\n", "")
    assert "2 of 7 images are left out" in shown
    assert str(images.paths[1]) in shown
    assert str(images.paths[6]) in shown


def test_too_many_bad_images_fail_and_repaired_ones_are_tried_again(photos: ImageSet, tmp_path: Path) -> None:
    copies = tmp_path / "copies"
    shutil.copytree(photos.root, copies)
    images = break_images(photos, 1, 3)
    with pytest.raises(InputError, match=r"2 of 7 images are unreadable.*share of 0\.2:\n.*1\.jpg.*\n.*3\.jpg"):
        compute_regions(images, RegionsConfig(workers=1, max_bad_share=0.2), tmp_path / "r.parquet")
    assert not (tmp_path / "r.parquet").exists()
    for number in (1, 3):
        shutil.copy(copies / images.ids[number], images.root / images.ids[number])
    table = compute_regions(open_images(images.root), ONE, tmp_path / "r.parquet")
    assert len(table) == 7
    assert table.metadata["skipped"] == {}


def test_no_readable_image_fails_whatever_the_share(photos: ImageSet, tmp_path: Path) -> None:
    images = break_images(photos, *range(7))
    with pytest.raises(InputError, match="7 of 7"):
        compute_regions(images, RegionsConfig(workers=1, max_bad_share=1.0), tmp_path / "r.parquet")


def test_annotations_are_needed_for_annotations(photos: ImageSet, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no annotations"):
        compute_regions(photos, RegionsConfig(method="annotations"), tmp_path / "r.parquet")


def test_label_maps_are_kept_or_not(photos: ImageSet, tmp_path: Path) -> None:
    table = compute_regions(photos, RegionsConfig(method="grid", workers=1), tmp_path / "r.parquet")
    assert all(png is not None and png[:4] == b"\x89PNG" for png in table.label_maps)
    assert all(len(boxes) == 9 for boxes in table.boxes)
    without = RegionsConfig(method="grid", workers=1, label_maps=False)
    assert compute_regions(photos, without, tmp_path / "r.parquet").label_maps == [None] * 7


def test_the_order_of_a_table_is_that_of_the_images(photos: ImageSet, tmp_path: Path) -> None:
    backwards = photos.subset(np.arange(7)[::-1])
    assert compute_regions(backwards, ONE, tmp_path / "r.parquet").ids == photos.ids[::-1]


def test_a_link_that_leads_nowhere_is_skipped_and_counted(tmp_path: Path) -> None:
    from PIL import Image

    from d3ssl.data.sources import open_images
    from d3ssl.regions.compute import compute_regions
    from d3ssl.regions.config import RegionsConfig

    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(3):
        Image.new("RGB", (40, 30), (number, 0, 0)).save(photos / f"{number}.png")
    (photos / "lost.png").symlink_to(tmp_path / "nowhere.png")
    images = open_images(photos)
    config = RegionsConfig(method="grid", workers=1, max_bad_share=0.5)
    table = compute_regions(images, config, tmp_path / "r.parquet")
    assert [name for name in images.ids if name not in table.ids] == ["lost.png"]


def test_the_command_skips_a_link_that_leads_nowhere(
    photos: ImageSet, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (photos.root / "lost.png").symlink_to(tmp_path / "nowhere.png")
    base = ["regions", str(photos.root), "--out", str(tmp_path / "r.parquet"), "--method", "grid"]
    base += ["--workers", "1"]
    assert main(base) == 2
    assert "lost.png" in capfd.readouterr().err.replace("\n", "")
    assert main([*base, "--max_bad_share", "0.2"]) == 0
    table = read_regions(tmp_path / "r.parquet")
    assert table.ids == photos.ids
    assert list(table.metadata["skipped"]) == ["lost.png"]


def test_an_image_deleted_while_it_is_worked_on(photos: ImageSet, tmp_path: Path) -> None:
    (photos.root / photos.ids[4]).unlink()
    config = RegionsConfig(method="grid", workers=1, max_bad_share=0.2)
    table = compute_regions(photos, config, tmp_path / "r.parquet")
    assert list(table.metadata["skipped"]) == [photos.ids[4]]


@pytest.fixture
def annotated(tmp_path: Path) -> Path:
    """Four images with two masked objects each; the annotations file."""
    file = tmp_path / "annotated" / "annotations.json"
    (file.parent / "images").mkdir(parents=True)
    objects = []
    for number in range(4):
        Image.new("RGB", (40, 30), (number, 0, 0)).save(file.parent / "images" / f"{number}.png")
        for x in (2, 20):
            segmentation = [[x, 2, x + 10, 2, x + 10, 12, x, 12]]
            entry = {"id": len(objects), "image_id": number, "category_id": 1, "bbox": [x, 2, 10, 10], "iscrowd": 0}
            objects.append(entry | {"segmentation": segmentation})
    images = [{"id": n, "file_name": f"{n}.png", "height": 30, "width": 40} for n in range(4)]
    document = {"images": images, "annotations": objects, "categories": [{"id": 1, "name": "thing"}]}
    file.write_text(json.dumps(document))
    return file


def as_run_lengths(entry: dict) -> None:
    entry["segmentation"] = {"size": [30, 40], "counts": [0, 600, 600]}


@pytest.mark.parametrize(
    "edit",
    [
        lambda entry: entry.update(bbox=[1, 2, 11, 10]),
        lambda entry: entry.update(id=99),
        lambda entry: entry.update(iscrowd=1),
        lambda entry: entry["segmentation"][0].__setitem__(slice(2, 4), [9, 5]),
        lambda entry: entry.update(segmentation=[[2, 2, 12, 2, 12, 12], [2, 2, 2, 12, 12, 12]]),
        as_run_lengths,
    ],
    ids=["box", "id", "crowd", "polygon", "polygons", "run lengths"],
)
def test_edited_annotations_are_not_taken_for_finished(
    annotated: Path, tmp_path: Path, looked_at: list[str], edit: Callable[[dict], object]
) -> None:
    config = RegionsConfig(method="annotations", workers=1)
    compute_regions(open_images(annotated), config, tmp_path / "r.parquet")
    compute_regions(open_images(annotated), config, tmp_path / "r.parquet")
    assert len(looked_at) == 4
    before = open_images(annotated)
    document = json.loads(annotated.read_text())
    edit(document["annotations"][0])
    annotated.write_text(json.dumps(document))
    edited = open_images(annotated)
    compute_regions(edited, config, tmp_path / "r.parquet")
    assert len(looked_at) == 8
    names = [[compute._part_name(images, range(k, k + 2), config) for k in (0, 2)] for images in (before, edited)]
    assert names[0][0] != names[1][0]
    assert names[0][1] == names[1][1]  # the other part is kept


def test_edited_annotations_do_not_matter_to_other_methods(
    annotated: Path, tmp_path: Path, looked_at: list[str]
) -> None:
    config = RegionsConfig(method="grid", workers=1)
    compute_regions(open_images(annotated), config, tmp_path / "r.parquet")
    document = json.loads(annotated.read_text())
    document["annotations"][0]["bbox"] = [1, 2, 11, 10]
    annotated.write_text(json.dumps(document))
    compute_regions(open_images(annotated), config, tmp_path / "r.parquet")
    assert len(looked_at) == 4
