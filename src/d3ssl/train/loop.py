"""The training loop: batch → views → loss → step → teacher; the same for one process and for many."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from d3ssl.console import Ticker, progress, say, warn
from d3ssl.contracts import CanvasBatch, map_tensors, to_device
from d3ssl.distributed import all_reduce_sum, rank, world_size
from d3ssl.errors import D3sslError, InputError
from d3ssl.methods import D3ssl, StepOutput
from d3ssl.models.backbone import Backbone
from d3ssl.models.ema import momentum_at
from d3ssl.models.sync_batch_norm import convert_sync_batch_norm
from d3ssl.seeds import derive_seed, torch_generator
from d3ssl.train import checkpoint
from d3ssl.train.collapse import CollapseWatch, effective_rank, embedding_spread
from d3ssl.train.config import RunConfig, as_dict
from d3ssl.train.loader import CanvasDataset, Loaded, StepSampler, loading
from d3ssl.train.log import RunLog
from d3ssl.train.optimizer import make_optimizer, scale_rates
from d3ssl.train.process import StopSignal
from d3ssl.train.schedule import lr_at
from d3ssl.views import D3Views

BackboneMeasure = Callable[[Backbone], dict[str, float]]
"""Figures of a backbone, which it leaves as it was."""


@dataclass(frozen=True, slots=True)
class StepResult:
    """Figures of one optimiser step."""

    embeddings: Float[Tensor, "N D"]
    """Of this process and the last accumulated part."""
    loss: float
    """Mean over all processes, as are its parts."""
    parts: dict[str, float]
    grad_norm: float
    waited_s: float


class Trainer:
    """Everything a step needs. ``run()`` trains to the end, or until it is asked to stop."""

    def __init__(self, config: RunConfig, dataset: CanvasDataset, steps: int, device: torch.device) -> None:
        self.config, self.dataset, self.steps, self.device = config, dataset, steps, device
        with torch.random.fork_rng(devices=[]):  # initialisation draws from the global generator: give it back
            torch.manual_seed(derive_seed(config.train.seed, "weights") % 2**31)
            method = D3ssl(config.method, config.model, in_channels=config.canvas.channels)
        if config.train.sync_batch_norm and world_size() > 1:
            method = convert_sync_batch_norm(method)
        self.method: D3ssl = method.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        backbone = self.method.student.backbone
        self.views = D3Views(
            config.views,
            backbone.mean,
            backbone.std,
            decouple=config.method.decouple,
            deposition=config.method.deposition,
        )
        trained = [self.method.student, self.method.predictor]
        self.optimizer = make_optimizer(trained, config.optimizer, config.train.batch_size)
        self.parameters = [p for module in trained for p in module.parameters() if p.requires_grad]
        self.step, self.bad_count = 0, 0
        self.network = self._wrap()

    def _wrap(self) -> nn.Module:
        if self.config.runtime.compile:
            for network in (self.method.student, self.method.teacher):
                network.backbone.compile_stages()  # type: ignore[operator,union-attr]
        if world_size() == 1:
            return self.method
        return DistributedDataParallel(self.method)

    # ---- one step -------------------------------------------------------------------------------------------------

    def train_step(self, batches: Iterator[Loaded]) -> StepResult:
        """One optimiser step: ``accumulate`` parts forward and backward, then student and teacher are updated."""
        train = self.config.train
        scale_rates(self.optimizer, lr_at(self.step, self.steps, self.config.schedule))
        self.optimizer.zero_grad(set_to_none=True)
        figures, waited, bad = [], 0.0, 0
        for part in range(train.accumulate):
            begin = time.perf_counter()
            loaded = next(batches)
            waited += time.perf_counter() - begin
            if isinstance(loaded, InputError):
                raise loaded
            for message in loaded.bad:
                warn(f"skipped: {message}")
            bad += len(loaded.bad)
            output = self._forward_backward(loaded.batch, part)
            figures.append(torch.stack([output.loss.detach(), *output.parts.values()]))
        limit = train.clip_grad_norm if train.clip_grad_norm is not None else float("inf")
        norm = nn.utils.clip_grad_norm_(self.parameters, limit)
        # Of all processes, so that they agree on whether to go on.
        counted = torch.cat([torch.stack(figures).mean(0), torch.tensor([float(bad)], device=self.device)])
        *shares, bad = all_reduce_sum(counted).tolist()
        loss, *parts = (share / world_size() for share in shares)
        self._check_finite(loss, float(norm))
        self._check_readable(int(bad))
        self.optimizer.step()
        self.method.update_teacher(momentum_at(self.step, self.steps, self.config.method.teacher_momentum))
        self.step += 1
        named = dict(zip(output.parts, parts, strict=True))
        return StepResult(output.embeddings, loss, named, float(norm), waited)

    def _forward_backward(self, batch: CanvasBatch, part: int) -> StepOutput:
        train = self.config.train
        with torch.no_grad():
            # Parameters are drawn before the batch travels, so that the CPU does not have to wait for the device.
            drawn = self.views.sample(batch, torch_generator(train.seed, "views", self.step, part, rank()))
            views = map_tensors(self.views.apply(to_device(batch, self.device), drawn), _channels_last)
        is_last = part == train.accumulate - 1
        only_add = not is_last and isinstance(self.network, DistributedDataParallel)
        use_bf16 = self.config.runtime.bf16 and self.device.type == "cuda"
        with self.network.no_sync() if only_add else contextlib.nullcontext():  # type: ignore[operator]
            with torch.autocast("cuda", torch.bfloat16, enabled=use_bf16):
                output = self.network(views)
            (output.loss / train.accumulate).backward()
        return output

    def _check_finite(self, loss: float, norm: float) -> None:
        if not (abs(loss) < float("inf") and norm < float("inf")):
            remedy = "start a new run with a lower --optimizer.lr, a longer warm-up or --train.clip_grad_norm 1."
            raise D3sslError(f"the loss or its gradient is not finite at step {self.step + 1}", remedy=remedy)

    def _check_readable(self, bad: int) -> None:
        """Count this step's unreadable images; too many of them end the run."""
        self.bad_count += bad
        seen = max((self.step + 1) * self.config.train.batch_size, len(self.dataset))
        share = self.config.canvas.max_bad_share
        if bad and self.bad_count > share * seen:
            problem = f"{self.bad_count} of {seen} images could not be read, more than canvas.max_bad_share {share}"
            remedy = "mend or remove the files named above, or raise --canvas.max_bad_share; then --resume."
            raise D3sslError(problem, remedy=remedy)

    # ---- the whole run --------------------------------------------------------------------------------------------

    def run(self, run: Path, stop: StopSignal, digest: str, measure: BackboneMeasure | None = None) -> bool:
        """Train from ``self.step`` on. True when all steps are done, False when stopped by a signal (and saved).

        Args:
            measure: called with the student's backbone every ``runtime.diagnose_every`` steps; what it finds is logged.
        """
        config, train = self.config, self.config.train
        sampler = StepSampler(self.step, self.steps, train.batch_size, train.accumulate, rank(), world_size())
        source = loading(self.dataset, sampler, self._workers(), self.device.type == "cuda")
        watch = CollapseWatch()
        recorder = Recorder(run, self.step, config, measure) if rank() == 0 else None
        bar = progress("training", self.steps, self.step) if rank() == 0 else contextlib.nullcontext()
        try:
            with source as batches, bar as ticker:
                while self.step < self.steps:
                    result = self.train_step(batches)
                    if recorder is not None:
                        recorder.add(self, result, watch, ticker)
                    stopped = stop.agreed(self.device)
                    is_due = stopped or self.step == self.steps or self.step % config.runtime.save_every == 0
                    if is_due and rank() == 0:
                        self.save(run, digest)
                    if stopped and self.step < self.steps:
                        return False
        finally:
            if recorder is not None:
                recorder.close()
        return True

    def _workers(self) -> int:
        if self.config.runtime.workers is not None:
            return self.config.runtime.workers
        return min(12, torch.multiprocessing.cpu_count()) if self.device.type == "cuda" else 1

    def save(self, run: Path, digest: str) -> None:
        """Checkpoint after ``self.step`` steps."""
        state = {
            "step": self.step,
            "bad_count": self.bad_count,
            "processes": world_size(),
            "config": as_dict(self.config),
            "data_digest": digest,
            "method": self.method.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        checkpoint.save(run, state)

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint; with the randomness a function of the step, nothing else is needed."""
        self.method.load_state_dict(state["method"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.bad_count = state["step"], state["bad_count"]
        if state["processes"] != world_size():
            change = f"{state['processes']} processes before, {world_size()} now"
            warn(f"the views are drawn for each process: the run goes on, but not bit for bit ({change})")


def _channels_last(tensor: torch.Tensor) -> torch.Tensor:
    is_images = tensor.ndim == 4 and tensor.is_floating_point()
    return tensor.contiguous(memory_format=torch.channels_last) if is_images else tensor


class Recorder:
    """Figures between two lines of the log, and what people see beside the bar."""

    def __init__(self, run: Path, start: int, config: RunConfig, measure: BackboneMeasure | None = None) -> None:
        self.log = RunLog(run, start, config.runtime.tensorboard)
        self.config, self.measure = config, measure
        self._reset()

    def _reset(self) -> None:
        self.begin, self.steps, self.waited = time.perf_counter(), 0, 0.0

    def add(self, trainer: Trainer, result: StepResult, watch: CollapseWatch, ticker: Ticker | None) -> None:
        self.steps += 1
        self.waited += result.waited_s
        if ticker is not None:
            ticker.advance(1, f"loss {result.loss:.3f}")
        every = self.config.runtime.diagnose_every
        is_measured = self.measure is not None and every is not None and trainer.step % every == 0
        if trainer.step % self.config.runtime.log_every and trainer.step != trainer.steps and not is_measured:
            return
        took = max(time.perf_counter() - self.begin, 1e-9)
        train = self.config.train
        embeddings = result.embeddings.float()
        figures = {
            "epoch": trainer.step * train.batch_size / len(trainer.dataset),
            "loss": result.loss,
            **result.parts,
            "embedding_std": embedding_spread(embeddings),
            "effective_rank": effective_rank(embeddings),
            "lr": float(trainer.optimizer.param_groups[0]["lr"]),
            "teacher_momentum": momentum_at(trainer.step - 1, trainer.steps, self.config.method.teacher_momentum),
            "grad_norm": result.grad_norm,
            "images_per_s": self.steps * train.batch_size / took,
            "data_wait_share": self.waited / took,
            "regions_per_image": embeddings.shape[0] * train.accumulate * world_size() / train.batch_size,
            "unreadable_images": float(trainer.bad_count),
        }
        if is_measured:
            figures |= self._diagnose(trainer)
        self.log.write(trainer.step, figures)
        message = watch.check(figures["embedding_std"], trainer.step)
        if message:
            warn(message)
        self._reset()

    def _diagnose(self, trainer: Trainer) -> dict[str, float]:
        """What ``measure`` finds, and the seconds it takes. Features that tell nothing must not end the training."""
        assert self.measure is not None
        begin = time.perf_counter()
        try:
            found = self.measure(trainer.method.student.backbone)  # type: ignore[arg-type]
        except D3sslError as error:
            warn(f"no diagnosis at step {trainer.step}: {error}")
            found = {}
        return {f"diagnosis_{name}": value for name, value in found.items()} | {
            "diagnosis_s": time.perf_counter() - begin
        }

    def close(self) -> None:
        self.log.close()


def describe(config: RunConfig, trainer: Trainer) -> None:
    """Say what is about to be trained."""
    method, model = config.method, config.model
    modules = [name for name, on in (("DC", method.decouple), ("DP", method.deposition)) if on]
    say(
        f"{model.backbone} ({model.region_path}), {method.objective}, "
        f"{'host + ' + ' + '.join(modules) if modules else 'host alone'}: {trainer.steps} steps of "
        f"{config.train.batch_size} images from {len(trainer.dataset)}, on {world_size()} × {trainer.device.type}"
    )
