"""Fine-tuning a detector: the same number of steps for every backbone, in an order that depends on the seed only."""

from __future__ import annotations

import contextlib
import pickle
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from d3ssl.console import progress, say, warn
from d3ssl.data.ahead import read_ahead
from d3ssl.data.bad_images import too_many_bad
from d3ssl.data.image_set import ImageSet
from d3ssl.distributed import all_reduce_sum, barrier, rank, world_size
from d3ssl.errors import CheckpointError, D3sslError, InputError
from d3ssl.evaluate.detection.config import DetectionConfig
from d3ssl.evaluate.detection.examples import Example, make_batch, read_example
from d3ssl.evaluate.detection.network import Detector
from d3ssl.files import write_atomically
from d3ssl.models.sync_batch_norm import convert_sync_batch_norm
from d3ssl.seeds import derive_seed, numpy_generator

CHECKPOINT = "checkpoint.pt"
_FORMAT = 1
_DROPS = (2 / 3, 8 / 9)
"""Shares of the steps after which the learning rate falls to a tenth ("1x": 60,000 and 80,000 of 90,000)."""


def lr_factor(step: int, steps: int, warmup_share: float) -> float:
    """The learning rate of step 0 .. steps − 1 as a share of the base rate."""
    warmup = round(warmup_share * steps)
    factor = 0.1 ** sum(step >= drop * steps for drop in _DROPS)
    return factor * (1.0 if step >= warmup else 1e-3 + (1 - 1e-3) * step / warmup)


def make_optimizer(detector: nn.Module, config: DetectionConfig) -> torch.optim.Optimizer:
    """Of all parameters that are trained; biases and norms without weight decay."""
    parameters = [p for p in detector.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=config.base_lr)
    return torch.optim.SGD(groups, lr=config.base_lr, momentum=0.9)


def order_of(count: int, seed: int) -> Iterator[int]:
    """Numbers of images without end: every epoch all of them, in another order. A function of the seed only."""

    @lru_cache(maxsize=2)
    def epoch(number: int) -> Int64[np.ndarray, "count"]:
        return numpy_generator(seed, "detection", "order", number).permutation(count)

    position = 0
    while True:
        yield int(epoch(position // count)[position % count])
        position += 1


@dataclass(slots=True, kw_only=True)
class Batches:
    """This process's share of the batch of every step from ``start`` on."""

    images: ImageSet
    """All with objects."""
    config: DetectionConfig
    channels: int
    masks: bool
    seed: int
    bad: dict[int, str] = field(default_factory=dict)
    """Image → what was wrong with it."""

    def __post_init__(self) -> None:
        if self.config.batch_size % world_size():
            problem = (
                f"a batch of {self.config.batch_size} images cannot be shared out evenly to {world_size()} processes"
            )
            raise InputError(problem, remedy="set --batch_size to a multiple of the number of processes.")

    def start(self, step: int) -> Iterator[list[Example]]:
        """The batches of ``step``, ``step + 1``, … An unreadable image's place takes the next one in the set that
        can be read."""
        batch, own = self.config.batch_size, self.config.batch_size // world_size()
        numbers = islice(order_of(len(self.images), self.seed), step * batch, self.config.steps * batch)
        mine = (number for place, number in enumerate(numbers) if place % world_size() == rank())
        jobs = (partial(self._read, number) for number in mine)
        items = read_ahead(jobs, self.config.workers, 2 * own)
        with contextlib.closing(items):  # type: ignore[type-var]
            while len(examples := list(islice(items, own))) == own:
                yield [self._good(item) for item in examples]

    def _read(self, number: int) -> tuple[Example, dict[int, str]]:
        bad: dict[int, str] = {}
        for more in range(len(self.images)):
            index = (number + more) % len(self.images)
            try:
                return read_example(self.images, index, self.config.size, self.channels, self.masks), bad
            except InputError as error:
                bad[index] = str(error)
                if too_many_bad(len(bad), len(self.images), self.config.max_bad_share):
                    break
        raise self._too_many(bad)

    def _good(self, item: tuple[Example, dict[int, str]] | InputError) -> Example:
        if isinstance(item, InputError):
            raise item
        example, bad = item
        for index in bad.keys() - self.bad.keys():
            warn(f"another image is taken instead: {bad[index]}")
        self.bad |= bad
        if too_many_bad(len(self.bad), len(self.images), self.config.max_bad_share):
            raise self._too_many(self.bad)
        return example

    def _too_many(self, bad: dict[int, str]) -> InputError:
        first = bad[min(bad)]
        problem = f"{len(bad)} of {len(self.images)} training images cannot be used. The first: {first}"
        remedy = "repair or remove them, or raise --max_bad_share."
        return InputError(problem, path=self.images.root, remedy=remedy)


def train_detector(
    detector: Detector, batches: Batches, device: torch.device, checkpoint: Path | None = None, fingerprint: str = ""
) -> float:
    """Fine-tune a detector in place; it ends on the device, in evaluation mode.

    With a process group, every process takes its share of each batch, gradients are averaged, and batch norms use the
    statistics of all.

    Args:
        checkpoint: a file to which the state is written now and then, and from which it goes on if it is there with
            the same fingerprint; then the result is that of not stopping.

    Returns:
        Mean loss of the last tenth of the steps.

    Raises:
        InputError: too many unreadable images.
        D3sslError: the loss or a weight is not finite.
        CheckpointError: the checkpoint is damaged.
    """
    config = batches.config
    if world_size() > 1 and not config.frozen_norm:
        detector = convert_sync_batch_norm(detector)
    detector.to(device).train()
    optimizer = make_optimizer(detector, config)
    step, losses = _restore(checkpoint, fingerprint, detector, optimizer)
    network = DistributedDataParallel(detector) if world_size() > 1 else detector
    bar = progress("fine-tuning", config.steps, step) if rank() == 0 else contextlib.nullcontext()
    with bar as ticker, contextlib.closing(batches.start(step)) as read:  # type: ignore[type-var]
        for examples in read:
            losses.append(_train_step(network, detector, optimizer, examples, batches, step, device))
            step += 1
            if ticker is not None:
                ticker.advance(1, f"loss {losses[-1]:.3f}")
            if checkpoint is not None and rank() == 0 and (step % config.save_every == 0 or step == config.steps):
                _save(checkpoint, fingerprint, step, losses, detector, optimizer)
    barrier()
    check_weights(detector)
    detector.eval()
    return float(np.mean(losses[-max(1, config.steps // 10) :]))


def _train_step(
    network: nn.Module,
    detector: Detector,
    optimizer: torch.optim.Optimizer,
    examples: list[Example],
    batches: Batches,
    step: int,
    device: torch.device,
) -> float:
    config = batches.config
    for group in optimizer.param_groups:
        group["lr"] = config.base_lr * lr_factor(step, config.steps, config.warmup_share)
    drawn = numpy_generator(batches.seed, "detection", "flip", step).random(config.batch_size)[rank() :: world_size()]
    flipped = [config.flip and bool(number < 0.5) for number in drawn]
    images, targets = make_batch(examples, flipped, detector.trunk.backbone, device)
    optimizer.zero_grad(set_to_none=True)
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):  # torchvision samples anchors and regions by the global generator
        torch.manual_seed(derive_seed(batches.seed, "detection", "sample", step, rank()))
        losses: dict[str, Tensor] = network(images, targets)
        total = torch.stack(list(losses.values())).sum()
        total.backward()
    limit = config.clip_grad_norm if config.clip_grad_norm is not None else float("inf")
    norm = nn.utils.clip_grad_norm_([p for p in detector.parameters() if p.requires_grad], limit)
    # Of all processes, so that they agree on whether to go on.
    loss, norm = (all_reduce_sum(torch.stack([total.detach(), norm.detach()])) / world_size()).tolist()
    if not (abs(loss) < float("inf") and norm < float("inf")):
        remedy = "set a lower --lr, a longer --warmup_share or a lower --clip_grad_norm."
        named = ", ".join(f"{name} {float(value.detach()):.3g}" for name, value in losses.items())
        raise D3sslError(f"the loss or its gradient is not finite at step {step + 1} ({named})", remedy=remedy)
    optimizer.step()
    return loss


def check_weights(detector: Detector) -> None:
    """Raise D3sslError if a weight is not finite: it would silently detect nothing."""
    for name, value in detector.state_dict().items():
        if not bool(torch.isfinite(value).all()):
            remedy = "set a lower --lr or a lower --clip_grad_norm."
            raise D3sslError(f"the weights '{name}' are not finite after fine-tuning", remedy=remedy)


def _save(
    path: Path,
    fingerprint: str,
    step: int,
    losses: list[float],
    detector: Detector,
    optimizer: torch.optim.Optimizer,
) -> None:
    """Tensors and plain data only."""
    state = {
        "format": _FORMAT,
        "fingerprint": fingerprint,
        "step": step,
        "losses": losses,
        "detector": detector.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    with write_atomically(path) as temporary, open(temporary, "wb") as file:
        torch.save(state, file)


def _restore(
    path: Path | None, fingerprint: str, detector: Detector, optimizer: torch.optim.Optimizer
) -> tuple[int, list[float]]:
    """Steps done and their losses; (0, []) without a checkpoint, or with one of other options, data or weights."""
    if path is None or not path.exists():
        return 0, []
    remedy = "remove the file, and the fine-tuning starts over."
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, OSError, EOFError, KeyError, ValueError) as error:
        first_line = re.split(r"[\n.]", str(error), maxsplit=1)[0]
        raise CheckpointError(f"cannot be read ({first_line})", path=path, remedy=remedy) from error
    if not isinstance(state, dict) or state.get("format") != _FORMAT:
        raise CheckpointError("is not a checkpoint of this version", path=path, remedy=remedy)
    if state["fingerprint"] != fingerprint:
        say(f"{path} is of other options, data or weights: fine-tuning starts over")
        return 0, []
    detector.load_state_dict(state["detector"])
    optimizer.load_state_dict(state["optimizer"])
    return state["step"], state["losses"]
