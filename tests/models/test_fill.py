"""Files that do not fit: what is wrong with them, and which network they look like."""

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
import torchvision
from torch import nn

from d3ssl.errors import CheckpointError
from d3ssl.models import load_backbone


def fails(spec: str, path: Path, content: Any, message: str, **options: Any) -> None:
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(content, path)
    else:
        torch.save(content, path)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_backbone(f"{spec}:{path}", **options)
    assert caught.value.remedy and "download" not in caught.value.remedy


def test_the_nearest_architecture_is_named(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    resnet34 = timm.create_model("resnet34", num_classes=3).state_dict()
    wrong = (
        r"does not fit timm's 'resnet18'.*unexpected keys \(layer1.2.bn1.bias, .*; these look like weights of resnet34"
    )
    fails("timm:resnet18", path, resnet34, rf"{wrong}\n.*load them as timm:resnet34:{path}\.")
    fails("timm:resnet18", path, {f"module.backbone.{key}": value for key, value in resnet34.items()}, "of resnet34")
    fails("torchvision:resnet18", path, resnet34, r"these look like weights of resnet34\n.*torchvision:resnet34")


def test_networks_of_other_families_and_libraries(tmp_path: Path) -> None:
    mobile = torchvision.models.mobilenet_v3_small().state_dict()
    fails(
        "timm:mobilenetv3_small_050", tmp_path / "w.pth", mobile, "look like weights of torchvision:mobilenet_v3_small"
    )
    timms = timm.create_model("test_vit2").state_dict()
    fails("timm:test_vit", tmp_path / "w.safetensors", timms, "look like weights of test_vit2")


def test_weights_that_look_like_nothing_known(tmp_path: Path) -> None:
    torch.save({"a.weight": torch.zeros(2)}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=r"\d+ keys missing") as caught:
        load_backbone(f"timm:test_resnet:{tmp_path / 'w.pth'}")
    assert "look like" not in str(caught.value)


@pytest.mark.parametrize(("spec", "layer"), [("test_resnet", "conv1.0"), ("test_vit", "patch_embed.proj")])
def test_other_numbers_of_channels_have_words_of_their_own(spec: str, layer: str, tmp_path: Path) -> None:
    state = timm.create_model(spec, in_chans=4).state_dict()
    message = rf"{layer} takes 4 channels, the images have 3\n.*in_channels=4"
    fails(f"timm:{spec}", tmp_path / "w.pth", state, message)
    assert load_backbone(f"timm:{spec}:{tmp_path / 'w.pth'}", in_channels=4).in_channels == 4


def test_the_network_twice_in_a_file(tmp_path: Path) -> None:
    state = timm.create_model("test_resnet").state_dict()
    both = {f"{prefix}{key}": value for prefix in ("student.", "teacher.") for key, value in state.items()}
    fails("timm:test_resnet", tmp_path / "w.pth", both, "holds the network 2 times, behind 'student.', 'teacher.'")


def test_averaged_weights_come_first_and_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    states = [timm.create_model("test_resnet").state_dict() for _ in range(2)]
    torch.save({"state_dict": states[0], "state_dict_ema": states[1]}, tmp_path / "w.pth")
    found = load_backbone(f"timm:test_resnet:{tmp_path / 'w.pth'}")
    assert torch.equal(found.net.state_dict()["conv1.0.weight"], states[1]["conv1.0.weight"])
    assert "'state_dict_ema' is read; 'state_dict'" in " ".join(capsys.readouterr().err.split())


def test_quantised_weights_are_refused(tmp_path: Path) -> None:
    state = dict(timm.create_model("test_resnet").state_dict())
    key = "layer1.0.conv1.weight"
    as_int8 = state | {key: state[key].to(torch.int8)}
    fails("timm:test_resnet", tmp_path / "w.safetensors", as_int8, rf"holds quantised weights \({key} is int8\)")
    as_float8 = state | {key: state[key].to(torch.float8_e4m3fn)}
    fails("timm:test_resnet", tmp_path / "w.pth", as_float8, rf"holds quantised weights \({key} is float8_e4m3fn\)")
    packed = state | {"fc._packed_params._packed_params": (torch.zeros(2), None)}
    fails("timm:test_resnet", tmp_path / "w.pth", packed, "holds quantised weights .*is packed")


def test_files_of_other_kinds(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(CheckpointError, match=r"is a Git LFS pointer(.|\n)*git lfs pull"):
        load_backbone(f"timm:test_resnet:{path}")
    fails("timm:test_resnet", tmp_path / "w.pth", {"lr": 0.1, "epoch": 3}, r"'lr', 'epoch' in it is no tensor")
    fails("timm:test_resnet", tmp_path / "w.pth", [torch.zeros(2)], "is not a file of weights")
    fails("timm:test_resnet", tmp_path / "w.pth", nn.Linear(2, 2), "holds no weights that can be read")
