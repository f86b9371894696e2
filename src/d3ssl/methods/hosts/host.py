"""What every host has in common."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from d3ssl.methods.plan import Plan
from d3ssl.views.view import RegionsSpec


@runtime_checkable
class Host(Protocol):
    """A frozen dataclass: its fields are the options ``--host.NAME`` of ``d3ssl pretrain``."""

    def plan(self, size: int, regions: RegionsSpec) -> Plan:
        """The method without any module.

        Args:
            size: side of the full views, px.
            regions: how regions are chosen.
        """
        ...
