"""Networks of timm in Hugging Face's layout: a local folder (config.json, model.safetensors) or a repository."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import timm

from d3ssl.errors import CheckpointError, InputError, nearest
from d3ssl.files import read_json
from d3ssl.models.backbone import Backbone
from d3ssl.models.fill import fill
from d3ssl.models.given_module import remakes
from d3ssl.models.timm_net import create_timm_net
from d3ssl.models.weights_file import read_weights

_WEIGHTS = ("model.safetensors", "pytorch_model.bin")


def load_from_hub(name: str, in_channels: int) -> Backbone:
    """``name``: a folder, which is read without network; or ORG/NAME, which timm downloads unless it has it.

    Raises:
        InputError: no such folder or repository, or not a network of timm.
        CheckpointError: the folder's weights do not fit its config.json.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return _from_folder(folder, in_channels)
    parts = name.split("/")
    if len(parts) != 2 or not all(parts) or parts[0] in (".", "..", "~"):
        remedy = "give a folder with config.json and model.safetensors, or ORG/NAME of a repository."
        raise InputError("no such folder", path=name, remedy=remedy)
    try:
        net, state = create_timm_net(f"hf-hub:{name}", in_channels, pretrained=True)
    except InputError as error:
        if isinstance(error.__cause__, KeyError):  # config.json does not name an architecture of timm
            raise _of_transformers(f"hf:{name}") from error
        remedy = "check the name and the network connection, or download the folder and give hf:PATH."
        raise InputError(f"'hf:{name}' is not available ({error.__cause__})", remedy=remedy) from error
    return _named(Backbone(net, _architecture(net), in_channels, state=state))


def _from_folder(folder: Path, in_channels: int) -> Backbone:
    path = folder / "config.json"
    config = read_json(path)
    architecture = config.get("architecture") if isinstance(config, dict) else None
    if not isinstance(architecture, str):
        raise _of_transformers(str(path))
    if not timm.is_model(architecture):
        remedy = "update timm: " + nearest(architecture, timm.list_models())
        raise InputError(f"unknown timm network '{architecture}'", path=path, remedy=remedy)
    weights = next((folder / name for name in _WEIGHTS if (folder / name).is_file()), None)
    if weights is None:
        raise InputError(
            f"holds none of {', '.join(_WEIGHTS)}", path=folder, remedy="put the file of weights beside config.json."
        )
    net, _ = create_timm_net(f"local-dir:{folder}", in_channels, pretrained=False)
    backbone = Backbone(net, architecture, in_channels)
    found = read_weights(weights)
    try:
        fill(backbone, found)
    except CheckpointError:
        converted = _converted_by_timm(folder, in_channels)
        if converted is None:
            raise
        backbone = converted
    return _named(backbone)


def _converted_by_timm(folder: Path, in_channels: int) -> Backbone | None:
    """Weights in names of an older timm, or of a network's authors, which timm itself translates."""
    try:
        net, state = create_timm_net(f"local-dir:{folder}", in_channels, pretrained=True)
    except InputError:
        return None
    return Backbone(net, _architecture(net), in_channels, state=state)


def _named(backbone: Backbone) -> Backbone:
    """Options in config.json may make a network that its name alone does not."""
    if not remakes(backbone, "timm", backbone.timm_name):
        backbone.library = "module"
    return backbone


def _architecture(net: Any) -> str:
    return str(net.pretrained_cfg["architecture"])


def _of_transformers(where: str) -> InputError:
    remedy = (
        "give timm's version of the network, or load it yourself (pip install transformers) and pass it: "
        "load_backbone(AutoBackbone.from_pretrained(PATH), maps=lambda net, images: list(net(images).feature_maps))."
    )
    problem = "config.json names no architecture of timm; networks of transformers are not loaded by their names"
    return InputError(problem, path=where, remedy=remedy)
