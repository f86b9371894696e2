"""Evaluation mode for a while."""

import pytest
from torch import nn

from d3ssl.models.modes import evaluating


def fail_in_evaluation_mode(net: nn.Module) -> None:
    with evaluating(net):
        assert not any(part.training for part in net.modules())
        raise ValueError("as told")


def test_every_part_is_in_its_own_mode_again() -> None:
    net = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1))
    net.train()[1].eval()
    with pytest.raises(ValueError, match="as told"):
        fail_in_evaluation_mode(net)
    assert [part.training for part in net.modules()] == [True, True, False]
