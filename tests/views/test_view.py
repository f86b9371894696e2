"""A table of views that cannot be made is refused before any image is read."""

import dataclasses
from typing import Any

import pytest

from d3ssl.errors import InputError
from d3ssl.views import RegionsSpec, ViewMaker, ViewSpec
from d3ssl.views.ops import Crop
from tests.views.canvases import MEAN, PLAIN, STD, make_table


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("x2", {"source": "x1_cut"}, r"'x2' is made from a later view, 'x1_cut'(.|\n)*put it before this one"),
        ("x2", {"source": "x2"}, "'x2' is made from a later view, 'x2'"),
        ("x2_small", {"source": "x_2"}, r"a view that does not exist, 'x_2'(.|\n)*did you mean 'x2'"),
        ("x1", {"photometric": None}, "'x1' is made from the canvas without a crop or a photometric"),
        ("x1", {"crop": None}, "'x1' is made from the canvas without a crop or a photometric"),
        ("x2_small", {"crop": Crop()}, r"'x2_small' crops, but takes its pixels from 'x2'"),
        ("x2_small", {"size": 7}, r"'x2_small' is 7 px(.|\n)*8 px or more"),
    ],
)
def test_an_impossible_table_is_one_clear_error(name: str, change: dict, message: str) -> None:
    table = make_table()
    table[name] = dataclasses.replace(table[name], **change)
    with pytest.raises(InputError, match=message):
        ViewMaker(table, RegionsSpec(), MEAN, STD)


@pytest.mark.parametrize(
    ("name", "value"),
    [("regions_per_image", 0), ("min_visible", -0.1), ("min_visible", 1.1), ("min_side", -1.0)],
)
def test_impossible_options_of_the_regions_are_one_clear_error(name: str, value: Any) -> None:
    with pytest.raises(InputError, match=rf"views\.{name}"):
        RegionsSpec(**{name: value})


def test_a_view_is_plain_data() -> None:
    one, other = (ViewSpec(size=80, crop=Crop(), photometric=PLAIN) for _ in range(2))
    assert one == other
    assert one != dataclasses.replace(other, size=64)
