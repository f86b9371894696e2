"""Compiling the few loops that no library has."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numba


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile with numba (no Python objects, the GIL released), keeping the machine code on disk where possible.

    The code is kept beside the source, or in numba's own folders where the installation is read-only. Where no folder
    can be written at all, every process compiles again (some seconds). No fast-math: results are the same everywhere.
    """
    plain = inspect.unwrap(function)  # compile the loop itself, not a type check around it
    try:
        return numba.njit(cache=True, nogil=True)(plain)
    except RuntimeError:  # what numba raises when no folder for its cache can be written
        return numba.njit(nogil=True)(plain)
