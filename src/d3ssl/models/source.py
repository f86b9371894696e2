"""Where a backbone's weights came from: all that is needed to write others in their place, in the same form."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The form in which weights arrived. Tensors that are in the backbone are not kept here a second time."""

    format: Literal["safetensors", "torch.save"] | None = None
    """Of the file. None: no file; the weights came from a library or from a module."""
    wrapper: tuple[str, ...] = ()
    """Keys under which the state dict lies in a file of ``torch.save``, from the outside in."""
    around: tuple[dict[str, Any], ...] = ()
    """What lies beside each key of ``wrapper``, without what holds tensors (other weights, an optimiser's state)."""
    metadata: dict[str, str] | None = None
    """The header's own text in a safetensors file."""
    versions: Any = None
    """``state_dict()._metadata``: torch's version numbers of each module."""
    prefix: str = ""
    """What stands before the network's own names, for example ``module.`` or ``backbone.``."""
    dtypes: dict[str, torch.dtype] = field(default_factory=dict)
    """Of every tensor, by its key in the file and in the file's order."""
    kept: dict[str, Tensor] = field(default_factory=dict)
    """By its key in the file: tensors that are not in the backbone (a classifier's), and originals that the backbone
    cannot hold exactly (float64)."""

    @classmethod
    def of_state(cls, state: Mapping[str, Tensor], own: Collection[str]) -> Source:
        """The source of weights that never were in a file.

        Args:
            state: the library's or the module's state dict.
            own: names of the tensors that are in the backbone.
        """
        dtypes = {key: value.dtype for key, value in state.items()}
        kept = {key: value.detach() for key, value in state.items() if key not in own}
        return cls(dtypes=dtypes, kept=kept, versions=getattr(state, "_metadata", None))

    def own_name(self, key: str) -> str | None:
        """The network's own name for a key of the file; None outside the prefix."""
        return key.removeprefix(self.prefix) if key.startswith(self.prefix) else None

    def __deepcopy__(self, memo: Any) -> Source:
        return self  # nothing in it ever changes
