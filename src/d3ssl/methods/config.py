"""Which host is trained, and which modules it passes through."""

from __future__ import annotations

from dataclasses import dataclass

from d3ssl.methods.hosts import Host
from d3ssl.methods.modules import DecoupleConfig, DepositionConfig, decouple, deposition
from d3ssl.methods.plan import Plan
from d3ssl.views.view import RegionsSpec


@dataclass(frozen=True, kw_only=True)
class MethodConfig:
    """The method: a host with none, one or both of the modules."""

    host: str = "soco"
    """The dense SSL method: soco, detcon, densecl, ibot, byol, or one of a package. Its options: --host.NAME."""
    decouple: bool = True
    """De-coupling (DC): the student's views are cut, and their backgrounds mixed, as --dc.NAME says."""
    deposition: bool = True
    """De-positioning (DP): the student also sees x3, its foreground moved onto another image, as --dp.NAME says."""


def make_plan(
    method: MethodConfig, host: Host, dc: DecoupleConfig, dp: DepositionConfig, size: int, regions: RegionsSpec
) -> Plan:
    """The plan of a configuration, checked.

    Raises:
        InputError: it cannot be carried out (see ``Plan.check``).
    """
    plan = host.plan(size, regions)
    plan = decouple(plan, dc) if method.decouple else plan
    plan = deposition(plan, dp) if method.deposition else plan
    plan.check()
    return plan
