"""Hugging Face's layout: folders without network, repositories through timm."""

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
from torch import nn

from d3ssl.errors import CheckpointError, InputError
from d3ssl.models import load_backbone, save_backbone, save_like_source


def make_folder(folder: Path, name: str = "test_resnet", **options: Any) -> nn.Module:
    net = timm.create_model(name, num_classes=5, **options)
    timm.models.save_for_hf(net, str(folder), model_args=options or None, safe_serialization=True)
    return net


def test_a_folder_as_timm_writes_it(tmp_path: Path) -> None:
    net = make_folder(tmp_path / "hf")
    backbone = load_backbone(f"hf:{tmp_path / 'hf'}")
    assert (backbone.architecture, backbone.input_size) == ("timm:test_resnet", 160)
    state = net.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in backbone.net.state_dict().items())
    out = tmp_path / "out.safetensors"
    save_like_source(backbone, out)
    assert out.read_bytes() == (tmp_path / "hf" / "model.safetensors").read_bytes()
    save_backbone(tmp_path / "run", backbone, {})
    assert load_backbone(tmp_path / "run").architecture == "timm:test_resnet"


def test_options_in_the_configuration_count(tmp_path: Path) -> None:
    make_folder(tmp_path / "hf", "test_vit", embed_dim=32, num_heads=2)
    backbone = load_backbone(f"hf:{tmp_path / 'hf'}")
    assert (backbone.channels, backbone.library, backbone.timm_name) == ([32], "module", "test_vit")


def fails(folder: Path, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        load_backbone(f"hf:{folder}")


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    fails(tmp_path / "absent", InputError, "no such folder")
    make_folder(tmp_path / "hf")
    with pytest.raises(InputError, match=r"is not a run of d3ssl(.|\n)*write hf:"):
        load_backbone(tmp_path / "hf")
    config, weights = tmp_path / "hf" / "config.json", tmp_path / "hf" / "model.safetensors"
    safetensors.torch.save_file(timm.create_model("test_vit").state_dict(), weights)
    fails(tmp_path / "hf", CheckpointError, "does not fit timm's 'test_resnet'")
    for path in (tmp_path / "hf").glob("*model*"):
        path.unlink()
    fails(tmp_path / "hf", InputError, r"holds none of model.safetensors, pytorch_model.bin")
    config.write_text(json.dumps({"architecture": "test_resnat"}))
    fails(tmp_path / "hf", InputError, "unknown timm network 'test_resnat'")
    config.write_text(json.dumps({"model_type": "dinov2", "architectures": ["Dinov2Model"]}))
    fails(tmp_path / "hf", InputError, r"no architecture of timm; (.|\n)*pip install transformers(.|\n)*maps=")
    config.unlink()
    fails(tmp_path / "hf", InputError, r"config.json: no such file")


def test_a_repository_goes_through_timm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    create, asked = timm.create_model, []

    def pretend(name: str, pretrained: bool = False, **options: Any) -> nn.Module:
        asked.append((name, pretrained))
        return create(name.removeprefix("hf-hub:me/"), pretrained=False, **options)

    monkeypatch.setattr(timm, "create_model", pretend)
    backbone = load_backbone("hf:me/test_resnet")
    assert ("hf-hub:me/test_resnet", True) in asked
    assert backbone.architecture == "timm:test_resnet"
    assert "fc.weight" in backbone.source.kept


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError("no route to host"), r"'hf:me/net' is not available \(no route to host\)(.|\n)*give hf:PATH"),
        (KeyError("architecture"), r"hf:me/net: config.json names no architecture of timm"),
    ],
)
def test_repositories_that_cannot_be_used(error: Exception, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(timm, "create_model", refuse)
    with pytest.raises(InputError, match=message):
        load_backbone("hf:me/net")
