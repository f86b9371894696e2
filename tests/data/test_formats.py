"""Data sets in the layouts of Pascal VOC, COCO panoptic, ADE20K and plain lists, built here without the code that reads
them: XML by hand, PNGs by PIL, boxes worked out on paper."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from d3ssl.cli.main import main
from d3ssl.data.sources import open_images
from d3ssl.errors import InputError
from d3ssl.evaluate.splits import open_splits
from d3ssl.models import create_backbone
from d3ssl.models.artifact import save_backbone
from d3ssl.regions.compute import compute_regions
from d3ssl.regions.config import RegionsConfig
from d3ssl.regions.table import read_regions

WIDTH, HEIGHT = 60, 40


def picture(path: Path, seed: int = 0, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def palette(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    made = Image.fromarray(values.astype(np.uint8)).convert("L")
    coloured = Image.new("P", made.size)
    coloured.putdata(list(made.tobytes()))
    coloured.putpalette([(53 * i) % 256 for i in range(768)])
    coloured.save(path)


def voc_xml(objects: list[tuple[str, tuple[Any, Any, Any, Any], int]], size: tuple[int, int] = (WIDTH, HEIGHT)) -> str:
    """As the development kit writes them, with a part inside a person, whose box is not the object's."""
    body = ""
    for name, (xmin, ymin, xmax, ymax), difficult in objects:
        part = "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>"
        box = f"<bndbox><xmax>{xmax}</xmax><xmin>{xmin}</xmin><ymax>{ymax}</ymax><ymin>{ymin}</ymin></bndbox>"
        hard = f"<difficult>{difficult}</difficult>" if difficult else ""
        body += (
            f"<object><name>{name}</name>{part if name == 'person' else ''}<truncated>0</truncated>{hard}{box}</object>"
        )
    measures = f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>"
    return f"<annotation><folder>VOC2012</folder><filename>x.jpg</filename>{measures}{body}</annotation>"


OBJECTS = [("dog", (1, 1, 10, 20), 0), ("person", (31, 11, 60, 40), 0), ("cat", (5, 25, 9, 30), 1)]


def build_voc(root: Path, count: int = 9) -> Path:
    """A tree in which the first four images have segmentations."""
    tree = root / "VOCdevkit" / "VOC2012"
    for number in range(count):
        name = f"2007_{number:06d}"
        picture(tree / "JPEGImages" / f"{name}.jpg", number)
        (tree / "Annotations").mkdir(exist_ok=True)
        (tree / "Annotations" / f"{name}.xml").write_text(voc_xml(OBJECTS))
        if number < 4:
            values = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
            values[0:20, 0:10] = 255  # a border around the object
            values[1:19, 1:9] = 1
            values[10:40, 30:60] = 2
            palette(tree / "SegmentationObject" / f"{name}.png", values)
            palette(tree / "SegmentationClass" / f"{name}.png", values)
    for kind, parts in (
        ("Main", {"train": [0, 1, 2, 3, 4], "val": [5, 6, 7]}),
        ("Segmentation", {"train": [1, 0], "val": [3, 2]}),
    ):
        folder = tree / "ImageSets" / kind
        folder.mkdir(parents=True)
        both = [*parts["train"], *parts["val"]]
        for part, numbers in {**parts, "trainval": both}.items():
            (folder / f"{part}.txt").write_text("".join(f"2007_{number:06d}\n" for number in numbers))
    (tree / "ImageSets" / "Main" / "dog_train.txt").write_text("2007_000000  1\n2007_000001 -1\n")
    return tree


@pytest.fixture(scope="module")
def voc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_voc(tmp_path_factory.mktemp("voc"))


def test_voc_boxes_are_turned_from_one_based_inclusive_pixels(voc: Path) -> None:
    for data in (voc, voc.parent, voc.parent.parent):
        images = open_images(data)
        assert images.ids == tuple(f"2007_{number:06d}.jpg" for number in range(8))  # as trainval.txt says
        assert images.root == voc / "JPEGImages" and Path(str(images.paths[0])).is_file()
        assert images.annotations is not None
        objects = images.annotations.objects(2)
        assert objects.boxes.tolist() == [[0, 0, 10, 20], [30, 10, 60, 40], [4, 24, 9, 30]]
        assert [images.annotations.names[label] for label in objects.labels] == ["dog", "person", "cat"]
        assert len(images.annotations.names) == 20
        assert objects.crowd.tolist() == [False, False, True]
        assert images.annotations.sizes[2].tolist() == [HEIGHT, WIDTH]


def test_voc_lists_are_the_choice_of_a_split(voc: Path) -> None:
    lists = voc / "ImageSets"
    assert open_images(lists / "Main/val.txt").ids == ("2007_000005.jpg", "2007_000006.jpg", "2007_000007.jpg")
    assert open_images(lists / "Segmentation/train.txt").ids == ("2007_000000.jpg", "2007_000001.jpg")
    splits = open_splits(voc, 0.2)
    assert (len(splits.train), len(splits.val), list(splits.tested)) == (5, 3, ["val"])
    masks = open_splits(lists / "Segmentation/train.txt", 0.2)
    assert masks.val.ids == ("2007_000002.jpg", "2007_000003.jpg")


def test_voc_masks_are_the_pixels_of_the_objects_number(voc: Path) -> None:
    assert open_images(voc).annotations.has_masks is False  # type: ignore[union-attr]  # most images have none
    annotations = open_images(voc / "ImageSets/Segmentation/trainval.txt").annotations
    assert annotations is not None and annotations.has_masks
    masks = annotations.masks(3)
    expected = np.zeros((3, HEIGHT, WIDTH), dtype=bool)
    expected[0, 1:19, 1:9] = True
    expected[1, 10:40, 30:60] = True
    expected[2, 24:30, 4:9] = True  # difficult, without pixels of its own: its box
    np.testing.assert_array_equal(masks, expected)


def test_voc_objects_become_regions_and_are_evaluated(voc: Path, tmp_path: Path) -> None:
    """By the commands that people use."""
    masked, out = voc / "ImageSets/Segmentation/trainval.txt", tmp_path / "regions.parquet"
    assert main(["regions", str(masked), "--out", str(out), "--method", "annotations", "--workers", "1"]) == 0
    table = read_regions(out)
    assert [sorted(boxes.tolist()) for boxes in table.boxes] == [[[0, 0, 10, 20], [30, 10, 60, 40]]] * 4
    assert all(png is not None for png in table.label_maps)
    save_backbone(tmp_path / "run", create_backbone("test_resnet"), {"input_size": 64})
    options = ["--size", "64", "--k", "2", "--draws", "200", "--workers", "0", "--batch_size", "2"]
    files = ["--backbone", str(tmp_path / "run"), "--data", str(voc), "--out", str(tmp_path / "out")]
    assert main(["evaluate", "objects", *files, *options]) == 0
    found = json.loads((tmp_path / "out/metrics.json").read_text())
    assert "train.txt, val.txt" in json.dumps(found)
    assert (tmp_path / "out/report.html").is_file()
    planned = ["--recipe", "quickstart", "--proposals.method", "annotations", "--train.batch_size", "4"]
    assert main(["doctor", str(voc), *planned, "--json", str(tmp_path / "doctor.json")]) == 0
    assert json.loads((tmp_path / "doctor.json").read_text())["objects"]["objects"] == 16  # the difficult ones left out


def test_voc_of_ones_own_classes_without_lists(tmp_path: Path) -> None:
    """As labelling tools write them: no ImageSets, names of one's own, PNG images, half-pixel numbers."""
    for name, objects in {"b": [("nut", (1, 1, 4, 4), 0)], "a": [("bolt", ("2.5", 3, "10.5", 12), 0)], "c": []}.items():
        picture(tmp_path / "JPEGImages" / f"{name}.png")
        (tmp_path / "Annotations").mkdir(exist_ok=True)
        (tmp_path / "Annotations" / f"{name}.xml").write_text(voc_xml(objects))
    images = open_images(tmp_path)
    assert images.ids == ("a.png", "b.png", "c.png")
    assert images.annotations is not None
    assert images.annotations.names == ("bolt", "nut")
    assert images.annotations.objects(0).boxes.tolist() == [[1.5, 2, 10.5, 12]]
    assert len(images.annotations.objects(2).boxes) == 0


def bad_voc(tmp_path: Path, xml: str) -> Path:
    picture(tmp_path / "JPEGImages/a.jpg")
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "Annotations/a.xml").write_text(xml)
    return tmp_path


@pytest.mark.parametrize(
    ("xml", "message"),
    [
        ("<annotation><size>", r"a\.xml: is no annotation of Pascal VOC"),
        ("<annotation/>", r"a\.xml: is no annotation.*<annotation> has no <size/height>"),
        (voc_xml([("dog", ("x", 1, 2, 2), 0)]), r"a\.xml: is no annotation"),
        (voc_xml([("dog", (1, 1, 2, 2), 0), ("dog", (9, 9, 5, 12), 0)]), r"object 2 of a\.xml.*degenerate"),
        (voc_xml([("dog", (1, 1, 90, 20), 0)]), r"object 1 of a\.xml.*outside its image of 60×40"),
        (voc_xml([("dog", ("nan", 1, 9, 20), 0)]), r"object 1 of a\.xml"),
    ],
)
def test_bad_voc_files_are_named(tmp_path: Path, xml: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_images(bad_voc(tmp_path, xml))


def test_bad_voc_lists_are_named(tmp_path: Path) -> None:
    tree = build_voc(tmp_path)
    lists = tree / "ImageSets/Main"
    with pytest.raises(InputError, match="line 1 is '2007_000000  1'"):
        open_images(lists / "dog_train.txt")
    (lists / "more.txt").write_text("2007_000000\n\n2007_000099\n")
    with pytest.raises(InputError, match="1 of 2 images that have no XML file in Annotations/: 2007_000099"):
        open_images(lists / "more.txt")
    (lists / "more.txt").write_text("2007_000000\n\n2007_000000\n")
    with pytest.raises(InputError, match="line 3 names 2007_000000 again, after line 1"):
        open_images(lists / "more.txt")
    (tree / "JPEGImages/2007_000001.jpg").unlink()
    with pytest.raises(InputError, match="1 of 5 images are not in JPEGImages/: 2007_000001"):
        open_images(lists / "train.txt")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda values: np.where(values == 1, 0, values), "has no pixels of the number 1"),
        (lambda values: values[:-1], "60×39 px, its image 60×40"),
        (lambda values: np.choose(np.minimum(values, 3), [0, 2, 1, 3]), "lies outside the object's box"),
    ],
)
def test_voc_masks_that_do_not_fit_are_errors(tmp_path: Path, change: Any, message: str) -> None:
    tree = build_voc(tmp_path)
    file = tree / "SegmentationObject/2007_000001.png"
    palette(file, change(np.array(Image.open(file))))
    annotations = open_images(tree / "ImageSets/Segmentation/train.txt").annotations
    assert annotations is not None
    annotations.masks(0)
    with pytest.raises(InputError, match=message):
        annotations.masks(1)


def test_two_voc_trees_side_by_side_are_an_error(tmp_path: Path) -> None:
    build_voc(tmp_path)
    (tmp_path / "VOCdevkit/VOC2007/JPEGImages").mkdir(parents=True)
    (tmp_path / "VOCdevkit/VOC2007/Annotations").mkdir()
    with pytest.raises(InputError, match=r"(?s)several data sets: VOC2007, VOC2012.*VOC2012"):
        open_images(tmp_path / "VOCdevkit")


# ------------------------------------------------------------------------------------------------------- COCO's others


def build_panoptic(root: Path) -> tuple[Path, list[np.ndarray]]:
    """Two images; the segments are rectangles: a sky (stuff), a car, a crowd of people."""
    maps = []
    annotations = []
    for number in range(2):
        picture(root / "val2017" / f"{number:012d}.jpg", number)
        numbers = np.zeros((HEIGHT, WIDTH), dtype=np.int64)
        numbers[:10] = 7
        numbers[12:30, 5:25] = 70_000 + number
        numbers[12:40, 30:59] = 3
        colours = np.stack([numbers % 256, numbers // 256 % 256, numbers // 65536], axis=2).astype(np.uint8)
        folder = root / "annotations/panoptic_val2017"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(colours).save(folder / f"{number:012d}.png")
        maps.append(numbers)
        segments = [
            {"id": 7, "category_id": 187, "bbox": [0, 0, WIDTH, 10], "area": 600, "iscrowd": 0},
            {"id": 70_000 + number, "category_id": 3, "bbox": [5, 12, 20, 18], "area": 360, "iscrowd": 0},
            {"id": 3, "category_id": 1, "bbox": [30, 12, 29, 28], "area": 812, "iscrowd": 1},
        ]
        annotations.append({"image_id": number, "file_name": f"{number:012d}.png", "segments_info": segments})
    images = [{"id": n, "file_name": f"{n:012d}.jpg", "height": HEIGHT, "width": WIDTH} for n in range(2)]
    categories = [
        {"id": 187, "name": "sky", "isthing": 0},
        {"id": 3, "name": "car", "isthing": 1},
        {"id": 1, "name": "person", "isthing": 1},
    ]
    file = root / "annotations/panoptic_val2017.json"
    file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return file, maps


def test_things_of_a_panoptic_file_are_objects_with_masks(tmp_path: Path) -> None:
    file, maps = build_panoptic(tmp_path)
    images = open_images(file)
    annotations = images.annotations
    assert images.root == tmp_path / "val2017" and annotations is not None
    assert annotations.names == ("person", "car") and annotations.has_masks
    objects = annotations.objects(1)
    assert objects.boxes.tolist() == [[5, 12, 25, 30], [30, 12, 59, 40]]
    assert objects.labels.tolist() == [1, 0] and objects.crowd.tolist() == [False, True]
    np.testing.assert_array_equal(annotations.masks(1), np.stack([maps[1] == 70_001, maps[1] == 3]))
    table = compute_regions(images, RegionsConfig(method="annotations", workers=1), tmp_path / "regions.parquet")
    assert [boxes.tolist() for boxes in table.boxes] == [[[5, 12, 25, 30]]] * 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["annotations"][0]["segments_info"][1].update(bbox=None), "bbox None"),
        (lambda d: d["annotations"][0]["segments_info"][1].update(category_id=99), "unknown category_id 99"),
        (lambda d: d["annotations"][0]["segments_info"][1].update(id=0), "number above 0"),
        (lambda d: d["annotations"][0].update(file_name="../x.png"), "no valid 'file_name'"),
        (lambda d: d["annotations"][0].update(file_name="x.png"), "1 of 2 maps are not in"),
        (
            lambda d: d["annotations"][0]["segments_info"][1].update(bbox=[50, 0, 20, 5]),
            "segment 70000 of 000000000000.png",
        ),
        (lambda d: [c.update(isthing=0) for c in d["categories"]], "no categories of things"),
        (lambda d: d.pop("categories"), "no list 'categories'"),
    ],
)
def test_bad_panoptic_files_are_errors(tmp_path: Path, change: Any, message: str) -> None:
    file, _ = build_panoptic(tmp_path)
    document = json.loads(file.read_text())
    change(document)
    file.write_text(json.dumps(document))
    with pytest.raises(InputError, match=message):
        open_images(file)


def test_a_file_without_annotations_names_images_only(tmp_path: Path) -> None:
    """COCO's unlabelled images: image_info_unlabeled2017.json beside the folder unlabeled2017."""
    for number in range(3):
        picture(tmp_path / "unlabeled2017" / f"{number}.jpg")
    file = tmp_path / "annotations/image_info_unlabeled2017.json"
    file.parent.mkdir()
    entries = [{"id": n, "file_name": f"{n}.jpg", "height": HEIGHT, "width": WIDTH} for n in (2, 0)]
    file.write_text(json.dumps({"info": {}, "licenses": [], "images": entries, "categories": []}))
    images = open_images(file)
    assert images.ids == ("0.jpg", "2.jpg") and images.annotations is None
    assert images.root == tmp_path / "unlabeled2017"
    file.write_text(json.dumps({"images": [{"id": 1}]}))
    with pytest.raises(InputError, match="no 'file_name'"):
        open_images(file)
    file.write_text(json.dumps({"images": [{"id": 1, "file_name": "../1.jpg"}]}))
    with pytest.raises(InputError, match="not below the images' folder"):
        open_images(file)
    file.write_text(json.dumps({"images": entries, "annotations": None, "categories": []}))
    with pytest.raises(InputError, match="no list 'annotations'"):
        open_images(file)


# --------------------------------------------------------------------------------------------------- ADE20K, and lists


def test_an_ade20k_tree_gives_its_training_images(tmp_path: Path) -> None:
    tree = tmp_path / "ADEChallengeData2016"
    for part, name in (("training", "ADE_train_00000001"), ("validation", "ADE_val_00000001")):
        picture(tree / "images" / part / f"{name}.jpg")
        palette(tree / "annotations" / part / f"{name}.png", np.ones((HEIGHT, WIDTH)))
    for data in (tmp_path, tree):
        images = open_images(data)
        assert images.ids == ("ADE_train_00000001.jpg",) and images.annotations is None
    assert open_images(tree / "images/validation").ids == ("ADE_val_00000001.jpg",)


def test_a_list_names_images_relative_to_its_folder(tmp_path: Path) -> None:
    for name in ("b.png", "sub/a a\u0308.png", "other.png"):
        picture(tmp_path / name)
    (tmp_path / "some.txt").write_text("\ufeff# a comment\n\n  sub/a a\u0308.png  \r\n./b.png\n")
    images = open_images(tmp_path / "some.txt")
    assert images.ids == ("b.png", "sub/a ä.png")
    assert images.annotations is None and all(Path(str(path)).is_file() for path in images.paths)
    assert images.digest() != open_images(tmp_path).subset([0]).digest()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.png\n\nnone.png\nsub/none.png\n", r"line 3: there is no image none\.png \(and 1 more"),
        ("a.png\n# x\n./a.png\n", r"line 3: \./a\.png stands on line 1 already"),
        ("a.png\n/etc/a.png\n", r"line 2: '/etc/a\.png' is no path below"),
        ("../a.png\n", r"line 1: '\.\./a\.png' is no path below"),
        ("sub\\a.png\n", "line 1: .* is no path below"),
        ("# nothing\n\n", "names no images"),
    ],
)
def test_bad_lists_name_the_line(tmp_path: Path, text: str, message: str) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "list.txt").write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        open_images(tmp_path / "list.txt")
    assert str(tmp_path / "list.txt") in str(caught.value)
    (tmp_path / "list.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot be read as a list"):
        open_images(tmp_path / "list.txt")


def test_masks_in_files_are_part_of_what_regions_depend_on(voc: Path) -> None:
    """Another number, or another size of the file: another content."""
    annotations = open_images(voc / "ImageSets/Segmentation/train.txt").annotations
    assert annotations is not None
    contents = {annotations.segmentations.content(int(row)) for rows in annotations.objects_of for row in rows}
    assert len(contents) == 6
