"""The crop's options, and its draw inside another window."""

import pytest
import torch

from d3ssl.contracts import CanvasBatch
from d3ssl.errors import InputError
from d3ssl.seeds import torch_generator
from d3ssl.views.ops import Crop


def batch_of(count: int) -> CanvasBatch:
    return CanvasBatch(
        canvas=torch.zeros(count, 1, 8, 8, dtype=torch.uint8),
        image_size=torch.tensor([[480.0, 640.0]]).expand(count, 2),
        boxes=torch.zeros(count, 0, 4),
        valid=torch.zeros(count, 0, dtype=torch.bool),
        labels=None,
        index=torch.arange(count),
    )


def test_windows_lie_inside_the_given_ones_and_are_mirrored_as_often_as_asked() -> None:
    within = torch.tensor([[0.2, 0.1, 0.9, 0.7]]).expand(2000, 4)
    for flip in (0.0, 0.3, 1.0):
        crop = Crop(area=(0.3, 0.8), flip=flip)
        windows, mirrored = crop.sample(batch_of(2000), within, torch_generator(0))
        assert (windows[:, :2] >= within[:, :2]).all() and (windows[:, 2:] <= within[:, 2:]).all()
        assert abs(float(mirrored.float().mean()) - flip) < 0.05
    again = crop.sample(batch_of(2000), within, torch_generator(0))
    assert torch.equal(again[0], windows) and torch.equal(again[1], mirrored)


@pytest.mark.parametrize(
    "options",
    [
        {"area": (0.0, 0.5)},
        {"area": (0.8, 0.5)},
        {"area": (0.5, 1.1)},
        {"aspect": (2.0, 1.0)},
        {"aspect": (1.0, float("inf"))},
        {"flip": 1.5},
    ],
)
def test_impossible_options_are_one_clear_error(options: dict) -> None:
    with pytest.raises(InputError, match=next(iter(options))):
        Crop(**options)
