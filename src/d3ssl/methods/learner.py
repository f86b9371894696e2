"""The learner: what the training loop knows of a method. One learner runs any plan."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from d3ssl.contracts import Rows, Slots, View, ViewSet
from d3ssl.distributed import all_reduce_mean, gather_equal
from d3ssl.methods.losses import Memory
from d3ssl.methods.network import Network, as_read
from d3ssl.methods.plan import Objective, Plan
from d3ssl.methods.rows import gather_origin, mean_loss, mean_row, most_similar, origin_of
from d3ssl.models.backbone import Backbone
from d3ssl.models.ema import make_teacher, momentum_at, update_teacher
from d3ssl.models.first_layers import first_parameters
from d3ssl.models.folded_norm import fold_norms
from d3ssl.models.readers import ROW_KINDS, Box, Reader, RowKind

HeadRows = dict[str, dict[str, Tensor]]
"""View → head → its rows."""


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


class Learner(nn.Module):
    """A dense SSL method: student, teacher, predictors, and the losses of its plan.

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
        for name in (*backbone.unused_parameters, *first_parameters(backbone, plan.frozen_stride)):
            backbone.net.get_parameter(name).requires_grad_(False)
        if plan.freeze_norm:
            fold_norms(backbone)
        reader = next(iter(plan.objectives.values())).reader
        if isinstance(reader, Box):  # evaluations read regions as training did
            backbone.region_path, backbone.roi_size = reader.path, reader.roi_size
        else:
            backbone.region_path = "map"
        self.student = Network(plan, backbone)
        self.teacher = make_teacher(self.student)
        own = {name: o for name, o in plan.objectives.items() if o.shares is None}
        self.predictors = nn.ModuleDict(
            {
                name: o.predictor.build(_size(o, self.student.reader(name))) if o.predictor else nn.Identity()
                for name, o in own.items()
            }
        )
        first = next(iter(plan.objectives))  # which shares with none
        self._watched = first, next(plan.pairs()).student
        self.student_heads: dict[str, list[str]] = {view: [] for view in plan.used_views}
        self.teacher_heads: dict[str, list[str]] = {view: [] for view in plan.used_views}
        """View → what each network reads of it."""
        for name, objective in plan.objectives.items():
            for pair in objective.pairs:
                head = objective.shares or name
                read = {head} if pair.match == "row" else {head, as_read(head)}
                for heads, view in ((self.student_heads, pair.student), (self.teacher_heads, pair.teacher)):
                    heads[view] = sorted({*heads[view], *read})

        self.centres = nn.ModuleDict(
            {name: Centre(_size(o, self.student.reader(name))) for name, o in own.items() if o.centre}
        )
        memories = {name: o.loss.remember(_size(o, self.student.reader(name))) for name, o in own.items()}
        self.memories = nn.ModuleDict({name: memory for name, memory in memories.items() if memory is not None})

    def train(self, mode: bool = True) -> Learner:
        """Training mode; what is frozen stays in evaluation mode."""
        super().train(mode)
        if self.plan.is_frozen:
            self.teacher.eval()
        for module in self.student.backbone.modules() if self.plan.freeze_norm else ():
            if isinstance(module, _BatchNorm):
                module.eval()
        return self

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
        projected = self._read(self.student, views, self.student_heads)
        with torch.no_grad():
            fresh = {view: heads for view, heads in self.teacher_heads.items() if view not in views.kept}
            targets = self._read(self.teacher, views, fresh) | views.kept
        predicted = {
            view: {name: self.predictors[name](rows) for name, rows in own.items() if name in self.predictors}
            for view, own in projected.items()
        }
        origin: dict[RowKind, Rows] = {kind: origin_of(views.slots, kind) for kind in ROW_KINDS}
        targets = self._gather(targets, origin)
        total, parts, carry = torch.zeros((), device=views.scale.device), {}, {}
        for name, objective in self.plan.objectives.items():
            part, head, rows = torch.zeros_like(total), objective.shares or name, origin[objective.reader.rows]
            centre: Tensor | float = 0.0
            if objective.centre:
                seen = [targets[view][head] for view in objective.teacher_views]
                mean = torch.stack([mean_row(own, rows, objective.reader.rows) for own in seen]).mean(0)
                own_centre: Centre = self.centres[head]  # type: ignore[assignment]
                centre = own_centre(mean)
                carry |= {head: mean} if head == name else {}
            for pair in objective.pairs:
                student, teacher = predicted[pair.student][head], targets[pair.teacher][head]
                if pair.match == "feature":
                    read = projected[pair.student][as_read(head)], targets[pair.teacher][as_read(head)]
                    teacher = teacher[most_similar(*read, len(views.slots.index))]
                if not objective.loss.contrasts and len(student) < len(teacher):
                    teacher = teacher[-len(student) :]  # the view shows the last images only
                losses = self._losses(objective, head, student - centre, teacher - centre, rows, progress)
                counts = self.student.reader(head).weigh(views.views[pair.student])
                losses = losses if counts is None else losses * counts
                part = part + pair.weight * mean_loss(losses, objective.reader.rows, views)
            if head == name and head in self.memories:
                carry[f"memory.{head}"] = self._remember(objective, head, targets, len(views.slots.index))
            total, parts[f"loss_{name}"] = total + part, part.detach()
        first, view = self._watched
        watched = projected[view][first].detach()
        is_region = self.plan.objectives[first].reader.rows == "region"
        counted = views.slots.distinct.flatten() if is_region else torch.ones_like(watched[:, 0], dtype=torch.bool)
        return StepOutput(loss=total, parts=parts, watched=watched, counted=counted, carry=carry)

    def _losses(
        self, objective: Objective, head: str, student: Tensor, teacher: Tensor, rows: Rows, progress: float
    ) -> Float[Tensor, "N"]:
        if head in self.memories:
            return self.memories[head](student, teacher, rows, progress)
        return objective.loss(student, teacher, rows)

    def _remember(self, objective: Objective, head: str, targets: HeadRows, images: int) -> Tensor:
        """What this part adds to the memory of a loss."""
        seen = objective.teacher_views
        memory: Memory = self.memories[head]  # type: ignore[assignment]
        return memory.carry(torch.cat([targets[view][head] for view in seen]), images * len(seen))

    @torch.no_grad()
    def read_teacher(self, view: View, slots: Slots, name: str) -> dict[str, Float[Tensor, "N D"]]:
        """The teacher's rows of one view, for all heads that read the view of this name."""
        return self.teacher(view, slots, self.teacher_heads[name])

    def _read(self, network: Network, views: ViewSet, heads: dict[str, list[str]]) -> HeadRows:
        return {view: network(views.views[view], views.slots, names) for view, names in heads.items() if names}

    def _gather(self, targets: HeadRows, origin: dict[RowKind, Rows]) -> HeadRows:
        """The teacher's rows of all processes for the objectives that contrast, with where they come from."""
        contrasting: dict[str, RowKind] = {
            o.shares or name: o.reader.rows for name, o in self.plan.objectives.items() if o.loss.contrasts
        }
        for kind in dict.fromkeys(contrasting.values()):  # in the same order in every process, as a set is not
            origin[kind] = gather_origin(origin[kind])
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
        for name, module in self.centres.items():
            means = torch.stack([carry[name] for carry in carries])
            centre: Centre = module  # type: ignore[assignment]
            centre.update(all_reduce_mean(means.mean(0)))
        for name, module in self.memories.items():
            memory: Memory = module  # type: ignore[assignment]
            memory.update([carry[f"memory.{name}"] for carry in carries])
        if self.plan.is_frozen:
            return {}
        momentum = momentum_at(progress, self.plan.momentum, self.plan.momentum_end)
        update_teacher(self.teacher, self.student, momentum)
        return {"teacher_momentum": momentum}


class Centre(nn.Module):
    """The running mean of the teacher's rows: mean ← .95 · mean + .05 · mean of the step; at first that of the step."""

    mean: Float[Tensor, "D"]
    steps: Float[Tensor, ""]

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, step_mean: Float[Tensor, "D"]) -> Float[Tensor, "D"]:
        """What to take from rows of a step whose mean this is."""
        return torch.where(self.steps > 0, self.mean, step_mean)

    def update(self, step_mean: Float[Tensor, "D"], share: float = 0.05) -> None:
        self.mean.copy_(torch.where(self.steps > 0, self.mean.lerp(step_mean, share), step_mean))
        self.steps += 1


def _size(objective: Objective, reader: Reader) -> int:
    """Of a row that is compared."""
    return objective.projector.out if objective.projector else reader.out_features
