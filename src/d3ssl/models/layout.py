"""Where the feature maps of a timm network come from, found out once and checked against its own forward pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from d3ssl.errors import InputError
from d3ssl.models.modes import evaluating
from d3ssl.seeds import torch_generator

Level = TypeVar("Level", bound=str)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How to get the maps of one network."""

    chain: tuple[str, ...]
    """Names of the modules that, called one after the other, give the last map. Empty: they do not; timm's
    ``forward_intermediates`` is used."""
    ends: tuple[str, ...]
    """Names in ``chain`` after which a map is taken."""
    cuts: tuple[int, ...]
    """Lengths of the parts of ``chain`` that give the map before the last stage and the map before the last two, for
    those rests of the chain that can be run by themselves on small region features."""
    channels: tuple[int, ...]
    """Of each map."""
    strides: tuple[int, ...]
    """Of each map: view px per map px."""
    is_grid: bool
    """All blocks work at one stride (ViT): the only map is the last block's, through the final norm."""
    fixed_size: tuple[int, int] | None
    """Height and width the network is limited to, px; None: any."""
    unused: tuple[str, ...]
    """Names of the parameters that no map depends on (layers behind the last one)."""


def find_layout(net: nn.Module, name: str, in_channels: int) -> Layout:
    """Run ``net`` once on a tiny image (evaluation mode, no change of its state) and see where maps arise.

    Raises:
        InputError: the network has no feature maps.
    """
    info = [dict(stage) for stage in _feature_info(net)]
    if not info or not hasattr(net, "forward_intermediates"):
        remedy = "choose a CNN with feature maps or a ViT, for example resnet18 or vit_small_patch16_224."
        raise InputError(f"the timm network '{name}' offers no feature maps", remedy=remedy)
    strides = [int(stage["reduction"]) for stage in info]
    is_grid = len(strides) > 1 and len(set(strides)) == 1
    with evaluating(net):
        found = None if is_grid else _find_chain(net, info, in_channels)
        return found or _use_intermediates(net, name, is_grid, max(strides), in_channels)


def run_intermediates(net: nn.Module, images: Float[Tensor, "B C H W"], is_grid: bool, stride: int) -> list[Tensor]:
    """The maps by timm's own function: all stages, or only the last, normalised one of a grid of tokens.

    For a grid, the image is padded with zeros, right and below, to whole patches of ``stride`` px.
    """
    function: Any = net.forward_intermediates
    if is_grid:
        height, width = images.shape[2:]
        images = F.pad(images, (0, -width % stride, 0, -height % stride))
        return list(function(images, indices=1, norm=True, output_fmt="NCHW", intermediates_only=True))
    return list(function(images, output_fmt="NCHW", intermediates_only=True))


def run_chain(
    net: nn.Module, names: tuple[str, ...], ends: tuple[str, ...], value: Tensor, maps: list[Tensor]
) -> Tensor:
    """Call the named modules one after the other; what comes out behind each of ``ends`` is added to ``maps``."""
    for name in names:  # looked up every time: modules may be replaced (synchronised batch norm)
        value = net.get_submodule(name)(value)
        if name in ends:
            maps.append(value)
    return value


def run_levels(
    net: nn.Module, layout: Layout, value: Tensor, levels: dict[int, Level], maps: Level | None
) -> dict[Level, list[Tensor]]:
    """Call the modules of a chain one after the other, no further than needed.

    Args:
        levels: number of modules → the name of what comes out behind them.
        maps: the name of all maps of the layout; None: they are not needed.
    """
    found: dict[Level, list[Tensor]] = {maps: []} if maps is not None else {}
    last = len(layout.chain) if maps is not None else max(levels)
    for number, name in enumerate(layout.chain[:last], start=1):
        value = net.get_submodule(name)(value)
        if maps is not None and name in layout.ends:
            found[maps].append(value)
        if number in levels:
            found[levels[number]] = [value]
    return found


def behind_the_maps(net: nn.Module, maps: Sequence[Tensor]) -> tuple[str, ...]:
    """Names of the parameters that no map depends on; frozen ones cannot be told and do not count."""
    parameters = {key: value for key, value in net.named_parameters() if value.requires_grad}
    total = torch.stack([found.float().sum() for found in maps]).sum()
    if not total.requires_grad:
        return tuple(parameters)
    gradients = torch.autograd.grad(total, list(parameters.values()), allow_unused=True)
    return tuple(key for key, gradient in zip(parameters, gradients, strict=True) if gradient is None)


def _feature_info(net: nn.Module) -> list[dict[str, Any]]:
    info: Any = getattr(net, "feature_info", None) or []
    return list(getattr(info, "info", info))


def _probe(net: nn.Module, in_channels: int, height: int, width: int) -> Float[Tensor, "1 C H W"]:
    device = next((parameter.device for parameter in net.parameters()), torch.device("cpu"))
    return torch.randn(1, in_channels, height, width, generator=torch_generator("probe")).to(device)


def _find_chain(net: nn.Module, info: list[dict[str, Any]], in_channels: int) -> Layout | None:
    """The children of ``net`` in their order, if calling them in a row does what its own forward pass does."""
    ends = tuple(str(stage.get("module", "")) for stage in info)
    chain = []
    for name in _flat_children(net, "", ends):
        chain.append(name)
        if name == ends[-1]:
            break
    if not set(ends) <= set(chain):
        return None
    strides = tuple(int(stage["reduction"]) for stage in info)
    channels = tuple(int(stage["num_chs"]) for stage in info)
    height, width = 2 * max(strides), 3 * max(strides)  # not square: a layout of other axes cannot pass
    image = _probe(net, in_channels, height, width)
    own: dict[str, Tensor] = {}
    hooks = [net.get_submodule(end).register_forward_hook(_keep_output(own, end)) for end in ends]
    try:
        with torch.no_grad():
            net.forward_features(image)  # type: ignore[operator]
            for hook in hooks:
                hook.remove()
            maps: list[Tensor] = []
            run_chain(net, tuple(chain), ends, image, maps)
    except (RuntimeError, ValueError, TypeError, AssertionError, NotImplementedError):
        return None  # calling the children in a row is no forward pass of this network
    finally:
        for hook in hooks:
            hook.remove()
    for end, found, channel, stride in zip(ends, maps, channels, strides, strict=True):
        wanted = (1, channel, height // stride, width // stride)
        if end not in own or tuple(found.shape) != wanted or own[end].shape != found.shape:
            return None
        if not torch.allclose(found, own[end], rtol=1e-5, atol=1e-6):
            return None
    inside = tuple(f"{name}." for name in chain)
    unused = tuple(name for name, _ in net.named_parameters() if not name.startswith(inside))
    return Layout(
        chain=tuple(chain),
        ends=ends,
        cuts=_find_cuts(net, tuple(chain), ends, channels),
        channels=channels,
        strides=strides,
        is_grid=False,
        fixed_size=None,
        unused=unused,
    )


def _find_cuts(
    net: nn.Module, chain: tuple[str, ...], ends: tuple[str, ...], channels: tuple[int, ...]
) -> tuple[int, ...]:
    """Where the last stage and the last two begin, as far as they have parameters and take cells of odd and even
    number a side."""
    cuts: list[int] = []
    for stages in range(1, min(3, len(ends))):
        cut = chain.index(ends[-1 - stages]) + 1
        if not any(True for name in chain[cut:] for _ in net.get_submodule(name).parameters()):
            break
        try:
            with torch.no_grad():
                for side in (4, 7):
                    run_chain(net, chain[cut:], (), _probe(net, channels[-1 - stages], side, side), [])
        except (RuntimeError, ValueError, AssertionError):
            break  # it needs images of a certain size
        cuts.append(cut)
    return tuple(cuts)


def _flat_children(module: nn.Module, prefix: str, ends: tuple[str, ...]) -> Iterator[str]:
    """Names of the children in order; a Sequential is opened if a map arises inside it."""
    for child_name, child in module.named_children():
        name = f"{prefix}{child_name}"
        if isinstance(child, nn.Sequential) and any(end.startswith(f"{name}.") for end in ends):
            yield from _flat_children(child, f"{name}.", ends)
        else:
            yield name


def _keep_output(store: dict[str, Tensor], name: str) -> Any:
    def hook(module: nn.Module, args: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            store[name] = output.clone()  # a layer behind may work in place

    return hook


def _use_intermediates(net: nn.Module, name: str, is_grid: bool, stride: int, in_channels: int) -> Layout:
    """Maps by ``forward_intermediates``; a network that refuses a tiny image is limited to its own size."""
    made_for = own_size(net)
    problem: Exception | None = None
    for size in ((2 * stride, 3 * stride), made_for):
        try:
            with torch.enable_grad():
                maps = run_intermediates(net, _probe(net, in_channels, *size), is_grid, stride)
                unused = behind_the_maps(net, maps)
        except (RuntimeError, ValueError, TypeError, AssertionError, NotImplementedError) as error:
            problem = error
            continue
        if size != made_for and any(size[0] % found.shape[2] or size[1] % found.shape[3] for found in maps):
            continue  # the network scales the image to a size of its own, or does not pad its convolutions
        return Layout(
            chain=(),
            ends=(),
            cuts=(),
            channels=tuple(found.shape[1] for found in maps),
            strides=tuple(round(size[1] / found.shape[3]) for found in maps),
            is_grid=is_grid,
            fixed_size=size if size == made_for else None,
            unused=unused,
        )
    remedy = "choose a CNN with feature maps or a ViT, for example resnet18 or vit_small_patch16_224."
    raise InputError(f"the timm network '{name}' gives no feature maps ({problem})", remedy=remedy) from problem


def own_size(net: nn.Module) -> tuple[int, int]:
    """Height and width that the network was made for, px."""
    config: dict[str, Any] = getattr(net, "pretrained_cfg", None) or {}
    own: Any = getattr(getattr(net, "patch_embed", None), "img_size", None)
    height, width = own or tuple(config.get("input_size", (3, 224, 224)))[-2:]
    return int(height), int(width)
