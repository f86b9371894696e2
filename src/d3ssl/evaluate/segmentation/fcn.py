"""The fine-tuning protocol: backbone and a fully convolutional head, trained together for a fixed number of steps."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from d3ssl.console import progress
from d3ssl.data.semantic import IGNORED, SemanticSet
from d3ssl.distributed import all_reduce_sum, rank, world_size
from d3ssl.errors import D3sslError, InputError
from d3ssl.evaluate.encode import to_images
from d3ssl.evaluate.segmentation.config import SegmentationConfig
from d3ssl.evaluate.segmentation.features import Sample, dense_levels, labels_at, read_samples
from d3ssl.models import Backbone
from d3ssl.models.sync_batch_norm import convert_sync_batch_norm
from d3ssl.seeds import derive_seed, numpy_generator

MOMENTUM = 0.9
POWER = 0.9
"""Of the poly schedule (DeepLab, arXiv 1606.00915)."""


class FcnSegmenter(nn.Module):
    """A backbone and a head on its last maps: 3×3 convolution, batch norm, ReLU, twice, and a 1×1 convolution (FCN,
    arXiv 1411.4038, as in the transfer experiments of MoCo, arXiv 1911.05722)."""

    def __init__(self, backbone: Backbone, num_classes: int, levels: int, channels: int) -> None:
        super().__init__()
        self.backbone, self.levels = backbone, levels
        width = sum(backbone.channels[-levels:])
        self.head = nn.Sequential(
            nn.Conv2d(width, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, num_classes, 1),
        )

    def forward(self, images: Float[Tensor, "B C S S"]) -> Float[Tensor, "B classes h w"]:
        return self.head(torch.cat(dense_levels(self.backbone, images, self.levels), dim=1))


def fine_tune(
    backbone: Backbone,
    images: SemanticSet,
    size: int,
    config: SegmentationConfig,
    seed: int,
    device: torch.device,
) -> FcnSegmenter:
    """Train a copy of the backbone (which is left as it was) and a new head by SGD with the poly schedule; the same
    number of steps for every backbone. Half of the images are mirrored. Several processes share every batch out (DDP,
    synchronised batch norm).

    Returns:
        In evaluation mode, on the device.

    Raises:
        InputError: an image or map cannot be used.
        D3sslError: the loss is not finite.
    """
    if config.fcn_batch % world_size():
        problem = f"a batch of {config.fcn_batch} images cannot be shared out evenly to {world_size()} processes"
        raise InputError(problem, remedy=f"set --fcn_batch to a multiple of {world_size()}.")
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(derive_seed(seed, "fcn"))  # the head's first weights; dropout of the backbone, if any
        model = _prepare(FcnSegmenter(copy.deepcopy(backbone), images.num_classes, config.levels, config.fcn_channels))
        model.to(device)
        network = DistributedDataParallel(model) if world_size() > 1 else model
        optimizer = torch.optim.SGD(
            [parameter for parameter in model.parameters() if parameter.requires_grad],
            lr=config.fcn_lr,
            momentum=MOMENTUM,
            weight_decay=config.fcn_weight_decay,
        )
        with progress("fine-tuning", config.fcn_steps) as ticker:
            for step, batch in enumerate(_batches(images, size, config, seed, backbone.in_channels)):
                optimizer.param_groups[0]["lr"] = config.fcn_lr * (1 - step / config.fcn_steps) ** POWER
                flips = numpy_generator(seed, "fcn flips", step).random(config.fcn_batch) < 0.5
                inputs, truth = _inputs(model.backbone, batch, flips[rank() :: world_size()], size)
                loss = _loss(network(inputs), truth)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                value = float(all_reduce_sum(loss)) / world_size()
                if not np.isfinite(value):
                    problem = f"the loss of fine-tuning is not finite after {step} steps"
                    raise D3sslError(problem, remedy="lower --fcn_lr.")
                ticker.advance(note=f"loss {value:.3f}")
    return model.eval()


def _prepare(model: FcnSegmenter) -> FcnSegmenter:
    """Ready to be trained: all weights but those that no map depends on."""
    model.train().requires_grad_(True)
    for name in model.backbone.unused_parameters:
        model.backbone.net.get_parameter(name).requires_grad_(False)
    return convert_sync_batch_norm(model) if world_size() > 1 else model


def _inputs(backbone: Backbone, batch: list[Sample], flips: np.ndarray, size: int) -> tuple[Tensor, Tensor]:
    """Images (B, C, S, S) and label maps (B, S, S), some of them mirrored."""
    pairs = [(one.canvas, labels_at(one.labels, size, size)) for one in batch]
    pairs = [(c[:, ::-1], t[:, ::-1]) if flip else (c, t) for (c, t), flip in zip(pairs, flips, strict=True)]
    images = to_images(backbone, [canvas for canvas, _ in pairs])
    return images, torch.from_numpy(np.stack([truth for _, truth in pairs])).to(images.device)


def _loss(scores: Float[Tensor, "B classes h w"], truth: Int64[Tensor, "B S S"]) -> Float[Tensor, ""]:
    """Mean cross-entropy over the pixels of all processes that are not ignored; times the number of processes, as DDP
    takes the mean of their gradients."""
    scores = F.interpolate(scores, size=truth.shape[1:], mode="bilinear", align_corners=False)
    total = F.cross_entropy(scores, truth, ignore_index=IGNORED, reduction="sum")
    counted = all_reduce_sum((truth != IGNORED).sum()).clamp(min=1)
    return total * (world_size() / counted)


def _batches(
    images: SemanticSet, size: int, config: SegmentationConfig, seed: int, channels: int
) -> Iterator[list[Sample]]:
    """This process's part of ``fcn_steps`` batches: the images in a new random order in every pass."""
    wanted = config.fcn_steps * config.fcn_batch
    passes = range(-(-wanted // len(images)))
    order = [numpy_generator(seed, "fcn order", number).permutation(len(images)) for number in passes]
    drawn = np.concatenate(order)[:wanted].reshape(config.fcn_steps, config.fcn_batch)
    mine = drawn[:, rank() :: world_size()]
    yield from read_samples(
        images, mine.ravel().tolist(), size=size, channels=channels, workers=config.workers, batch_size=mine.shape[1]
    )
