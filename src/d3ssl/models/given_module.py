"""Modules given from Python as backbones: timm's, torchvision's, and any other with a function that reads its maps."""

from __future__ import annotations

import torch
from timm.models._features import FeatureGetterNet, FeatureHookNet, FeatureListNet
from torch import nn

from d3ssl.errors import InputError
from d3ssl.models.backbone import Backbone, Library, create_backbone
from d3ssl.models.lookalike import classifier_layers, library_shapes, shapes_of, without_classifier
from d3ssl.models.mapped_net import HOW_TO_PASS, MappedNet, MapsFunction
from d3ssl.models.modes import evaluating
from d3ssl.models.torchvision_net import (
    create_torchvision_model,
    torchvision_name,
    wrap_torchvision,
)
from d3ssl.seeds import torch_generator

_ONLY_FEATURES = (FeatureGetterNet, FeatureHookNet, FeatureListNet)
"""What ``timm.create_model(..., features_only=True)`` gives: calling it gives its maps."""
_NOT_CLASSIFIERS = ("detection", "segmentation", "video", "optical_flow", "quantization")


def backbone_of_module(module: nn.Module, maps: MapsFunction | None, in_channels: int) -> Backbone:
    """A backbone on the module's own parameters: training one trains the other. A Backbone is returned as it is.

    Args:
        maps: reads the maps of ``module``; None: it is one of timm's or torchvision's.
        in_channels: of the images; networks of timm and torchvision know their own.

    Raises:
        InputError: nothing tells where its maps are, what ``maps`` gives are no maps, or not in float32.
    """
    if isinstance(module, Backbone):
        return module
    _check_dtypes(module)
    name = type(module).__name__
    if maps is None and isinstance(module, _ONLY_FEATURES):
        maps = lambda net, images: net(images)  # noqa: E731
    if maps is not None:
        net = MappedNet(module, maps, in_channels)
        return Backbone(net, name, in_channels, library="module", state=module.state_dict())
    if _is_torchvision(module):
        return _of_torchvision(module)
    if hasattr(module, "forward_intermediates") and getattr(module, "feature_info", None):
        return _of_timm(module, in_channels)
    raise InputError(f"d3ssl does not know how to read feature maps from a {name}", remedy=HOW_TO_PASS)


def remakes(backbone: Backbone, library: Library, name: str) -> bool:
    """Whether the library makes a network by this name that takes the backbone's weights and gives the same maps."""
    weights = backbone.named_weights()
    own = {key: weights[key] for key in without_classifier(weights, classifier_layers(backbone.net))}
    found = library_shapes(f"{library}:{name}", backbone.in_channels)  # spares making most of those that do not fit
    if found is not None and {key: found[0][key] for key in without_classifier(*found)} != shapes_of(own):
        return False
    side = max(backbone.strides) * 2
    size = backbone.layout.fixed_size or (side, side)
    images = torch.randn(1, backbone.in_channels, *size, generator=torch_generator("probe"))
    images = images.to(next(backbone.parameters()).device)
    try:
        twin = make_backbone(library, name, backbone.in_channels, seed=0)
        twin.net.load_state_dict(own)
        with evaluating(backbone), torch.no_grad():
            maps, others = backbone.maps(images), twin.to(images.device).eval().maps(images)
    except (InputError, RuntimeError):
        return False
    return len(maps) == len(others) and all(
        one.shape == other.shape and torch.allclose(one, other, rtol=1e-4, atol=1e-5)
        for one, other in zip(maps, others, strict=True)
    )


def make_backbone(
    library: Library, name: str, in_channels: int, *, pretrained: bool = False, seed: int | None = None
) -> Backbone:
    """Make a network of timm or torchvision by its name (see ``create_backbone``), in training mode.

    Raises:
        InputError: as ``create_backbone``; also channels that torchvision's networks do not take.
    """
    if library == "timm":
        return create_backbone(name, in_channels=in_channels, pretrained=pretrained, seed=seed)
    if in_channels != 3:
        problem = f"torchvision's networks take images of 3 channels, not {in_channels}"
        raise InputError(problem, remedy="choose a network of timm, which adapts its first layer.")
    model = create_torchvision_model(name, pretrained=pretrained, seed=seed)
    return Backbone(wrap_torchvision(model, name), name, library="torchvision", state=model.state_dict())


def _check_dtypes(module: nn.Module) -> None:
    for key, value in module.named_parameters():
        if value.dtype != torch.float32:
            problem = f"the module's {key} is {str(value.dtype).removeprefix('torch.')}; training needs float32"
            raise InputError(problem, remedy="pass module.float().")


def _is_torchvision(module: nn.Module) -> bool:
    parts = type(module).__module__.split(".")
    return parts[:2] == ["torchvision", "models"] and not set(parts) & set(_NOT_CLASSIFIERS) and len(parts) > 2


def _of_torchvision(model: nn.Module) -> Backbone:
    name = torchvision_name(model)
    net = wrap_torchvision(model, name or type(model).__name__)
    channels = _first_channels(net, 3)
    backbone = Backbone(net, name or type(model).__name__, channels, library="torchvision", state=model.state_dict())
    if name is None or not remakes(backbone, "torchvision", name):
        backbone.library = "module"
    return backbone


def _of_timm(net: nn.Module, in_channels: int) -> Backbone:
    config = getattr(net, "pretrained_cfg", None) or {}
    name = config.get("architecture") or type(net).__name__
    backbone = Backbone(net, name, _first_channels(net, in_channels))
    if not remakes(backbone, "timm", name):
        backbone.library = "module"
    return backbone


def _first_channels(net: nn.Module, otherwise: int) -> int:
    """Channels of the images, by the first convolution."""
    convolutions = (module for module in net.modules() if isinstance(module, nn.Conv2d))
    return next((own.in_channels for own in convolutions), otherwise)
