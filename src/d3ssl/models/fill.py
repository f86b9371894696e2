"""Weights from a file into a backbone: every key and shape as they must be, or one error that says what they are of."""

from __future__ import annotations

import torch
from torch import Tensor

from d3ssl.console import say_once
from d3ssl.errors import CheckpointError, first_names
from d3ssl.models.backbone import Backbone
from d3ssl.models.lookalike import classifier_layers, find_lookalike, find_prefixes, shapes_of, without_classifier
from d3ssl.models.source import Source
from d3ssl.models.weights_file import WeightsFile

_HALF = (torch.float16, torch.bfloat16)


def fill(backbone: Backbone, found: WeightsFile) -> None:
    """Load ``found`` into ``backbone``, in place, and remember its form in ``backbone.source``.

    A file may have a prefix before all names, layers of a classifier, and, outside the prefix, parts of other networks.
    Half-precision weights become float32.

    Raises:
        CheckpointError: keys or shapes of another network, or the network more than once.
    """
    own = backbone.named_weights()
    classifier = classifier_layers(backbone.net)
    needed = without_classifier(own, classifier)
    prefixes, count = find_prefixes(found.state, needed)
    if len(prefixes) > 1 and count == len(needed):
        problem = f"holds the network {len(prefixes)} times, behind {first_names([repr(own) for own in prefixes])}"
        raise CheckpointError(problem, path=found.path, remedy="save the one that you want by itself.")
    prefix = prefixes[0]
    theirs = {key.removeprefix(prefix): value for key, value in found.state.items() if key.startswith(prefix)}
    state = {key: theirs[key] for key in without_classifier(theirs, classifier)}
    _check(backbone, {key: own[key] for key in needed}, state, found)
    halves = sorted({str(value.dtype).removeprefix("torch.") for value in state.values() if value.dtype in _HALF})
    if halves:
        say_once(f"{found.path}: {' and '.join(halves)} weights are used as float32, and saved as they came.")
    held = {key: own[key] for key in own.keys() & theirs.keys() if own[key].shape == theirs[key].shape}
    with torch.no_grad():
        for key, value in held.items():
            value.copy_(theirs[key])
    backbone.source = _remember(found, prefix, held)


def _remember(found: WeightsFile, prefix: str, own: dict[str, Tensor]) -> Source:
    kept = {}
    for key, value in found.state.items():
        held = own.get(key.removeprefix(prefix)) if key.startswith(prefix) else None
        if held is None or torch.promote_types(held.dtype, value.dtype) != held.dtype:
            kept[key] = value
    return Source(
        format=found.format,
        wrapper=found.wrapper,
        around=found.around,
        metadata=found.metadata,
        versions=found.versions,
        prefix=prefix,
        dtypes={key: value.dtype for key, value in found.state.items()},
        kept=kept,
    )


def _check(backbone: Backbone, own: dict[str, Tensor], state: dict[str, Tensor], found: WeightsFile) -> None:
    missing, unexpected = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    shapes = sorted(key for key in own.keys() & state.keys() if state[key].shape != own[key].shape)
    if not (missing or unexpected or shapes):
        return
    if not missing and not unexpected:
        _check_channels(backbone, {key: own[key] for key in shapes}, state, found)
    differences = [f"{key} {tuple(state[key].shape)} instead of {tuple(own[key].shape)}" for key in shapes]
    parts = [
        f"{len(names)} {what} ({first_names(names, 3)})"
        for what, names in (("keys missing", missing), ("unexpected keys", unexpected), ("other shapes", differences))
        if names
    ]
    owner = f"{backbone.library}'s" if backbone.library != "module" else "the module"
    problem = f"does not fit {owner} '{backbone.timm_name}' of {backbone.in_channels} channels: {'; '.join(parts)}"
    spec = find_lookalike(shapes_of(found.state), backbone.library, backbone.timm_name)
    remedy = "name the network that these weights were made for."
    if spec is not None:
        problem += f"; these look like weights of {spec.removeprefix(f'{backbone.library}:')}"
        remedy = f"if they are, load them as {spec}:{found.path}."
    raise CheckpointError(problem, path=found.path, remedy=remedy)


def _check_channels(backbone: Backbone, own: dict[str, Tensor], state: dict[str, Tensor], found: WeightsFile) -> None:
    """Raise if the first layer's number of input channels is all that differs."""
    for key, value in own.items():
        mine, theirs = list(value.shape), list(state[key].shape)
        if len(mine) != 4 or mine[:1] + mine[2:] != theirs[:1] + theirs[2:] or mine[1] != backbone.in_channels:
            return
    key = next(iter(own))
    layer, channels = key.removesuffix(".weight"), state[key].shape[1]
    problem = f"{layer} takes {channels} channels, the images have {backbone.in_channels}"
    remedy = (
        f"for images of {channels} channels set --canvas.channels {channels} (load_backbone(..., "
        f"in_channels={channels})); for these, give weights made for {backbone.in_channels}."
    )
    raise CheckpointError(problem, path=found.path, remedy=remedy)
