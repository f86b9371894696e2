"""What a place that figures are logged to is: a run's figures, step by step, beside log.jsonl."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What a target is told when it is opened."""

    run: Path
    """The run's folder."""
    step: int = 0
    """Steps that were done before: figures of later ones follow."""
    options: dict[str, Any] = field(default_factory=dict)
    """The run's options by their dotted names; plain data."""

    @property
    def title(self) -> str:
        """The folder's name, and from which step on it was resumed."""
        name = self.run.resolve().name
        return name if self.step == 0 else f"{name}, from step {self.step}"


class Target(ABC):
    """Made from a ``Start``, in the thread that then writes. Everything may raise: the training goes on without it."""

    title: ClassVar[str]
    """For people."""
    package: ClassVar[str]
    """What has to be installed; the extra of d3ssl has the same name."""
    remedy: ClassVar[str]
    """What to do when it fails."""

    @abstractmethod
    def __init__(self, start: Start) -> None: ...

    @abstractmethod
    def write(self, step: int, figures: dict[str, float]) -> None:
        """Add the figures of a step; they may be not finite."""

    @abstractmethod
    def close(self) -> None:
        """Write what is left."""
