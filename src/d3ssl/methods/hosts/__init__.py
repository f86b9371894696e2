"""Hosts: dense SSL methods as plans. A new one is a file here and a line in ``HOSTS``, or an entry point of an
installed package in the group ``d3ssl.hosts`` (docs/extending.md)."""

from __future__ import annotations

from importlib.metadata import entry_points

from d3ssl.errors import InputError, nearest
from d3ssl.methods.hosts.byol import Byol
from d3ssl.methods.hosts.densecl import Densecl
from d3ssl.methods.hosts.detcon import Detcon
from d3ssl.methods.hosts.host import Host
from d3ssl.methods.hosts.ibot import Ibot
from d3ssl.methods.hosts.posttrain import Posttrain
from d3ssl.methods.hosts.soco import Soco

__all__ = ["HOSTS", "Byol", "Densecl", "Detcon", "Host", "Ibot", "Posttrain", "Soco", "find_host"]

HOSTS: dict[str, type[Host]] = {
    "soco": Soco,
    "byol": Byol,
    "detcon": Detcon,
    "densecl": Densecl,
    "ibot": Ibot,
    "posttrain": Posttrain,
}
"""Name → the host's options, which make its plan."""


def find_host(name: str) -> type[Host]:
    """The host of a name, among ``HOSTS`` and those that installed packages offer.

    Raises:
        InputError: there is none, with the nearest name.
    """
    if name in HOSTS:
        return HOSTS[name]
    offered = {point.name: point for point in entry_points(group="d3ssl.hosts")}
    if name in offered:
        return offered[name].load()
    raise InputError(f"there is no host '{name}'", remedy=nearest(name, [*HOSTS, *offered]))
