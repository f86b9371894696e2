"""What cannot be used is one clear error that names what to do; options that it names work."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from PIL import Image
from torch import Tensor, nn

import d3ssl
from d3ssl.cli.main import main
from d3ssl.errors import InputError
from tests.posttraining.examples import SMALL, config

OPTIONS = SMALL | {"canvas__held_out": 0, "train__batch_size": 4, "train__steps": 1, "model__weights": None}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bad") / "photos"
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(8):
        Image.fromarray(random.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    return folder


def posttrain(photos: Path, out: Path, backbone: str, *more: str) -> int:
    named = {key.replace("__", "."): str(value) for key, value in OPTIONS.items() if value is not None}
    words = [word for key, value in named.items() for word in (f"--{key}", value)]
    return main(["posttrain", str(photos), "--out", str(out), "--backbone", backbone, *words, *more])


def refused(capsys: pytest.CaptureFixture[str], code: int) -> str:
    """The one error, as a line."""
    told = " ".join(capsys.readouterr().err.split())
    assert code == 2 and told.count("error: ") == 1 and told.count("What to do: ") == 1
    assert "Traceback" not in told and "weights_only=True" not in told
    return told


State = dict[str, Tensor]


def state(name: str = "test_resnet", **options: Any) -> State:
    return dict(timm.create_model(name, **options).state_dict())


def saved(content: Any) -> Callable[[Path], Path]:
    def save(folder: Path) -> Path:
        path = folder / "weights.pth"
        torch.save(content() if callable(content) and not isinstance(content, nn.Module) else content, path)
        return path

    return save


def as_safetensors(content: Callable[[], State]) -> Callable[[Path], Path]:
    def save(folder: Path) -> Path:
        safetensors.torch.save_file(content(), folder / "weights.safetensors")
        return folder / "weights.safetensors"

    return save


def raw(content: bytes, name: str = "weights.pth") -> Callable[[Path], Path]:
    def save(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return save


def cut(folder: Path) -> Path:
    path = saved(state)(folder)
    path.write_bytes(path.read_bytes()[:5000])
    return path


def scripted(folder: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated; files of it are not gone
        torch.jit.save(torch.jit.script(nn.Linear(2, 2)), folder / "weights.pt")
    return folder / "weights.pt"


def quantised() -> State:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated likewise
        return {k: torch.quantize_per_tensor(v, 0.1, 0, torch.qint8) if v.ndim > 1 else v for k, v in state().items()}


def as_int8() -> State:
    return {key: value.to(torch.int8) if value.ndim > 1 else value for key, value in state().items()}


@pytest.mark.parametrize(
    ("file", "network", "problem", "remedy"),
    [
        (saved(lambda: state("resnet34")), "resnet18", "look like weights of resnet34", "load them as timm:resnet34:"),
        (saved(lambda: state("test_vit")), "test_resnet", "90 keys missing", "name the network"),
        (saved(lambda: state(in_chans=4)), "test_resnet", "conv1.0 takes 4 channels", "--canvas.channels 4"),
        (raw(b"hello"), "test_resnet", "holds no weights that can be read", "written by torch.save"),
        (raw(b"hello", "w.safetensors"), "test_resnet", "holds no weights that can be read", "a .safetensors file"),
        (raw(b""), "test_resnet", "holds no weights that can be read", "written by torch.save"),
        (raw(b"\x89PNG\r\n\x1a\n", "w.png"), "test_resnet", "holds no weights that can be read", "of another kind"),
        (cut, "test_resnet", "holds no weights that can be read", "the file is damaged"),
        (saved(nn.Linear(2, 2)), "test_resnet", "holds objects (torch.nn.modules.linear.Linear)", "weights_only=False"),
        (scripted, "test_resnet", "it is a TorchScript archive", ").state_dict(), 'weights.pth')"),
        (saved({"lr": 0.1}), "test_resnet", "'lr' in it is no tensor", "state_dict() written by torch.save"),
        (saved(quantised), "test_resnet", "holds quantised weights (conv1.0.weight is qint8)", "quantised from"),
        (as_safetensors(as_int8), "test_resnet", "holds quantised weights (conv1.0.weight is int8)", "quantised from"),
        (lambda folder: folder / "absent.pth", "test_resnet", "no such file", "give a file of weights"),
        (lambda folder: folder, "test_resnet", "is a folder", "give a file of weights"),
    ],
)
def test_files_that_cannot_be_started_from(
    file: Callable[[Path], Path],
    network: str,
    problem: str,
    remedy: str,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = file(tmp_path)
    told = refused(capsys, posttrain(photos, tmp_path / "run", f"timm:{network}:{path}"))
    assert problem in told and remedy in told and path.name in told
    assert not (tmp_path / "run/config.yaml").exists()


def test_a_file_alone_does_not_say_its_network(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = saved(lambda: state("resnet18"))(tmp_path)
    told = refused(capsys, posttrain(photos, tmp_path / "run", str(path)))
    assert f"name it: timm:resnet18:{path}." in told


def test_weights_and_images_of_different_channels(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    four = saved(lambda: state(in_chans=4))(tmp_path)
    code = posttrain(photos, tmp_path / "run", f"timm:test_resnet:{four}", "--canvas.channels", "4")
    told = refused(capsys, code)
    assert "8 images in a row cannot be used; the first has 3 channels where 4 are wanted" in told
    assert "--canvas.channels" in told and ".png" in told
    three = saved(state)(tmp_path)
    told = refused(capsys, posttrain(photos, tmp_path / "run2", f"timm:test_resnet:{three}", "--canvas.channels", "4"))
    assert "takes 3 channels, the images have 4" in told and "--canvas.channels 3" in told


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_trained_in_float32_and_given_back(
    dtype: torch.dtype, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({key: v.to(dtype) if v.is_floating_point() else v for key, v in state().items()}, tmp_path / "w.pth")
    assert posttrain(photos, tmp_path / "run", f"timm:test_resnet:{tmp_path / 'w.pth'}") == 0
    told = " ".join(capsys.readouterr().err.split())
    name = str(dtype).removeprefix("torch.")
    assert told.count(f"{name} weights are used as float32, and saved as they came") == 1
    assert main(["posttrain", "--out", str(tmp_path / "run"), "--strength", "1"]) == 0
    found = torch.load(tmp_path / "run/weights.pth", weights_only=True)
    assert {value.dtype for value in found.values() if value.is_floating_point()} == {dtype}
    exported = safetensors.torch.load_file(tmp_path / "run/backbone.safetensors")
    assert {value.dtype for value in exported.values() if value.is_floating_point()} == {torch.float32}


class Flat(nn.Module):
    """No maps: pixels, then a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 4)

    def forward(self, images: Tensor) -> Tensor:
        return self.layer(images.mean((2, 3)))


def test_a_module_without_maps(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="how to read feature maps from a Flat") as caught:
        d3ssl.posttrain(Flat(), photos, tmp_path / "run")
    assert "load_backbone(module, maps=" in str(caught.value.remedy)
    with pytest.raises(InputError, match=r"has the shape \(2, 4\), not \(B, C, h, w\)"):
        d3ssl.load_backbone(Flat(), maps=lambda net, images: [net(images)])


def test_views_of_one_cell(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """resnet18's last map has cells of 32 px; the smallest view is ¾ of views.size."""
    start = "timm:resnet18:random:0"
    told = refused(capsys, posttrain(photos, tmp_path / "run", start, "--views.size", "40"))
    assert "'resnet18' has cells of 32 px, so a view of 30 px has a single one" in told
    assert "set --views.size 86 or more" in told
    plan = config(photos, tmp_path, views__size=86, host__teacher="alone").plan
    plan.check_backbone(d3ssl.load_backbone(start))


def test_a_network_of_one_size(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start = "timm:levit_128s:random:0"
    told = refused(capsys, posttrain(photos, tmp_path / "run", start))
    assert "takes only images of 224 × 224 px" in told and "--views.size 224 and --host.small_ratio 1" in told
    config(photos, tmp_path, views__size=224, host__small_ratio=1.0).plan.check_backbone(d3ssl.load_backbone(start))


def test_scenes_need_masks(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for part in ("train", "val"):
        images = tmp_path / "data" / part / "images"
        shutil.copytree(photos, images)
        names = sorted(path.name for path in photos.iterdir())
        for name in names:
            (images / name).write_bytes((images / name).read_bytes() + part.encode())  # no photograph is in both
        document = {
            "images": [{"id": n, "file_name": name, "width": 64, "height": 64} for n, name in enumerate(names)],
            "annotations": [
                {"id": n, "image_id": n, "category_id": 1 + n % 2, "iscrowd": 0, "area": 900, "bbox": [9, 9, 30, 30]}
                for n in range(len(names))
            ],
            "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        }
        (tmp_path / "data" / part / "annotations.json").write_text(json.dumps(document))
    words = ["scenes", str(tmp_path / "out"), "--from"]
    told = refused(capsys, main([*words, str(tmp_path / "data")]))
    assert "has no objects with masks" in told
    told = refused(capsys, main([*words, str(photos), "--val_share", "0.2"]))
    assert "has no annotations" in told
