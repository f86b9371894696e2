"""A method as data: the table of views, and the objectives that compare what student and teacher read from them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from d3ssl.errors import InputError, nearest
from d3ssl.methods.losses import Loss
from d3ssl.models.backbone import Backbone, check_size
from d3ssl.models.heads import Mlp, PrototypeHead
from d3ssl.models.readers import ReaderConfig
from d3ssl.views.ops import Operation
from d3ssl.views.view import RegionsSpec, ViewSpec, check_views


@dataclass(frozen=True, kw_only=True)
class Pair:
    """The rows of one view as the student reads them are compared with those of another as the teacher does."""

    student: str
    teacher: str
    weight: float = 1.0
    match: Literal["row", "feature"] = "row"
    """Which rows belong together: those of the same number, or with each of the student's the one of the same image
    that is most similar by the backbone's features (cosine; DenseCL, arXiv 2011.09157, equation 3)."""


@dataclass(frozen=True, kw_only=True)
class Objective:
    """A reader, heads, a loss, and pairs of views: the sum over the pairs of weight · mean over rows of ℓ."""

    reader: ReaderConfig
    loss: Loss
    pairs: tuple[Pair, ...]
    projector: Mlp | PrototypeHead | None = None
    """Of student and teacher; None: rows are compared as they are read."""
    predictor: Mlp | None = None
    """Of the student alone; None: none."""
    centre: bool = False
    """Compare what is left when the teacher's running mean is taken from the rows of both."""
    shares: str | None = None
    """Another objective, whose reader and heads this one uses (and describes likewise)."""
    projects_as: str | None = None
    """Another objective, whose projector this one uses (and describes likewise), with a reader of its own."""
    intact: bool = False
    """What it says holds for whole photographs only: de-coupling does not cut its views."""

    @property
    def teacher_views(self) -> list[str]:
        """Those that the teacher sees, in the order of the pairs."""
        return list(dict.fromkeys(pair.teacher for pair in self.pairs))


@dataclass(frozen=True, kw_only=True)
class CutCopies:
    """Cut copies that de-coupling adds to the student's views instead of replacing them, by an operation of the host's.

    The copy of a view has the same crop and colours of its own.
    """

    objective: str
    """On whose heads and loss they count; the pairs are the copy of each cut view → that view."""
    operation: Operation
    share: float
    """Of the images of a batch, 0..1."""
    weight: float


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A dense SSL method as plain data. ``Learner`` trains any plan; ``decouple`` and ``deposition`` change one.

    Raises:
        InputError: by ``check``, for a plan that cannot be carried out.
    """

    name: str
    """Of the host."""
    views: dict[str, ViewSpec]
    objectives: dict[str, Objective]
    modules: frozenset[str] = frozenset()
    """Which modules it has passed through: DC, DP."""
    regions: RegionsSpec = field(default_factory=RegionsSpec)
    momentum: float = 0.99
    """Of the EMA teacher at the first step (BYOL, SoCo: 0.99). 0 with ``momentum_end`` 0: the student's own weights;
    1: a frozen copy of the start."""
    momentum_end: float = 1.0
    """At the last step, reached along a half cosine (BYOL, SoCo: 1)."""
    freeze_norm: bool = False
    """Batch norms of the student keep the statistics of the start."""
    boxes_will_do: bool = False
    """Regions without masks count by their boxes, which is said; else masks that are missing are an error."""
    partition: bool = False
    """The regions are the segments of a partition, which are read and never cut or moved; with a module, objects."""
    frozen_stride: int = 0
    """The student's layers up to the map of this stride, px, keep the weights of the start; 0: all are trained."""
    cut: tuple[str, ...] = ()
    """Views that de-coupling may cut as the student sees them."""
    copies: CutCopies | None = None
    """How de-coupling adds cut copies of these views; None: it replaces them."""
    moved: str | None = None
    """The view from which de-positioning makes x3; None: it cannot be applied."""
    dense: Objective | None = None
    """What reads the regions of x3 in a host that reads no regions itself (its pairs are ignored); None: the first
    objective."""

    def pairs(self) -> Iterator[Pair]:
        """Of all objectives."""
        for objective in self.objectives.values():
            yield from objective.pairs

    @property
    def is_frozen(self) -> bool:
        """The teacher is a copy of the start, which stays as it is."""
        return self.momentum == self.momentum_end == 1

    @property
    def used_views(self) -> list[str]:
        """The views that student or teacher see, in the table's order."""
        seen = {name for pair in self.pairs() for name in (pair.student, pair.teacher)}
        return [name for name in self.views if name in seen]

    @property
    def teacher_views(self) -> list[str]:
        """Those that the teacher sees, in the order of the pairs."""
        return list(dict.fromkeys(pair.teacher for pair in self.pairs()))

    @property
    def title(self) -> str:
        """The host and its modules: ``soco + DC + DP``."""
        return " + ".join([self.name, *sorted(self.modules)])

    @property
    def needs_masks(self) -> bool:
        """Whether label maps have to travel with the canvas."""
        operations = [operation for spec in self.views.values() for operation in spec.operations]
        return any(part.needs_masks for part in (*operations, *(o.reader for o in self.objectives.values())))

    def check(self) -> None:
        """Refuse what cannot work, before any image is read.

        Raises:
            InputError: see ``check_views``; no pair, a pair that names no view, a weight below 0, an objective that
                shares the heads of none, a momentum out of 0..1.
        """
        check_views(self.views)
        if not any(True for _ in self.pairs()):
            raise InputError(f"the plan '{self.name}' compares nothing", remedy="give it an objective with a pair.")
        for name, objective in self.objectives.items():
            for pair in objective.pairs:
                for view in (pair.student, pair.teacher):
                    if view not in self.views:
                        problem = f"a pair of the objective '{name}' names a view '{view}' that does not exist"
                        raise InputError(problem, remedy=nearest(view, self.views))
                if pair.weight < 0:
                    raise InputError(f"a pair of '{name}' weighs {pair.weight}", remedy="give 0 or more.")
            for other in (objective.shares, objective.projects_as):
                if other is not None and other not in self.objectives:
                    problem = f"the objective '{name}' shares the heads of '{other}', which does not exist"
                    raise InputError(problem, remedy=nearest(other, self.objectives))
        for momentum in (self.momentum, self.momentum_end):
            if not 0 <= momentum <= 1:
                raise InputError(f"the teacher's momentum is {momentum}", remedy="set it to 0..1.")

    def check_batch(self, images: int) -> None:
        """Refuse steps of a number of images that a loss cannot work with.

        Raises:
            InputError: see ``Loss.check_batch``.
        """
        for objective in self.objectives.values():
            objective.loss.check_batch(images * len(objective.teacher_views))

    def check_backbone(self, backbone: Backbone) -> None:
        """Refuse a backbone that does not offer what the plan reads.

        Raises:
            InputError: with a reader or a size of view that would work.
        """
        for name in self.used_views:
            try:
                check_size(backbone, (self.views[name].size, self.views[name].size))
            except InputError as error:
                side = max(backbone.layout.fixed_size or (0,))
                remedy = f"set --views.size {side} and --host.small_ratio 1, where the host has it; or {error.remedy}"
                raise InputError(error.problem, remedy=remedy) from error
        for objective in self.objectives.values():
            reader = objective.reader.build(backbone)
            for name in dict.fromkeys(name for pair in objective.pairs for name in (pair.student, pair.teacher)):
                reader.check_view(self.views[name].size)
                self._check_patches(name, backbone)
            if self.is_frozen and objective.reader.rows == "region":
                self._check_cells(objective, backbone, reader.stride)

    def _check_patches(self, name: str, backbone: Backbone) -> None:
        for operation in self.views[name].operations:
            if operation.patch_size not in (None, backbone.strides[-1]):
                problem = (
                    f"the plan '{self.name}' hides patches of {operation.patch_size} px, but those of "
                    f"'{backbone.timm_name}' are {backbone.strides[-1]} px"
                )
                raise InputError(problem, remedy=f"set --host.patch {backbone.strides[-1]}.")

    def _check_cells(self, objective: Objective, backbone: Backbone, stride: int) -> None:
        """Refuse a map of one cell: all regions of an image would be the same row, and heads that could learn what to
        make of it are not there under a frozen teacher."""
        smallest = min(self.views[name].size for pair in objective.pairs for name in (pair.student, pair.teacher))
        if smallest > stride:
            return
        largest = max(view.size for view in self.views.values())
        problem = f"'{backbone.timm_name}' has cells of {stride} px, so a view of {smallest} px has a single one"
        remedy = f"set --views.size {math.ceil(2 * stride * largest / smallest)} or more, or choose another network."
        raise InputError(problem, remedy=remedy)

    def table(self) -> str:
        """The plan as a short table: its views with what they are made of, then its objectives with their pairs."""
        lines = [self.title]
        width = max(map(len, self.views))
        for name, spec in self.views.items():
            chain = [spec.source or "image"]
            chain += ["crop"] if spec.crop is not None else []
            chain += ["photometric"] if spec.photometric is not None else []
            chain += [f"{operation.name}({_options(operation)})" for operation in spec.operations]
            unseen = "" if name in self.used_views else "   (only the source of others)"
            unseen += f"   ({spec.share:g} of the images)" if spec.share < 1 else ""
            lines.append(f"  view {name:<{width}}  {spec.size:>4} px  {' → '.join(chain)}{unseen}")
        for name, objective in self.objectives.items():
            heads = [
                f"{what} {head.hidden}–{head.out}"
                for what, head in (("projector", objective.projector), ("predictor", objective.predictor))
                if head is not None
            ]
            other = objective.shares or objective.projects_as
            heads = [f"heads of {other}"] if other else heads or ["no heads"]
            parts = [f"{type(objective.reader).__name__.lower()}({_options(objective.reader)})", *heads]
            parts.append(f"{type(objective.loss).__name__}({_options(objective.loss)})")
            lines.append(f"  objective {name}: {' · '.join(parts)}")
            lines += [
                f"    {pair.student} → {pair.teacher}  × {pair.weight:g}{_match(pair)}" for pair in objective.pairs
            ]
        is_constant = self.momentum == self.momentum_end
        teacher = f"EMA, momentum {self.momentum:g}" + ("" if is_constant else f" → {self.momentum_end:g}")
        teacher = "a frozen copy of the start" if self.is_frozen else teacher
        return "\n".join([*lines, f"  teacher: {teacher}", f"  regions per image: {self.regions.regions_per_image}"])


def _match(pair: Pair) -> str:
    return "" if pair.match == "row" else "  (most similar features)"


def _options(part: object) -> str:
    """``ratio=0.3, …``: the fields of a dataclass that are not None."""
    pairs = [(f.name, getattr(part, f.name)) for f in dataclasses.fields(part)]  # type: ignore[arg-type]
    return ", ".join(f"{name}={value}" for name, value in pairs if value is not None)
