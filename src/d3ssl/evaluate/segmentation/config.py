"""How backbones are measured at semantic segmentation: every default with its unit or its source."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from d3ssl.errors import InputError
from d3ssl.files import digest

ProtocolName = Literal["linear", "retrieval", "fcn"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentationConfig:
    """How pixels are classified from a backbone's maps."""

    protocols: tuple[ProtocolName, ...] = ("linear", "retrieval")
    """What is measured, the main figure first. linear: a linear classifier of the frozen map's cells. retrieval: their
    nearest cells of the training images name them (Hummingbird). fcn: backbone and head are trained together."""
    size: int | None = None
    """Side to which images are stretched, px; None: the backbone's input size (a run's views, or timm's). Published
    with ViTs: 448 (linear), 512 (retrieval). A baseline of other input size is not comparable: set it."""
    levels: int = 3
    """The last maps of a network that are put together, at the size of the finest of them (a hypercolumn, arXiv
    1411.5752): 3 gives cells of 8 px, 1 the last map alone (of 32 px, too coarse for small images). ViTs have one."""
    max_train_images: int | None = 500
    """Training images drawn at random (by the seed); None: all. 500 and 200 below: minutes on a CPU."""
    max_val_images: int | None = 200
    """The same for each validation split, where the draw is the same for every seed."""
    val_share: float = 0.2
    """Share of the images that is tested on, where DATA is one set without splits."""
    truth_size: int | None = None
    """Side of the square map on which predictions are compared, px; None: every pixel of the annotation. Published
    linear protocol: 100."""
    linear_optimizer: Literal["lbfgs", "sgd"] = "lbfgs"
    """lbfgs: to the optimum, on cells drawn at random, with the shares of the classes in a cell as its label. sgd: on
    whole images, predictions brought to linear_grid (published: Leopart, NeCo)."""
    linear_cells: int = 40_000
    """lbfgs: cells of the training images to learn from; they are kept in memory."""
    linear_l2: float = 1e-3
    """lbfgs: mean cross-entropy + ½·this·|weights|², features standardised."""
    linear_iterations: int = 150
    """lbfgs: at most so many."""
    linear_grid: int = 100
    """sgd: side of the label maps, px (published: 100)."""
    linear_lr: float = 0.01
    """sgd: learning rate, momentum .9 (published: 0.01, on features as they are; here they are standardised)."""
    linear_epochs: int = 25
    """sgd: passes over the training images (published: 25)."""
    linear_drop_epoch: int = 20
    """sgd: the learning rate is a tenth from here on (published: 20)."""
    memory: int = 10_000
    """retrieval: cells of the training images to look up (published: up to 10,240,000)."""
    neighbours: int = 30
    """retrieval: cells that name another one (published: 30)."""
    temperature: float = 0.02
    """retrieval: a neighbour of cosine similarity s weighs exp(s / temperature) (published: β = 0.02)."""
    retrieval_centre: bool = True
    """retrieval: features are first centred with the mean of the training images' cells, as O-KNN does: features that
    are never negative (behind a ReLU) all point the same way, and their cosines tell little. Published: false."""
    fcn_steps: int = 300
    """fcn: optimiser steps, the same for every backbone."""
    fcn_batch: int = 16
    """fcn: images per step."""
    fcn_lr: float = 0.05
    """fcn: learning rate at the start, momentum .9; it falls as (1 − step/steps)^0.9 (poly)."""
    fcn_weight_decay: float = 1e-4
    """fcn: of all weights."""
    fcn_channels: int = 128
    """fcn: of the head's hidden map."""
    pictures: int = 6
    """Validation images that are shown with truth and predictions; 0: none."""
    draws: int = 2000
    """Bootstrap samples of the intervals."""
    batch_size: int = 16
    """Images at a time (sgd: a step)."""
    in_channels: int = 3
    """Of the images, for a backbone from timm; a run knows its own."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: a GPU if there is one."""
    workers: int = 0
    """Threads that decode images; 0: one a core."""
    seed: int = 0
    """Decides which validation images are drawn, and the bootstrap."""

    def reading(self) -> dict[str, Any]:
        """How ``load_backbone`` is to read a backbone."""
        return {"in_channels": self.in_channels}

    def fingerprint(self) -> str:
        """Changes with every option that the figures depend on."""
        values = {key: value for key, value in asdict(self).items() if key not in ("device", "workers", "val_share")}
        return digest(*(f"{key}={value!r}" for key, value in values.items()))

    def check(self) -> None:
        """Raise InputError for values that make no sense."""
        known = ("linear", "retrieval", "fcn")
        rules = {
            "protocols": bool(self.protocols)
            and len(set(self.protocols)) == len(self.protocols)
            and set(self.protocols) <= set(known),
            "size": self.size is None or self.size >= 16,
            "levels": self.levels >= 1,
            "max_train_images": self.max_train_images is None or self.max_train_images >= 2,
            "max_val_images": self.max_val_images is None or self.max_val_images >= 2,
            "val_share": 0 < self.val_share < 1,
            "truth_size": self.truth_size is None or self.truth_size >= 2,
            "linear_cells": self.linear_cells >= 10,
            "linear_l2": self.linear_l2 >= 0,
            "linear_iterations": self.linear_iterations >= 1,
            "linear_grid": self.linear_grid >= 2,
            "linear_lr": self.linear_lr > 0,
            "linear_epochs": self.linear_epochs >= 1,
            "linear_drop_epoch": self.linear_drop_epoch >= 1,
            "memory": self.memory >= 1,
            "neighbours": 1 <= self.neighbours <= self.memory,
            "temperature": self.temperature > 0,
            "fcn_steps": self.fcn_steps >= 1,
            "fcn_batch": self.fcn_batch >= 2,
            "fcn_lr": self.fcn_lr > 0,
            "fcn_weight_decay": self.fcn_weight_decay >= 0,
            "fcn_channels": self.fcn_channels >= 1,
            "pictures": self.pictures >= 0,
            "draws": self.draws >= 100,
            "batch_size": self.batch_size >= 1,
            "in_channels": self.in_channels >= 1,
        }
        for name in (name for name, holds in rules.items() if not holds):
            problem = f"segmentation option {name} = {getattr(self, name)!r} is out of range"
            raise InputError(problem, remedy="see d3ssl evaluate segmentation --help.")
