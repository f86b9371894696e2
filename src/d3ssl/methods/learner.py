"""The learner: what the training loop knows of a method. One learner runs any plan."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from d3ssl.contracts import Rows, Slots, View, ViewSet
from d3ssl.distributed import gather_equal, rank
from d3ssl.methods.plan import Objective, Plan
from d3ssl.models.backbone import Backbone
from d3ssl.models.ema import make_teacher, momentum_at, update_teacher
from d3ssl.models.readers import Box, Reader


@dataclass(frozen=True, slots=True, kw_only=True)
class StepOutput:
    """What one forward pass gives."""

    loss: Float[Tensor, ""]
    """Mean over the rows of all processes, times the number of processes (which averaging gradients divides by)."""
    parts: dict[str, Tensor]
    """What each objective adds to the loss, detached: ``loss_NAME``."""
    watched: Float[Tensor, "N D"]
    """The student's projections for the first pair, detached: for watching collapse."""
    counted: Bool[Tensor, "N"]
    """Which of them to watch: each region once."""
    carry: dict[str, Tensor]
    """What ``after_step`` needs of this part of the step, detached."""


class Network(nn.Module):
    """Backbone → readers → projectors: what student and teacher have in common."""

    def __init__(self, plan: Plan, backbone: Backbone) -> None:
        super().__init__()
        own = {name: o for name, o in plan.objectives.items() if o.shares is None}
        self.backbone = backbone
        self.readers = nn.ModuleDict({name: o.reader.build(backbone) for name, o in own.items()})  # type: ignore[misc]
        self.projectors = nn.ModuleDict(
            {
                name: o.projector.build(_out(self.readers[name])) if o.projector else nn.Identity()
                for name, o in own.items()
            }
        )
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, view: View, slots: Slots, heads: list[str]) -> dict[str, Float[Tensor, "N D"]]:
        """The rows of one view for the named heads. The backbone runs once, no deeper than their readers ask."""
        readers: dict[str, Reader] = {name: self.readers[name] for name in heads}  # type: ignore[misc]
        features = self.backbone.features(view.images, sorted({reader.needs for reader in readers.values()}))
        return {
            name: self.projectors[name](reader(features, view, slots, self.backbone))
            for name, reader in readers.items()
        }


class Learner(nn.Module):
    """A dense SSL method: student, EMA teacher, predictors, and the losses of its plan.

    With z_s the student's rows (projector, predictor) and z_t the teacher's (projector, no gradient)::

        L = Σ over objectives and their pairs (a → b, weight w) of  w · mean over rows of ℓ(z_s(a), z_t(b))

    The teacher normalises with the statistics of its own batch, as in BYOL (arXiv 2006.07733). Parameters that no row
    depends on (layers of the network behind its last map) need no gradient and keep their values.

    Args:
        plan: checked (``Plan.check``).
        backbone: the start; it becomes the student's and is trained in place.
    """

    def __init__(self, plan: Plan, backbone: Backbone) -> None:
        super().__init__()
        self.plan = plan
        for name in backbone.unused_parameters:
            backbone.net.get_parameter(name).requires_grad_(False)
        reader = next(iter(plan.objectives.values())).reader
        if isinstance(reader, Box):  # evaluations read regions as training did
            backbone.region_path, backbone.roi_size = reader.path, reader.roi_size
        else:
            backbone.region_path = "map"
        self.student = Network(plan, backbone)
        self.teacher = make_teacher(self.student)
        self.predictors = nn.ModuleDict(
            {
                name: o.predictor.build(o.projector.out if o.projector else _out(self.student.readers[name]))
                if o.predictor
                else nn.Identity()
                for name, o in plan.objectives.items()
                if o.shares is None
            }
        )
        first = next(iter(plan.objectives))  # which shares with none
        self._watched = first, next(plan.pairs()).student
        read = {view: [] for view in plan.used_views}
        self._student_heads, self._teacher_heads = dict(read), {view: [] for view in read}
        for name, objective in plan.objectives.items():
            for pair in objective.pairs:
                for heads, view in ((self._student_heads, pair.student), (self._teacher_heads, pair.teacher)):
                    heads[view] = sorted({*heads[view], objective.shares or name})

    @property
    def backbone(self) -> Backbone:
        """What is exported."""
        return self.student.backbone

    def trainable(self) -> list[nn.Module]:
        """The modules that the optimiser updates."""
        return [self.student, self.predictors]

    def forward(self, views: ViewSet, progress: float) -> StepOutput:
        """One part of a step.

        Args:
            progress: share of the training that is done, 0..1.
        """
        projected = self._read(self.student, views, self._student_heads)
        with torch.no_grad():
            targets = self._read(self.teacher, views, self._teacher_heads)
        predicted = {
            view: {name: self.predictors[name](rows) for name, rows in own.items()} for view, own in projected.items()
        }
        origin = {kind: _origin(views.slots, kind) for kind in ("region", "image")}
        targets = self._gather(targets, origin)
        total, parts = torch.zeros((), device=views.scale.device), {}
        for name, objective in self.plan.objectives.items():
            part = torch.zeros_like(total)
            for pair in objective.pairs:
                head = objective.shares or name
                rows = origin[objective.reader.rows]
                losses = objective.loss(predicted[pair.student][head], targets[pair.teacher][head], rows)
                part = part + pair.weight * _mean(losses, objective, views)
            total, parts[f"loss_{name}"] = total + part, part.detach()
        first, view = self._watched
        watched = projected[view][first].detach()
        is_region = self.plan.objectives[first].reader.rows == "region"
        counted = views.slots.distinct.flatten() if is_region else torch.ones_like(watched[:, 0], dtype=torch.bool)
        return StepOutput(loss=total, parts=parts, watched=watched, counted=counted, carry={})

    def _read(self, network: Network, views: ViewSet, heads: dict[str, list[str]]) -> dict[str, dict[str, Tensor]]:
        return {view: network(views.views[view], views.slots, names) for view, names in heads.items() if names}

    def _gather(self, targets: dict[str, dict[str, Tensor]], origin: dict[str, Rows]) -> dict[str, dict[str, Tensor]]:
        """The teacher's rows of all processes for the objectives that contrast, with where they come from."""
        contrasting = {o.shares or name: o.reader.rows for name, o in self.plan.objectives.items() if o.loss.contrasts}
        for kind in dict.fromkeys(contrasting.values()):  # in the same order in every process, as a set is not
            origin[kind] = _gather_rows(origin[kind])
        return {
            view: {name: gather_equal(rows) if name in contrasting else rows for name, rows in own.items()}
            for view, own in targets.items()
        }

    @torch.no_grad()
    def after_step(self, progress: float, carries: list[dict[str, Tensor]]) -> dict[str, float]:
        """Update what follows the student once the optimiser has stepped: teacher ← m·teacher + (1 − m)·student.

        Args:
            carries: of all accumulated parts.

        Returns:
            Figures for the log.
        """
        momentum = momentum_at(progress, self.plan.momentum)
        update_teacher(self.teacher, self.student, momentum)
        return {"teacher_momentum": momentum}


def _out(reader: nn.Module) -> int:
    return reader.out_features  # type: ignore[return-value]


def _mean(losses: Float[Tensor, "N"], objective: Objective, views: ViewSet) -> Float[Tensor, ""]:
    """Mean over the rows of all processes, times their number; every process has as many images."""
    if objective.reader.rows == "image":
        return losses.mean()
    return (losses * views.slots.weight.flatten()).sum() * views.scale


def _origin(slots: Slots, kind: str) -> Rows:
    """Where this process's rows come from. An image that is twice in the batch (at the end of an epoch) counts as one,
    so that nothing is its own negative."""
    if kind == "image":
        whole = slots.boxes.new_tensor([0.0, 0.0, 1.0, 1.0]).expand(len(slots.index), 4)
        return Rows(image=slots.index, boxes=whole, weight=torch.ones_like(whole[:, 0]))
    count = slots.source.shape[1]
    image = slots.index.repeat_interleave(count)
    return Rows(image=image, boxes=slots.boxes.flatten(0, 1), weight=slots.weight.flatten())


def _gather_rows(rows: Rows) -> Rows:
    """The rows of all processes, in one message: float64 holds the integers exactly."""
    known = torch.cat([torch.stack([rows.image.double(), rows.weight.double()], 1), rows.boxes.double()], 1)
    every = gather_equal(known)
    return Rows(
        image=every[:, 0].long(),
        weight=every[:, 1].to(rows.weight.dtype),
        boxes=every[:, 2:].to(rows.boxes.dtype),
        start=rank() * len(known),
    )
