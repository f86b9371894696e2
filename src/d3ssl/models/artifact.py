"""Backbones on disk: ``backbone.safetensors`` with the keys of plain timm, and ``manifest.json`` beside it."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import timm
import torch
from torch import Tensor

from d3ssl.errors import CheckpointError, InputError, first_names, nearest
from d3ssl.files import read_json, write_atomically, write_json
from d3ssl.models.backbone import HEAD_STAGES, Backbone, Library, RegionPath, create_backbone
from d3ssl.models.torchvision_net import create_torchvision_net

WEIGHTS_NAME = "backbone.safetensors"
MANIFEST_NAME = "manifest.json"
_RUN_FILES = ("config.yaml", "checkpoint.pt", "checkpoint.previous.pt", "log.jsonl")


def save_backbone(folder: str | Path, backbone: Backbone, manifest: dict[str, Any]) -> None:
    """Write FOLDER/backbone.safetensors and FOLDER/manifest.json, each atomically, the manifest last.

    The weights load into ``timm.create_model(timm_name, num_classes=0, in_chans=in_channels)`` with no key missing
    or left over.

    Args:
        manifest: plain data to keep (input size, digests, versions). What the backbone knows itself (timm_name,
            in_channels, input_size, mean, std, region_path, roi_size, untrained, weights_sha256) is added where
            ``manifest`` does not say it.

    Raises:
        InputError: a network of torchvision.
    """
    if backbone.library != "timm":
        problem = f"the backbone is {backbone.library}'s '{backbone.timm_name}'; runs hold networks of timm"
        raise InputError(problem, remedy="save its weights with torch.save(backbone.net.state_dict(), FILE).")
    folder = Path(folder)
    state = {key: value.detach().cpu().contiguous().clone() for key, value in backbone.net.state_dict().items()}
    with write_atomically(folder / WEIGHTS_NAME) as temporary:
        safetensors.torch.save_file(state, temporary, metadata={"timm_name": backbone.timm_name})
        own = {
            "timm_name": backbone.timm_name,
            "in_channels": backbone.in_channels,
            "input_size": backbone.input_size,
            "mean": list(backbone.mean),
            "std": list(backbone.std),
            "region_path": backbone.region_path,
            "roi_size": backbone.roi_size,
            "untrained": backbone.unused_parameters,
            "weights_sha256": _sha256(temporary),
        }
    write_json(folder / MANIFEST_NAME, own | manifest)


def load_backbone(
    spec: str | Path,
    *,
    in_channels: int = 3,
    region_path: RegionPath | None = None,
    roi_size: int | None = None,
) -> Backbone:
    """Load a backbone in evaluation mode, on the CPU. Nothing is downloaded unless ``:pretrained`` asks for it.

    Args:
        spec: a run's folder; an exported ``.safetensors`` file with its manifest beside it; or

            - ``timm:NAME`` or ``timm:NAME:random[:SEED]``: random weights, which depend on the seed (0) only;
            - ``timm:NAME:pretrained``: timm's weights;
            - ``timm:NAME:FILE``: weights from a ``.safetensors`` file or a file of ``torch.save``;
            - ``torchvision:NAME`` and so on: the same with torchvision's classification networks.
        in_channels: of the images, for ``timm:`` only; a run knows its own, torchvision's networks take 3.
        region_path: how ``Backbone.pool`` reads regions. None: as the run was trained (a run with an FPN: ``map``);
            for ``timm:``, ``c4`` where the network supports it, else ``map`` (ViTs).
        roi_size: cells a side of RoIAlign. None: as the run was trained; 7 for ``timm:``.

    Raises:
        InputError: the spec names nothing that exists, or not a backbone.
        CheckpointError: damaged file, keys or shapes of another network, weights without their manifest.
    """
    text = str(spec)
    library, _, rest = text.partition(":")
    if library == "timm" or library == "torchvision":
        backbone = _from_library(library, rest, in_channels)
    else:
        backbone = _from_files(Path(text))
    if region_path is not None:
        backbone.require(region_path)
    backbone.region_path = region_path or backbone.region_path
    backbone.roi_size = roi_size or backbone.roi_size
    return backbone.eval()


def _from_library(library: Library, spec: str, in_channels: int) -> Backbone:
    """``spec`` is what stands behind the library's name."""
    name, _, source = spec.partition(":")
    if source == "pretrained":
        return _create(library, name, in_channels, pretrained=True)
    kind, _, seed = source.partition(":")
    if kind in ("", "random"):
        if seed and not seed.isdecimal():
            remedy = f"write {library}:{name}:random:0, for example."
            raise InputError(f"'{library}:{spec}': the seed '{seed}' is not a whole number", remedy=remedy)
        return _create(library, name, in_channels, seed=int(seed or 0))
    backbone = _create(library, name, in_channels, seed=0)
    path = Path(source)
    if not path.is_file():
        own = f"{library}:{name}"
        remedy = f"give a file of weights, or {own}, {own}:random:SEED, {own}:pretrained."
        raise InputError("no such file", path=path, remedy=remedy)
    state = _read_weights(path)
    classifier = getattr(backbone.net, "pretrained_cfg", {}).get("classifier") or ()
    classifier = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    layers = tuple(f"{layer}." for layer in classifier)  # the backbone has none, the libraries' files do
    _fill(backbone, {key: value for key, value in state.items() if not key.startswith(layers)}, path)
    return backbone


def _create(
    library: Library, name: str, in_channels: int, *, pretrained: bool = False, seed: int | None = None
) -> Backbone:
    if library == "timm":
        return create_backbone(name, in_channels=in_channels, pretrained=pretrained, seed=seed)
    if in_channels != 3:
        problem = f"torchvision's networks take images of 3 channels, not {in_channels}"
        raise InputError(problem, remedy="choose a network of timm, which adapts its first layer.")
    return Backbone(create_torchvision_net(name, pretrained=pretrained, seed=seed), name, library="torchvision")


def _from_files(path: Path) -> Backbone:
    if path.is_dir():
        weights = path / WEIGHTS_NAME
        if not weights.is_file() or not (path / MANIFEST_NAME).is_file():
            raise _not_a_run(path)
    elif path.is_file() and path.suffix == ".safetensors":
        weights = path
    elif path.is_file():
        remedy = "give the run's folder or its backbone.safetensors, or timm:NAME:FILE for weights of another origin."
        raise InputError("is not a backbone of d3ssl", path=path, remedy=remedy)
    else:
        remedy = "give a run's folder, a .safetensors file, timm:NAME or torchvision:NAME."
        if timm.is_model(str(path)):
            remedy = f"for a network of timm write timm:{path}."
        raise InputError("no such file or folder", path=path, remedy=remedy)
    manifest = _read_manifest(weights)
    if manifest["weights_sha256"] != _sha256(weights):
        remedy = "copy both files of the run again, or end the run with --resume."
        raise CheckpointError(
            "does not belong to the manifest.json beside it, or is damaged", path=weights, remedy=remedy
        )
    backbone = create_backbone(manifest["timm_name"], in_channels=manifest["in_channels"], seed=0)
    _fill(backbone, _read_weights(weights), weights)
    backbone.mean, backbone.std = tuple(manifest["mean"]), tuple(manifest["std"])
    backbone.input_size = manifest["input_size"]
    backbone.region_path, backbone.roi_size = manifest["region_path"], manifest["roi_size"]
    return backbone


def _not_a_run(folder: Path) -> InputError:
    if any((folder / name).exists() for name in _RUN_FILES):
        remedy = "let the run finish: d3ssl pretrain ... --resume."
        return InputError(
            "this run has not finished, so it has no backbone.safetensors yet", path=folder, remedy=remedy
        )
    remedy = "give a folder that `d3ssl pretrain --out` has written, a .safetensors file, or timm:NAME."
    return InputError(
        "is not a run of d3ssl: no backbone.safetensors with manifest.json in it", path=folder, remedy=remedy
    )


_MANIFEST_TYPES: dict[str, type] = {
    "timm_name": str,
    "in_channels": int,
    "input_size": int,
    "mean": list,
    "std": list,
    "region_path": str,
    "roi_size": int,
    "weights_sha256": str,
}


def _read_manifest(weights: Path) -> dict[str, Any]:
    path = weights.with_name(MANIFEST_NAME)
    if not path.is_file():
        remedy = f"put the run's manifest.json beside it, or name the network: timm:NAME:{weights}."
        raise InputError("there is no manifest.json beside it, which names the network", path=weights, remedy=remedy)
    manifest = read_json(path)
    wrong = [
        key
        for key, kind in _MANIFEST_TYPES.items()
        if not isinstance(manifest, dict) or not isinstance(manifest.get(key), kind)
    ]
    if not wrong and manifest["region_path"] not in HEAD_STAGES:
        wrong = ["region_path"]
    if wrong:
        raise CheckpointError(
            f"lacks or misstates {', '.join(wrong)}", path=path, remedy="copy the run's own manifest.json."
        )
    if not timm.is_model(manifest["timm_name"]):
        remedy = "update timm: " + nearest(manifest["timm_name"].partition(".")[0], timm.list_models())
        raise InputError(f"unknown timm network '{manifest['timm_name']}'", path=path, remedy=remedy)
    return manifest


def _read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors by name, from safetensors or from ``torch.save`` (read with ``weights_only``, so that nothing runs)."""
    remedy = "the file is damaged or of another kind; make or download it again."
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (safetensors.SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"holds no weights that can be read ({text})", path=path, remedy=remedy) from error
    for key in ("state_dict", "model"):  # how training scripts wrap their weights
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        remedy = "save the network's state_dict() by itself. (Of a run of d3ssl, give the folder.)"
        raise CheckpointError("is not a file of weights (tensors by name)", path=path, remedy=remedy)
    return {key.removeprefix("module."): value for key, value in loaded.items()}


def _fill(backbone: Backbone, state: dict[str, Tensor], path: Path) -> None:
    """Load with every key and shape as they must be, or one error that shows where they differ."""
    own = backbone.net.state_dict()
    missing, unexpected = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    shapes = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(own[key].shape)}"
        for key in own.keys() & state.keys()
        if state[key].shape != own[key].shape
    ]
    parts = [
        f"{len(keys)} {what} ({first_names(keys, 3)})"
        for what, keys in (("keys missing", missing), ("unexpected keys", unexpected), ("other shapes", sorted(shapes)))
        if keys
    ]
    if parts:
        network = f"{backbone.library}'s '{backbone.timm_name}' of {backbone.in_channels} channels"
        problem = f"does not fit {network}: {'; '.join(parts)}"
        raise CheckpointError(problem, path=path, remedy="name the network that these weights were made for.")
    backbone.net.load_state_dict(state)


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
