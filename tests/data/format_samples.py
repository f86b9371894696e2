"""The same few images in every format that is read, written by hand as each format is published.

An image shows noise with a square and a bar; training has twelve of them, validation six.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

WIDTH, HEIGHT = 48, 40
BOXES = ((4, 6, 20, 22), (24, 10, 44, 30))
"""xyxy, px."""
NAMES = ("square", "bar")
TRAIN, VAL = 12, 6


@dataclass(frozen=True)
class Sample:
    """One data set."""

    data: Any
    damage: Callable[[], str]
    """Damages it, and returns what the error must name."""
    boxes: bool = True
    masks: bool = False


def pixels(seed: int) -> np.ndarray:
    shown = np.random.default_rng(seed).integers(60, 120, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    for (left, top, right, bottom), colour in zip(BOXES, ((230, 30, 30), (30, 30, 230)), strict=True):
        shown[top:bottom, left:right] = colour
    return shown


def png(seed: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels(seed)).save(buffer, format="PNG")
    return buffer.getvalue()


def write(folder: Path, count: int, first: int = 0) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{number:04d}.png" for number in range(first, first + count)]
    for number, name in enumerate(names, start=first):
        (folder / name).write_bytes(png(number))
    return names


def cut(file: Path) -> str:
    """A file that ends too early."""
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    return file.name


def replace_in(file: Path, old: str, new: str) -> str:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))
    return file.name


def write_folder(root: Path) -> Sample:
    names = write(root / "photos", TRAIN)
    return Sample(root / "photos", lambda: cut(root / "photos" / names[3]), boxes=False)


def write_list(root: Path) -> Sample:
    names = write(root / "photos", TRAIN)
    file = root / "some.txt"
    file.write_text("".join(f"photos/{name}\n" for name in names))
    return Sample(file, lambda: replace_in(file, names[2], "gone.png"), boxes=False)


def coco_document(names: list[str]) -> dict[str, Any]:
    images = [{"id": n, "file_name": name, "height": HEIGHT, "width": WIDTH} for n, name in enumerate(names)]
    objects = []
    for image in images:
        for label, (left, top, right, bottom) in enumerate(BOXES, start=1):
            polygon = [left, top, right, top, right, bottom, left, bottom]
            box = {"bbox": [left, top, right - left, bottom - top], "segmentation": [polygon], "iscrowd": 0}
            objects.append({"id": len(objects) + 1, "image_id": image["id"], "category_id": label, **box})
    categories = [{"id": number, "name": name} for number, name in enumerate(NAMES, start=1)]
    return {"images": images, "annotations": objects, "categories": categories}


def write_coco(root: Path) -> Sample:
    (root / "annotations").mkdir()
    for part, first, count in (("train", 0, TRAIN), ("val", TRAIN, VAL)):
        names = write(root / f"{part}2017", count, first)
        (root / f"annotations/instances_{part}2017.json").write_text(json.dumps(coco_document(names)))
    return Sample(root, lambda: cut(root / "annotations/instances_train2017.json"), masks=True)


def write_coco_file(root: Path) -> Sample:
    file = root / "annotations.json"
    file.write_text(json.dumps(coco_document(write(root / "images", TRAIN))))
    return Sample(root, lambda: replace_in(file, '"category_id": 1', '"category_id": 7'), masks=True)


def segments(seed: int) -> np.ndarray:
    numbers = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    for number, (left, top, right, bottom) in enumerate(BOXES, start=1):
        numbers[top:bottom, left:right] = number
    return numbers


def write_panoptic(root: Path) -> Sample:
    names = write(root / "images", TRAIN)
    file = root / "panoptic_all.json"
    document = coco_document(names)
    document["annotations"] = []
    file.with_suffix("").mkdir()
    for number, name in enumerate(names):
        plane = segments(number)
        Image.fromarray(np.stack([plane, plane * 0, plane * 0], axis=2)).save(file.with_suffix("") / name)
        found = [
            {"id": n, "category_id": n, "iscrowd": 0, "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]]}
            for n, box in enumerate(BOXES, start=1)
        ]
        document["annotations"].append({"image_id": number, "file_name": name, "segments_info": found})
    file.write_text(json.dumps(document))
    return Sample(
        file, lambda: replace_in(file, '"segments_info": [{"id": 1', '"segments_info": [{"id": 0'), masks=True
    )


def write_voc(root: Path) -> Sample:
    tree = root / "VOCdevkit/VOC2012"
    (tree / "ImageSets/Main").mkdir(parents=True)
    (tree / "Annotations").mkdir()
    lists = {"train": (0, TRAIN), "val": (TRAIN, VAL)}
    for part, (first, count) in lists.items():
        stems = [name.removesuffix(".png") for name in write(tree / "JPEGImages", count, first)]
        (tree / f"ImageSets/Main/{part}.txt").write_text("".join(f"{stem}\n" for stem in stems))
        for stem in stems:
            objects = "".join(
                f"<object><name>{name}</name><bndbox><xmin>{left + 1}</xmin><ymin>{top + 1}</ymin><xmax>{right}</xmax>"
                f"<ymax>{bottom}</ymax></bndbox></object>"
                for name, (left, top, right, bottom) in zip(NAMES, BOXES, strict=True)
            )
            size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height></size>"
            (tree / f"Annotations/{stem}.xml").write_text(f"<annotation>{size}{objects}</annotation>")
    return Sample(tree / "ImageSets/Main/train.txt", lambda: cut(tree / "Annotations/0002.xml"))


def write_ade(root: Path) -> Sample:
    tree = root / "ADEChallengeData2016"
    for part, first, count in (("training", 0, TRAIN), ("validation", TRAIN, VAL)):
        (tree / "annotations" / part).mkdir(parents=True)
        (tree / "images" / part).mkdir(parents=True)
        for number in range(first, first + count):
            Image.fromarray(pixels(number)).save(tree / "images" / part / f"{number:04d}.jpg")
            Image.fromarray(segments(number)).save(tree / "annotations" / part / f"{number:04d}.png")
    return Sample(root, lambda: cut(tree / "images/training/0001.jpg"), boxes=False)


def write_open_images(root: Path) -> Sample:
    rows = [
        "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside"
    ]
    (root / "train").mkdir()
    for number in range(TRAIN):
        Image.fromarray(pixels(number)).save(root / f"train/{number:016x}.jpg")
        for label, (left, top, right, bottom) in zip(("/m/01", "/m/02"), BOXES, strict=True):
            sides = f"{left / WIDTH},{right / WIDTH},{top / HEIGHT},{bottom / HEIGHT}"
            rows.append(f"{number:016x},xclick,{label},1,{sides},0,0,0,0,0")
    file = root / "oidv6-train-annotations-bbox.csv"
    file.write_text("\n".join(rows) + "\n")
    (root / "class-descriptions-boxable.csv").write_text("/m/01,square\n/m/02,bar\n")
    return Sample(file, lambda: replace_in(file, f"{BOXES[0][0] / WIDTH}", "left"))


def write_shards(root: Path) -> Sample:
    names = write(root / "photos", TRAIN)
    (root / "shards").mkdir()
    for number in range(2):
        with tarfile.open(root / f"shards/{number:03d}.tar", "w") as tar:
            for name in names[number::2]:
                tar.add(root / "photos" / name, name)
    (root / "shards/annotations.json").write_text(json.dumps(coco_document(names)))
    return Sample(root / "shards", lambda: cut(root / "shards/001.tar"), masks=True)


def write_yolo(root: Path, polygons: bool = False) -> Sample:
    for part, first, count in (("train", 0, TRAIN), ("val", TRAIN, VAL)):
        (root / "labels" / part).mkdir(parents=True)
        for name in write(root / "images" / part, count, first):
            lines = []
            for label, (left, top, right, bottom) in enumerate(BOXES):
                corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
                values = [(left + right) / 2 / WIDTH, (top + bottom) / 2 / HEIGHT]
                values += [(right - left) / WIDTH, (bottom - top) / HEIGHT]
                if polygons:
                    values = [share for x, y in corners for share in (x / WIDTH, y / HEIGHT)]
                lines.append(f"{label} " + " ".join(f"{value:.6f}" for value in values))
            (root / "labels" / part / name).with_suffix(".txt").write_text("\n".join(lines) + "\n")
    file = root / "data.yaml"
    file.write_text("path: .\ntrain: images/train\nval: images/val\nnames:\n  0: square\n  1: bar\n")
    label = root / "labels/train/0003.txt"
    return Sample(file, lambda: replace_in(label, "1 ", "9 " if polygons else "1 0.5 "), masks=polygons)


def write_yolo_polygons(root: Path) -> Sample:
    return write_yolo(root, polygons=True)


def hugging_face_table(first: int, count: int) -> pa.Table:
    """As ``datasets`` has them: an image is a struct, and what the columns mean stands in the schema's metadata."""
    boxes = [[left, top, right - left, bottom - top] for left, top, right, bottom in BOXES]
    rows = [
        {"image": {"bytes": png(n), "path": f"{n:04d}.png"}, "objects": {"bbox": boxes, "category": [0, 1]}}
        for n in range(first, first + count)
    ]
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    objects = pa.struct([("bbox", pa.list_(pa.list_(pa.float32(), 4))), ("category", pa.list_(pa.int64()))])
    category = {"feature": {"names": list(NAMES), "_type": "ClassLabel"}, "_type": "Sequence"}
    box = {"feature": {"feature": {"dtype": "float32", "_type": "Value"}, "length": 4, "_type": "Sequence"}}
    features = {"image": {"_type": "Image"}, "objects": {"bbox": box | {"_type": "Sequence"}, "category": category}}
    said = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    return pa.Table.from_pylist(rows, schema=pa.schema([("image", image), ("objects", objects)], metadata=said))


def write_arrow(root: Path) -> Sample:
    for part, first, count in (("train", 0, TRAIN), ("validation", TRAIN, VAL)):
        (root / part).mkdir()
        table = hugging_face_table(first, count)
        half, names = count // 2, [f"data-{number:05d}-of-00002.arrow" for number in range(2)]
        for name, own in zip(names, (table[:half], table[half:]), strict=True):
            with pa.OSFile(str(root / part / name), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
                writer.write_table(own, max_chunksize=4)
        state = {"_data_files": [{"filename": name} for name in names], "_fingerprint": "0", "_split": part}
        (root / part / "state.json").write_text(json.dumps(state))
        (root / part / "dataset_info.json").write_text(json.dumps({"features": {}}))
    (root / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "validation"]}))
    return Sample(root, lambda: cut(root / "train/data-00001-of-00002.arrow"))


def write_parquet(root: Path) -> Sample:
    (root / "data").mkdir()
    files = {"train-00000-of-00002": (0, 6), "train-00001-of-00002": (6, 6), "validation-00000-of-00001": (TRAIN, VAL)}
    for name, (first, count) in files.items():
        pq.write_table(hugging_face_table(first, count), root / f"data/{name}.parquet", row_group_size=4)
    return Sample(root, lambda: cut(root / "data/train-00001-of-00002.parquet"))


class Shapes(torch.utils.data.Dataset):
    """Images with targets as torchvision's detectors take them."""

    classes = ("background", *NAMES)

    def __init__(self, first: int, count: int) -> None:
        self.first, self.count, self.broken = first, count, False

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        if self.broken and index == 3:
            raise OSError("the disk has gone")
        plane = segments(index)
        target = {
            "boxes": torch.tensor(BOXES, dtype=torch.float32),
            "labels": torch.tensor([1, 2]),
            "masks": torch.from_numpy(np.stack([plane == 1, plane == 2])),
        }
        return torch.from_numpy(pixels(self.first + index)).permute(2, 0, 1), target


def write_dataset(root: Path) -> Sample:
    train, val = Shapes(0, TRAIN), Shapes(TRAIN, VAL)

    def damage() -> str:
        train.broken = True
        return "item 3"

    return Sample((train, val), damage, masks=True)


SAMPLES: dict[str, Callable[[Path], Sample]] = {
    "folder": write_folder,
    "list": write_list,
    "coco": write_coco,
    "coco file": write_coco_file,
    "panoptic": write_panoptic,
    "voc": write_voc,
    "ade20k": write_ade,
    "open images": write_open_images,
    "shards": write_shards,
    "yolo": write_yolo,
    "yolo polygons": write_yolo_polygons,
    "arrow": write_arrow,
    "parquet": write_parquet,
    "dataset": write_dataset,
}
