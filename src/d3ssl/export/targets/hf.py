"""Hugging Face: one folder for transformers, timm and the hub."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import safetensors.torch
from torch import Tensor

from d3ssl.export.card import write_card
from d3ssl.export.resnets import find_resnet
from d3ssl.export.target import Origin, Target, Verified, compare_maps
from d3ssl.export.targets.timm import plain_sizes
from d3ssl.files import write_json, write_text
from d3ssl.models.artifact import library_state
from d3ssl.models.backbone import Backbone
from d3ssl.models.timm_net import create_timm_net


class HuggingFace(Target):
    """config.json, model.safetensors, preprocessor_config.json and README.md (the model card).

    transformers reads it as AutoModel (its wrapper of timm's networks), AutoImageProcessor and TimmBackbone; timm as
    ``local-dir:PATH`` or, from the hub, ``hf-hub:ORG/NAME``.
    """

    what: ClassVar = "a folder for transformers (AutoModel, TimmBackbone, DETRs), timm and the hub"
    packages: ClassVar = ("transformers",)
    install: ClassVar = "pip install 'd3ssl[hf]'"

    def refuse(self, backbone: Backbone) -> str | None:
        if backbone.library == "timm" or find_resnet(backbone) is not None:
            return None
        return f"transformers wraps networks of timm, and {backbone.architecture} is none"

    def write(self, backbone: Backbone, path: Path, origin: Origin) -> None:
        path.mkdir()
        safetensors.torch.save_file(library_state(backbone), path / "model.safetensors", metadata={"format": "pt"})
        write_json(path / "config.json", _config(backbone))
        write_json(path / "preprocessor_config.json", _processor(backbone))
        write_text(path / "README.md", write_card(backbone, origin, self.loading(backbone, Path(path.name))))

    def verify(self, path: Path, backbone: Backbone) -> Verified:
        from transformers import AutoImageProcessor, AutoModel, TimmBackbone  # pyright: ignore[reportMissingImports]

        with _quiet():
            model: Any = AutoModel.from_pretrained(path).eval()
        is_grid, sizes = backbone.layout.is_grid, plain_sizes(backbone)
        wanted: dict[str, Any] = {"output_hidden_states": [len(_stages(model)) - 1], "norm": True} if is_grid else {}

        def whole(images: Tensor) -> list[Tensor]:
            return list(model(images, **({"output_hidden_states": True} | wanted)).hidden_states)

        found = compare_maps(whole, backbone, sizes)
        count = len(backbone.channels)
        indices = [len(_stages(model)) - 1] if is_grid else list(range(count))
        part: Any = TimmBackbone.from_pretrained(
            f"local-dir:{path}", num_channels=backbone.in_channels, out_indices=indices
        ).eval()

        def maps(images: Tensor) -> list[Tensor]:
            own = [
                value if value.shape[1] == channels else value.movedim(-1, 1)  # a Swin's have the channels last there
                for value, channels in zip(part(images).feature_maps, backbone.channels, strict=True)
            ]
            return [_normalise(model, value) for value in own] if is_grid else own

        also = compare_maps(maps, backbone, sizes)
        AutoImageProcessor.from_pretrained(path)
        largest = max(found.difference or 0.0, also.difference or 0.0)
        how = f"{found.how}, by AutoModel and by TimmBackbone"
        return Verified(how=how + (" (there before the final norm)" if is_grid else ""), difference=largest)

    def loading(self, backbone: Backbone, path: Path) -> str:
        channels = "" if backbone.in_channels == 3 else f", num_channels={backbone.in_channels}"
        return (
            f'model = transformers.AutoModel.from_pretrained("{path}")\n'
            f'backbone = transformers.TimmBackbone.from_pretrained("local-dir:{path}"{channels})\n'
            f'net = timm.create_model("local-dir:{path}", pretrained=True, num_classes=0)'
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' bar for a file that is there already."""
    from transformers.utils import logging  # pyright: ignore[reportMissingImports]

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _config(backbone: Backbone) -> dict[str, Any]:
    """What timm and transformers' wrapper of it read."""
    net: Any = backbone.net
    if backbone.library != "timm":
        net, _ = create_timm_net(backbone.timm_name, backbone.in_channels, pretrained=False)
    own = json.loads(json.dumps({key: value for key, value in net.pretrained_cfg.items() if _is_plain(value)}))
    size = [backbone.in_channels, *(backbone.layout.fixed_size or own.get("input_size", [3, 224, 224])[1:])]
    shown = {"mean": list(backbone.mean), "std": list(backbone.std), "input_size": size, "num_classes": 0}
    kept = ("interpolation", "crop_pct", "crop_mode", "pool_size", "first_conv", "classifier", "fixed_input_size")
    config = {
        "architecture": backbone.timm_name.partition(".")[0],
        "model_type": "timm_wrapper",
        "num_classes": 0,
        "num_features": int(net.num_features),
        "pretrained_cfg": {key: own[key] for key in kept if key in own} | shown,
    }
    if backbone.in_channels != 3:
        config["model_args"] = {"in_chans": backbone.in_channels}
    return config


def _processor(backbone: Backbone) -> dict[str, Any]:
    """How images are prepared, for tools that read no config.json of timm."""
    side = backbone.input_size
    return {
        "image_processor_type": "TimmWrapperImageProcessor",
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(backbone.mean),
        "image_std": list(backbone.std),
        "do_resize": True,
        "size": {"height": side, "width": side},
        "pretrained_cfg": _config(backbone)["pretrained_cfg"],
        "architecture": backbone.timm_name.partition(".")[0],
    }


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int | float | list | tuple | None)


def _stages(model: Any) -> list[Any]:
    return list(model.timm_model.feature_info)


def _normalise(model: Any, value: Tensor) -> Tensor:
    """A ViT's map through its final norm, which TimmBackbone leaves out."""
    return model.timm_model.norm(value.movedim(1, -1)).movedim(-1, 1)
