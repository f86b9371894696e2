"""A set of images, whatever it was read from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int

from d3ssl.data.coco import CocoAnnotations
from d3ssl.data.place import Place, file_bytes
from d3ssl.files import digest

ANNOTATIONS = "annotations.json"
"""Name of the annotations file in a data folder, beside the folder ``images``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSet:
    """Images in the order of their ids, which are the same on every machine."""

    root: Path
    """The folder that the ids are relative to, or that holds the shards."""
    paths: tuple[Place, ...]
    """Where each image lies: a file of its own, or a member of a shard."""
    ids: tuple[str, ...]
    """Path relative to the root, with forward slashes, in Unicode's composed form (NFC); unique and sorted."""
    annotations: CocoAnnotations | None = None
    """The objects; an image has the same position here and there."""

    def __len__(self) -> int:
        return len(self.paths)

    def digest(self) -> str:
        """Identifies the images: changes with their ids, their order and the sizes of their files in bytes."""
        return digest(*(f"{name}\0{file_bytes(path)}" for name, path in zip(self.ids, self.paths, strict=True)))

    def subset(self, indices: Sequence[int] | Int[np.ndarray, "_"]) -> ImageSet:
        """Some of the images, in the given order."""
        chosen = [int(index) for index in indices]
        return ImageSet(
            root=self.root,
            paths=tuple(self.paths[index] for index in chosen),
            ids=tuple(self.ids[index] for index in chosen),
            annotations=None if self.annotations is None else self.annotations.subset(chosen),
        )
