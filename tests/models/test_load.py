"""What a training starts from."""

from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
import torchvision

from d3ssl.errors import CheckpointError, InputError
from d3ssl.models import create_backbone, load_backbone, save_backbone, start_backbone


@pytest.fixture
def run(tmp_path: Path) -> Path:
    save_backbone(tmp_path / "run", create_backbone("test_resnet", seed=5), {"input_size": 64})
    return tmp_path / "run"


def weight(backbone: torch.nn.Module) -> torch.Tensor:
    return next(iter(backbone.state_dict().values()))


def test_without_weights_torchs_generator_decides() -> None:
    torch.manual_seed(4)
    wanted = create_backbone("test_resnet", in_channels=2)
    torch.manual_seed(4)
    found = start_backbone("test_resnet", None, 2)
    assert torch.equal(weight(found), weight(wanted)) and found.training
    assert start_backbone(None, None, 3).timm_name == "resnet50"
    assert start_backbone("torchvision:resnet18", None, 3).architecture == "torchvision:resnet18"


@pytest.mark.parametrize("name", [None, "test_resnet", "timm:test_resnet"])
def test_weights_of_a_run_an_exported_file_or_a_spec(name: str | None, run: Path) -> None:
    wanted = load_backbone(run)
    exported = run / "renamed.safetensors"
    exported.write_bytes((run / "backbone.safetensors").read_bytes())
    for weights in (str(run), str(run / "backbone.safetensors"), str(exported)):
        found = start_backbone(name, weights, 3)
        assert torch.equal(weight(found), weight(wanted))
        assert (found.training, found.input_size) == (True, 64)
    assert start_backbone(name, "timm:test_resnet:random:3", 3).training


def test_a_plain_file_needs_a_name(run: Path, tmp_path: Path) -> None:
    state = timm.create_model("test_resnet").state_dict()
    torch.save(state, tmp_path / "w.pth")
    safetensors.torch.save_file(state, run / "mine.safetensors")  # beside a manifest that is not its own
    for path in (tmp_path / "w.pth", run / "mine.safetensors"):
        assert torch.equal(weight(start_backbone("test_resnet", str(path), 3)), state["conv1.0.weight"])
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "r.pth")
    with pytest.raises(InputError, match=r"which network.*weights of timm:resnet18\n.*name it: timm:resnet18:.*r.pth"):
        start_backbone(None, str(tmp_path / "r.pth"), 3)
    assert start_backbone("torchvision:resnet18", str(tmp_path / "r.pth"), 3).library == "torchvision"


def test_weights_of_another_network(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"are of timm:test_resnet, not of the backbone 'test_vit'\n.*leave"):
        start_backbone("test_vit", str(run), 3)
    with pytest.raises(InputError, match=r"are of torchvision:resnet18, not of the backbone 'resnet18'"):
        start_backbone("resnet18", "torchvision:resnet18", 3)
    with pytest.raises(InputError, match="take 3 channels, the images have 4"):
        start_backbone(None, str(run), 4)
    torch.save(timm.create_model("resnet10t").state_dict(), tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="look like weights of resnet10t"):
        start_backbone("resnet14t", str(tmp_path / "w.pth"), 3)
    with pytest.raises(InputError, match="no such file or folder"):
        start_backbone(None, str(tmp_path / "absent"), 3)
