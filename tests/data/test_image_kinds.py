"""What a file is, its content decides; kinds that the project does not read never reach a decoder."""

from __future__ import annotations

import dataclasses
import io
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

from d3ssl.data.images import image_size, read_canvas, read_image
from d3ssl.data.pil_formats import PIL_FORMATS
from d3ssl.data.scenes.cutouts import NotUsable, read_cutout
from d3ssl.data.sources import open_images
from d3ssl.errors import InputError
from d3ssl.regions.compute import compute_regions
from d3ssl.regions.config import RegionsConfig
from d3ssl.train.config import CanvasConfig
from d3ssl.train.loader import CanvasDataset

POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 30\n%%EndComments\nshowpage\n%%EOF\n"


@pytest.fixture
def no_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ghostscript seems to be there; whoever starts a program fails the test."""

    def start(*_: object, **__: object) -> None:
        raise AssertionError("a program was started")

    monkeypatch.setattr(EpsImagePlugin, "gs_binary", "gs")
    monkeypatch.setattr(subprocess, "Popen", start)
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", start)


@pytest.mark.usefixtures("no_programs")
@pytest.mark.parametrize("read", [image_size, read_image, lambda path: read_canvas(path, 32)])
def test_postscript_named_as_a_photograph_is_one_clear_error(read: Callable[[Path], object], tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(POSTSCRIPT)
    with pytest.raises(InputError, match=r"(?s)a\.jpg: cannot be read as an image.*JPEG, PNG.*What to do.*convert"):
        read(tmp_path / "a.jpg")


@pytest.mark.usefixtures("no_programs")
def test_postscript_named_as_a_cutout_is_not_usable(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(POSTSCRIPT)
    with pytest.raises(NotUsable, match="unreadable"):
        read_cutout(tmp_path / "a.png", 100.0)


@pytest.mark.usefixtures("no_programs")
def test_postscript_as_a_label_map_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    Image.fromarray(np.zeros((40, 40, 3), dtype=np.uint8)).save(tmp_path / "photos" / "a.png")
    images = open_images(tmp_path / "photos")
    regions = compute_regions(images, RegionsConfig(method="grid", workers=1), tmp_path / "r.parquet")
    regions = dataclasses.replace(regions, label_maps=[POSTSCRIPT])
    dataset = CanvasDataset(images, regions, CanvasConfig(size=32), 0, masks=True)
    found = dataset[0]
    assert isinstance(found, InputError)
    assert "label map of a" in str(found) and "no kind that is read: PNG" in str(found)


@pytest.mark.parametrize("kind", PIL_FORMATS)
def test_all_formats_are_read_whatever_the_name(kind: str, tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.fromarray(np.zeros((20, 30, 3), dtype=np.uint8)).save(stream, kind)
    (tmp_path / "a.jpg").write_bytes(stream.getvalue())
    assert read_image(tmp_path / "a.jpg").shape == (20, 30, 3)
