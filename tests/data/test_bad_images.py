"""A few bad images among some are left out, by the same rule wherever images are read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from d3ssl.cli.main import main
from d3ssl.data.bad_images import too_many_bad
from d3ssl.data.sources import open_images
from d3ssl.doctor.run import examine
from d3ssl.errors import InputError
from d3ssl.regions.compute import compute_regions
from d3ssl.regions.config import RegionsConfig
from d3ssl.train import RunConfig


@pytest.mark.parametrize(
    ("bad", "total", "share", "ends"),
    [
        (0, 20, 0.01, False),
        (0, 20, 0.0, False),
        (1, 20, 0.01, False),  # 1 % of 20 is none, and one bad file is no reason to stop
        (2, 20, 0.01, False),
        (3, 20, 0.01, True),
        (3, 30, 0.01, False),
        (4, 30, 0.01, True),
        (4, 300, 0.01, True),
        (10, 1000, 0.01, False),
        (11, 1000, 0.01, True),
        (1, 9, 0.01, True),  # more than a tenth
        (1, 9, 0.2, False),
        (1, 1000, 0.0, True),  # none was permitted
        (1, 1, 1.0, True),  # nothing is left
        (5, 6, 0.9, False),
    ],
)
def test_the_policy(bad: int, total: int, share: float, ends: bool) -> None:
    assert too_many_bad(bad, total, share) is ends


def photographs(folder: Path, good: int, bad: int) -> Path:
    folder.mkdir()
    for number in range(good):
        pixels = np.random.default_rng(number).integers(0, 256, (64, 80, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"good_{number:02}.png")
    for number in range(bad):
        (folder / f"bad_{number}.jpg").write_bytes(b"nothing")
    return folder


GRID = RegionsConfig(method="grid", workers=1)


def test_a_folder_of_twenty_with_one_bad_file_is_worked_on(tmp_path: Path) -> None:
    data = photographs(tmp_path / "photos", 19, 1)
    table = compute_regions(open_images(data), GRID, tmp_path / "r.parquet")
    assert len(table) == 19 and list(table.metadata["skipped"]) == ["bad_0.jpg"]
    run = RunConfig(data="", out="", proposals=GRID)
    assert {c.status for c in examine(data, run).checks if c.name == "unreadable files"} == {"warning"}
    many = photographs(tmp_path / "more", 17, 3)
    with pytest.raises(InputError, match="3 of 20 images are unreadable"):
        compute_regions(open_images(many), GRID, tmp_path / "s.parquet")
    assert {c.status for c in examine(many, run).checks if c.name == "unreadable files"} == {"fail"}


@pytest.mark.slow
def test_it_is_trained_on(tmp_path: Path) -> None:
    data = photographs(tmp_path / "photos", 19, 1)
    words = (
        f"pretrain {data} --out {tmp_path}/run --recipe quickstart --proposals.method grid --train.steps 1 "
        "--train.batch_size 4 --canvas.size 32 --views.size 32 --runtime.workers 0 --model.backbone test_resnet"
    )
    assert main(words.split()) == 0
