"""ONNX: the computation for runtimes without torch; verified in onnxruntime."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from d3ssl.errors import D3sslError, first_line
from d3ssl.export.target import MapsReader, Origin, Target, Verified, compare_maps
from d3ssl.export.traced import size_note, trace, traced_sizes
from d3ssl.models.backbone import Backbone


class Onnx(Target):
    """One file with the input ``images`` and the outputs ``map0``, ``map1`` and so on, the deepest last."""

    what: ClassVar = "an ONNX graph for any batch and any size that the network takes"
    endings: ClassVar = (".onnx",)
    packages: ClassVar = ("onnx", "onnxscript", "onnxruntime")
    install: ClassVar = "pip install 'd3ssl[onnx]'"

    def refuse(self, backbone: Backbone) -> str | None:
        return None

    def write(self, backbone: Backbone, path: Path, origin: Origin) -> None:
        names = [f"map{number}" for number in range(len(backbone.channels))]
        program = trace(backbone)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch's own notes on deprecated internals
                made = torch.onnx.export(
                    program, input_names=["images"], output_names=names, dynamo=True, verbose=False, optimize=True
                )
        except torch.onnx.errors.OnnxExporterError as error:
            problem = f"torch.onnx cannot write {backbone.architecture} ({first_line(error)})"
            raise D3sslError(problem, remedy="export it to torch-export, timm or hf.") from error
        assert made is not None
        made.save(path, external_data=_size(backbone) > 1.9e9)  # a file of protobuf holds 2 GB

    def verify(self, path: Path, backbone: Backbone) -> Verified:
        return compare_maps(onnx_reader(path), backbone, traced_sizes(backbone))

    def loading(self, backbone: Backbone, path: Path) -> str:
        return (
            f'session = onnxruntime.InferenceSession("{path}")\n'
            f'maps = session.run(None, {{"images": images}})  # {size_note(backbone)}'
        )


def onnx_reader(path: Path) -> MapsReader:
    """The maps as onnxruntime computes them on the CPU."""
    import onnxruntime  # pyright: ignore[reportMissingImports]

    session: Any = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def read(images: Tensor) -> Sequence[Tensor]:
        return [torch.from_numpy(found) for found in session.run(None, {"images": images.numpy()})]

    return read


def _size(backbone: Backbone) -> int:
    return sum(value.nbytes for value in backbone.parameters())
