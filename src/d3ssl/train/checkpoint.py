"""Checkpoints: tensors and plain data only, loadable with ``weights_only=True``, whole or absent."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import torch

from d3ssl.errors import CheckpointError
from d3ssl.files import write_atomically
from d3ssl.train.config import RunConfig, as_dict, differences

FORMAT = 1
NAME = "checkpoint.pt"


def save(run: Path, state: dict[str, Any]) -> None:
    """Write RUN/checkpoint.pt atomically; a failure is an exception and leaves the previous checkpoint whole.

    Raises:
        D3sslError: the disk is full, or the folder cannot be written.
    """
    with write_atomically(run / NAME) as temporary, open(temporary, "wb") as file:
        torch.save({"format": FORMAT, **state}, file)


def load(run: Path, config: RunConfig, data_digest: str) -> dict[str, Any]:
    """Read RUN/checkpoint.pt and check that it belongs to this configuration and these data.

    Raises:
        CheckpointError: missing, damaged, of another format, or made for something else.
    """
    path = run / NAME
    if not path.is_file():
        raise CheckpointError("no such checkpoint", path=path, remedy="start the run without --resume.")
    damaged = "it is damaged or no checkpoint of d3ssl; remove the run's folder and start anew."
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, OSError, EOFError, KeyError, ValueError) as error:
        first_line = re.split(r"[\n.]", str(error), maxsplit=1)[0]
        raise CheckpointError(f"cannot be read ({first_line})", path=path, remedy=damaged) from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise CheckpointError("is not a checkpoint of this version", path=path, remedy=damaged)
    changed = differences(state["config"], as_dict(config))
    if changed:
        remedy = "resume with the run's own options (RUN/config.yaml), or choose another --out."
        raise CheckpointError("was made with other options: " + "; ".join(changed), path=path, remedy=remedy)
    if state["data_digest"] != data_digest:
        remedy = "resume with the same images and regions, or choose another --out."
        raise CheckpointError("was made with other images or regions", path=path, remedy=remedy)
    return state
