"""A built benchmark: the same bytes for the same boxes, readable by others, checked by verify; whole or absent."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pycocotools.coco import COCO
from torchvision.datasets import CocoDetection

from d3ssl.data.coco import read_coco
from d3ssl.data.open_images import build as build_module
from d3ssl.data.open_images import card as card_module
from d3ssl.data.open_images.build import build_benchmark
from d3ssl.data.open_images.config import BuildConfig
from d3ssl.data.open_images.verify import VerifyConfig, verify_benchmark
from d3ssl.data.sources import open_images
from d3ssl.errors import InputError
from d3ssl.files import read_json
from d3ssl.seeds import numpy_generator
from tests.data.test_open_images_layout import (
    LABELS,
    MASK_COLUMNS,
    NAMES,
    Row,
    box_row,
    csv_text,
    image_id,
    random_rows,
    write_release,
)

SMALL = BuildConfig(images=40, val_images=10, test_images=0, min_class_images=5)
SAME_BYTES = ("ids.txt", "annotations.json", "objects.parquet")


def splits(images: int = 300) -> dict[str, list[Row]]:
    return {"train": random_rows(images), "validation": random_rows(60, "validation")}


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_release(tmp_path_factory.mktemp("release"), splits())


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, release: Path) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    build_benchmark(release, folder / "mini", SMALL)
    return folder / "mini"


@pytest.fixture
def built(tmp_path: Path, finished: Path) -> Path:
    return shutil.copytree(finished, tmp_path / "mini")


@pytest.fixture(autouse=True)
def no_plots(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plots of ``finished`` are enough: they take longer than all else."""
    monkeypatch.setattr(card_module, "draw_plots", lambda *_: {})


def bytes_of(root: Path) -> dict[str, bytes]:
    """The files that depend on the boxes alone, not on how they were written down."""
    names = [f"{split}/{name}" for split in ("train", "validation") for name in SAME_BYTES]
    return {name: (root / name).read_bytes() for name in [*names, "classes.csv", "statistics.json"]}


def shuffled(rows: list[Row], seed: int) -> list[Row]:
    return [rows[place] for place in numpy_generator("rows", seed).permutation(len(rows)).tolist()]


@pytest.mark.parametrize(
    ("version", "header", "chunk_bytes", "threads"), [("v4", False, 500, 1), ("v6", True, 9_000, 3)]
)
def test_order_of_rows_chunks_threads_and_release_change_nothing(
    tmp_path: Path,
    built: Path,
    version: str,
    header: bool,
    chunk_bytes: int,
    threads: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    boxes = {split: shuffled(rows, threads) for split, rows in splits().items()}
    other = write_release(tmp_path / "other", boxes, version, header)
    stream_boxes = build_module.stream_boxes
    monkeypatch.setattr(
        build_module, "stream_boxes", lambda path, classes, _, label: stream_boxes(path, classes, chunk_bytes, label)
    )
    before = pa.cpu_count()
    pa.set_cpu_count(threads)
    try:
        build_benchmark(other, tmp_path / "again", SMALL)
    finally:
        pa.set_cpu_count(before)
    assert bytes_of(tmp_path / "again") == bytes_of(built)


def test_a_smaller_number_is_the_beginning_of_a_larger(tmp_path: Path) -> None:
    rows = random_rows(10_800, most=6)
    release = write_release(tmp_path / "release", {"train": rows})
    lists = {}
    for images in (1_000, 5_000):
        config = BuildConfig(images=images, val_images=0, test_images=0, min_class_images=20)
        build_benchmark(release, tmp_path / str(images), config)
        lists[images] = (tmp_path / str(images) / "train/ids.txt").read_text().splitlines()
        assert len(lists[images]) == images
    assert lists[5_000][:1_000] == lists[1_000]
    small, large = (read_json(tmp_path / str(images) / "train/annotations.json") for images in (1_000, 5_000))
    assert small["images"] == large["images"][:1_000]
    assert small["annotations"] == large["annotations"][: len(small["annotations"])]
    assert small["categories"] == large["categories"]


def test_every_box_of_a_kept_class_is_in_the_annotations_with_its_flags(built: Path) -> None:
    """Against a naive reading of the rows."""
    ids = (built / "train/ids.txt").read_text().splitlines()
    document = read_json(built / "train/annotations.json")
    kept = {category["open_images_label"]: category["id"] for category in document["categories"]}
    assert len(kept) < len(LABELS)  # some classes are too rare
    expected: Counter[tuple[Any, ...]] = Counter()
    for row in splits()["train"]:
        if row["ImageID"] in ids and row["LabelName"] in kept:
            left, right, top, bottom = (float(row[side]) for side in ("XMin", "XMax", "YMin", "YMax"))
            box = [round(1024 * value, 4) for value in (left, top, right - left, bottom - top)]
            flags = [int(row[f"Is{flag}"]) for flag in ("Occluded", "Truncated", "GroupOf", "Depiction", "Inside")]
            key = (row["ImageID"], kept[row["LabelName"]], *box, *flags, int(row["IsGroupOf"] == "1"))
            expected[key] += 1
    found: Counter[tuple[Any, ...]] = Counter()
    for entry in document["annotations"]:
        flags = [entry[f"is_{flag}"] for flag in ("occluded", "truncated", "group_of", "depiction", "inside")]
        found[(ids[entry["image_id"] - 1], entry["category_id"], *entry["bbox"], *flags, entry["iscrowd"])] += 1
    assert found == expected
    assert {-1, 0, 1} == {entry["is_group_of"] for entry in document["annotations"]}
    assert [entry["file_name"] for entry in document["images"]] == [f"{name}.jpg" for name in ids]
    assert {(entry["width"], entry["height"], entry["size_known"]) for entry in document["images"]} == {
        (1024, 1024, False)
    }


@pytest.mark.parametrize("with_sizes", [False, True])
def test_boxes_equal_an_example_by_hand(tmp_path: Path, with_sizes: bool) -> None:
    """XMin .25, XMax .75, YMin .1, YMax .5 of 640×480 (width × height): x 160, y 48, 320 wide, 192 high."""
    image = image_id(0)
    rows = [
        box_row(image, LABELS[2], (0.25, 0.75, 0.1, 0.5)),
        box_row(image, LABELS[3], (0, 1, 0.5, 1), (1, 0, 0, 0, 0)),
    ]
    release = write_release(tmp_path / "release", {"train": rows})
    if with_sizes:
        (release / "image_sizes.csv").write_text(f"ImageID,Width,Height\n{image_id(5)},9,9\n{image},640,480\n")
    config = BuildConfig(images=1, val_images=0, test_images=0, min_class_images=1)
    build_benchmark(release, tmp_path / "mini", config)
    document = read_json(tmp_path / "mini/train/annotations.json")
    names = {category["id"]: category["name"] for category in document["categories"]}
    boxes = {names[entry["category_id"]]: (entry["bbox"], entry["area"]) for entry in document["annotations"]}
    if with_sizes:
        assert (
            document["images"][0] | {"id": 1, "width": 640, "height": 480, "size_known": True} == document["images"][0]
        )
        expected = {"Person": ([160, 48, 320, 192], 61_440), "Car": ([0, 240, 640, 240], 153_600)}
    else:
        expected = {"Person": ([256, 102.4, 512, 409.6], 209_715.2), "Car": ([0, 512, 1024, 512], 524_288)}
    assert boxes.keys() == expected.keys() == {NAMES[2], NAMES[3]}
    for name, (box, area) in expected.items():
        assert boxes[name][0] == pytest.approx(box, abs=1e-4)
        assert boxes[name][1] == pytest.approx(area, abs=1e-3)


def test_other_readers_read_the_annotations(built: Path) -> None:
    """pycocotools, torchvision (with black images of the nominal size) and d3ssl itself."""
    file = built / "train/annotations.json"
    coco = COCO(str(file))
    ids = (built / "train/ids.txt").read_text().splitlines()
    assert coco.getImgIds() == list(range(1, len(ids) + 1))
    images = built / "train/images"
    images.mkdir()
    for name in ids:
        Image.new("L", (1024, 1024)).save(images / f"{name}.jpg", quality=1)
    theirs = CocoDetection(str(images), str(file))
    ours = open_images(built / "train")
    assert len(theirs) == len(ours) == len(ids)
    assert ours.annotations is not None
    for index, name in enumerate(theirs.ids):
        _, objects = theirs[index]
        row = ours.ids.index(f"{ids[name - 1]}.jpg")
        found = ours.annotations.objects(row)
        assert found.ids.tolist() == [entry["id"] for entry in objects]
        x, y, width, height = np.array([entry["bbox"] for entry in objects]).T
        np.testing.assert_allclose(found.boxes, np.stack([x, y, x + width, y + height], axis=1), atol=1e-3)
        assert found.crowd.tolist() == [entry["is_group_of"] == 1 for entry in objects]
    with pytest.raises(InputError, match="has 40 of 40 images: their download is not finished"):
        verify_benchmark(built, VerifyConfig())


def test_statistics_agree_with_the_annotations(built: Path) -> None:
    document = read_json(built / "train/annotations.json")
    counted = [e for e in document["annotations"] if e["is_group_of"] == 0 and e["is_depiction"] == 0]
    found = read_json(built / "statistics.json")["train"]
    assert found["images"] == 40
    assert (found["boxes"], found["objects"]) == (len(document["annotations"]), len(counted))
    assert found["groups"] == sum(entry["is_group_of"] == 1 for entry in document["annotations"])
    assert found["depictions"] == sum(entry["is_depiction"] == 1 for entry in document["annotations"])
    marks = [(entry["is_group_of"], entry["is_depiction"]) for entry in document["annotations"]]
    assert found["unknown"] == sum(-1 in mark and 1 not in mark for mark in marks)
    amounts = Counter(Counter(entry["image_id"] for entry in counted).values())
    assert found["images_by_number_of_objects"] == [amounts[n] for n in range(max(amounts) + 1)]
    assert min(amounts) >= 2  # the rule
    sides = [np.sqrt(entry["bbox"][2] * entry["bbox"][3]) / 1024 for entry in counted]
    np.testing.assert_allclose(found["side_quartiles"], np.quantile(sides, [0.25, 0.5, 0.75]), atol=1e-5)
    assert np.sum(found["places"]) == len(counted)
    x, y, w, h = counted[0]["bbox"]
    assert found["places"][int((y + h / 2) / 32)][int((x + w / 2) / 32)] >= 1
    with open(built / "classes.csv", newline="") as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    assert set(rows) == set(NAMES)
    for category in document["categories"]:
        row = rows[category["name"]]
        of_class = [entry for entry in counted if entry["category_id"] == category["id"]]
        assert (row["label"], row["kept"], int(row["category_id"])) == (
            category["open_images_label"],
            "1",
            category["id"],
        )
        assert int(row["train_objects"]) == len(of_class) <= int(row["train_pool_objects"])
        assert int(row["train_images"]) == len({entry["image_id"] for entry in of_class})
        cells = Counter(
            (int(3 * (e["bbox"][0] + e["bbox"][2] / 2) / 1024), int(3 * (e["bbox"][1] + e["bbox"][3] / 2) / 1024))
            for e in of_class
        )
        shares = np.array(list(cells.values())) / max(1, len(of_class))
        if of_class:
            entropy = abs(float(-(shares * np.log(shares)).sum() / np.log(9)))
            assert float(row["train_place_entropy"]) == pytest.approx(entropy, abs=1e-4)
    assert {row["kept"] for row in rows.values()} == {"0", "1"}


def test_company_is_counted_image_by_image(tmp_path: Path, release: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from d3ssl.data.open_images import statistics

    seen = []
    monkeypatch.setattr(statistics, "_CHUNK", 7)
    describe = statistics.describe
    monkeypatch.setattr(build_module, "describe", lambda *words: seen.append(describe(*words)) or seen[-1])
    build_benchmark(release, tmp_path / "mini", SMALL)
    document = read_json(tmp_path / "mini/train/annotations.json")
    place = {category["id"]: number for number, category in enumerate(document["categories"])}
    shows: dict[int, set[int]] = {}
    for entry in document["annotations"]:
        if entry["is_group_of"] == entry["is_depiction"] == 0:
            shows.setdefault(entry["image_id"], set()).add(place[entry["category_id"]])
    expected = np.zeros((len(place), len(place)), dtype=np.int64)
    for classes in shows.values():
        for one in classes:
            for other in classes:
                expected[one, other] += 1
    assert seen[0].together.tolist() == expected.tolist()
    pairs = statistics.closest_pairs(seen[0], 2, 100)
    lifts = {
        (a, b): expected[a, b] * 40 / (expected[a, a] * expected[b, b])
        for a in range(len(place))
        for b in range(a + 1, len(place))
        if expected[a, b] >= 2
    }
    assert {(a, b): (lift, both) for a, b, lift, both in pairs} == {
        pair: (pytest.approx(lift), expected[pair]) for pair, lift in lifts.items()
    }
    assert [lift for _, _, lift, _ in pairs] == sorted((lift for _, _, lift, _ in pairs), reverse=True)


def test_the_card_says_what_is_in_it(built: Path) -> None:
    card = (built / "README.md").read_text()
    for text in ("this is not that list", "CC BY 4.0", "CC BY 2.0", "| train | 40 |", "| validation | 10 |", "Limits"):
        assert text in card
    plots = sorted(path.name for path in (built / "card").iterdir())
    assert plots == ["classes.png", "cooccurrence.png", "objects.png", "places.png", "sizes.png"]
    for name in plots:
        assert f"(card/{name})" in card
        with Image.open(built / "card" / name) as image:
            image.load()
            assert len(image.convert("L").getcolors() or ()) > 2  # something is drawn
    definition = read_json(built / "benchmark.json")
    assert definition["options"] == SMALL.identity()
    assert definition["splits"]["train"]["images"] == 40
    assert {entry["file"] for entry in definition["sources"]} >= {"oidv6-train-annotations-bbox.csv"}
    listed = (built / "checksums.txt").read_text()
    files = [p.relative_to(built).as_posix() for p in built.rglob("*") if p.is_file() and p.name != "checksums.txt"]
    assert sorted(line.split("  ")[1] for line in listed.splitlines()) == sorted(files)


def mask_rows(rows: list[Row], ids: list[str]) -> list[Row]:
    """A mask for every other box of a kept image, its box a little off; and one whose box is elsewhere."""
    found = []
    for number, row in enumerate(rows):
        if row["ImageID"] in ids and number % 2 == 0:
            sides = {f"Box{side}": f"{float(row[side]) + 4e-4:.6f}" for side in ("XMin", "XMax", "YMin", "YMax")}
            name = f"{row['ImageID']}_{row['LabelName'][1:].replace('/', '')}_{number:08x}.png"
            same = {key: row[key] for key in ("ImageID", "LabelName")}
            found.append(
                {"MaskPath": name, **same, "BoxID": f"{number:08x}", **sides, "PredictedIoU": "", "Clicks": ""}
            )
    elsewhere = dict.fromkeys((f"Box{side}" for side in ("XMin", "XMax", "YMin", "YMax")), "0.00001")
    return [*found, {**found[0], "MaskPath": "elsewhere.png", **elsewhere}]


def write_mask(path: Path, row: Row, size: tuple[int, int]) -> None:
    """The left half of the box, in a file of (width, height)."""
    width, height = size
    left, right = float(row["BoxXMin"]) * width, float(row["BoxXMax"]) * width
    mask = np.zeros((height, width), dtype=np.uint8)
    top, bottom = round(float(row["BoxYMin"]) * height), round(float(row["BoxYMax"]) * height)
    mask[top:bottom, round(left) : round((left + right) / 2)] = 255
    Image.fromarray(mask).convert("1").save(path)


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # pycocotools decodes with an old way of NumPy's
def test_masks_go_to_their_boxes_and_become_run_lengths(tmp_path: Path, built: Path) -> None:
    """Mask files of twice the image's size are shrunk to it; pycocotools decodes what is written."""
    ids = (built / "train/ids.txt").read_text().splitlines()
    rows = splits()["train"]
    masks = mask_rows(rows, ids)
    release = write_release(tmp_path / "release", splits())
    (release / "train-annotations-object-segmentation.csv").write_text(csv_text(MASK_COLUMNS, masks))
    every = {row["ImageID"] for part in splits().values() for row in part}
    sizes = "".join(f"{name},120,80\n" for name in sorted(every))
    (release / "image_sizes.csv").write_text("ImageID,Width,Height\n" + sizes)
    (tmp_path / "png/a").mkdir(parents=True)
    for row in masks[:-1]:
        write_mask(tmp_path / "png/a" / row["MaskPath"], row, (240, 160))
    config = BuildConfig(images=40, val_images=10, test_images=0, min_class_images=5, masks=str(tmp_path / "png"))
    definition = build_benchmark(release, tmp_path / "masked", config)
    coco = COCO(str(tmp_path / "masked/train/annotations.json"))
    dataset: dict[str, Any] = read_json(tmp_path / "masked/train/annotations.json")
    kept = {category["open_images_label"] for category in dataset["categories"]}
    assert definition["splits"]["train"]["masks_without_box"] == 1
    expected = {row["MaskPath"]: row for row in masks[:-1] if row["LabelName"] in kept}
    found = {entry["mask_file"]: entry for entry in dataset["annotations"] if "mask_file" in entry}
    assert found.keys() == expected.keys()
    assert read_json(tmp_path / "masked/statistics.json")["train"]["masks"] == len(expected)
    for name, row in expected.items():
        entry = found[name]
        assert ids[entry["image_id"] - 1] == row["ImageID"]
        assert entry["bbox"][0] == pytest.approx((float(row["BoxXMin"]) - 4e-4) * 120, abs=1e-3)
        mask = coco.annToMask(entry)
        assert mask.shape == (80, 120)
        assert entry["area"] == mask.sum() > 0
        box = np.array(entry["bbox"])
        inside = np.zeros_like(mask)
        x, y = np.floor(box[:2]).astype(int), np.ceil(box[:2] + box[2:]).astype(int) + 1
        inside[x[1] : y[1], x[0] : y[0]] = 1
        assert (mask <= inside).all()
        assert mask.sum() / (box[2] * box[3]) == pytest.approx(0.5, abs=0.3)
    assert not read_coco(tmp_path / "masked/train/annotations.json").has_masks  # not all objects have one
    (tmp_path / "png/a" / next(iter(expected))).unlink()
    with pytest.raises(InputError, match=r"png: lacks 1 of \d+ masks, such as"):
        build_benchmark(release, tmp_path / "none", config)


def test_a_build_that_fails_leaves_nothing(tmp_path: Path, release: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("the power is out")

    monkeypatch.setattr(build_module, "write_checksums", fail)
    with pytest.raises(RuntimeError, match="the power is out"):
        build_benchmark(release, tmp_path / "mini", SMALL)
    assert os.listdir(tmp_path) == []


def test_what_is_there_is_not_overwritten(tmp_path: Path, release: Path) -> None:
    (tmp_path / "mini").mkdir()
    (tmp_path / "mini/mine.txt").write_text("precious")
    with pytest.raises(InputError, match="mini: is there already and not empty"):
        build_benchmark(release, tmp_path / "mini", SMALL)
    assert os.listdir(tmp_path / "mini") == ["mine.txt"]
    (tmp_path / "mini/mine.txt").unlink()
    build_benchmark(release, tmp_path / "mini", SMALL)
    assert (tmp_path / "mini/checksums.txt").exists()
    assert os.listdir(tmp_path) == ["mini"]


def test_missing_metadata_is_named_with_the_way_out(tmp_path: Path, release: Path) -> None:
    with pytest.raises(InputError, match="no such folder of metadata"):
        build_benchmark(tmp_path / "none", tmp_path / "mini", SMALL)
    with pytest.raises(InputError, match=r"has no test-annotations-bbox\.csv.*\n.*--test_images 0"):
        build_benchmark(release, tmp_path / "mini", BuildConfig(images=40, val_images=10, test_images=5))
    with pytest.raises(InputError, match="masks can be decoded only with sizes of images"):
        build_benchmark(release, tmp_path / "mini", BuildConfig(test_images=0, masks=str(tmp_path)))
    with pytest.raises(InputError, match="no image satisfies the rule"):
        build_benchmark(release, tmp_path / "mini", BuildConfig(test_images=0, min_class_images=100_000))
    (tmp_path / "sizes.csv").write_text(f"ImageID,Width,Height\n{image_id(0)},640,0\n")
    with pytest.raises(InputError, match=r"sizes\.csv: line 2, column Height: '0' must be an integer above 0"):
        build_benchmark(release, tmp_path / "mini", replace(SMALL, sizes=str(tmp_path / "sizes.csv")))
    (tmp_path / "sizes.csv").write_text(f"ImageID,Width,Height\n{image_id(0)},640,480\n")
    with pytest.raises(InputError, match=r"sizes\.csv: has no size of \d+ chosen images, such as [0-9a-f]{16}"):
        build_benchmark(release, tmp_path / "mini", replace(SMALL, sizes=str(tmp_path / "sizes.csv")))
    assert os.listdir(tmp_path) == ["sizes.csv"]


def test_fewer_images_than_wanted_are_all_taken_with_a_warning(
    tmp_path: Path, release: Path, capfd: pytest.CaptureFixture
) -> None:
    config = BuildConfig(val_images=0, test_images=0, min_class_images=5, unknown_counts=True)
    definition = build_benchmark(release, tmp_path / "mini", config)
    taken = definition["splits"]["train"]
    assert taken["images"] == taken["satisfy_the_rule"] < 300
    assert f"{taken['images']} images satisfy the rule, 118,287 were wanted" in capfd.readouterr().err
    capped = build_benchmark(
        release, tmp_path / "capped", BuildConfig(val_images=0, test_images=0, min_class_images=5, per_class_cap=3)
    )
    assert capped["splits"]["train"]["images"] < taken["images"]
    assert capped["splits"]["train"]["reached_cap"] <= 3


def edit_json(path: Path) -> None:
    document = json.loads(path.read_text())
    del document["images"][3]
    path.write_text(json.dumps(document))


def test_verify_accepts_what_was_built_and_names_what_was_changed(tmp_path: Path, built: Path) -> None:
    found = verify_benchmark(built, VerifyConfig())
    objects = len(read_json(built / "train/annotations.json")["annotations"])
    assert found["train"] == {"images": 40, "objects": objects, "downloaded": 0}
    for name in ("train/ids.txt", "validation/annotations.json", "README.md", "card/sizes.png", "benchmark.json"):
        path = built / name
        content = path.read_bytes()
        path.write_bytes(content[:-2] + b"??")
        with pytest.raises(InputError, match=f"{name}: was changed"):
            verify_benchmark(built, VerifyConfig())
        path.unlink()
        with pytest.raises(InputError, match=f"{name}: is missing"):
            verify_benchmark(built, VerifyConfig())
        path.write_bytes(content)
    verify_benchmark(built, VerifyConfig())
    (built / "checksums.txt").unlink()
    with pytest.raises(InputError, match="is no finished benchmark"):
        verify_benchmark(built, VerifyConfig())


def test_verify_finds_lists_and_annotations_at_odds_even_with_right_checksums(built: Path) -> None:
    listed = [line.split("  ")[1] for line in (built / "checksums.txt").read_text().splitlines()]
    ids = (built / "train/ids.txt").read_text()
    for text, problem in (
        (ids + f"{image_id(0, 'other')}\n", "lists 41 images, benchmark.json says 40"),
        ("\n".join([*ids.split()[:-1], image_id(0, "other")]) + "\n", "names other images than ids.txt"),
        ("\n".join([*ids.split()[:-1], ids.split()[0]]) + "\n", "line 40: the image [0-9a-f]{16} is listed twice"),
        ("../../etc/passwd\n", "line 1: '../../etc/passwd' is no image id"),
    ):
        (built / "train/ids.txt").write_text(text)
        build_module.write_checksums(built, listed)
        with pytest.raises(InputError, match=problem):
            verify_benchmark(built, VerifyConfig())
    (built / "train/ids.txt").write_text(ids)
    edit_json(built / "train/annotations.json")
    build_module.write_checksums(built, listed)
    with pytest.raises(InputError, match=r"annotations\.json: names other images than ids\.txt"):
        verify_benchmark(built, VerifyConfig())
