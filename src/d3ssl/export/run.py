"""``d3ssl export``: check → write beside → read back in the tool → move into place."""

from __future__ import annotations

import copy
import importlib.util
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from d3ssl.console import say
from d3ssl.errors import InputError, nearest
from d3ssl.export.push import check_push, push
from d3ssl.export.target import Origin, Target, Verified
from d3ssl.export.targets import TARGETS
from d3ssl.files import check_new, write_new
from d3ssl.models.artifact import MANIFEST_NAME
from d3ssl.models.backbone import Backbone
from d3ssl.models.load import load_backbone


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What ``export_backbone`` made."""

    path: Path
    target: str
    verified: Verified
    loading: str
    """The lines that load it."""
    pushed: str | None = None
    """Address of the commit on the hub."""


def export_backbone(
    backbone: str | Path | nn.Module,
    to: str,
    out: str | Path,
    *,
    in_channels: int = 3,
    licence: str | None = None,
    push_to: str | None = None,
) -> Exported:
    """Write a backbone in another tool's format, and verify it by loading it there and comparing maps.

    Args:
        backbone: a run's folder, or anything else that ``load_backbone`` takes.
        to: the target (``d3ssl.export.TARGETS``).
        out: the file or folder to make.
        in_channels: of the images, for ``timm:`` and ``hf:``; a run knows its own.
        licence: of the weights, for the model card of ``hf``.
        push_to: ORG/NAME on Hugging Face's hub, for ``hf``: uploaded once it is verified.

    Raises:
        InputError: unknown target, a backbone that it cannot hold, a package that is not installed, an existing path,
            no token to push with.
        D3sslError: the maps differ, or the disk is full: nothing is left then. Or the folder could not be pushed.
    """
    target, out = find_target(to), Path(out)
    _check_path(to, target, out)
    _check_packages(to, target)
    if push_to is not None:
        check_push(push_to, to)
    given = (
        copy.deepcopy(backbone).cpu() if isinstance(backbone, nn.Module) else backbone
    )  # the caller's stays as it is
    network = load_backbone(given, in_channels=in_channels).eval()
    _check_held(to, target, network)
    origin = Origin(spec=_spec(backbone, network), run=_run_of(backbone), licence=licence)
    with write_new(out) as path:
        target.write(network, path, origin)
        verified = target.verify(path, network)
    pushed = push(out, push_to) if push_to is not None else None
    return Exported(path=out, target=to, verified=verified, loading=target.loading(network, out), pushed=pushed)


def tell(found: Exported) -> None:
    """What a user wants to know of an export."""
    size = sum(file.stat().st_size for file in [found.path, *found.path.rglob("*")] if file.is_file())
    difference = found.verified.difference
    shown = "" if difference is None else f"; largest difference {difference:.1e}"
    say(f"{found.path}: {size / 1e6:.1f} MB for {found.target}, verified: {found.verified.how}{shown}")
    if found.pushed is not None:
        say(f"pushed: {found.pushed}")
    say(f"load it:\n{found.loading}")


def find_target(name: str) -> Target:
    """A target by its name.

    Raises:
        InputError: there is no such target.
    """
    if name not in TARGETS:
        raise InputError(f"there is no target '{name}'", remedy=nearest(name, TARGETS))
    return TARGETS[name]


def _check_path(to: str, target: Target, out: Path) -> None:
    if target.endings and out.suffix not in target.endings:
        remedy = f"end its name in {' or '.join(target.endings)}."
        raise InputError(f"is no name for a file of target '{to}'", path=out, remedy=remedy)
    check_new(out)


def _check_packages(to: str, target: Target) -> None:
    absent = [name for name in target.packages if importlib.util.find_spec(name) is None]
    if absent:
        verb = "is" if len(absent) == 1 else "are"
        problem = f"target '{to}' needs {', '.join(absent)}, which {verb} not installed"
        raise InputError(problem, remedy=f"{target.install}")


def _check_held(to: str, target: Target, network: Backbone) -> None:
    why = target.refuse(network)
    if why is not None:
        able = [name for name, own in TARGETS.items() if own.refuse(network) is None]
        remedy = f"targets that can: {', '.join(able)}." if able else "no target can hold it."
        raise InputError(f"target '{to}' cannot hold this backbone: {why}", remedy=remedy)


def _spec(backbone: str | Path | nn.Module, network: Backbone) -> str:
    return network.architecture if isinstance(backbone, nn.Module) else str(backbone)


def _run_of(backbone: str | Path | nn.Module) -> Path | None:
    if isinstance(backbone, nn.Module):
        return None
    path = Path(backbone)
    folder = path if path.is_dir() else path.parent
    return folder if path.exists() and (folder / MANIFEST_NAME).is_file() else None
