"""Which network do these weights belong to? A few candidates, made without memory, are compared by key and shape."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import timm
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models import list_models

from d3ssl.errors import InputError
from d3ssl.models.torchvision_net import BEHIND, create_torchvision_model

_KNOWN: dict[str, tuple[str, ...]] = {
    "layer1.0.conv1.weight": ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnext50_32x4d"),
    "attn.qkv.weight": tuple(f"vit_{size}_patch16_224" for size in ("tiny", "small", "base", "large")),
    "ls1.gamma": ("vit_small_patch14_dinov2", "vit_base_patch14_dinov2", "vit_large_patch14_dinov2"),
    "attn.relative_position_bias_table": ("swin_tiny_patch4_window7_224", "swin_base_patch4_window7_224"),
    "blocks.0.conv_dw.weight": ("convnext_atto", "convnext_tiny", "convnext_small", "convnext_base"),
    "conv_stem.weight": (
        *(f"efficientnet_b{number}" for number in range(4)),
        *("efficientnet_lite0", "mobilenetv2_100", "mobilenetv3_small_100", "mobilenetv3_large_100"),
    ),
    "s1.b1.conv1.conv.weight": ("regnetx_002", "regnety_002", "regnety_008", "regnety_016", "regnety_032"),
    "denseblock1.denselayer1.conv1.weight": ("densenet121", "densenet169", "densenet201"),
    "features.0.0.weight": tuple(
        f"torchvision:{name}"
        for name in ("mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large", "efficientnet_b0", "convnext_tiny")
    ),
    "encoder_layer_0.mlp.0.weight": ("torchvision:vit_b_16", "torchvision:vit_l_16"),
    "encoder_layer_0.mlp.linear_1.weight": ("torchvision:vit_b_16", "torchvision:vit_l_16"),
    "features.1.0.attn.qkv.weight": ("torchvision:swin_t", "torchvision:swin_s", "torchvision:swin_b"),
    "trunk_output.block1.block1-0.f.a.0.weight": ("torchvision:regnet_y_400mf", "torchvision:regnet_x_400mf"),
}
"""Much used networks by the end of a key that only their family has. Without a prefix: timm's names."""
_RELATIVES = 6
"""Networks of the requested one's own family that are tried too."""
_LEAST = 0.6
"""Share of keys with the same shape below which nothing is said."""

Shapes = Mapping[str, tuple[int, ...]]


def shapes_of(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Shapes by key."""
    return {key: tuple(value.shape) for key, value in state.items()}


def without_classifier(names: Collection[str], classifier: tuple[str, ...]) -> list[str]:
    """The names that do not belong to the layers called ``classifier``, in order."""
    layers = tuple(f"{layer}." for layer in classifier)
    return [name for name in names if not name.startswith(layers)]


def classifier_layers(net: nn.Module) -> tuple[str, ...]:
    """Names of the layers that classify, which backbones do not need (timm's configuration names them)."""
    config: dict[str, Any] = getattr(net, "pretrained_cfg", None) or {}
    layers = config.get("classifier") or ()
    return (layers,) if isinstance(layers, str) else tuple(layers)


def find_prefixes(keys: Collection[str], own: Collection[str]) -> tuple[list[str], int]:
    """The prefixes behind which most of the network's own names stand in a file, and how many that are.

    ``module.backbone.conv1.weight`` counts for ``module.backbone.`` if the network has a ``conv1.weight``. More than
    one prefix: the file holds the network several times.
    """
    own, counts = set(own), Counter({"": 0})
    for key in keys:
        starts = [0, *(at + 1 for at, sign in enumerate(key) if sign == ".")]
        counts.update(key[:start] for start in starts if key[start:] in own)
    most = max(counts.values())
    return sorted(prefix for prefix, count in counts.items() if count == most), most


def find_lookalike(shapes: Shapes, library: str, name: str, *, itself: bool = False) -> str | None:
    """The spec (``timm:resnet34``) of the network that the weights look like; None: none comes close.

    Args:
        shapes: of the file's tensors.
        library, name: the network that they do not fit.
        itself: that network may be the answer.
    """
    best, most = None, _LEAST
    for spec in _candidates(shapes, library, name):
        found = _likeness(shapes, spec)
        if found > most:
            best, most = spec, found
        if found == 1.0:
            break
    return best if itself or best != f"{library}:{name}" else None


def _candidates(shapes: Shapes, library: str, name: str) -> Iterator[str]:
    known = [own for ending, names in _KNOWN.items() if any(key.endswith(ending) for key in shapes) for own in names]
    architecture = name.partition(".")[0]
    if library == "torchvision":
        relatives = difflib.get_close_matches(architecture, list_models(torchvision.models), n=_RELATIVES, cutoff=0.3)
        known = [own for own in known if own in list_models(torchvision.models)] + known
    else:
        families = timm.list_modules()
        family = next((own for own in families if timm.models.is_model_in_modules(architecture, [own])), "")
        relatives = difflib.get_close_matches(architecture, timm.list_models(module=family), n=_RELATIVES, cutoff=0.3)
    specs = [own if ":" in own else f"{_home(own, library)}:{own}" for own in known]
    yield from dict.fromkeys([*specs, *(f"{_home(own, library)}:{own}" for own in relatives)])


def _home(name: str, library: str) -> str:
    """The library that is asked for, where it has the network."""
    return "torchvision" if library == "torchvision" and name in list_models(torchvision.models) else "timm"


def library_shapes(spec: str, in_channels: int = 3) -> tuple[dict[str, tuple[int, ...]], tuple[str, ...]] | None:
    """Shapes by key of a library's network, which is made without memory, and the names of its classifier's layers.

    None: there is no such network, or its initialisation needs values, which the meta device has not.
    """
    library, _, name = spec.partition(":")
    try:
        with torch.device("meta"):
            net = (
                create_torchvision_model(name, pretrained=False, seed=None)
                if library == "torchvision"
                else timm.create_model(name, in_chans=in_channels)
            )
    except (InputError, RuntimeError, NotImplementedError, TypeError, ValueError, KeyError):
        return None
    return shapes_of(net.state_dict()), BEHIND if library == "torchvision" else classifier_layers(net)


def _likeness(shapes: Shapes, spec: str) -> float:
    """Tensors of the same name and shape ÷ tensors in either; classifiers do not count."""
    found = library_shapes(spec)
    if found is None:
        return 0.0
    own, classifier = found
    prefix = find_prefixes(shapes, own)[0][0]
    theirs = {key.removeprefix(prefix): shape for key, shape in shapes.items() if key.startswith(prefix)}
    one = {(key, own[key]) for key in without_classifier(own, classifier)}
    other = {(key, theirs[key]) for key in without_classifier(theirs, classifier)}
    return len(one & other) / max(len(one | other), 1)
