"""A data set and a run small enough for a second a step."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

TINY = """
canvas: {size: 40, max_candidates: 8}
proposals: {method: grid, workers: 1}
views: {size: 32, regions_per_image: 2, min_side: 2}
model: {backbone: test_resnet}
host: {region_path: c4, roi_size: 2, projector_hidden: 16, projector_out: 8, loss: info_nce}
optimizer: {name: adamw, lr: 1.0e-3}
schedule: {warmup_share: 0.2}
train: {steps: 6, batch_size: 4}
runtime: {workers: 0, log_every: 1, save_every: 2, tensorboard: false}
"""


def make_photos(folder: Path, count: int = 10, size: int = 48) -> Path:
    """Smooth random pictures."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for number in range(count):
        coarse = random.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((size + 16, size), Image.Resampling.BICUBIC).save(folder / f"{number:03d}.png")
    return folder


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_photos(tmp_path_factory.mktemp("data") / "photos")


@pytest.fixture(scope="session")
def tiny_yaml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    path.write_text(TINY)
    return path
