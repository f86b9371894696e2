"""The targets of ``d3ssl export``. Another one is one file, and one line in this table."""

from __future__ import annotations

from d3ssl.export.target import Target
from d3ssl.export.targets.detectron2 import Detectron2
from d3ssl.export.targets.hf import HuggingFace
from d3ssl.export.targets.mmdetection import MMDetection
from d3ssl.export.targets.onnx import Onnx
from d3ssl.export.targets.timm import Timm
from d3ssl.export.targets.torch_export import TorchExport
from d3ssl.export.targets.torchvision import Torchvision, TorchvisionDetector
from d3ssl.export.targets.ultralytics import Ultralytics

TARGETS: dict[str, Target] = {
    "timm": Timm(),
    "torchvision": Torchvision(),
    "torchvision-detector": TorchvisionDetector(),
    "hf": HuggingFace(),
    "onnx": Onnx(),
    "torch-export": TorchExport(),
    "detectron2": Detectron2(),
    "mmdetection": MMDetection(),
    "ultralytics": Ultralytics(),
}
