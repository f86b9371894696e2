"""Backbones by their specs: runs, files, networks of libraries, modules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import timm
from torch import nn

from d3ssl.errors import InputError
from d3ssl.models.artifact import MANIFEST_NAME, WEIGHTS_NAME, has_manifest, read_manifest
from d3ssl.models.backbone import Backbone, Library, RegionPath, create_backbone
from d3ssl.models.fill import fill
from d3ssl.models.given_module import backbone_of_module, make_backbone
from d3ssl.models.hub import load_from_hub
from d3ssl.models.lookalike import find_lookalike, shapes_of
from d3ssl.models.mapped_net import MapsFunction
from d3ssl.models.weights_file import read_weights

DEFAULT_BACKBONE = "resnet50"
_RUN_FILES = ("config.yaml", "checkpoint.pt", "checkpoint.previous.pt", "log.jsonl")


def load_backbone(
    spec: str | Path | nn.Module,
    *,
    maps: MapsFunction | None = None,
    weights: str | Path | None = None,
    in_channels: int = 3,
    region_path: RegionPath | None = None,
    roi_size: int | None = None,
) -> Backbone:
    """Load a backbone in evaluation mode, on the CPU (a module: where it is). Nothing is downloaded unless
    ``:pretrained`` or ``hf:ORG/NAME`` asks for it.

    Args:
        spec: a run's folder; an exported ``.safetensors`` file with its manifest beside it; or

            - ``timm:NAME`` or ``timm:NAME:random[:SEED]``: random weights, which depend on the seed (0) only;
            - ``timm:NAME:pretrained``: timm's weights;
            - ``timm:NAME:FILE``: weights from a ``.safetensors`` file or a file of ``torch.save``;
            - ``torchvision:NAME`` and so on: the same with torchvision's classification networks;
            - ``hf:PATH`` or ``hf:ORG/NAME``: a network of timm in Hugging Face's layout, a folder or a repository;
            - a module: a Backbone, which is returned as it is; a network of timm or torchvision, with or without its
              classifier; any other with ``maps``. The Backbone shares the module's parameters.
        maps: for a module, ``module, images -> list of (B, C, h, w)``, the deepest last.
        weights: for a module, a run's folder or a file of weights to load into it.
        in_channels: of the images, for ``timm:``, ``hf:`` and ``maps``; a run knows its own, torchvision's take 3.
        region_path: how ``Backbone.pool`` reads regions. None: as the run was trained (a run with an FPN: ``map``);
            for others, ``c4`` where the network supports it, else ``map`` (ViTs).
        roi_size: cells a side of RoIAlign. None: as the run was trained; 7 for others.

    Raises:
        InputError: the spec names nothing that exists, or not a backbone.
        CheckpointError: damaged file, keys or shapes of another network, weights without their manifest.
    """
    if isinstance(spec, nn.Module):
        backbone = backbone_of_module(spec, maps, in_channels)
        if weights is not None:
            _load_into(backbone, Path(weights))
        if backbone is not spec:
            backbone.eval()
    elif not isinstance(spec, str | Path):
        what = f"the class {spec.__name__}" if isinstance(spec, type) else f"a {type(spec).__name__}"
        remedy = "give a spec such as timm:resnet50, or a module: an instance, such as Net() of a class Net."
        raise InputError(f"{what} is no backbone", remedy=remedy)
    elif maps is not None or weights is not None:
        option = "maps" if maps is not None else "weights"
        remedy = "pass the module itself, or name the file in the spec: timm:NAME:FILE."
        raise InputError(f"{option}= belongs to a module, not to the spec '{spec}'", remedy=remedy)
    else:
        backbone = _by_name(str(spec), in_channels).eval()
    if region_path is not None:
        backbone.require(region_path)
    backbone.region_path = region_path or backbone.region_path
    backbone.roi_size = roi_size or backbone.roi_size
    return backbone


def manifest_of_spec(spec: str | Path | nn.Module) -> dict[str, Any] | None:
    """The whole manifest of a run's folder or an exported file; None for any other spec of ``load_backbone``.

    Raises:
        InputError: as ``load_backbone``.
        CheckpointError: as ``load_backbone``.
    """
    if isinstance(spec, nn.Module) or str(spec).partition(":")[0] in ("timm", "torchvision", "hf"):
        return None
    return read_manifest(_weights_of(Path(spec)))


def start_backbone(name: str | None, weights: str | None, in_channels: int) -> Backbone:
    """The backbone that a training starts from, in training mode.

    Args:
        name: timm's name of the network (``torchvision:NAME`` for torchvision's). None: the weights say it; without
            weights ``resnet50``.
        weights: a run's folder, an exported file, a plain file of weights for ``name``, or a spec of
            ``load_backbone``. None: random ones from torch's global generator.
        in_channels: of the images.

    Raises:
        InputError: ``weights`` are of another network than ``name``, or take other images; as ``load_backbone``.
        CheckpointError: as ``load_backbone``.
    """
    library, _, architecture = (name or DEFAULT_BACKBONE).rpartition(":")
    if weights is None:
        if library == "torchvision":
            return make_backbone("torchvision", architecture, in_channels)
        return create_backbone(architecture, in_channels=in_channels)
    wanted = f"{library or 'timm'}:{architecture}"
    path = Path(weights)
    if path.is_file() and not has_manifest(path):
        if name is None:
            raise _nameless(path)
        return load_backbone(f"{wanted}:{path}", in_channels=in_channels).train()
    backbone = load_backbone(weights, in_channels=in_channels)
    if name is not None and wanted.partition(".")[0] != backbone.architecture.partition(".")[0]:
        problem = f"the weights {weights} are of {backbone.architecture}, not of the backbone '{name}'"
        raise InputError(problem, remedy="leave the backbone's name out, or choose weights of that network.")
    if backbone.in_channels != in_channels:
        problem = f"the weights {weights} take {backbone.in_channels} channels, the images have {in_channels}"
        remedy = f"set --canvas.channels {backbone.in_channels} and give such images, or give other weights."
        raise InputError(problem, remedy=remedy)
    return backbone.train()


def _nameless(path: Path) -> InputError:
    spec = find_lookalike(shapes_of(read_weights(path).state), "timm", DEFAULT_BACKBONE, itself=True)
    looks = f"; they look like weights of {spec}" if spec else ""
    remedy = f"name it: {spec or 'timm:NAME'}:{path}."
    return InputError(f"nothing says which network these weights are of{looks}", path=path, remedy=remedy)


def _by_name(text: str, in_channels: int) -> Backbone:
    library, _, rest = text.partition(":")
    if library == "timm" or library == "torchvision":
        return _from_library(library, rest, in_channels)
    if library == "hf":
        return load_from_hub(rest, in_channels)
    if library == "module":
        problem = f"'{text}': a module that was given from Python cannot be made again by its name"
        raise InputError(problem, remedy="pass the module itself, with the weights that you want in it.")
    return _from_files(Path(text))


def _from_library(library: Library, spec: str, in_channels: int) -> Backbone:
    """``spec`` is what stands behind the library's name."""
    name, _, source = spec.partition(":")
    if source == "pretrained":
        return make_backbone(library, name, in_channels, pretrained=True)
    kind, _, seed = source.partition(":")
    if kind in ("", "random"):
        if seed and not seed.isdecimal():
            remedy = f"write {library}:{name}:random:0, for example."
            raise InputError(f"'{library}:{spec}': the seed '{seed}' is not a whole number", remedy=remedy)
        return make_backbone(library, name, in_channels, seed=int(seed or 0))
    backbone = make_backbone(library, name, in_channels, seed=0)
    path = Path(source)
    if not path.is_file():
        own = f"{library}:{name}"
        remedy = f"give a file of weights, or {own}, {own}:random:SEED, {own}:pretrained."
        raise InputError("is a folder" if path.is_dir() else "no such file", path=path, remedy=remedy)
    fill(backbone, read_weights(path))
    return backbone


def _weights_of(path: Path) -> Path:
    """The file of a run's folder, or the file itself."""
    if path.is_dir():
        if not (path / WEIGHTS_NAME).is_file() or not (path / MANIFEST_NAME).is_file():
            raise _not_a_run(path)
        return path / WEIGHTS_NAME
    if path.is_file() and path.suffix == ".safetensors":
        return path
    if path.is_file():
        remedy = "give the run's folder or its backbone.safetensors, or timm:NAME:FILE for weights of another origin."
        raise InputError("is not a backbone of d3ssl", path=path, remedy=remedy)
    remedy = "give a run's folder, a .safetensors file, timm:NAME, torchvision:NAME or hf:PATH."
    if timm.is_model(str(path)):
        remedy = f"for a network of timm write timm:{path}."
    raise InputError("no such file or folder", path=path, remedy=remedy)


def _from_files(path: Path) -> Backbone:
    weights = _weights_of(path)
    manifest = read_manifest(weights)
    if manifest["library"] == "module":
        problem = f"the run trained a module given from Python ({manifest['name']}), which has to be given again"
        remedy = f"load_backbone(module, maps=..., weights='{path}')."
        raise InputError(problem, path=path, remedy=remedy)
    backbone = make_backbone(manifest["library"], manifest["name"], manifest["in_channels"], seed=0)
    fill(backbone, read_weights(weights))
    _as_trained(backbone, manifest)
    return backbone


def _load_into(backbone: Backbone, path: Path) -> None:
    """Weights of a run, with what its manifest says, or of any other file."""
    if path.is_dir() or has_manifest(path):
        weights = _weights_of(path)
        manifest = read_manifest(weights)
        fill(backbone, read_weights(weights))
        _as_trained(backbone, manifest)
    else:
        fill(backbone, read_weights(path))


def _as_trained(backbone: Backbone, manifest: dict[str, Any]) -> None:
    backbone.mean, backbone.std = tuple(manifest["mean"]), tuple(manifest["std"])
    backbone.input_size = manifest["input_size"]
    backbone.region_path, backbone.roi_size = manifest["region_path"], manifest["roi_size"]


def _not_a_run(folder: Path) -> InputError:
    if any((folder / name).exists() for name in _RUN_FILES):
        remedy = "let the run finish: d3ssl pretrain ... --resume."
        problem = "this run has not finished, so it has no backbone.safetensors yet"
        return InputError(problem, path=folder, remedy=remedy)
    remedy = "give a folder that `d3ssl pretrain --out` has written, a .safetensors file, or timm:NAME."
    if (folder / "config.json").is_file():
        remedy = f"for a folder in Hugging Face's layout write hf:{folder}."
    problem = "is not a run of d3ssl: no backbone.safetensors with manifest.json in it"
    return InputError(problem, path=folder, remedy=remedy)
