"""Data sets from Python: what items may be, and what is said of those that are none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset

from d3ssl.data.images import image_size, read_canvas, read_image
from d3ssl.data.sources import open_images, open_parts
from d3ssl.errors import InputError
from d3ssl.regions.compute import compute_regions
from d3ssl.regions.config import RegionsConfig
from d3ssl.train import pretrain, read_log
from tests.data.format_samples import HEIGHT, WIDTH, Shapes, pixels
from tests.data.test_each_format import run_config


class Given(Dataset):
    """The items that a test names."""

    def __init__(self, *items: Any) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]


@pytest.mark.parametrize(
    "make",
    [
        Image.fromarray,
        lambda own: torch.from_numpy(own).permute(2, 0, 1),
        lambda own: torch.from_numpy(own).permute(2, 0, 1) / 255,
        lambda own: own,
        lambda own: (Image.fromarray(own), 3),
    ],
)
def test_images_of_every_kind_are_read_exactly(make: Any) -> None:
    images = open_images(Given(*(make(pixels(n)) for n in range(3))))
    assert images.annotations is None and len(images) == 3
    assert image_size(images.paths[1]) == (HEIGHT, WIDTH)
    np.testing.assert_array_equal(read_image(images.paths[1]), pixels(1))


def test_palettes_and_grey_and_more_channels() -> None:
    grey, many = np.full((9, 8), 7, dtype=np.uint8), torch.zeros(5, 9, 8, dtype=torch.uint8)
    images = open_images(Given(Image.fromarray(grey), Image.fromarray(grey).convert("P"), grey, many))
    assert [read_image(path).shape[2] for path in images.paths] == [1, 3, 1, 5]


@pytest.mark.parametrize(
    ("item", "says"),
    [
        (torch.randn(3, 9, 8) - 3, "has floats from .*before they are normalised"),
        ("a.png", "is a str, no image"),
        (torch.zeros(3, 9, 8, dtype=torch.int64), "pixels of type int64"),
        (torch.zeros(8, dtype=torch.uint8), r"an array of shape \(8,\) is no image"),
    ],
)
def test_items_that_are_no_images_are_named(item: Any, says: str) -> None:
    with pytest.raises(InputError, match=f"(?s)Given: item 0.*{says}"):
        read_canvas(open_images(Given(item)).paths[0], 16)


def test_targets_of_other_shapes_are_errors() -> None:
    image = torch.zeros(3, 9, 8, dtype=torch.uint8)
    good = {"boxes": torch.tensor([[1.0, 1.0, 4.0, 5.0]]), "labels": torch.tensor([2])}
    images = open_images(Given((image, good)))
    assert images.annotated.names == ("class 2",) and images.annotated.objects(0).boxes.tolist() == [[1, 1, 4, 5]]
    for change in ({"labels": torch.tensor([1, 2])}, {"masks": torch.zeros(1, 8, 8)}, {"iscrowd": torch.zeros(3)}):
        with pytest.raises(InputError, match=r"item 1.*has a target of other shapes"):
            open_images(Given((image, good), (image, good | change)))
    with pytest.raises(InputError, match=r"item 1.*has no target"):
        open_images(Given((image, good), (image, 3)))


def test_both_parts_have_the_classes_of_both() -> None:
    image = torch.zeros(3, 9, 8, dtype=torch.uint8)
    one, other = ({"boxes": torch.tensor([[1.0, 1.0, 4.0, 5.0]]), "labels": torch.tensor([n])} for n in (4, 9))
    parts = open_parts((Given((image, one)), Given((image, other))))
    assert parts is not None and parts.train.annotated.names == parts.val.annotated.names == ("class 4", "class 9")


def test_data_that_is_none_is_an_error() -> None:
    for data in (Given(), 3, None):
        with pytest.raises(InputError, match="is no data set with items"):
            open_images(data)


class Local(Shapes):
    """Cannot be pickled."""

    def __init__(self, first: int, count: int) -> None:
        super().__init__(first, count)
        self.transform = lambda image: image


def test_what_cannot_be_pickled_is_read_by_one_process(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    images = open_images(Local(0, 40))
    table = compute_regions(images, RegionsConfig(method="grid", workers=2), tmp_path / "regions.parquet")
    assert len(table) == 40
    assert "cannot be handed to other processes" in capfd.readouterr().err


def test_a_run_is_continued_with_the_data_set_given_again(tmp_path: Path) -> None:
    config = run_config("shapes", tmp_path / "run")
    pretrain(config, data=Shapes(0, 12))
    with pytest.raises(InputError, match="no such file or folder"):
        pretrain(config, resume=True)
    pretrain(config, resume=True, data=Shapes(0, 12))
    assert len(read_log(tmp_path / "run")) == 2
