"""What counts as a data set, the ids of its images, and the errors for what is none."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from d3ssl.data.image_set import ImageSet
from d3ssl.data.sources import open_images
from d3ssl.errors import InputError


def make_image(path: Path, size: int = 8) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((size, size), 7, dtype=np.uint8)).save(path)
    return path


def make_annotations(path: Path, names: list[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [{"id": number, "file_name": name, "height": 8, "width": 8} for number, name in enumerate(names)]
    objects = [
        {"id": number, "image_id": number, "category_id": 1, "bbox": [0, 0, number + 1, 2]}
        for number in range(len(names))
    ]
    categories = [{"id": 1, "name": "thing"}]
    path.write_text(json.dumps({"images": images, "annotations": objects, "categories": categories}))
    return path


def test_a_folder_is_read_recursively_in_the_order_of_its_ids(tmp_path: Path) -> None:
    for name in ("b.png", "a/z.PNG", "a/b/c.jpg", "Z.png", "a.png", "ä.png"):
        make_image(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    make_image(tmp_path / ".hidden.png")
    make_image(tmp_path / ".cache/x.png")
    images = open_images(str(tmp_path))
    assert images.ids == ("Z.png", "a.png", "a/b/c.jpg", "a/z.PNG", "b.png", "ä.png")
    assert images.paths == tuple(tmp_path / name for name in images.ids)
    assert len(images) == 6
    assert images.root == tmp_path
    assert images.annotations is None


def test_ids_and_digest_do_not_depend_on_the_machine(tmp_path: Path) -> None:
    """Another place, another order of creation, another Unicode form on disk: the same ids and digest."""
    here, there = tmp_path / "here", tmp_path / "there/deeper"
    for name in ("b.png", "a/ä.png", "c.png"):
        make_image(here / name)
    for name in ("c.png", "a/a\u0308.png", "b.png"):
        make_image(there / name)
    first, second = open_images(here), open_images(there)
    assert first.ids == second.ids == ("a/ä.png", "b.png", "c.png")
    assert Path(str(second.paths[0])).is_file()
    assert first.digest() == second.digest()


def test_the_digest_changes_with_names_order_and_sizes(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        make_image(tmp_path / name)
    images = open_images(tmp_path)
    assert images.digest() == open_images(tmp_path).digest()
    digests = {images.digest(), images.subset([1, 0]).digest(), images.subset([0]).digest()}
    make_image(tmp_path / "b.png", size=90)
    digests.add(open_images(tmp_path).digest())
    (tmp_path / "b.png").rename(tmp_path / "c.png")
    digests.add(open_images(tmp_path).digest())
    assert len(digests) == 5


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    make_image(tmp_path / "elsewhere/a.png")
    make_image(tmp_path / "set/b.png")
    (tmp_path / "set/link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set/circle").symlink_to(tmp_path / "set")
    assert open_images(tmp_path / "set").ids == ("b.png", "link/a.png")


def test_names_that_are_no_text_or_equal_in_unicode_are_errors(tmp_path: Path) -> None:
    make_image(tmp_path / "set/ä.png")
    make_image(tmp_path / "set/a\u0308.png")
    with pytest.raises(InputError, match="Unicode form only"):
        open_images(tmp_path / "set")
    shutil.copy(tmp_path / "set/ä.png", os.fsdecode(os.fsencode(tmp_path / "set") + b"/\xff.png"))
    with pytest.raises(InputError, match="not plain Unicode"):
        open_images(tmp_path / "set")


def test_empty_and_missing_folders_and_other_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"(?s)holds no images.*\.jpg"):
        open_images(tmp_path)
    with pytest.raises(InputError, match="no such file or folder"):
        open_images(tmp_path / "none")
    with pytest.raises(InputError, match="no such file"):
        open_images(tmp_path / "none.json")
    with pytest.raises(InputError, match="neither a folder nor"):
        open_images(make_image(tmp_path / "a.png"))


def test_the_parent_of_data_sets_is_none(tmp_path: Path) -> None:
    for part in ("train", "val"):
        make_image(tmp_path / part / "images/a.png")
        make_annotations(tmp_path / part / "annotations.json", ["a.png"])
    with pytest.raises(InputError, match=r"(?s)several data sets: train, val.*name one"):
        open_images(tmp_path)
    assert open_images(tmp_path / "val").ids == ("a.png",)


def test_annotated_sets_have_the_images_that_the_file_names(tmp_path: Path) -> None:
    for name in ("b.png", "sub/c.png", "a.png", "unnamed.png"):
        make_image(tmp_path / "images" / name)
    make_annotations(tmp_path / "annotations.json", ["sub/c.png", "a.png", "b.png"])
    for data in (tmp_path, tmp_path / "annotations.json"):
        images = open_images(data)
        assert images.ids == ("a.png", "b.png", "sub/c.png")
        assert images.root == tmp_path / "images"
        assert all(Path(str(path)).is_file() for path in images.paths)
        annotations = images.annotations
        assert annotations is not None
        assert [annotations.objects(index).ids.tolist() for index in range(3)] == [[1], [2], [0]]
        assert annotations.file_names == images.ids


@pytest.mark.parametrize(
    ("file", "folder"),
    [
        ("annotations/instances_train2017.json", "train2017"),
        ("instances_val.json", "val"),
        ("annotations/all.json", "images"),
        ("boxes.json", "."),
    ],
)
def test_customary_places_of_images(tmp_path: Path, file: str, folder: str) -> None:
    make_image(tmp_path / folder / "a.png")
    make_annotations(tmp_path / file, ["a.png"])
    images = open_images(tmp_path / file)
    assert images.ids == ("a.png",)
    assert Path(str(images.paths[0])).samefile(tmp_path / folder / "a.png")


def test_missing_images_are_counted_and_listed(tmp_path: Path) -> None:
    names = [f"{number}.png" for number in range(9)]
    make_image(tmp_path / "images" / names[4])
    make_annotations(tmp_path / "annotations.json", names)
    with pytest.raises(InputError, match=r"8 of 9 images that are missing: 0\.png, 1\.png, .*…") as caught:
        open_images(tmp_path)
    assert str(tmp_path / "annotations.json") in str(caught.value)
    assert str(tmp_path / "images") in str(caught.value)
    shutil.rmtree(tmp_path / "images")
    with pytest.raises(InputError, match=r"(?s)9 of 9 images that are missing.*put the images into"):
        open_images(tmp_path)


@pytest.mark.parametrize("name", ["../a.png", "/etc/a.png", "sub\\a.png"])
def test_names_outside_the_images_folder_are_errors(tmp_path: Path, name: str) -> None:
    make_image(tmp_path / "images/a.png")
    make_annotations(tmp_path / "annotations.json", [name])
    with pytest.raises(InputError, match="not below the images' folder"):
        open_images(tmp_path)


def test_one_image_under_two_names_is_an_error(tmp_path: Path) -> None:
    make_image(tmp_path / "images/a.png")
    make_annotations(tmp_path / "annotations.json", ["a.png", "./a.png"])
    with pytest.raises(InputError, match="twice"):
        open_images(tmp_path)


def test_subset_keeps_everything_together(tmp_path: Path) -> None:
    names = [f"{number}.png" for number in range(5)]
    for name in names:
        make_image(tmp_path / "images" / name)
    make_annotations(tmp_path / "annotations.json", names)
    part = open_images(tmp_path).subset(np.array([3, 1]))
    assert isinstance(part, ImageSet)
    assert part.ids == ("3.png", "1.png")
    assert [path.name for path in part.paths] == ["3.png", "1.png"]
    assert part.annotations is not None
    assert part.annotations.objects(0).boxes.tolist() == [[0, 0, 4, 2]]
    assert len(part.subset([])) == 0
