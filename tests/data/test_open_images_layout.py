"""Files in the published layouts of Open Images are read by column name, chunk by chunk; every mistake is named.

``write_release`` also serves the other tests of Open Images.
"""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from d3ssl.data.open_images import columns
from d3ssl.data.open_images.boxes import BoxRows, stream_boxes
from d3ssl.data.open_images.classes import BoxableClasses, read_classes
from d3ssl.data.open_images.columns import find_file, stream
from d3ssl.errors import InputError
from d3ssl.seeds import numpy_generator

V4_COLUMNS = ["ImageID", "Source", "LabelName", "Confidence", "XMin", "XMax", "YMin", "YMax"]
V4_COLUMNS += ["IsOccluded", "IsTruncated", "IsGroupOf", "IsDepiction", "IsInside"]
V6_COLUMNS = [*V4_COLUMNS, *(f"XClick{point}{axis}" for axis in "XY" for point in range(1, 5))]
MASK_COLUMNS = ["MaskPath", "ImageID", "LabelName", "BoxID", "BoxXMin", "BoxXMax", "BoxYMin", "BoxYMax"]
MASK_COLUMNS += ["PredictedIoU", "Clicks"]
NAMES = ("Tortoise", "Container", "Person", "Car", "Tree", "Window", "Dog", "Cat", "Ball", "Lamp, floor", "Shoe", "Mug")
LABELS = tuple(f"/m/0{letter}{number}x" for number, letter in enumerate("kzcatqbmdyfw"))
Row = dict[str, str]


def image_id(number: int, split: str = "train") -> str:
    """As they look: 16 hexadecimal digits."""
    return f"{numpy_generator('image', split, number).integers(2**63):016x}"


def box_row(image: str, label: str, box: Sequence[float], flags: Sequence[int] = (0, 0, 0, 0, 0)) -> Row:
    """A row of a box file; the box is XMin, XMax, YMin, YMax."""
    clicks = {name: "-1.000000" for name in V6_COLUMNS if name.startswith("XClick")}
    values = [image, "xclick", label, "1", *(f"{side:.6f}" for side in box), *map(str, flags)]
    return dict(zip(V4_COLUMNS, values, strict=True)) | clicks


def random_rows(images: int, split: str = "train", seed: int = 0, most: int = 5) -> list[Row]:
    """Boxes of many images. Classes are as uneven as in Open Images (shares as 1/rank²); flags are mixed."""
    generator = numpy_generator("open images", split, seed)
    share = 1 / np.arange(1, len(LABELS) + 1) ** 2
    names = np.repeat(
        [image_id(n, split) for n in range(images)], generator.integers(1, most + 1, size=images)
    ).tolist()
    labels = generator.choice(LABELS, size=len(names), p=share / share.sum()).tolist()
    starts = generator.random((len(names), 2)) * 0.5
    stops = starts + 0.05 + generator.random((len(names), 2)) * 0.4
    boxes = np.stack([starts, stops], axis=2).reshape(-1, 4).tolist()
    flags = generator.choice([0, 1, -1], size=(len(names), 5), p=[0.85, 0.08, 0.07]).tolist()
    return [box_row(*values) for values in zip(names, labels, boxes, flags, strict=True)]


def csv_text(columns: Sequence[str], rows: Sequence[Row]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def write_classes(folder: Path, header: bool = True) -> None:
    lines = [
        f'{label},"{name}"' if "," in name else f"{label},{name}" for label, name in zip(LABELS, NAMES, strict=True)
    ]
    text = "\n".join((["LabelName,DisplayName"] if header else []) + lines) + "\n"
    (folder / "class-descriptions-boxable.csv").write_text(text)


def write_release(folder: Path, boxes: dict[str, list[Row]], version: str = "v6", header: bool = True) -> Path:
    """Write the metadata of a release: classes, and for every split its box file."""
    folder.mkdir(parents=True, exist_ok=True)
    write_classes(folder, header)
    for split, rows in boxes.items():
        in_front = "oidv6-" if version == "v6" and split == "train" else ""
        columns = V6_COLUMNS if in_front else V4_COLUMNS
        (folder / f"{in_front}{split}-annotations-bbox.csv").write_text(csv_text(columns, rows))
    return folder


def read_all(path: Path, chunk_bytes: int = 1_000_000) -> BoxRows:
    parts = list(stream_boxes(path, read_classes(path.parent / "class-descriptions-boxable.csv"), chunk_bytes, "boxes"))
    return BoxRows(
        images=np.concatenate([part.images for part in parts]),
        labels=np.concatenate([part.labels for part in parts]),
        sides=np.concatenate([part.sides for part in parts]),
        flags=np.concatenate([part.flags for part in parts]),
    )


def assert_are(found: BoxRows, rows: list[Row]) -> None:
    """Against a naive reading of the same rows."""
    numbers = {label: number for number, label in enumerate(sorted(LABELS))}
    assert [f"{image:016x}" for image in found.images.tolist()] == [row["ImageID"] for row in rows]
    assert found.labels.tolist() == [numbers[row["LabelName"]] for row in rows]
    assert found.sides.tolist() == [[float(row[side]) for side in ("XMin", "XMax", "YMin", "YMax")] for row in rows]
    names = ("IsOccluded", "IsTruncated", "IsGroupOf", "IsDepiction", "IsInside")
    assert found.flags.tolist() == [[int(row[name]) for name in names] for row in rows]


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return random_rows(60)


def plain(text: str, path: Path) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def byte_order_mark(text: str, path: Path) -> Path:
    path.write_text(text, encoding="utf-8-sig")
    return path


def compressed(text: str, path: Path) -> Path:
    path = path.with_name(path.name + ".gz")
    path.write_bytes(gzip.compress(text.encode()))
    return path


@pytest.mark.parametrize("write", [plain, byte_order_mark, compressed])
@pytest.mark.parametrize("layout", [V4_COLUMNS, V6_COLUMNS, V6_COLUMNS[::-1], ["Remark", *V4_COLUMNS]])
def test_columns_are_found_by_name(
    tmp_path: Path, rows: list[Row], layout: list[str], write: Callable[[str, Path], Path]
) -> None:
    write_classes(tmp_path)
    text = csv_text(layout, [{**row, "Remark": "a, b"} for row in rows])
    assert_are(read_all(write(text, tmp_path / "train-annotations-bbox.csv")), rows)


@pytest.mark.parametrize("chunk_bytes", [400, 5_000, 10_000_000])
def test_the_size_of_chunks_does_not_matter(tmp_path: Path, rows: list[Row], chunk_bytes: int) -> None:
    folder = write_release(tmp_path, {"train": rows})
    assert_are(read_all(folder / "oidv6-train-annotations-bbox.csv", chunk_bytes), rows)


@pytest.mark.parametrize("header", [True, False])
def test_classes_with_and_without_header(tmp_path: Path, header: bool) -> None:
    write_classes(tmp_path, header)
    classes = read_classes(tmp_path / "class-descriptions-boxable.csv")
    assert dict(zip(classes.labels, classes.names, strict=True)) == dict(zip(LABELS, NAMES, strict=True))
    assert classes.labels == tuple(sorted(LABELS))
    assert classes.numbers()[min(LABELS)] == 0


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "names no class"),
        ("LabelName,DisplayName\n", "names no class"),
        ("/m/01,Cat\nlabel,Dog\n", "line 2: 'label,Dog' is no label and name"),
        ("/m/01,Cat,Dog\n", "line 1: '/m/01,Cat,Dog' is no label and name"),
        ("/m/01,\n", "line 1"),
        ("/m/01,Cat\n/m/02,Dog\n/m/01,Cat\n", "line 3: the label '/m/01' stands here for the second time"),
    ],
)
def test_mistakes_in_the_class_list(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "class-descriptions-boxable.csv"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        read_classes(path)
    assert str(caught.value).startswith(f"{path}: {problem}")


@pytest.mark.parametrize(
    ("column", "value", "problem"),
    [
        ("LabelName", "/m/none", "column LabelName: '/m/none' must be a class of the class list"),
        ("LabelName", "", "column LabelName: '' must be a class"),
        ("XMin", "left", "column XMin: 'left' must be a finite number"),
        ("YMax", "", "column YMax: '' must be a finite number"),
        ("YMin", "nan", "column YMin: 'nan' must be a finite number"),
        ("YMin", "inf", "column YMin: 'inf' must be a finite number"),
        ("IsGroupOf", "2", "column IsGroupOf: '2' must be 1, 0 or -1"),
        ("IsDepiction", "-128", "column IsDepiction: '-128' must be 1, 0 or -1"),
        ("IsInside", "", "column IsInside: '' must be 1, 0 or -1"),
        ("ImageID", "0123456789ABCDEF", "column ImageID: '0123456789ABCDEF' must be 16 hexadecimal digits"),
        ("ImageID", "../../etc/passwd", "column ImageID"),
        ("ImageID", "0123", "column ImageID: '0123' must be"),
        ("ImageID", "0123456789abcdé", "column ImageID"),
    ],
)
@pytest.mark.parametrize("chunk_bytes", [400, 1_000_000])
def test_a_malformed_value_is_named_with_its_line_and_column(
    tmp_path: Path, rows: list[Row], column: str, value: str, problem: str, chunk_bytes: int
) -> None:
    wrong = [{**row, column: value} if number == 41 else row for number, row in enumerate(rows)]
    folder = write_release(tmp_path, {"train": wrong})
    path = folder / "oidv6-train-annotations-bbox.csv"
    with pytest.raises(InputError) as caught:
        read_all(path, chunk_bytes)
    assert str(caught.value).startswith(f"{path}: line 43, {problem}")  # a header, 41 rows, this one


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda text: text.replace("IsGroupOf", "Group"), "its header (line 1) has no column 'IsGroupOf'; it has: Im"),
        (lambda text: "", "is empty"),
        (lambda text: text.splitlines()[0] + "\n", "has a header but no rows"),
        (lambda text: text + "0123456789abcdef,xclick\n", "line 5 has 2 columns, the header 13"),
        (lambda text: text[: text.rindex("\n") - 4], "line 4"),
    ],
)
def test_malformed_files_are_named(tmp_path: Path, rows: list[Row], change: Callable[[str], str], problem: str) -> None:
    folder = write_release(tmp_path, {})
    path = folder / "train-annotations-bbox.csv"
    path.write_text(change(csv_text(V4_COLUMNS, rows[:3])))
    with pytest.raises(InputError) as caught:
        read_all(path)
    assert str(caught.value).startswith(f"{path}: {problem}")


def test_a_compressed_file_that_is_cut_off_is_named(tmp_path: Path, rows: list[Row]) -> None:
    folder = write_release(tmp_path, {})
    path = compressed(csv_text(V4_COLUMNS, rows), folder / "train-annotations-bbox.csv")
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(InputError, match=r"bbox\.csv\.gz: cannot be read"):
        read_all(path)


@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd", ".hidden.png", "a b.png", "a.png\n", ""])
def test_mask_files_have_plain_names(tmp_path: Path, name: str) -> None:
    write_classes(tmp_path)
    path = tmp_path / "train-annotations-object-segmentation.csv"
    sides = dict.fromkeys((f"Box{side}" for side in ("XMin", "XMax", "YMin", "YMax")), "0.5")
    row = {"MaskPath": "fine_m0-1.png", "ImageID": image_id(0), "LabelName": LABELS[0], **sides}
    numbers = {label: number for number, label in enumerate(LABELS)}
    path.write_text(csv_text(MASK_COLUMNS, [row]))
    assert next(stream(path, columns.MASK_COLUMNS, numbers, 1_000))["MaskPath"] == ["fine_m0-1.png"]
    path.write_text(csv_text(MASK_COLUMNS, [row, {**row, "MaskPath": name}]))
    with pytest.raises(InputError, match=r"csv: line [34], column MaskPath: .* must be a plain file name"):
        list(stream(path, columns.MASK_COLUMNS, numbers, 1_000))


UNSOUND = [(0.5, 0.5, 0.1, 0.2), (0.6, 0.5, 0.1, 0.2), (0.1, 0.2, 0.3, 1.002), (-0.002, 0.2, 0.3, 0.4)]


@pytest.mark.parametrize("box", UNSOUND)
def test_unsound_boxes_are_left_out_when_few_and_an_error_when_many(
    tmp_path: Path, box: tuple[float, ...], capfd: pytest.CaptureFixture
) -> None:
    sound = box_row(image_id(0), LABELS[0], (0.1, 0.2, 0.3, 0.4))
    folder = write_release(tmp_path, {"train": [sound] * 9_999 + [box_row(image_id(1), LABELS[0], box)]})
    assert len(read_all(folder / "oidv6-train-annotations-bbox.csv").images) == 9_999
    said = " ".join(capfd.readouterr().err.split())
    assert f"1 of 10000 boxes have no area or reach outside the image; image {image_id(1)} has the box XMin" in said
    write_release(folder, {"train": [sound] * 9_998 + [box_row(image_id(1), LABELS[0], box)]})
    with pytest.raises(InputError, match="1 of 9999 boxes have no area"):
        read_all(folder / "oidv6-train-annotations-bbox.csv")


def test_a_box_a_little_outside_is_clipped(tmp_path: Path) -> None:
    folder = write_release(tmp_path, {"train": [box_row(image_id(0), LABELS[0], (-0.0005, 0.5, 0.25, 1.0009))]})
    found = read_all(folder / "oidv6-train-annotations-bbox.csv")
    assert found.sides.tolist() == [[0.0, 0.5, 0.25, 1.0]]


def test_files_are_found_under_all_their_names_and_two_of_a_kind_are_refused(tmp_path: Path) -> None:
    name = "train-annotations-bbox.csv"
    assert find_file(tmp_path, name) is None
    (tmp_path / f"my-{name}").touch()
    (tmp_path / f"{name}.bak").touch()
    assert find_file(tmp_path, name) is None
    for found in (name, f"oidv6-{name}", f"{name}.gz", f"oidv7-{name}.gz"):
        (tmp_path / found).touch()
        assert find_file(tmp_path, name) == tmp_path / found
        (tmp_path / found).unlink()
    for found in (name, f"oidv6-{name}"):
        (tmp_path / found).touch()
    with pytest.raises(InputError, match=r"more than one file of the same kind: oidv6-train.*, train-anno"):
        find_file(tmp_path, name)


def test_classes_are_told_by_label_not_by_place() -> None:
    classes = BoxableClasses(labels=("/m/a", "/m/b"), names=("B", "A"))
    assert classes.numbers() == {"/m/a": 0, "/m/b": 1}
    assert len(classes) == 2
