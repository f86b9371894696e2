"""The training loop: batch → views → loss → step → teacher; the same for one process and for many."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from d3ssl.console import progress, say, warn
from d3ssl.contracts import CanvasBatch, ViewSet, map_tensors, to_device
from d3ssl.data.bad_images import too_many_bad
from d3ssl.distributed import all_reduce_sum, rank, world_size
from d3ssl.errors import D3sslError, InputError
from d3ssl.methods import Learner, StepOutput
from d3ssl.methods.kept import KeptRows, has_kept
from d3ssl.models.artifact import start_digest
from d3ssl.models.backbone import Backbone
from d3ssl.models.load import start_backbone
from d3ssl.models.sync_batch_norm import convert_sync_batch_norm
from d3ssl.seeds import Draws, derive_seed
from d3ssl.train import checkpoint
from d3ssl.train.collapse import CollapseWatch
from d3ssl.train.config import RunConfig, as_dict
from d3ssl.train.loader import CanvasDataset, Loaded, StepSampler, loading
from d3ssl.train.optimizer import make_optimizer, scale_rates
from d3ssl.train.process import StopSignal
from d3ssl.train.recorder import BackboneMeasure, Recorder, StepResult
from d3ssl.train.schedule import lr_at
from d3ssl.views import ViewMaker


class Trainer:
    """Everything a step needs. ``run()`` trains to the end, or until it is asked to stop.

    A step waits for the device once, when its figures are read. What processes exchange in it: gradients, batch
    statistics (where synchronised), keys of the negatives, and one small vector per part (weights, unreadable images,
    whether to stop); one more for the log, where the step is logged.
    """

    def __init__(
        self,
        config: RunConfig,
        dataset: CanvasDataset,
        steps: int,
        device: torch.device,
        backbone: Backbone | None = None,
    ) -> None:
        self.config, self.dataset, self.steps, self.device = config, dataset, steps, device
        plan = config.plan
        with torch.random.fork_rng(devices=[]):  # initialisation draws from the global generator: give it back
            torch.manual_seed(derive_seed(config.train.seed, "weights") % 2**31)
            learner = Learner(plan, backbone.train() if backbone is not None else make_backbone(config))
        is_given = backbone is not None or config.model.weights is not None
        self.start_digest = start_digest(learner.backbone) if is_given else None
        """Of the weights that the training starts from; None: random ones, which the seed decides."""
        if config.train.sync_batch_norm and not config.plan.freeze_norm and world_size() > 1:
            learner = convert_sync_batch_norm(learner)
        self.learner: Learner = learner.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        own = self.learner.backbone
        self.kept = KeptRows(self.learner) if config.runtime.keep_rows and has_kept(self.learner) else None
        made = [name for name in plan.used_views if self.kept is None or name not in self.kept.makers]
        self.views = ViewMaker(plan.views, plan.regions, own.mean, own.std, made)
        trained = self.learner.trainable()
        self.optimizer = make_optimizer(trained, config.optimizer, config.train.batch_size)
        self.parameters = [p for module in trained for p in module.parameters() if p.requires_grad]
        self.step, self.bad_count = 0, 0
        self.network = self._wrap()

    def _wrap(self) -> nn.Module:
        if self.config.runtime.compile:
            for network in (self.learner.student, self.learner.teacher):
                network.backbone.compile_stages()
        if world_size() == 1:
            return self.learner
        return DistributedDataParallel(self.learner)

    # ---- one step -------------------------------------------------------------------------------------------------

    def train_step(self, batches: Iterator[Loaded], stop: StopSignal | None = None) -> StepResult:
        """One optimiser step: ``accumulate`` parts forward and backward, then student and teacher are updated."""
        train, progress = self.config.train, self.step / self.steps
        scale_rates(self.optimizer, lr_at(self.step, self.steps, self.config.schedule))
        self.optimizer.zero_grad(set_to_none=True)
        outputs, exchanged, waited = [], [], 0.0
        for part in range(train.accumulate):
            begin = time.perf_counter()
            loaded = next(batches)
            waited += time.perf_counter() - begin
            if isinstance(loaded, InputError):
                raise loaded
            for message in loaded.bad:
                warn(f"skipped: {message}")
            views = self.make_views(loaded.batch, part)
            is_asked = stop is not None and stop.received is not None
            known = views.scale.new_tensor([len(loaded.bad), is_asked], dtype=torch.float64)
            exchanged.append(all_reduce_sum(torch.cat([views.slots.weight.sum().double()[None], known])))
            views = dataclasses.replace(views, scale=(world_size() / exchanged[-1][0].clamp(min=1e-6)).float())
            outputs.append(self._forward_backward(views, progress, is_last=part == train.accumulate - 1))
        limit = train.clip_grad_norm if train.clip_grad_norm is not None else float("inf")
        norm = nn.utils.clip_grad_norm_(self.parameters, limit)
        figures = torch.stack([torch.stack([o.loss.detach(), *o.parts.values()]) for o in outputs]).mean(0).double()
        if self.is_logged(self.step + 1):
            figures = all_reduce_sum(figures) / world_size()
        # The one wait of the step: every process reads the same figures, so all agree on whether to go on.
        read = torch.cat([torch.stack(exchanged).sum(0), norm.double()[None], figures]).tolist()
        rows, bad, asked, norm, loss, *parts = read
        self._check_rows(rows)
        self._check_finite(loss, norm)
        self._check_readable(int(bad))
        self.optimizer.step()
        state = self.learner.after_step(progress, [output.carry for output in outputs])
        self.step += 1
        named = dict(zip(outputs[-1].parts, parts, strict=True))
        return StepResult(outputs[-1], loss, named, norm, rows, state, waited, asked > 0)

    def make_views(self, batch: CanvasBatch, part: int) -> ViewSet:
        """The views of a part of the next step, on the device."""
        draws = Draws(seed=self.config.train.seed, step=self.step, part=part, rank=rank())
        with torch.no_grad():
            # Parameters are drawn before the batch travels, so that the CPU does not have to wait for the device.
            drawn = self.views.sample(batch, draws)
            views = map_tensors(self.views.apply(to_device(batch, self.device), drawn), channels_last)
            return views if self.kept is None else dataclasses.replace(views, kept=self.kept.rows(batch, drawn))

    def _forward_backward(self, views: ViewSet, progress: float, *, is_last: bool) -> StepOutput:
        only_add = not is_last and isinstance(self.network, DistributedDataParallel)
        use_bf16 = self.config.runtime.bf16 and self.device.type == "cuda"
        with self.network.no_sync() if only_add else contextlib.nullcontext():  # type: ignore[operator]
            with torch.autocast("cuda", torch.bfloat16, enabled=use_bf16):
                output: StepOutput = self.network(views, progress)
            (output.loss / self.config.train.accumulate).backward()
        return output

    def is_logged(self, step: int) -> bool:
        """Whether a line of the log is written after this step."""
        every = self.config.runtime.diagnose_every
        is_measured = every is not None and step % every == 0
        return step % self.config.runtime.log_every == 0 or step == self.steps or is_measured

    def _check_rows(self, rows: float) -> None:
        needs_regions = any(o.reader.rows == "region" for o in self.learner.plan.objectives.values())
        if needs_regions and rows < 2:
            remedy = "look at `d3ssl views`; start a new run with a lower --views.min_visible or a larger batch."
            raise D3sslError("fewer than two regions of the batch survive in all views", remedy=remedy)

    def _check_finite(self, loss: float, norm: float) -> None:
        if not (abs(loss) < float("inf") and norm < float("inf")):
            remedy = "start a new run with a lower --optimizer.lr, a longer warm-up or --train.clip_grad_norm 1."
            raise D3sslError(f"the loss or its gradient is not finite at step {self.step + 1}", remedy=remedy)

    def _check_readable(self, bad: int) -> None:
        """Count this step's unreadable images; too many of them end the run."""
        self.bad_count += bad
        seen = max((self.step + 1) * self.config.train.batch_size, len(self.dataset))
        share = self.config.canvas.max_bad_share
        if bad and too_many_bad(self.bad_count, seen, share):
            problem = f"{self.bad_count} of {seen} images could not be read, more than canvas.max_bad_share {share}"
            remedy = "fix or remove the files named above, or raise --canvas.max_bad_share; then --resume."
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
                    result = self.train_step(batches, stop)
                    if recorder is not None:
                        recorder.add(self, result, watch, ticker)
                    stopped = result.stopped or (world_size() == 1 and stop.received is not None)
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
            "start_digest": self.start_digest,
            "learner": self.learner.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        checkpoint.save(run, state)

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint; with the randomness a function of the step, nothing else is needed."""
        self.learner.load_state_dict(state["learner"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.bad_count = state["step"], state["bad_count"]
        if state["processes"] != world_size():
            change = f"{state['processes']} processes before, {world_size()} now"
            warn(f"the views are drawn for each process: the run continues; results may differ ({change})")


def channels_last(tensor: Tensor) -> Tensor:
    """Images in channels_last memory; all else as it is."""
    is_images = tensor.ndim == 4 and tensor.is_floating_point()
    return tensor.contiguous(memory_format=torch.channels_last) if is_images else tensor


def make_backbone(config: RunConfig) -> Backbone:
    """The network to train, with its starting weights.

    Raises:
        InputError: unknown network or weights that do not fit it.
    """
    return start_backbone(config.model.backbone, config.model.weights, config.canvas.channels)


def describe(config: RunConfig, trainer: Trainer) -> None:
    """Say what is about to be trained."""
    backbone = trainer.learner.backbone
    say(
        f"{backbone.timm_name}, {trainer.learner.plan.title}: {trainer.steps} steps of "
        f"{config.train.batch_size} images from {len(trainer.dataset)}, on {world_size()} × {trainer.device.type}"
    )
