"""Weights between two states against the formula in float64."""

import pytest
import torch
from torch import Tensor

from d3ssl.errors import InputError
from d3ssl.models import create_backbone, interpolate


def states() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    start = create_backbone("test_resnet", seed=0).net.state_dict()
    end = create_backbone("test_resnet", seed=1).net.state_dict()
    end["bn1.num_batches_tracked"] += 7
    return dict(start), dict(end)


def test_both_ends_are_exact() -> None:
    start, end = states()
    for strength, wanted in ((0.0, start), (1.0, end)):
        found = interpolate(start, end, strength)
        assert list(found) == list(start)
        for key, value in found.items():
            assert torch.equal(value, (wanted if value.is_floating_point() else start)[key])
            assert value.data_ptr() not in (start[key].data_ptr(), end[key].data_ptr())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_between_is_the_formula_rounded_once(dtype: torch.dtype) -> None:
    start = {"w": torch.randn(999).to(dtype), "same": torch.randn(99).to(dtype)}
    end = {"w": torch.randn(999).to(dtype), "same": start["same"]}
    found = interpolate(start, end, 0.3)
    wanted = (0.7 * start["w"].double() + 0.3 * end["w"].double()).to(dtype)
    torch.testing.assert_close(found["w"], wanted, atol=0, rtol=torch.finfo(dtype).eps)
    assert torch.equal(found["same"], start["same"])


def test_what_cannot_be_interpolated() -> None:
    start, end = states()
    with pytest.raises(InputError, match=r"strength 1\.5 is not between"):
        interpolate(start, end, 1.5)
    end["conv1.0.weight"] = torch.zeros(1)
    del end["bn1.bias"]
    with pytest.raises(InputError, match=r"differ in bn1.bias, conv1.0.weight"):
        interpolate(start, end, 0.5)
