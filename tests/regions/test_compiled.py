"""Compiling works where no folder for the machine code can be written."""

from collections.abc import Callable
from typing import Any

import numba
import pytest

from d3ssl.regions.compiled import compiled


def double(number):
    return 2 * number


def test_without_a_folder_for_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    njit = numba.njit

    def refuse_cache(*args: Any, **options: Any) -> Callable[..., Any]:
        asked.append(options.get("cache", False))
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return njit(*args, **options)

    monkeypatch.setattr(numba, "njit", refuse_cache)
    assert compiled(double)(21) == 42

    assert asked[:2] == [True, False]  # numba itself may ask for more
