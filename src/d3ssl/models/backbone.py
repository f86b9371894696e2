"""The backbone: any network with feature maps, of timm or not, cut open where regions are read.

The network stays whole inside (``Backbone.net``), so that its ``state_dict`` is that of plain timm (or torchvision).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from d3ssl.contracts import IMAGENET_MEAN, IMAGENET_STD
from d3ssl.errors import InputError
from d3ssl.models.layout import find_layout, run_chain, run_intermediates, run_levels
from d3ssl.models.mapped_net import MappedNet
from d3ssl.models.roi_align import roi_align
from d3ssl.models.source import Source
from d3ssl.models.strided_pointwise import make_safe
from d3ssl.models.timm_net import check_name, create_timm_net
from d3ssl.models.tokens import PatchChange, run_tokens
from d3ssl.seeds import derive_seed

Library = Literal["timm", "torchvision", "module"]
RegionPath = Literal["c3", "c4", "map"]
Level = Literal["c3", "c4", "map", "tokens"]
"""How deep a network is run: to the map before the last two stages, before the last one, to all maps; or tokens."""
Features = dict[Level, list[Tensor]]
"""The maps of every level asked for: one for ``c3`` and ``c4``, all of them for ``map``; see ``run_tokens``."""
HEAD_STAGES: dict[RegionPath, int] = {"map": 0, "c4": 1, "c3": 2}
"""Stages of the network that run on regions instead of on whole images."""


class Backbone(nn.Module):
    """A timm network and the ways to read maps and regions from it.

    All methods run in the module's current mode (batch norms in training mode use and update batch statistics) and
    return maps in channels_last memory where the network allows.
    """

    net: nn.Module
    """The timm network with ``num_classes=0``, torchvision's without its classifier, or what holds a given module."""
    timm_name: str
    """The network's name in its library; of a module from elsewhere, its class."""
    library: Library = "timm"
    """Where the network comes from; ``module``: it was given from Python and cannot be made again by its name."""
    source: Source
    """Where the weights came from, for ``save_like_source``."""
    in_channels: int
    channels: list[int]
    """Of each map."""
    strides: list[int]
    """Of each map: view px per map px."""
    mean: tuple[float, ...]
    """Of each input channel, for images in 0..1, as timm's weights expect. Other than three channels: the average."""
    std: tuple[float, ...]
    input_size: int
    """Side of the images the network was trained with, px (timm's configuration, or the run's views)."""
    region_path: RegionPath
    """How ``pool`` reads regions unless told otherwise. Default: ``c4`` where supported, because the last map of a
    small image has only a few cells; ``map`` for ViTs and all others. A run sets what it was trained with."""
    roi_size: int
    """Side of RoIAlign's grid. Default 7; SoCo's C4 head uses 14."""

    def __init__(
        self,
        net: nn.Module,
        timm_name: str,
        in_channels: int = 3,
        *,
        library: Library = "timm",
        state: Mapping[str, Tensor] | None = None,
    ) -> None:
        """``state``: the state dict as the library or the module has it, classifier included. None: the net's own."""
        super().__init__()
        self.library = library
        make_safe(net)
        self.net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.timm_name, self.in_channels = timm_name, in_channels
        self.layout = net.layout if isinstance(net, MappedNet) else find_layout(net, timm_name, in_channels)
        own = self.named_weights()
        self.source = Source.of_state(own if state is None else state, own)
        self.channels, self.strides = list(self.layout.channels), list(self.layout.strides)
        config: dict[str, Any] = getattr(net, "pretrained_cfg", None) or {}
        self.mean = _per_channel(config.get("mean", IMAGENET_MEAN), in_channels)
        self.std = _per_channel(config.get("std", IMAGENET_STD), in_channels)
        self.input_size = int(tuple(config.get("input_size", (3, 224, 224)))[-1])
        self.region_path = "c4" if self.supports_c4 else "map"
        self.roi_size = 7

    def forward(self, images: Float[Tensor, "B C H W"]) -> list[Tensor]:
        """The maps (see ``maps``)."""
        return self.maps(images)

    def named_weights(self) -> dict[str, Tensor]:
        """All parameters and buffers under the names that the library, or the module itself, gives them. No copies."""
        return dict((self.net.module if isinstance(self.net, MappedNet) else self.net).state_dict())

    @property
    def supports_c4(self) -> bool:
        """The last stage can be run by itself on region features: ``tail(trunk(images)) == maps(images)[-1]``."""
        return self.supports("c4")

    def supports(self, path: RegionPath) -> bool:
        """Whether regions can be read by this path."""
        return len(self.layout.cuts) >= HEAD_STAGES[path]

    @property
    def architecture(self) -> str:
        """The spec of the same network with random weights (see ``load_backbone``)."""
        return f"{self.library}:{self.timm_name}"

    @property
    def num_features(self) -> int:
        """D, the size of a region's feature."""
        return self.channels[-1]

    @property
    def has_batch_norm(self) -> bool:
        return any(isinstance(module, _BatchNorm) for module in self.net.modules())

    @property
    def unused_parameters(self) -> list[str]:
        """Names (in ``net``) of the parameters behind the last map, which no training of maps or regions reaches."""
        return list(self.layout.unused)

    def maps(self, images: Float[Tensor, "B C H W"]) -> list[Tensor]:
        """All feature maps, (B, C_i, H / stride_i, W / stride_i) each, the deepest last; a ViT has one."""
        return self.features(images, ("map",))["map"]

    def trunk(self, images: Float[Tensor, "B C H W"], path: RegionPath = "c4") -> Float[Tensor, "B D h w"]:
        """The map before the last stage ("C4"), or before the last two ("C3")."""
        return self.features(images, (path,))[path][0]

    def tail(self, cells: Float[Tensor, "N C h w"], path: RegionPath = "c4") -> Float[Tensor, "N D h2 w2"]:
        """The last stage or two, applied to region features of the trunk's map."""
        return run_chain(self.net, self._cut(path)[1], (), cells.contiguous(memory_format=torch.channels_last), [])

    def features(
        self, images: Float[Tensor, "B C H W"], needs: Collection[Level], change: PatchChange | None = None
    ) -> Features:
        """The maps of several levels in one pass, which goes no deeper than they need. ``change``: see ``run_tokens``.

        Raises:
            InputError: the network does not offer one of the levels.
        """
        self._check(images)
        layout, value = self.layout, images.contiguous(memory_format=torch.channels_last)
        if "tokens" in needs:
            grid, first = run_tokens(self.net, value, self.strides[-1], change)
            return {"map": [grid], "tokens": [grid, first]}
        heads: list[RegionPath] = [level for level in needs if level != "map"]  # type: ignore[misc]  # no tokens
        if not layout.chain:
            for level in heads:
                self.require(level)
            return {"map": run_intermediates(self.net, value, layout.is_grid, self.strides[-1])}
        ends: dict[int, Level] = {len(self._cut(level)[0]): level for level in heads}
        return run_levels(self.net, layout, value, ends, "map" if "map" in needs else None)

    def compile_stages(self) -> None:
        """``torch.compile`` what runs one after the other, in place: names in the state dict stay as they are.

        Raises:
            InputError: the network is neither a chain of stages nor a list of blocks.
        """
        blocks = [f"blocks.{name}" for name, _ in getattr(self.net, "blocks", nn.Module()).named_children()]
        names = self.layout.chain or blocks
        if not names:
            problem = f"'{self.timm_name}' has no stages or blocks that could be compiled one by one"
            raise InputError(problem, remedy="set --runtime.compile false.")
        for name in names:
            self.net.get_submodule(name).compile()

    def pool(
        self,
        images: Float[Tensor, "B C H W"],
        boxes: list[Float[Tensor, "_ 4"]],
        region_path: RegionPath | None = None,
    ) -> Float[Tensor, "N D"]:
        """One feature a box.

        Args:
            images: normalised by ``mean`` and ``std``.
            boxes: xyxy in view px, one tensor (K_i, 4) an image.
            region_path: how to read them (see ``pool_valid``); None: as ``self.region_path``.

        Returns:
            N = ΣK_i rows, image by image.
        """
        if len(boxes) != len(images):
            raise ValueError(f"{len(images)} images, but boxes for {len(boxes)}")
        counts = torch.tensor([len(own) for own in boxes], device=images.device)
        padded = nn.utils.rnn.pad_sequence([own.to(images) for own in boxes], batch_first=True)
        valid = torch.arange(padded.shape[1], device=images.device) < counts[:, None]
        return self.pool_valid(images, padded, valid, region_path or self.region_path, self.roi_size)

    def pool_valid(
        self,
        images: Float[Tensor, "B C H W"],
        boxes: Float[Tensor, "B K 4"],
        valid: Bool[Tensor, "B K"],
        region_path: RegionPath,
        roi_size: int,
    ) -> Float[Tensor, "N D"]:
        """One feature a valid box, in the order of ``valid.nonzero()``.

        ``c4``: RoIAlign on the trunk's map, the last stage on the cells, mean (Faster R-CNN's C4 head, as in SoCo,
        arXiv 2106.02637). ``c3``: the same one stage earlier, with the last two stages on the cells: for small images,
        where an object covers one or two cells of C4. ``map``: RoIAlign on the last map, mean.
        """
        head_stages = HEAD_STAGES[region_path]
        features = self.trunk(images, region_path) if head_stages else self.maps(images)[-1]
        scale = 1.0 / self.strides[-1 - head_stages]
        return self.pool_cells(features, boxes, scale, region_path, roi_size)[valid.flatten()]

    def pool_cells(
        self,
        features: Float[Tensor, "B C h w"],
        boxes: Float[Tensor, "B K 4"],
        scale: float,
        path: RegionPath,
        roi_size: int,
    ) -> Float[Tensor, "N D"]:
        """RoIAlign on one map, the last stages where the path has them, mean: a row for every box, image by image.

        Args:
            scale: map px per view px.
        """
        cells = roi_align(features, boxes, scale, roi_size)
        cells = cells.permute(0, 1, 3, 4, 2).flatten(0, 1).permute(0, 3, 1, 2)  # channels lie together
        return (self.tail(cells, path) if HEAD_STAGES[path] else cells).mean(dim=(2, 3))

    def require(self, path: RegionPath) -> None:
        """Raise InputError if regions cannot be read by this path."""
        if not self.supports(path):
            problem = f"the last stages of '{self.timm_name}' cannot be run on regions (region path {path})"
            raise InputError(problem, remedy="use --host.region_path map.")

    def _cut(self, path: RegionPath) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The modules up to the map that regions are read from, and those of the stages behind it."""
        self.require(path)
        chain, cut = self.layout.chain, self.layout.cuts[HEAD_STAGES[path] - 1]
        return chain[:cut], chain[cut:]

    def _check(self, images: Tensor) -> None:
        if images.shape[1] != self.in_channels:
            problem = f"images of {images.shape[1]} channels for a '{self.timm_name}' of {self.in_channels}"
            raise InputError(problem, remedy="create the backbone with as many input channels as the images have.")
        check_size(self, (images.shape[2], images.shape[3]))


def check_size(backbone: Backbone, size: tuple[int, int]) -> None:
    """Raise InputError if the network is limited to another image size (h, w), px."""
    fixed = backbone.layout.fixed_size
    if fixed is not None and size != fixed:
        problem = f"'{backbone.timm_name}' takes only images of {fixed[0]} × {fixed[1]} px, not {size[0]} × {size[1]}"
        remedy = (
            f"give images of that size (such as --size {fixed[0]}), or "
            "choose a CNN or a ViT with a plain patch grid, which take any size (a timm ViT of your own: create it "
            "with dynamic_img_size=True)."
        )
        raise InputError(problem, remedy=remedy)


def create_backbone(
    name: str,
    *,
    in_channels: int = 3,
    pretrained: bool = False,
    image_size: int | None = None,
    seed: int | None = None,
) -> Backbone:
    """Make a backbone by its timm name (``timm.list_models()``), in training mode.

    Args:
        in_channels: of the images; timm adapts the first layer.
        pretrained: load timm's weights, which downloads them unless they are in its cache.
        image_size: side, px, that will be used: fails now instead of later if the network cannot take it.
        seed: decides the initial weights. None: torch's global generator does, as for any module.

    Raises:
        InputError: unknown name, weights cannot be had, no feature maps, or an impossible image size.
    """
    check_name(name)
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.default_generator.manual_seed(derive_seed("backbone", seed))
        net, state = create_timm_net(name, in_channels, pretrained=pretrained)
    backbone = Backbone(net, name, in_channels, state=state)
    if image_size is not None:
        check_size(backbone, (image_size, image_size))
    return backbone


def _per_channel(values: Any, in_channels: int) -> tuple[float, ...]:
    own = tuple(map(float, values))
    return own if len(own) == in_channels else (sum(own) / len(own),) * in_channels
