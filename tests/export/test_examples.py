"""The scripts of ``examples/``: export, load, and one step of training that reaches the backbone."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from types import ModuleType

import pytest

from d3ssl.export import export_backbone

EXAMPLES = Path(__file__).parents[2] / "examples"


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def check(losses: list[float], steps: int) -> None:
    assert len(losses) == steps and all(math.isfinite(loss) and loss > 0 for loss in losses)


def test_a_detector_of_torchvision_trains(tmp_path: Path) -> None:
    export_backbone("timm:resnet18", "torchvision-detector", tmp_path / "body.safetensors")
    words = [str(tmp_path / "body.safetensors"), "--network", "resnet18", "--size", "64", "--steps", "1"]
    check(example("torchvision_detector").main(words), 1)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_a_detr_of_transformers_trains(tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="needs transformers: pip install 'd3ssl[hf]'")
    export_backbone("timm:resnet18", "hf", tmp_path / "folder")
    words = [str(tmp_path / "folder"), "--size", "64", "--steps", "1", "--layers", "1"]
    check(example("transformers_detr").main(words), 1)


@pytest.mark.parametrize("network", ["resnet18", "mobilenetv3_small_050"])
def test_a_segmenter_trains(network: str, tmp_path: Path) -> None:
    pytest.importorskip("segmentation_models_pytorch", reason="needs: pip install segmentation-models-pytorch")
    export_backbone(f"timm:{network}", "timm", tmp_path / "a.safetensors")
    words = [str(tmp_path / "a.safetensors"), "--network", network, "--size", "64", "--steps", "1"]
    check(example("smp_segmenter").main(words), 1)
