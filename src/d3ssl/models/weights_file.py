"""Files of weights: safetensors or ``torch.save``, wrapped by a training script or not."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from d3ssl.console import say_once
from d3ssl.errors import CheckpointError, D3sslError, InputError, first_names

_WRAPPERS = ("state_dict_ema", "model_ema", "teacher", "state_dict", "model", "backbone", "net")
"""How training scripts wrap their weights, the averaged ones first (as timm prefers them)."""
_INTEGERS = (torch.int8, torch.uint8)
_STATE = "it must be a .safetensors file, or a network's state_dict() written by torch.save."


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsFile:
    """What a file holds. The fields are explained in ``Source``."""

    path: Path
    state: dict[str, Tensor]
    """By the file's own keys, in the file's order."""
    format: Literal["safetensors", "torch.save"]
    wrapper: tuple[str, ...] = ()
    around: tuple[dict[str, Any], ...] = ()
    metadata: dict[str, str] | None = None
    versions: Any = None


def read_weights(path: Path) -> WeightsFile:
    """Read tensors by name; ``torch.save`` with ``weights_only``, so that nothing in the file is run.

    Raises:
        InputError: no such file.
        CheckpointError: damaged, no file of weights, or quantised weights.
    """
    if not path.is_file():
        raise InputError("no such file", path=path, remedy="check the path.")
    _refuse_pointers(path)
    try:
        found = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    except D3sslError:
        raise
    except Exception as error:  # bytes that are no pickle, or another one, fail in many ways
        why, remedy = _unreadable(path, str(error))
        raise CheckpointError(f"holds no weights that can be read{why}", path=path, remedy=remedy) from error
    refuse_quantised(found.state, path)
    return found


def _unreadable(path: Path, text: str) -> tuple[str, str]:
    """What is known of a file that cannot be read, and what to do. torch's own advice is to run what is in the file."""
    if "TorchScript" in text:
        remedy = f"save its weights alone: torch.save(torch.jit.load('{path}').state_dict(), 'weights.pth')."
        return ": it is a TorchScript archive, which is code", remedy
    if found := re.search(r"GLOBAL ([\w.]+)", text):
        remedy = (
            f"if you trust the file, save its tensors alone: found = torch.load('{path}', weights_only=False); "
            "torch.save(found.state_dict(), 'weights.pth'), or found['model'] and so on where it is a dict."
        )
        return f": beside tensors it holds objects ({found[1]}), whose code would be run", remedy
    reason = text.splitlines()[0] if text and "weights_only" not in text else ""
    return f" ({reason})" if reason else "", f"the file is damaged or of another kind; {_STATE}"


def refuse_quantised(state: dict[str, Any], path: Path) -> None:
    """Raise CheckpointError if the values are integers or 8-bit floats with a scale instead of weights."""
    for key, value in state.items():
        is_tensor = isinstance(value, Tensor)
        eight_bits = is_tensor and (value.is_quantized or str(value.dtype).startswith("torch.float8"))
        packed = not is_tensor and "_packed_params" in key
        if packed or eight_bits or (is_tensor and value.ndim > 1 and value.dtype in _INTEGERS):
            kind = str(value.dtype).removeprefix("torch.") if is_tensor else "packed"
            remedy = "load the weights that it was quantised from, in float32 or half precision."
            raise CheckpointError(f"holds quantised weights ({key} is {kind})", path=path, remedy=remedy)


def _refuse_pointers(path: Path) -> None:
    with open(path, "rb") as file:
        if file.read(40).startswith(b"version https://git-lfs"):
            problem = "is a Git LFS pointer, not the weights themselves"
            raise CheckpointError(problem, path=path, remedy="run `git lfs pull` in its repository.")


def _read_safetensors(path: Path) -> WeightsFile:
    with safetensors.safe_open(path, "pt") as file:
        metadata = file.metadata()
    return WeightsFile(path=path, state=safetensors.torch.load_file(path), format="safetensors", metadata=metadata)


def _read_torch(path: Path) -> WeightsFile:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of quantised tensors and TorchScript, which are refused with words of our own
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    wrapper: list[str] = []
    around: list[dict[str, Any]] = []
    while isinstance(loaded, dict) and (key := _wrapper_key(loaded, path)) is not None:
        wrapper.append(key)
        around.append({name: value for name, value in loaded.items() if name != key and not _holds_tensors(value)})
        loaded = loaded[key]
    if not isinstance(loaded, dict) or not all(isinstance(key, str) for key in loaded):
        raise CheckpointError("is not a file of weights (tensors by name)", path=path, remedy=_STATE)
    refuse_quantised(loaded, path)
    if not _is_state(loaded):
        others = [f"'{key}'" for key, value in loaded.items() if not isinstance(value, Tensor)]
        problem = f"is not a file of weights: {first_names(others, 6) or 'nothing'} in it is no tensor"
        raise CheckpointError(problem, path=path, remedy=f"{_STATE} (Of a run of d3ssl, give the folder.)")
    return WeightsFile(
        path=path,
        state=dict(loaded),
        format="torch.save",
        wrapper=tuple(wrapper),
        around=tuple(around),
        versions=getattr(loaded, "_metadata", None),
    )


def _is_state(value: Any) -> bool:
    return isinstance(value, dict) and len(value) > 0 and all(isinstance(own, Tensor) for own in value.values())


def _wrapper_key(loaded: dict[Any, Any], path: Path) -> str | None:
    """The entry that holds the weights: a usual name, or the only one that is a state dict."""
    usual = [key for key in _WRAPPERS if isinstance(loaded.get(key), dict)]
    if len(usual) > 1:
        say_once(f"{path}: '{usual[0]}' is read; {', '.join(map(repr, usual[1:]))} in the same file is not.")
    states = usual or [key for key, value in loaded.items() if _is_state(value)]
    return states[0] if usual or len(states) == 1 else None


def _holds_tensors(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_holds_tensors(own) for own in value.values())
    if isinstance(value, list | tuple | set):
        return any(_holds_tensors(own) for own in value)
    return isinstance(value, Tensor)
