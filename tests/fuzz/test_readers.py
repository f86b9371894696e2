"""Whatever a file holds, reading it ends in a result or in an error of d3ssl's, within 5 s and 1 GB.

Half a minute by default, the same inputs each time. ``D3SSL_FUZZ=20000 pytest tests/fuzz`` tries as many inputs of
every reader, other ones each time.
"""

from __future__ import annotations

import os
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.fuzz.inputs import right_checksums, sound, spoiled_bytes, spoiled_json
from tests.fuzz.reading import READ, READERS, REFUSED, Reading

EXAMPLES = int(os.environ.get("D3SSL_FUZZ", "0"))
FEW = {"manifest": 80, "tar": 200}
"""By default; of the others 400."""


@pytest.mark.parametrize("name", READERS)
def test_any_input_ends_well(name: str, tmp_path: Path) -> None:
    inputs = sound(name, tmp_path / "template")
    process = Reading(name, tmp_path / "template", tmp_path / "work", inputs[0])
    try:
        assert {number: process.read(own) for number, own in enumerate(inputs)} == dict.fromkeys(
            range(len(inputs)), READ
        )
        _spoil(process, inputs)
    finally:
        process.close()


def _spoil(process: Reading, inputs: list[bytes]) -> None:
    ends = {READ: 0, REFUSED: 0}

    @settings(
        max_examples=EXAMPLES or FEW.get(process.name, 400),
        derandomize=not EXAMPLES,
        deadline=None,
        database=None,
        phases=(Phase.generate,),  # the smallest seed is not the simplest input
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(st.integers(0, 2**64))
    def run(seed: int) -> None:
        random = Random(seed)
        whole = random.choice(inputs)
        is_json = process.name in ("coco", "manifest") and random.random() < 0.8
        content = spoiled_json(random, whole) if is_json else spoiled_bytes(random, whole)
        content = right_checksums(content) if process.name == "tar" and random.random() < 0.5 else content
        end = process.read(content)
        assert end in ends, end
        ends[end] += 1

    run()
    assert min(ends.values()) > 0, ends  # some are read and some are not: the inputs try both
