"""Options of ``d3ssl evaluate detection``."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from d3ssl.errors import InputError

Architecture = Literal["fpn", "c4", "c3"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectionConfig:
    """How a detector is made of a backbone, fine-tuned and tested. The defaults are for minutes on a CPU; what
    published protocols on COCO use stands in brackets."""

    size: int = 96
    """Side to which images are stretched, px. [short side 800]"""
    architecture: Architecture = "fpn"
    """fpn: feature pyramid, and a head of two linear layers (a single map, as of a ViT, is resized to a pyramid). c4:
    RoIAlign on the map before the last stage, and the last stage as head, as in Faster R-CNN; c3: the same one stage
    earlier, for small images."""
    masks: bool | None = None
    """Masks too (Mask R-CNN); None: if all objects have masks."""
    steps: int = 300
    """Of fine-tuning, the same for every backbone. [90000: "1x"]"""
    batch_size: int = 16
    """Images per step, of all processes together. [16]"""
    optimizer: Literal["sgd", "adamw"] = "adamw"
    """sgd: with momentum 0.9. adamw gets farther in a few hundred steps. [sgd]"""
    lr: float | None = None
    """Learning rate; None: 0.02 · batch_size / 16 for sgd [the same], 0.001 for adamw. It rises during the warm-up,
    and falls to a tenth after 2/3 and again after 8/9 of the steps. ["1x": the same]"""
    weight_decay: float = 1e-4
    """Of weights; none for biases and norms. [1e-4]"""
    warmup_share: float = 0.1
    """Share of the steps in which the learning rate rises from a thousandth. [0.01]"""
    clip_grad_norm: float | None = 10.0
    """The gradient is shortened to this norm. [None]"""
    flip: bool = True
    """Half of the training images are flipped, left to right. [the same]"""
    freeze: bool = False
    """The backbone stays as it is, and only the new layers of fpn are trained: what its maps are worth as they are."""
    frozen_norm: bool = False
    """Keep the backbone's batch norms as they are, and put none into the new layers: for batches of a few images.
    False: they are trained, with statistics over all processes, and the pyramid (or the last stage's output) gets
    batch norm too, which makes backbones of different scale comparable. [dense pre-training (arXiv 2011.09157,
    2106.02637): False; supervised ImageNet weights: often True]"""
    width: int = 64
    """Channels of the pyramid and of the mask head. [256]"""
    head_features: int = 256
    """Of the two linear layers of fpn. [1024]"""
    roi_size: int | None = None
    """Cells a side of RoIAlign; None: 7 for fpn, 14 for c4 and c3. [the same]"""
    proposals: int = 200
    """Regions per image that the first stage hands to the second. [1000]"""
    rois: int = 32
    """Regions per image that the second stage learns from, a quarter of them objects at most. [512]"""
    detections: int = 100
    """At most so many an image. [100]"""
    min_score: float = 0.05
    """Detections below this score are dropped. [0.05]"""
    max_train_images: int | None = None
    """Fine-tune on so many images, drawn at random (others for other seeds); None: all."""
    max_val_images: int | None = 200
    """Test on so many images of each validation split, drawn at random (the same for all seeds); None: all."""
    val_share: float = 0.2
    """Share of the images that is tested on, where DATA is one set without splits."""
    draws: int = 200
    """Bootstrap samples of the intervals."""
    shown_images: int = 6
    """Validation images in the picture of detections."""
    shown_score: float = 0.3
    """Detections of at least this score are drawn."""
    save_every: int = 100
    """Steps between two checkpoints, from which a stopped evaluation goes on."""
    in_channels: int = 3
    """Of the images, for a backbone from timm; a run knows its own."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: a GPU if there is one."""
    workers: int = 0
    """Threads that decode images; 0: one a core."""
    max_bad_share: float = 0.01
    """Share of unreadable images above which the evaluation fails."""

    def reading(self) -> dict[str, Any]:
        """How ``load_backbone`` is to read a backbone."""
        return {"in_channels": self.in_channels}

    @property
    def base_lr(self) -> float:
        """The learning rate after the warm-up."""
        if self.lr is not None:
            return self.lr
        return 0.02 * self.batch_size / 16 if self.optimizer == "sgd" else 1e-3

    @property
    def cells(self) -> int:
        """Of RoIAlign, a side."""
        return self.roi_size or (7 if self.architecture == "fpn" else 14)

    def outcome(self) -> dict[str, Any]:
        """The options that the figures depend on."""
        aside = ("device", "workers", "save_every", "shown_images", "shown_score")
        return {name: value for name, value in asdict(self).items() if name not in aside}

    def check(self) -> None:
        """Raise InputError for values that make no sense."""
        rules = {
            "size": self.size >= 32,
            "steps": self.steps >= 1,
            "freeze": not self.freeze or self.architecture == "fpn",
            "batch_size": self.batch_size >= (1 if self.frozen_norm else 2),
            "lr": self.lr is None or self.lr > 0,
            "weight_decay": self.weight_decay >= 0,
            "warmup_share": 0 <= self.warmup_share < 1,
            "clip_grad_norm": self.clip_grad_norm is None or self.clip_grad_norm > 0,
            "width": self.width >= 1,
            "head_features": self.head_features >= 1,
            "roi_size": self.roi_size is None or self.roi_size >= 1,
            "proposals": self.proposals >= 1,
            "rois": self.rois >= 4,
            "detections": 1 <= self.detections <= 100,
            "min_score": 0 <= self.min_score < 1,
            "max_train_images": self.max_train_images is None or self.max_train_images >= 1,
            "max_val_images": self.max_val_images is None or self.max_val_images >= 2,
            "val_share": 0 < self.val_share < 1,
            "draws": self.draws >= 20,
            "shown_images": self.shown_images >= 0,
            "shown_score": 0 <= self.shown_score <= 1,
            "save_every": self.save_every >= 1,
            "in_channels": self.in_channels >= 1,
            "max_bad_share": 0 <= self.max_bad_share <= 1,
        }
        for name in (name for name, holds in rules.items() if not holds):
            problem = f"detection option {name} = {getattr(self, name)!r} is out of range"
            raise InputError(problem, remedy="see d3ssl evaluate detection --help.")
