"""Backbones on disk: a run's ``backbone.safetensors`` with ``manifest.json``, or the form in which the weights came."""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_args

import safetensors.torch
import timm
import torch
from torch import Tensor

from d3ssl.errors import CheckpointError, InputError, nearest
from d3ssl.files import digest, read_json, write_atomically, write_json
from d3ssl.models.backbone import HEAD_STAGES, Backbone, Library
from d3ssl.models.lookalike import classifier_layers, without_classifier

WEIGHTS_NAME = "backbone.safetensors"
MANIFEST_NAME = "manifest.json"


def save_backbone(folder: str | Path, backbone: Backbone, manifest: dict[str, Any]) -> None:
    """Write FOLDER/backbone.safetensors and FOLDER/manifest.json, each atomically, the manifest last.

    The keys are those of the library, without its classifier: weights of timm's networks load into
    ``timm.create_model(timm_name, num_classes=0, in_chans=in_channels)`` with no key missing or left over. Of a module
    given from Python, the file holds its whole state dict.

    Args:
        manifest: plain data to keep (input size, digests, versions). What the backbone knows itself (library, its
            name as ``timm_name`` or ``name``, in_channels, input_size, mean, std, region_path, roi_size, untrained,
            weights_sha256) is added where ``manifest`` does not say it.
    """
    folder = Path(folder)
    state = library_state(backbone)
    name_key = _name_key(backbone.library)
    with write_atomically(folder / WEIGHTS_NAME) as temporary:
        safetensors.torch.save_file(state, temporary, metadata={name_key: backbone.timm_name})
        own = describe(backbone) | {"weights_sha256": sha256(temporary)}
    write_json(folder / MANIFEST_NAME, own | manifest)


def describe(backbone: Backbone) -> dict[str, Any]:
    """What a backbone knows of itself, as a manifest says it: all but the weights."""
    return {
        "library": backbone.library,
        _name_key(backbone.library): backbone.timm_name,
        "in_channels": backbone.in_channels,
        "input_size": backbone.input_size,
        "mean": list(backbone.mean),
        "std": list(backbone.std),
        "region_path": backbone.region_path,
        "roi_size": backbone.roi_size,
        "untrained": backbone.unused_parameters,
    }


def library_state(backbone: Backbone) -> dict[str, Tensor]:
    """The weights by the library's keys, without its classifier: copies on the CPU, contiguous."""
    weights = backbone.named_weights()
    return {key: _to_save(weights[key]) for key in without_classifier(weights, classifier_layers(backbone.net))}


def save_like_source(backbone: Backbone, path: str | Path) -> None:
    """Write the weights in the form in which they came (``backbone.source``), atomically.

    The same keys in the same order, with the same shapes and dtypes, and the same wrapper around them; tensors that
    are not in the backbone, such as a classifier's, are the source's. So whatever loaded the original loads this file,
    with ``strict=True``; an unchanged backbone gives the original's tensors bit for bit. An optimiser's state and other
    weights that lay in the same file are left out, because they do not belong to these weights.

    Args:
        path: where to. Its ending decides the format (``.safetensors``, any other: ``torch.save``) if the weights did
            not come from a file.

    Raises:
        InputError: the ending contradicts the source's format.
    """
    path, source = Path(path), backbone.source
    form = "safetensors" if path.suffix == ".safetensors" else "torch.save"
    if source.format not in (None, form):
        problem = f"the weights came from a file of {source.format}, and go back into one"
        ending = "end its name in .safetensors." if source.format == "safetensors" else "end its name in .pth."
        raise InputError(problem, path=path, remedy=ending)
    state = _source_state(backbone)
    with write_atomically(path) as temporary:
        if form == "safetensors":
            safetensors.torch.save_file(state, temporary, metadata=source.metadata)
            return
        content: Any = OrderedDict(state)
        if source.versions is not None:
            content._metadata = source.versions
        for key, around in zip(reversed(source.wrapper), reversed(source.around), strict=True):
            content = {**around, key: content}
        torch.save(content, temporary)


def has_manifest(weights: Path) -> bool:
    """Whether a file of weights is a run's, or the manifest beside it is of this very file."""
    path = weights.with_name(MANIFEST_NAME)
    if weights.suffix != ".safetensors" or not path.is_file():
        return False
    if weights.name == WEIGHTS_NAME:
        return True
    manifest = read_json(path)
    return isinstance(manifest, dict) and manifest.get("weights_sha256") == sha256(weights)


def read_manifest(weights: Path) -> dict[str, Any]:
    """The manifest beside a file of weights, checked; ``library`` and ``name`` are always there.

    Raises:
        InputError: there is none, or a network that timm does not have.
        CheckpointError: damaged, or not of these weights.
    """
    path = weights.with_name(MANIFEST_NAME)
    if not path.is_file():
        remedy = f"put the run's manifest.json beside it, or name the network: timm:NAME:{weights}."
        raise InputError("there is no manifest.json beside it, which names the network", path=weights, remedy=remedy)
    manifest = read_json(path)
    wrong = _wrong_entries(manifest)
    if wrong:
        remedy = "copy the run's own manifest.json."
        raise CheckpointError(f"lacks or misstates {', '.join(wrong)}", path=path, remedy=remedy)
    manifest = {"library": "timm"} | manifest
    manifest["name"] = manifest[_name_key(manifest["library"])]
    if manifest["library"] == "timm" and not timm.is_model(manifest["name"]):
        remedy = "update timm: " + nearest(manifest["name"].partition(".")[0], timm.list_models())
        raise InputError(f"unknown timm network '{manifest['name']}'", path=path, remedy=remedy)
    if manifest["weights_sha256"] != sha256(weights):
        remedy = "copy both files of the run again, or end the run with --resume."
        problem = "does not belong to the manifest.json beside it, or is damaged"
        raise CheckpointError(problem, path=weights, remedy=remedy)
    return manifest


def contents(weights: Mapping[str, Tensor]) -> list[str | bytes]:
    """Names and bytes, for a digest: in the order of the names, wherever the tensors lie in memory."""
    parts: list[str | bytes] = []
    for key, value in sorted(weights.items()):
        parts += [key, value.detach().cpu().flatten().contiguous().view(torch.uint8).numpy().tobytes()]
    return parts


def start_digest(backbone: Backbone) -> str:
    """Identifies a network and all weights that came with it, those of its file that are not in it (a classifier's)
    too; wherever they came from and in whatever form."""
    return digest(backbone.architecture, *contents(backbone.source.kept | backbone.named_weights()))


def sha256(path: Path) -> str:
    """Of a file's bytes, in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


MAX_CHANNELS, MAX_SIDE, MAX_CELLS = 1024, 65_536, 64
"""Of images, their sides (px) and RoIAlign: what a manifest may say. More would be built before it is found wrong."""


def _is_whole(value: Any, most: int) -> bool:
    return type(value) is int and 1 <= value <= most


def _are_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(type(each) in (int, float) and math.isfinite(each) for each in value)


_MANIFEST_RULES: dict[str, Callable[[Any], bool]] = {
    "in_channels": lambda value: _is_whole(value, MAX_CHANNELS),
    "input_size": lambda value: _is_whole(value, MAX_SIDE),
    "mean": _are_numbers,
    "std": lambda value: _are_numbers(value) and all(each > 0 for each in value),
    "region_path": lambda value: isinstance(value, str) and value in HEAD_STAGES,
    "roi_size": lambda value: _is_whole(value, MAX_CELLS),
    "weights_sha256": lambda value: isinstance(value, str),
}
"""Key → whether its value can be."""


def _name_key(library: str) -> str:
    return "timm_name" if library == "timm" else "name"


def _wrong_entries(manifest: Any) -> list[str]:
    if not isinstance(manifest, dict):
        return ["timm_name", *_MANIFEST_RULES]
    library = manifest.get("library", "timm")
    if library not in get_args(Library):
        return ["library"]
    rules = {_name_key(library): lambda value: isinstance(value, str)} | _MANIFEST_RULES
    wrong = [key for key, holds in rules.items() if not holds(manifest.get(key))]
    fits = wrong or len(manifest["mean"]) == len(manifest["std"]) == manifest["in_channels"]
    return wrong if fits else ["in_channels, mean or std"]


def _to_save(value: Tensor) -> Tensor:
    return value.detach().cpu().contiguous().clone()


def _source_state(backbone: Backbone) -> dict[str, Tensor]:
    """The tensors in the source's order and dtypes, on the CPU, contiguous."""
    source, weights, state = backbone.source, backbone.named_weights(), {}
    for key, dtype in source.dtypes.items():
        name, kept = source.own_name(key), source.kept.get(key)
        value = weights.get(name) if name is not None else None
        if value is None or (kept is not None and _is_unchanged(kept, value)):
            value = kept
        if value is None:
            problem = f"the backbone has no {name}, which its source has"
            raise InputError(problem, remedy="load the backbone again and give it its new weights by load_state_dict.")
        state[key] = _to_save(value).to(dtype)
    return state


def _is_unchanged(kept: Tensor, value: Tensor) -> bool:
    """Whether ``value`` is still what the kept original became in the backbone; also a layer of another shape, which
    was not taken over (a classifier of other classes)."""
    return kept.shape != value.shape or torch.equal(kept.to(value.device, value.dtype), value)
