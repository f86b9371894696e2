"""State dicts on disk, in safetensors or by ``torch.save``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from d3ssl.errors import D3sslError, first_names

ENDINGS = (".safetensors", ".pth")


def write_state(state: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors by name; the ending decides the format."""
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(dict(state), path)
    else:
        torch.save(dict(state), path)


def read_state(path: Path) -> dict[str, Any]:
    """What ``write_state`` wrote."""
    if path.suffix == ".safetensors":
        return safetensors.torch.load_file(path)
    return torch.load(path, weights_only=True)


def reading(path: Path) -> str:
    """The Python that reads it."""
    function = "safetensors.torch.load_file" if path.suffix == ".safetensors" else "torch.load"
    return f'{function}("{path}")'


def load_part(model: nn.Module, path: Path, missing: tuple[str, ...]) -> None:
    """Load a file into a part of a model.

    Args:
        missing: how the names begin that the file need not have.

    Raises:
        D3sslError: other names are missing, or some are left over.
    """
    found = model.load_state_dict(read_state(path), strict=False)
    wrong = [*found.unexpected_keys, *(key for key in found.missing_keys if not key.startswith(missing))]
    if wrong:
        raise D3sslError(f"{len(wrong)} exported keys do not fit {type(model).__name__}: {first_names(wrong)}")
