"""Semantic maps from trees that are built here as their data sets publish them, without the code that reads them."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from d3ssl.data.number_png import read_map
from d3ssl.data.scenes import ScenesConfig, make_scenes
from d3ssl.data.semantic import from_instances, paint
from d3ssl.data.sources import open_images
from d3ssl.errors import InputError
from d3ssl.evaluate.segmentation import open_semantic

SIZE = (12, 20)  # height, width


def jpeg(path: Path, size: tuple[int, int] = SIZE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (size[1], size[0]), (90, 120, 60)).save(path)


def palette_png(path: Path, values: np.ndarray) -> None:
    """As Pascal VOC: 8-bit palette, 255 whitish."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(values.astype(np.uint8), mode=None).convert("L")
    coloured = Image.new("P", picture.size)
    coloured.putdata(list(picture.tobytes()))
    coloured.putpalette([(37 * i) % 256 for i in range(3 * 255)] + [224, 224, 192])
    coloured.save(path)


def grey_png(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint8)).save(path)


def voc_values(number: int) -> np.ndarray:
    values = np.zeros(SIZE, dtype=np.uint8)
    values[2:8, 3:9] = 255
    values[3:7, 4:8] = 1 + number
    values[10, 10] = 20
    return values


def build_voc(root: Path) -> Path:
    tree = root / "VOCdevkit" / "VOC2012"
    for number in range(5):
        jpeg(tree / "JPEGImages" / f"2007_{number:06d}.jpg")
        palette_png(tree / "SegmentationClass" / f"2007_{number:06d}.png", voc_values(number))
    jpeg(tree / "JPEGImages" / "2008_000001.jpg")  # most images of VOC have no segmentation
    lists = tree / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("2007_000002\n2007_000000\n2007_000001\n")
    (lists / "val.txt").write_text("2007_000003\n2007_000004\n")
    return tree


def build_ade(root: Path, names: bool = True) -> Path:
    tree = root / "ADEChallengeData2016"
    for part, count in (("training", 3), ("validation", 2)):
        for number in range(count):
            name = f"ADE_{'train' if part == 'training' else 'val'}_{number + 1:08d}"
            jpeg(tree / "images" / part / f"{name}.jpg")
            values = np.zeros(SIZE, dtype=np.uint8)
            values[:, 5:] = 150
            values[4:, 8:] = 1 + number
            grey_png(tree / "annotations" / part / f"{name}.png", values)
    if names:
        rows = [f"{i}\t0.01\t11\t1\t1\tclass-{i}, thing\t".rstrip("\t") for i in range(1, 151)]
        (tree / "objectInfo150.txt").write_text("Idx\tRatio\tTrain\tVal\tStuff\tName\n" + "\n".join(rows) + "\n")
    return tree


SEGMENTS = ((70_000, 17, 0), (3, 1, 0), (131_329, 184, 0), (999, 1, 1))
"""Number, category, crowd."""


def panoptic_numbers() -> np.ndarray:
    numbers = np.zeros(SIZE, dtype=np.int64)
    for column, (number, _, _) in enumerate(SEGMENTS):
        numbers[2:, 4 * column : 4 * column + 4] = number
    return numbers


def build_panoptic(root: Path, part: str, count: int) -> Path:
    file = root / "annotations" / f"panoptic_{part}2017.json"
    images, annotations = [], []
    for number in range(1, count + 1):
        name = f"{number:012d}"
        jpeg(root / f"{part}2017" / f"{name}.jpg")
        numbers = panoptic_numbers()
        colours = np.stack([numbers % 256, numbers // 256 % 256, numbers // 65536], axis=2).astype(np.uint8)
        place = file.with_suffix("") / f"{name}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(colours).save(place)
        images.append({"id": number, "file_name": f"{name}.jpg", "height": SIZE[0], "width": SIZE[1]})
        info = [
            {"id": n, "category_id": c, "iscrowd": crowd, "area": 40, "bbox": [0, 0, 4, 10]} for n, c, crowd in SEGMENTS
        ]
        annotations.append({"image_id": number, "file_name": f"{name}.png", "segments_info": info})
    categories = [
        {"id": 184, "name": "tree", "isthing": 0, "supercategory": "plant"},
        {"id": 1, "name": "person", "isthing": 1, "supercategory": "person"},
        {"id": 17, "name": "cat", "isthing": 1, "supercategory": "animal"},
    ]
    file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return file


def build_instances(root: Path, part: str, count: int) -> Path:
    file = root / "annotations" / f"instances_{part}2017.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    for number in range(1, count + 1):
        jpeg(root / f"{part}2017" / f"{number:012d}.jpg")
        images.append({"id": number, "file_name": f"{number:012d}.jpg", "height": SIZE[0], "width": SIZE[1]})
        box = [2, 3, 6, 5]
        polygon = [2, 3, 8, 3, 8, 8, 2, 8]
        annotations.append(
            {"id": number, "image_id": number, "category_id": 7, "bbox": box, "segmentation": [polygon], "iscrowd": 0}
        )
    categories = [{"id": 7, "name": "cup"}, {"id": 9, "name": "fork"}]
    file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return file


@pytest.mark.parametrize("below", [".", "VOCdevkit", "VOCdevkit/VOC2012"])
def test_pascal_voc(tmp_path: Path, below: str) -> None:
    build_voc(tmp_path)
    splits = open_semantic(tmp_path / below, 0.2)
    assert list(splits.tested) == ["val"] and "VOC" in splits.rule
    assert splits.train.ids == tuple(f"JPEGImages/2007_{number:06d}.jpg" for number in range(3))
    assert len(splits.val) == 2 and splits.val.num_classes == 21
    assert splits.val.names[0] == "background" and splits.val.names[15] == "person"
    assert splits.val.names[20] == "tvmonitor"
    for index, number in enumerate((3, 4)):
        assert np.array_equal(splits.val.labels(index), voc_values(number))


@pytest.mark.parametrize("below", [".", "ADEChallengeData2016"])
@pytest.mark.parametrize("names", [True, False])
def test_ade20k(tmp_path: Path, below: str, names: bool) -> None:
    build_ade(tmp_path, names)
    splits = open_semantic(tmp_path / below, 0.2)
    assert len(splits.train) == 3 and len(splits.val) == 2 and splits.train.num_classes == 150
    assert splits.train.names[149] == ("class-150, thing" if names else "class 150")
    expected = np.full(SIZE, 255)
    expected[:, 5:] = 149
    expected[4:, 8:] = 1
    assert np.array_equal(splits.val.labels(1), expected)
    assert splits.val.ids[1] == "images/validation/ADE_val_00000002.jpg"


def expected_panoptic() -> np.ndarray:
    """person 0, cat 1, tree 2 in the order of their ids; crowds and void ignored."""
    expected = np.full(SIZE, 255)
    expected[2:, 0:4], expected[2:, 4:8], expected[2:, 8:12] = 1, 0, 2
    return expected


def test_coco_panoptic_pair_and_single_file(tmp_path: Path) -> None:
    train, val = build_panoptic(tmp_path, "train", 3), build_panoptic(tmp_path, "val", 12)
    for data in (tmp_path, train):
        splits = open_semantic(data, 0.2)
        assert (len(splits.train), len(splits.val)) == (3, 12)
        assert splits.val.names == ("person", "cat", "tree")
        assert np.array_equal(splits.val.labels(11), expected_panoptic())
        assert splits.train.paths[0] == tmp_path / "train2017" / "000000000001.jpg"
    alone = open_semantic(val, 0.4)
    assert len(alone.train) + len(alone.val) == 12 and not set(alone.train.ids) & set(alone.val.ids)
    assert np.array_equal(alone.train.labels(0), expected_panoptic())


def test_coco_instances_pair(tmp_path: Path) -> None:
    build_instances(tmp_path, "train", 2)
    build_instances(tmp_path, "val", 2)
    splits = open_semantic(tmp_path, 0.2)
    assert splits.val.names == ("background", "cup", "fork")
    expected = np.zeros(SIZE)
    expected[3:8, 2:8] = 1
    assert np.array_equal(splits.val.labels(1), expected)
    build_panoptic(tmp_path, "train", 2)
    with pytest.raises(InputError, match=r"several sets of annotations.*\n.*panoptic_train2017.json"):
        open_semantic(tmp_path, 0.2)


def test_scenes_have_the_maps_that_were_written_beside_them(tmp_path: Path) -> None:
    make_scenes(tmp_path, ScenesConfig(images=6, val_images=4, size=64, workers=1))
    splits = open_semantic(tmp_path, 0.2)
    assert list(splits.tested) == ["val", "shuffled"] and len(splits.train) == 6
    for images in (splits.train, *splits.tested.values()):
        for index, path in enumerate(images.paths):
            assert isinstance(path, Path)
            truth = np.asarray(Image.open(path.parent.parent / "semantic" / f"{path.stem}.png"))
            assert truth.max() > 0
            assert np.array_equal(images.labels(index), truth)


def test_small_objects_lie_on_large_ones_and_crowds_below_all() -> None:
    masks = np.zeros((5, 6, 8), dtype=bool)
    masks[0, 2:4, 2:4] = True  # small, first in the file
    masks[1, 1:5, 1:6] = True  # a table under it
    masks[2, 0:2, 6:8] = masks[3, 1:3, 6:8] = True  # of one area: the later is on top
    masks[4, :, 4:] = True  # a crowd
    painted = paint(masks, np.array([7, 3, 4, 5, 9]), np.array([False] * 4 + [True]))
    expected = np.zeros((6, 8), dtype=int)
    expected[:, 4:] = 255
    expected[1:5, 1:6] = 3
    expected[2:4, 2:4] = 7
    expected[0:2, 6:8] = 4
    expected[1:3, 6:8] = 5
    assert np.array_equal(painted, expected)


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_grey_maps_of_few_bits_are_not_stretched(tmp_path: Path, depth: int) -> None:
    """Grey PNGs of less than 8 bits, written by hand: PIL cannot, and stretches their values when it reads them."""
    values = np.arange(16 * 3).reshape(3, 16) % 2**depth
    bits = ((values[..., None] >> np.arange(depth - 1, -1, -1)) & 1).reshape(3, -1).astype(np.uint8)
    rows = b"".join(b"\0" + np.packbits(row).tobytes() for row in bits)

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 16, 3, depth, 0, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    (tmp_path / "map.png").write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    assert np.array_equal(read_map(tmp_path / "map.png"), values)


def test_digest_changes_with_what_it_should(tmp_path: Path) -> None:
    tree = build_voc(tmp_path)
    images = open_semantic(tmp_path, 0.2).train
    first = images.digest()
    assert first == open_semantic(tmp_path, 0.2).train.digest() != images.subset([0, 2]).digest()
    noise = np.random.default_rng(0).integers(0, 21, SIZE)
    palette_png(tree / "SegmentationClass" / "2007_000001.png", noise)
    assert open_semantic(tmp_path, 0.2).train.digest() != first
    file = build_instances(tmp_path / "coco", "val", 4)
    before = from_instances(open_images(file)).digest()
    document = json.loads(file.read_text())
    document["annotations"][2]["segmentation"] = [[2, 3, 8, 3, 8, 8, 3, 8]]
    file.write_text(json.dumps(document))
    assert from_instances(open_images(file)).digest() != before


def break_voc(tree: Path, what: str) -> None:
    maps, lists = tree / "SegmentationClass", tree / "ImageSets" / "Segmentation"
    values = voc_values(3)
    if what == "class":
        values[5, 5] = 21
        palette_png(maps / "2007_000003.png", values)
    elif what == "ignore":
        values[values == 255] = 254
        grey_png(maps / "2007_000003.png", values)
    elif what == "scaled":
        grey_png(maps / "2007_000003.png", 30 * (values % 7))
    elif what == "size":
        palette_png(maps / "2007_000003.png", values[:-1])
    elif what == "colour":
        Image.new("RGB", (SIZE[1], SIZE[0])).save(maps / "2007_000003.png")
    elif what == "cut":
        path = maps / "2007_000003.png"
        path.write_bytes(path.read_bytes()[:-30])
    elif what == "map":
        (maps / "2007_000003.png").unlink()
    elif what == "image":
        (tree / "JPEGImages" / "2007_000003.jpg").unlink()
    elif what == "empty":
        (lists / "val.txt").write_text("\n")
    elif what == "list":
        (lists / "val.txt").unlink()


@pytest.mark.parametrize(
    ("what", "where", "says"),
    [
        ("class", "2007_000003.png", r"stand for no class: 21 \(1 px\); classes are 0 to 20, and 255 is ignored"),
        ("ignore", "2007_000003.png", r"stand for no class: 254 \(20 px\)"),
        ("scaled", "2007_000003.png", "stand for no class: 90, 120, 180"),
        ("size", "2007_000003.jpg", "is 20×12 px, but its map of classes 20×11"),
        ("colour", "2007_000003.png", "mode RGB, not a map of class numbers"),
        ("cut", "2007_000003.png", "cannot be read as a map of classes"),
        ("map", "val.txt", r"1 of 2 maps are not in .*SegmentationClass: 2007_000003.png"),
        ("image", "val.txt", r"1 of 2 images are not in .*JPEGImages: 2007_000003.jpg"),
        ("empty", "val.txt", "names no images"),
        ("list", "val.txt", "no such file"),
    ],
)
def test_what_is_wrong_with_a_voc_tree_is_named(tmp_path: Path, what: str, where: str, says: str) -> None:
    break_voc(build_voc(tmp_path), what)
    with pytest.raises(InputError, match=says) as raised:
        open_semantic(tmp_path, 0.2).val.labels(0)
    assert Path(str(raised.value.path)).name == where and raised.value.remedy


def test_what_is_wrong_with_an_ade_tree_is_named(tmp_path: Path) -> None:
    tree = build_ade(tmp_path)
    grey_png(tree / "annotations/validation/ADE_val_00000001.png", np.full(SIZE, 255))
    with pytest.raises(InputError, match=r"no class: 255 \(240 px\); classes are 1 to 150, and 0 is ignored"):
        open_semantic(tmp_path, 0.2).val.labels(0)
    (tree / "objectInfo150.txt").write_text("1\twall\n3\tsky\n")
    with pytest.raises(InputError, match="is no list of classes"):
        open_semantic(tmp_path, 0.2)
    (tree / "objectInfo150.txt").unlink()
    (tree / "annotations/training/ADE_train_00000002.png").unlink()
    with pytest.raises(InputError, match="1 of 3 maps are not in"):
        open_semantic(tmp_path, 0.2)
    for path in (tree / "images/training").iterdir():
        path.unlink()
    with pytest.raises(InputError, match="holds no images"):
        open_semantic(tmp_path, 0.2)


def read_all(file: Path) -> None:
    splits = open_semantic(file, 0.2)
    for images in (splits.train, splits.val):
        for index in range(len(images)):
            images.labels(index)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: d["annotations"][0]["segments_info"].pop(1), "stand for no class: 3"),
        (lambda d: d["annotations"][0]["segments_info"][0].update(category_id=5), "unknown category_id 5"),
        (lambda d: d["annotations"][0]["segments_info"][0].update(id=0), "number 0"),
        (lambda d: d["annotations"][0]["segments_info"][1].update(id=70_000), "two of one number"),
        (lambda d: d["annotations"][0].update(image_id=99), "image_id 99"),
        (lambda d: d["annotations"][0].update(file_name="../x.png"), "no relative path"),
        (lambda d: d["annotations"][0].update(file_name="x.png"), r"1 of 10 maps are not in .*: x.png"),
        (lambda d: d["annotations"][0].pop("segments_info"), "entry 1 of 'annotations' has no valid 'segments_info'"),
        (lambda d: d["categories"].append(d["categories"][0]), "the same category id"),
        (lambda d: d["images"].clear(), "no list 'images'"),
    ],
)
def test_what_is_wrong_with_a_panoptic_file_is_named(
    tmp_path: Path, change: Callable[[Any], object], says: str
) -> None:
    file = build_panoptic(tmp_path, "val", 10)
    document = json.loads(file.read_text())
    change(document)
    file.write_text(json.dumps(document))
    with pytest.raises(InputError, match=says):
        read_all(file)


def test_other_unusable_data(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file or folder"):
        open_semantic(tmp_path / "nothing", 0.2)
    with pytest.raises(InputError, match="no data with classes of pixels"):
        open_semantic(tmp_path, 0.2)
    file = build_instances(tmp_path / "boxes", "val", 5)
    document = json.loads(file.read_text())
    del document["annotations"][0]["segmentation"]
    file.write_text(json.dumps(document))
    with pytest.raises(InputError, match="objects without masks"):
        open_semantic(file, 0.5)
    train, val = build_panoptic(tmp_path / "pair", "train", 1), build_panoptic(tmp_path / "pair", "val", 1)
    document = json.loads(val.read_text())
    document["categories"][0]["name"] = "bush"
    val.write_text(json.dumps(document))
    with pytest.raises(InputError, match="other classes"):
        open_semantic(train, 0.2)
    with pytest.raises(InputError, match="too few to be split"):
        open_semantic(val, 0.2)
    for number in (2007, 2012):
        build_voc(tmp_path / "two")
        (tmp_path / "two/VOCdevkit/VOC2012").rename(tmp_path / f"two/VOCdevkit/VOC{number}x")
    with pytest.raises(InputError, match="several data sets: VOC2007x, VOC2012x"):
        open_semantic(tmp_path / "two", 0.2)
    many = build_instances(tmp_path / "many", "val", 5)
    document = json.loads(many.read_text())
    document["categories"] += [{"id": 100 + number, "name": f"c{number}"} for number in range(253)]
    many.write_text(json.dumps(document))
    with pytest.raises(InputError, match="has 256 classes"):
        open_semantic(many, 0.5)
