"""Randomness as a pure function of named numbers, so that nothing has to be carried from step to step."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed that depends on every part: ``derive_seed(seed, "views", step, rank)``."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def torch_generator(*parts: int | str) -> torch.Generator:
    """A CPU generator seeded by the parts. Parameters are drawn on the CPU so that every device gets the same ones."""
    return torch.Generator().manual_seed(derive_seed(*parts))


def numpy_generator(*parts: int | str) -> np.random.Generator:
    """A NumPy generator seeded by the parts."""
    return np.random.default_rng(derive_seed(*parts))


@dataclass(frozen=True, slots=True, kw_only=True)
class Draws:
    """The draws of one batch, by name: adding an operation changes nobody else's, and a view can be replayed."""

    seed: int
    step: int = 0
    part: int = 0
    """Of an accumulated step."""
    rank: int = 0

    def generator(self, *names: str) -> torch.Generator:
        """A CPU generator for what is named, such as a view and an operation on it."""
        return torch_generator(self.seed, "views", self.step, self.part, self.rank, *names)
