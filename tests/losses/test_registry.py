"""Objectives by name."""

import pytest

from d3ssl.errors import InputError
from d3ssl.losses import OBJECTIVES, InfoNce, RegionObjective, Regression, make_objective


def test_every_name_makes_its_objective() -> None:
    assert make_objective("regression", 0.3) == Regression()
    assert make_objective("info_nce", 0.3) == InfoNce(temperature=0.3)
    assert set(OBJECTIVES) == {"regression", "info_nce"}
    assert all(isinstance(make_objective(name), RegionObjective) for name in OBJECTIVES)


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean 'info_nce'"):
        make_objective("infonce")


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_a_bad_temperature_is_refused(temperature: float) -> None:
    with pytest.raises(InputError, match="temperature"):
        make_objective("info_nce", temperature)
