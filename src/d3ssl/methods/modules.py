"""The two modules of D³SSL (arXiv 2303.16947) as functions from plan to plan, so that they serve every host.

They commute: ``decouple`` leaves x3 alone, and ``deposition`` compares x3 with what the teacher sees, cut or not.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

from d3ssl.errors import InputError
from d3ssl.methods.plan import CutCopies, Objective, Pair, Plan
from d3ssl.views.masks import Carrier
from d3ssl.views.ops import ContextCutout, FillHoles, MixBackground, Operation, RegionCutout, Shift
from d3ssl.views.ops.photometric import Photometric
from d3ssl.views.view import ViewSpec

X3 = "x3"
_CUT = "_cut"


@dataclass(frozen=True, kw_only=True)
class DecoupleConfig:
    """De-coupling (DC): what the student's views lose."""

    cutout: float = 0.3
    """ρ of Region Collaborative Cutout, 0..1 (D³SSL: 0.3); 0: no cutout."""
    cutout_where: Literal["regions", "context", "both"] = "regions"
    """What is cut: the regions (D³SSL), their surroundings, or both by ρ each."""
    cutout_fill: Literal["mean", "mix"] = "mean"
    """What cut pixels show: the mean colour, or another image of the batch."""
    background: Literal["keep", "outside_boxes", "outside_masks"] = "keep"
    """What another image of the batch replaces: nothing (D³SSL), all outside the regions' boxes, or outside their
    masks."""
    teacher: Literal["whole", "cut"] = "whole"
    """The teacher sees whole views, or views cut like the student's with draws of their own."""

    def operations(self) -> tuple[Operation, ...]:
        """What is done to a view, in order."""
        _check_ratio("dc", self.cutout)
        found: list[Operation] = []
        if self.background != "keep":
            found.append(MixBackground(carried_by="box" if self.background == "outside_boxes" else "mask"))
        if self.cutout and self.cutout_where != "context":
            found.append(RegionCutout(ratio=self.cutout))
        if self.cutout and self.cutout_where != "regions":
            found.append(ContextCutout(ratio=self.cutout))
        return (*found, FillHoles()) if self.cutout_fill == "mix" else tuple(found)


@dataclass(frozen=True, kw_only=True)
class DepositionConfig:
    """De-positioning (DP): the view x3 and what it counts."""

    weight: float = 1.0
    """λ, the weight of L_dp (decided here)."""
    cutout: float = 0.3
    """ρ of the cutout before the regions move, 0..1 (D³SSL: 0.3); 0: no cutout."""
    shift: Literal["union", "each", "none"] = "each"
    """How the foreground moves: all regions together (the authors' figure), each by itself, or not at all."""
    scale: tuple[float, float] = (0.6, 1.0)
    """Factor by which the moved foreground is rescaled (decided here; (1, 1): moved only)."""
    carried_by: Carrier = "box"
    """What moves with a region: its whole box, or the pixels of its mask."""
    background: Literal["mix", "mean"] = "mix"
    """What x3 shows outside its foreground: another image of the batch, or the mean colour."""
    photometric: Literal["fresh", "same"] = "fresh"
    """x3's photometric draw: its own, or that of the view it is made from."""

    def operations(self) -> tuple[Operation, ...]:
        """What is done to x3, in order."""
        _check_ratio("dp", self.cutout)
        if not 0 < self.scale[0] <= self.scale[1]:
            raise InputError(f"dp.scale is {self.scale}", remedy="give 0 < low ≤ high.")
        cut: tuple[Operation, ...] = (RegionCutout(ratio=self.cutout),) if self.cutout else ()
        moved = Shift(mode=self.shift, scale=self.scale, carried_by=self.carried_by)
        return (*cut, moved, FillHoles()) if self.background == "mix" else (*cut, moved)


def decouple(plan: Plan, config: DecoupleConfig | None = None) -> Plan:
    """Replace the views that a plan allows to be cut by cut copies, where the student sees them.

    A plan with ``copies`` of its own gets these beside its views.

    Raises:
        InputError: the plan names no view that may be cut, or cuts copies in a way of its own and options are given.
    """
    config = config or DecoupleConfig()
    if not plan.cut:
        remedy = "set --method.decouple false, or name views in the plan's `cut`."
        raise InputError(f"the plan '{plan.name}' has no views that de-coupling may cut", remedy=remedy)
    if plan.copies is not None:
        return _add_copies(plan, plan.copies, config)
    operations, views = config.operations(), dict(plan.views)
    cut = {name: objective for name, objective in plan.objectives.items() if not objective.intact}
    seen = {pair.student for objective in cut.values() for pair in objective.pairs}
    students = {name: name + _CUT for name in plan.cut if name in seen}
    whole = [name for name in plan.teacher_views if not plan.views[name].operations]
    teachers = {name: f"{name}{_CUT}_teacher" for name in whole if config.teacher == "cut"}
    for name, copy in (*students.items(), *teachers.items()):
        spec = plan.views[name]
        views[copy] = ViewSpec(size=spec.size, source=name, operations=(*spec.operations, *operations))
    objectives = dict(plan.objectives)
    for name, objective in cut.items():
        named = [(students.get(p.student, p.student), teachers.get(p.teacher, p.teacher)) for p in objective.pairs]
        pairs = [dataclasses.replace(p, student=a, teacher=b) for p, (a, b) in zip(objective.pairs, named, strict=True)]
        objectives[name] = dataclasses.replace(objective, pairs=tuple(pairs))
    return dataclasses.replace(plan, modules=plan.modules | {"DC"}, views=views, objectives=objectives)


def _add_copies(plan: Plan, copies: CutCopies, config: DecoupleConfig) -> Plan:
    changed = [f"--dc.{f.name}" for f in dataclasses.fields(config) if getattr(config, f.name) != f.default]
    if changed:
        problem = f"{', '.join(changed)}: the plan '{plan.name}' cuts its views in a way of its own"
        raise InputError(problem, remedy="leave these options out; those of the host say how it cuts.")
    views = dict(plan.views)
    for name in plan.cut:
        spec, operations = plan.views[name], (copies.operation,)
        views[name + _CUT] = ViewSpec(
            size=spec.size, source=name, photometric=spec.photometric, operations=operations, share=copies.share
        )
    pairs = tuple(Pair(student=n + _CUT, teacher=n, weight=copies.weight / len(plan.cut)) for n in plan.cut)
    added = dataclasses.replace(plan.objectives[copies.objective], shares=copies.objective, pairs=pairs)
    objectives = {**plan.objectives, "decoupling": added}
    return dataclasses.replace(plan, modules=plan.modules | {"DC"}, views=views, objectives=objectives)


def deposition(plan: Plan, config: DepositionConfig | None = None) -> Plan:
    """Add x3, made from the view that the plan names, and compare it with each view that the teacher sees.

    L = L_host + λ · mean over the teacher's views of ℓ(z_s(x3), z_t(view)), region by region. The views are
    those of the plan's first objective; a host that reads images or cells reads regions there with a dense head of its
    own (``Plan.dense``).

    Raises:
        InputError: the plan names no view to move, or the weight is below 0.
    """
    config = config or DepositionConfig()
    if plan.moved is None:
        remedy = "set --method.deposition false, or name a view in the plan's `moved`."
        raise InputError(f"the plan '{plan.name}' has no view whose foreground may be moved", remedy=remedy)
    if config.weight < 0:
        raise InputError(f"dp.weight is {config.weight}", remedy="give 0 or more.")
    spec = plan.views[plan.moved]
    fresh: Photometric | None = spec.photometric if config.photometric == "fresh" else None
    x3 = ViewSpec(size=spec.size, source=plan.moved, photometric=fresh, operations=config.operations())
    first, host = next(iter(plan.objectives.items()))
    seen = list(dict.fromkeys(pair.teacher for pair in host.pairs))
    pairs = tuple(Pair(student=X3, teacher=view, weight=config.weight / len(seen)) for view in seen)
    dense: Objective = plan.dense or dataclasses.replace(host, shares=first)
    return dataclasses.replace(
        plan,
        modules=plan.modules | {"DP"},
        views={**plan.views, X3: x3},
        objectives={**plan.objectives, "deposition": dataclasses.replace(dense, pairs=pairs)},
    )


def _check_ratio(module: str, ratio: float) -> None:
    if not 0 <= ratio <= 1:
        raise InputError(f"{module}.cutout is {ratio}", remedy="give a share, 0..1.")
