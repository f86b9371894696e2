"""The learning rate as a function of the step."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from d3ssl.errors import InputError
from d3ssl.train.schedule import ScheduleConfig, lr_at, num_warmup_steps


def test_known_rates() -> None:
    config = ScheduleConfig(warmup_steps=4)
    rates = [lr_at(step, 12, config, 5.0) for step in (0, 1, 2, 3, 4, 8)]
    assert rates == pytest.approx([1.0, 2.0, 3.0, 4.0, 5.0, 2.5])
    assert lr_at(12, 12, config, 5.0) == pytest.approx(0.0, abs=1e-12)
    assert lr_at(3, 9, ScheduleConfig(warmup_steps=0), 1.0) == pytest.approx(0.75)


def test_it_ends_at_the_final_share() -> None:
    config = ScheduleConfig(warmup_steps=0, final_lr_share=0.1)
    assert lr_at(0, 100, config, 2.0) == pytest.approx(2.0)
    assert lr_at(50, 100, config, 2.0) == pytest.approx(1.1)
    assert lr_at(100, 100, config, 2.0) == pytest.approx(0.2)


def test_warmup_from_a_share() -> None:
    assert num_warmup_steps(400, ScheduleConfig(warmup_share=0.1)) == 40
    assert num_warmup_steps(5, ScheduleConfig(warmup_share=0.1)) == 0
    assert num_warmup_steps(400, ScheduleConfig(warmup_share=0.1, warmup_steps=7)) == 7
    assert lr_at(0, 1, ScheduleConfig()) == 1.0


@given(st.integers(1, 3000), st.floats(0, 0.99), st.floats(0, 1))
def test_it_rises_then_falls(steps: int, share: float, final: float) -> None:
    config = ScheduleConfig(warmup_share=share, final_lr_share=final)
    warmup = num_warmup_steps(steps, config)
    some = sorted({0, warmup // 2, max(warmup - 1, 0), warmup, (warmup + steps) // 2, steps - 1, steps})
    rates = [lr_at(step, steps, config) for step in some]
    assert all(0 < rate <= 1 for rate in rates[:-1])
    assert lr_at(warmup, steps, config) == pytest.approx(1.0)
    for (one, rate), (_, following) in zip(
        zip(some, rates, strict=True), list(zip(some, rates, strict=True))[1:], strict=False
    ):
        assert rate < following if one < warmup else rate >= following


@pytest.mark.parametrize(
    "config",
    [
        ScheduleConfig(warmup_steps=10),
        ScheduleConfig(warmup_steps=-1),
        ScheduleConfig(warmup_share=1.0),
        ScheduleConfig(warmup_share=-0.1),
        ScheduleConfig(final_lr_share=1.5),
    ],
)
def test_nonsense_is_refused(config: ScheduleConfig) -> None:
    with pytest.raises(InputError, match="schedule"):
        lr_at(0, 10, config)
