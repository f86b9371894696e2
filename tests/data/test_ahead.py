"""Reading ahead keeps the order."""

from __future__ import annotations

from collections.abc import Callable

from d3ssl.data.ahead import read_ahead
from d3ssl.errors import InputError


def test_read_ahead_keeps_the_order_and_gives_errors() -> None:
    def job(number: int) -> Callable[[], int]:
        def work() -> int:
            if number == 3:
                raise InputError("three")
            return number

        return work

    found = list(read_ahead([job(number) for number in range(8)], 3, 2))
    assert [str(item) if isinstance(item, InputError) else item for item in found] == [0, 1, 2, "three", 4, 5, 6, 7]
