"""torchvision's classification networks in the form that backbones are made of: timm's ``feature_info`` and
``forward_intermediates`` on torchvision's own modules, whose names in the state dict stay as they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
import torchvision
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.models import VisionTransformer, get_model, get_model_builder, get_model_weights, list_models

from d3ssl.errors import InputError, nearest
from d3ssl.models.modes import evaluating
from d3ssl.seeds import derive_seed, torch_generator

BEHIND = ("avgpool", "flatten", "classifier", "fc", "head", "heads", "AuxLogits", "aux1", "aux2")
"""Names of torchvision's modules behind the last map."""
_PROBE = (64, 96)
"""Height and width of the image that shows where the maps arise, px. Not square: exchanged axes cannot pass."""


class TorchvisionNet(nn.Module):
    """A CNN or Swin without its classifier: children called one after the other."""

    feature_info: list[dict[str, Any]]
    """``module``, ``reduction`` (px per map px) and ``num_chs`` of every map, as timm has them."""
    pretrained_cfg: dict[str, Any]
    """``mean``, ``std``, ``input_size`` and ``classifier`` (names of the parts that are left out)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        for name, child in model.named_children():
            if name not in BEHIND:
                self.add_module(name, child)
        self.training = model.training
        self.feature_info = []
        image = torch.randn(1, 3, *_PROBE, generator=torch_generator("probe")).to(next(model.parameters()).device)
        steps = list(_steps(self, "", image))
        for (name, value), (_, behind) in zip(steps, [*steps[1:], ("", image)], strict=True):
            rows, channels = _rows_and_channels(value)
            if _PROBE[0] % rows:
                raise ValueError(f"{_PROBE[0]} rows of pixels become {rows} of the map: not padded")
            if rows != _rows_and_channels(behind)[0] and rows < _PROBE[0]:
                self.feature_info.append({"module": name, "reduction": _PROBE[0] // rows, "num_chs": channels})
        self._channels_last = steps[-1][0] == "permute"  # Swin's blocks hold (B, h, w, C)

    def forward_features(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        """The last map."""
        for child in self.children():
            images = child(images)
        return images

    def forward_intermediates(
        self, images: Float[Tensor, "B 3 H W"], *, output_fmt: str = "NCHW", intermediates_only: bool = True
    ) -> list[Tensor]:
        """All maps, (B, C, h, w) each; of a Swin the last one through the final norm."""
        ends = [stage["module"] for stage in self.feature_info]
        found: dict[str, Tensor] = {}
        hooks = [
            self.get_submodule(end).register_forward_hook(lambda _, __, value, end=end: found.update({end: value}))
            for end in ends
        ]
        try:
            last = self.forward_features(images)
        finally:
            for hook in hooks:
                hook.remove()
        maps = [found[end] for end in ends]
        if self._channels_last:
            maps = [*(value.permute(0, 3, 1, 2) for value in maps[:-1]), last]
        return maps


class TorchvisionViT(nn.Module):
    """A Vision Transformer without its head; images of any size, the position embedding interpolated (bicubic)."""

    feature_info: list[dict[str, Any]]
    pretrained_cfg: dict[str, Any]

    def __init__(self, model: VisionTransformer) -> None:
        super().__init__()
        self.conv_proj, self.encoder = model.conv_proj, model.encoder
        self.class_token = model.class_token
        self._patch, self._side = model.patch_size, model.image_size // model.patch_size
        self.feature_info = [
            {"module": f"encoder.layers.{name}", "reduction": self._patch, "num_chs": model.hidden_dim}
            for name, _ in self._blocks()
        ]

    def forward_features(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B T D"]:
        """All tokens of the last block after the final norm, the class token first."""
        return self.encoder.ln(self._tokens(images, [len(self.feature_info) - 1])[0])

    def forward_intermediates(
        self,
        images: Float[Tensor, "B 3 H W"],
        *,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = True,
    ) -> list[Tensor]:
        """Maps of patch tokens, (B, D, h, w) each, of the numbered blocks (a number n: of the last n; None: all)."""
        depth = len(self.feature_info)
        wanted = range(depth)[-indices:] if isinstance(indices, int) else indices or range(depth)
        found = self._tokens(images, wanted)
        found = [self.encoder.ln(tokens) if norm else tokens for tokens in found]
        rows, columns = images.shape[2] // self._patch, images.shape[3] // self._patch
        return [tokens[:, 1:].transpose(1, 2).unflatten(2, (rows, columns)) for tokens in found]

    def _tokens(self, images: Tensor, wanted: Sequence[int]) -> list[Tensor]:
        patches = self.conv_proj(images)
        tokens = patches.flatten(2).transpose(1, 2)
        tokens = torch.cat([self.class_token.expand(len(tokens), -1, -1), tokens], dim=1)
        tokens = self.encoder.dropout(tokens + self._positions((patches.shape[2], patches.shape[3])))
        found: dict[int, Tensor] = {}
        for number, (_, block) in enumerate(self._blocks()):
            tokens = block(tokens)
            if number in wanted:
                found[number] = tokens
        return [found[number] for number in wanted]

    def _positions(self, grid: tuple[int, int]) -> Float[Tensor, "1 T D"]:
        own = self.encoder.pos_embedding
        if grid == (self._side, self._side):
            return own
        cells = own[:, 1:].transpose(1, 2).unflatten(2, (self._side, self._side))
        cells = F.interpolate(cells, grid, mode="bicubic", align_corners=False, antialias=True)
        return torch.cat([own[:, :1], cells.flatten(2).transpose(1, 2)], dim=1)

    def _blocks(self) -> Iterator[tuple[str, nn.Module]]:
        return self.encoder.layers.named_children()


def create_torchvision_model(name: str, *, pretrained: bool, seed: int | None) -> nn.Module:
    """Make torchvision's own network, classifier included, by its name (``torchvision.models.list_models``).

    Args:
        pretrained: load torchvision's default weights, which downloads them unless they are in its cache.
        seed: decides the initial weights. None: torch's global generator does.

    Raises:
        InputError: unknown name, or the weights are not available.
    """
    names = list_models(torchvision.models)
    if name not in names:
        raise InputError(f"unknown torchvision network '{name}'", remedy=nearest(name, names))
    weights = get_model_weights(name)["DEFAULT"]
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.default_generator.manual_seed(derive_seed("backbone", seed))
        try:
            return get_model(name, weights=weights if pretrained else None, **_init_options(name, pretrained))
        except Exception as error:
            if not pretrained:
                raise
            remedy = f"check the network connection, or load a local file with torchvision:{name}:FILE."
            problem = f"torchvision's weights for '{name}' are not available ({error})"
            raise InputError(problem, remedy=remedy) from error


def wrap_torchvision(model: nn.Module, name: str) -> TorchvisionNet | TorchvisionViT:
    """The network without its classifier, on the model's own modules. Sets ``pretrained_cfg``.

    Args:
        name: torchvision's, for mean, standard deviation and image size. Any other: ImageNet's.

    Raises:
        InputError: a network that is no chain of modules.
    """
    net = TorchvisionViT(model) if isinstance(model, VisionTransformer) else _as_chain(name, model)
    net.pretrained_cfg = {"classifier": BEHIND}
    if name in list_models(torchvision.models):
        transforms = get_model_weights(name)["DEFAULT"].transforms()
        own = {"mean": transforms.mean, "std": transforms.std, "input_size": (3, *transforms.crop_size * 2)}
        net.pretrained_cfg |= {key: tuple(value) for key, value in own.items()}
    return net


def torchvision_name(model: nn.Module) -> str | None:
    """The name of the network with the same keys and shapes, whatever its number of classes; None: there is none."""
    own, size = _shapes(model), sum(value.numel() for value in model.parameters())
    home = type(model).__module__
    relatives = [name for name in list_models(torchvision.models) if get_model_builder(name).__module__ == home]
    for name in sorted(relatives, key=lambda name: abs(_num_parameters(name) - size)):
        with torch.device("meta"):
            if _shapes(get_model(name, **_init_options(name, False))) == own:
                return name
    return None


def _num_parameters(name: str) -> int:
    return int(get_model_weights(name)["DEFAULT"].meta["num_params"])


def _shapes(model: nn.Module) -> dict[str, torch.Size]:
    behind = tuple(f"{name}." for name in BEHIND)
    return {key: value.shape for key, value in model.state_dict().items() if not key.startswith(behind)}


def _init_options(name: str, pretrained: bool) -> dict[str, Any]:
    """These two warn of a change of their initialisation unless told which one."""
    return {"init_weights": True} if name in ("googlenet", "inception_v3") and not pretrained else {}


def _as_chain(name: str, model: nn.Module) -> TorchvisionNet:
    """The network as a chain, checked against torchvision's own forward pass."""
    image = torch.randn(1, 3, 224, 224, generator=torch_generator("probe")).to(next(model.parameters()).device)
    own: list[Tensor] = []
    last = [child for child_name, child in model.named_children() if child_name not in BEHIND][-1]
    problem = "its own forward pass does something else"
    try:
        with evaluating(model), torch.no_grad():
            hook = last.register_forward_hook(lambda _, __, value: own.append(value.clone()))
            model(image)
            hook.remove()
            net = TorchvisionNet(model)
            found = net.forward_features(image)
        if own[0].shape == found.shape and torch.allclose(own[0], found, rtol=1e-4, atol=1e-5):
            return net
    except (RuntimeError, ValueError, TypeError, NotImplementedError) as error:
        problem = str(error).splitlines()[0]
    remedy = "choose a ResNet, RegNet, VGG, DenseNet, EfficientNet, MobileNet, ConvNeXt, Swin or ViT."
    raise InputError(f"torchvision's '{name}' cannot be read as a chain of modules ({problem})", remedy=remedy)


def _steps(module: nn.Module, prefix: str, value: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Names of the children in order with what comes out of each; a Sequential in which the resolution changes more
    than once is opened."""
    for child_name, child in module.named_children():
        name = f"{prefix}{child_name}"
        inside = list(_steps(child, f"{name}.", value)) if isinstance(child, nn.Sequential) else []
        sides = [_rows_and_channels(value)[0], *(_rows_and_channels(own)[0] for _, own in inside)]
        if len(set(sides)) > 2:
            yield from inside
            value = inside[-1][1]
        else:
            value = child(value)
            yield name, value


def _rows_and_channels(value: Tensor) -> tuple[int, int]:
    """Of a map (1, C, h, w), or (1, h, w, C) as Swin has them: the probe's maps are wider than high."""
    _, first, second, third = value.shape
    channels_last = first * _PROBE[1] == second * _PROBE[0] != third * _PROBE[0]
    return (first, third) if channels_last else (second, first)
