"""The linear protocol: one linear classifier (a 1×1 convolution) for the cells of a frozen map."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32
from torch import Tensor

from d3ssl.console import progress
from d3ssl.data.semantic import IGNORED, SemanticSet
from d3ssl.errors import D3sslError
from d3ssl.evaluate.encode import to_images
from d3ssl.evaluate.segmentation.config import SegmentationConfig
from d3ssl.evaluate.segmentation.features import dense_levels, labels_at, read_samples
from d3ssl.evaluate.segmentation.pool import CellPool
from d3ssl.models import Backbone
from d3ssl.seeds import numpy_generator

MOMENTUM = 0.9
DROP = 0.1
"""Factor of the learning rate from ``linear_drop_epoch`` on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearHead:
    """scores = weight · (x − mean) / std + bias."""

    mean: Float32[Tensor, "D"]
    std: Float32[Tensor, "D"]
    """Infinite for a feature that is constant: it counts for nothing."""
    weight: Float32[Tensor, "classes D"]
    bias: Float32[Tensor, "classes"]

    def scores(self, maps: Float[Tensor, "B D h w"]) -> Float[Tensor, "B classes h w"]:
        """Logits of every cell."""
        weight = self.weight / self.std
        bias = self.bias - weight @ self.mean
        return F.conv2d(maps, weight.to(maps)[:, :, None, None], bias.to(maps))


def standard(pool: CellPool) -> tuple[Float32[Tensor, "D"], Float32[Tensor, "D"]]:
    """Mean and standard deviation of every feature (∞ where it is constant up to float32's rounding)."""
    values = pool.x.numpy()
    mean, std = values.mean(axis=0, dtype=np.float64), values.std(axis=0, dtype=np.float64)
    std[std <= 1e-6 * np.abs(values).max(axis=0)] = np.inf
    return torch.from_numpy(mean.astype(np.float32)), torch.from_numpy(std.astype(np.float32))


def fit_lbfgs(pool: CellPool, l2: float, iterations: int, device: torch.device) -> LinearHead:
    """Minimise Σ_i w_i·CE(softmax(scores_i), y_i) / Σ_i w_i + ½·l2·|weight|² by L-BFGS, from zero.

    y_i are the shares of the classes in cell i and w_i the share of its pixels that count: this is the mean
    cross-entropy of all pixels, were every pixel given the scores of its cell.
    """
    mean, std = standard(pool)
    x, y = ((pool.x - mean) / std).to(device), pool.y.to(device)
    share = (pool.weight / pool.weight.sum()).to(device)
    with torch.inference_mode(False), torch.enable_grad():
        x, y, share = x.clone(), y.clone(), share.clone()
        weight = torch.zeros(y.shape[1], x.shape[1], device=device, requires_grad=True)
        bias = torch.zeros(y.shape[1], device=device, requires_grad=True)
        optimizer = torch.optim.LBFGS(
            [weight, bias],
            max_iter=iterations,
            max_eval=2 * iterations,
            history_size=20,
            tolerance_grad=1e-5,
            tolerance_change=1e-7,
            line_search_fn="strong_wolfe",
        )

        def loss() -> Tensor:
            optimizer.zero_grad()
            entropy = -(y * F.log_softmax(x @ weight.T + bias, dim=1)).sum(dim=1)
            value = (share * entropy).sum() + l2 / 2 * weight.square().sum()
            value.backward()
            return value

        optimizer.step(loss)
    return _finished(mean.to(device), std.to(device), weight, bias)


def fit_sgd(
    backbone: Backbone,
    images: SemanticSet,
    pool: CellPool,
    size: int,
    config: SegmentationConfig,
    seed: int,
) -> LinearHead:
    """The published protocol (Leopart, arXiv 2204.13101; NeCo, arXiv 2408.11054): scores are brought bilinearly to
    ``linear_grid``, cross-entropy with the label map of that size, SGD with momentum, one drop of the learning rate.
    Images are read and encoded again in every epoch, so that memory does not grow with their number; of several
    processes each does the same. Call it inside ``frozen``.

    Args:
        pool: gives mean and standard deviation of the features.
    """
    device = next((p.device for p in backbone.parameters()), torch.device("cpu"))
    mean, std = (value.to(device) for value in standard(pool))
    with torch.inference_mode(False), torch.enable_grad():
        weight = torch.zeros(images.num_classes, len(mean), device=device, requires_grad=True)
        bias = torch.zeros(images.num_classes, device=device, requires_grad=True)
        optimizer = torch.optim.SGD([weight, bias], lr=config.linear_lr, momentum=MOMENTUM)
    with progress("linear head", config.linear_epochs * len(images)) as ticker:
        for epoch in range(config.linear_epochs):
            optimizer.param_groups[0]["lr"] = config.linear_lr * (DROP if epoch >= config.linear_drop_epoch else 1)
            order = numpy_generator(seed, "linear epoch", epoch).permutation(len(images)).tolist()
            for batch in read_samples(
                images,
                order,
                size=size,
                channels=backbone.in_channels,
                workers=config.workers,
                batch_size=config.batch_size,
            ):
                maps = torch.cat(
                    dense_levels(backbone, to_images(backbone, [one.canvas for one in batch]), config.levels), dim=1
                )
                grid = config.linear_grid
                truth = torch.from_numpy(np.stack([labels_at(one.labels, grid, grid) for one in batch]))
                maps = (maps.float() - mean[:, None, None]) / std[:, None, None]
                _sgd_step(optimizer, weight, bias, maps, truth.to(device))
                ticker.advance(len(batch))
    return _finished(mean, std, weight, bias)


def _sgd_step(optimizer: torch.optim.Optimizer, weight: Tensor, bias: Tensor, maps: Tensor, truth: Tensor) -> None:
    if not bool((truth != IGNORED).any()):
        return
    with torch.inference_mode(False), torch.enable_grad():
        scores = F.conv2d(maps.clone(), weight[:, :, None, None], bias)
        scores = F.interpolate(scores, size=truth.shape[1:], mode="bilinear", align_corners=False)
        loss = F.cross_entropy(scores, truth.clone(), ignore_index=IGNORED)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def _finished(mean: Tensor, std: Tensor, weight: Tensor, bias: Tensor) -> LinearHead:
    if not bool(torch.isfinite(weight).all() and torch.isfinite(bias).all()):
        problem = "the linear head's weights are not finite"
        raise D3sslError(problem, remedy="lower --linear_lr, or use --linear_optimizer lbfgs.")
    return LinearHead(mean=mean, std=std, weight=weight.detach(), bias=bias.detach())
