"""What a training step costs, as ratios measured in one run.

    python benchmarks/training_step.py [--size 112] [--batch 16] [--backbone resnet18] [--threads 1] [--repeats 7]
    python benchmarks/training_step.py --device cuda --size 224 --batch 256 --backbone resnet50 [--compile]

Prints: D³SSL ÷ host; view generation ÷ step; and a step ÷ the sum of its bare forward and backward passes (the same
networks on the same number of images of the same sizes, heads included, with no views, loss, teacher update or
optimiser); and the small diagnosis of ``runtime.diagnose_every`` ÷ step, with the share of the time that it takes at
every 100 steps. Medians over interleaved repeats, so that a machine whose speed drifts does not favour one side. On a
GPU in bfloat16, with images per second and the greatest memory that a step allocates.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import torch

from d3ssl.contracts import CanvasBatch, ViewSet, map_tensors, to_device
from d3ssl.diagnose import Monitor
from d3ssl.methods import DecoupleConfig, DepositionConfig, Learner, MethodConfig, make_plan
from d3ssl.methods.hosts import Soco
from d3ssl.models.backbone import create_backbone
from d3ssl.seeds import Draws
from d3ssl.train.loop import channels_last
from d3ssl.train.optimizer import OptimizerConfig, make_optimizer
from d3ssl.views import ViewMaker, ViewsConfig


def make_canvas(batch: int, side: int, candidates: int = 16) -> CanvasBatch:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(batch, 3, side // 8, side // 8, generator=generator)
    canvas = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bilinear").mul(255).to(torch.uint8)
    corner = torch.rand(batch, candidates, 2, generator=generator) * side * 0.5
    extent = (0.25 + 0.25 * torch.rand(batch, candidates, 2, generator=generator)) * side
    return CanvasBatch(
        canvas=canvas,
        image_size=torch.tensor([[480.0, 640.0]]).expand(batch, 2).clone(),
        boxes=torch.cat([corner, corner + extent], dim=-1),
        valid=torch.ones(batch, candidates, dtype=torch.bool),
        labels=None,
        index=torch.arange(batch),
    )


class Side:
    """One method with everything its step needs."""

    def __init__(self, modules: bool, options: argparse.Namespace, batch: CanvasBatch) -> None:
        hidden, out = options.projector
        host = Soco(region_path=options.region_path, projector_hidden=hidden, projector_out=out)
        method, views = MethodConfig(decouple=modules, deposition=modules), ViewsConfig(size=options.size)
        plan = make_plan(method, host, DecoupleConfig(), DepositionConfig(), options.size, views)
        self.device = torch.device(options.device)
        learner = Learner(plan, create_backbone(options.backbone))
        self.learner: Learner = learner.to(self.device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        backbone = self.learner.backbone
        if options.compile:
            for network in (self.learner.student, self.learner.teacher):
                network.backbone.compile_stages()
        self.views = ViewMaker(plan.views, plan.regions, backbone.mean, backbone.std, plan.used_views)
        self.optimizer = make_optimizer(self.learner.trainable(), OptimizerConfig(), options.batch)
        self.batch, self.number = batch, 0

    def make_views(self) -> ViewSet:
        self.number += 1
        with torch.no_grad():
            drawn = self.views.sample(self.batch, Draws(seed=0, step=self.number))
            return map_tensors(self.views.apply(to_device(self.batch, self.device), drawn), channels_last)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda")

    def step(self) -> None:
        views = self.make_views()
        self.optimizer.zero_grad(set_to_none=True)
        with self._autocast():
            loss = self.learner(views, 0.01).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.learner.student.parameters(), float("inf"))
        self.optimizer.step()
        self.learner.after_step(0.01, [])

    def bare(self, views: ViewSet) -> None:
        """Forward and backward through the same networks, nothing else."""
        self.optimizer.zero_grad(set_to_none=True)
        learner, plan, heads = self.learner, self.learner.plan, ["region"]
        student = dict.fromkeys(pair.student for pair in plan.pairs())
        with self._autocast():
            rows = [learner.student(views.views[name], views.slots, heads)["region"] for name in student]
            rows = [learner.predictors["region"](own) for own in rows]
            with torch.no_grad():
                for name in plan.teacher_views:
                    learner.teacher(views.views[name], views.slots, heads)
        torch.cat(rows).sum().backward()


def timed(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - begin


def peak_memory(call: Callable[[], object]) -> float:
    """GiB that a call allocates at most on the GPU, with what is there already."""
    torch.cuda.reset_peak_memory_stats()
    call()
    return torch.cuda.max_memory_allocated() / 2**30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--region_path", default="c4", choices=("c3", "c4", "map", "fpn"))
    parser.add_argument("--projector", type=int, nargs=2, default=(512, 128), metavar=("HIDDEN", "OUT"))
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    batch = make_canvas(options.batch, options.size * 8 // 7 // 8 * 8)
    host, ours = Side(False, options, batch), Side(True, options, batch)
    fixed = {id(side): side.make_views() for side in (host, ours)}
    monitor = Monitor(options.size)
    names = ("host", "ours", "host views", "ours views", "host bare", "ours bare", "diagnosis")
    times: dict[str, list[float]] = {name: [] for name in names}
    for repeat in range(options.repeats + 1):
        diagnosis = timed(lambda: monitor(ours.learner.backbone))
        if repeat:
            times["diagnosis"].append(diagnosis)
        for name, side in (("host", host), ("ours", ours)):
            taken = {name: timed(side.step), f"{name} views": timed(side.make_views)}
            taken[f"{name} bare"] = timed(lambda side=side: side.bare(fixed[id(side)]))
            if repeat:  # the first is a warm-up
                for key, value in taken.items():
                    times[key].append(value)

    def ratio(one: str, other: str) -> str:
        values = [a / b for a, b in zip(times[one], times[other], strict=True)]
        return f"{statistics.median(values):.3f}  [{min(values):.3f}, {max(values):.3f}]"

    share = statistics.median(times["diagnosis"]) / statistics.median(times["ours"]) / 100
    where = f"{options.threads} thread(s)"
    if options.device == "cuda":
        where = f"{torch.cuda.get_device_name()}, bfloat16{', compiled' if options.compile else ''}"
    lines = [
        f"{options.backbone} ({options.region_path}), {options.size} px, batch {options.batch}, {where}, "
        f"torch {torch.__version__}, {options.repeats} repeats: median [min, max]",
        *(f"{name:<11} {statistics.median(values) * 1000:8.1f} ms" for name, values in times.items()),
        f"D3SSL step / host step                  {ratio('ours', 'host')}",
        f"view generation / step, host            {ratio('host views', 'host')}",
        f"view generation / step, D3SSL           {ratio('ours views', 'ours')}",
        f"step / bare forward + backward, host    {ratio('host', 'host bare')}   goal <= 1.15",
        f"step / bare forward + backward, D3SSL   {ratio('ours', 'ours bare')}   goal <= 1.15",
        f"diagnosis / step, D3SSL                 {ratio('diagnosis', 'ours')}",
        f"diagnosis every 100 steps, share of time {share / (1 + share):.2%}   goal <= 3 %",
    ]
    for name, side in (("host", host), ("ours", ours)) if options.device == "cuda" else ():
        rate = options.batch / statistics.median(times[name])
        lines.append(
            f"{name:<6} {rate:8.0f} images/s, at most {peak_memory(side.step):.1f} GiB with both networks' sets"
        )
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
