"""What scenes were made of: for every image its background and its objects' photographs and annotation ids."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from d3ssl.data.place import Place
from d3ssl.data.scenes.annotated.backgrounds import Scenery
from d3ssl.data.scenes.annotated.instances import Instance
from d3ssl.data.scenes.annotated.sides import Side, file_digest
from d3ssl.data.scenes.write import Described
from d3ssl.errors import InputError, first_names


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """What the images of one side are made of."""

    side: Side
    instances: tuple[Instance, ...]
    scenery: list[Scenery] | None
    """None: every object stays in its own photograph."""

    def files(self) -> dict[str, Place]:
        """Every photograph that an object or a background may come from."""
        images = sorted({one.image for one in self.instances})
        found = {self.side.photographs[image]: self.side.images.paths[image] for image in images}
        return dict(sorted((found | {one.name: one.place for one in self.scenery or ()}).items()))

    def describe(self, scenes: Sequence[Described]) -> dict[str, Any]:
        """For every image, by its file name, the ``background`` and the ``objects`` in the order of the annotations."""
        images = {}
        for scene in scenes:
            chosen = [self.instances[number] for number in scene["instances"]]
            name = (
                self.side.photographs[scene["photograph"]]
                if self.scenery is None
                else self.scenery[scene["photograph"]].name
            )
            objects = [[self.side.photographs[one.image], one.annotation] for one in chosen]
            images[scene["image"]["file_name"]] = {"background": name, "objects": objects}
        return images


def digests(files: Iterable[tuple[str, Place]], advance: Any) -> dict[str, str]:
    """The digest of every file, by its name."""
    found = {}
    for name, place in files:
        found[name] = file_digest(place)
        advance()
    return found


def check_disjoint(train: dict[str, str], val: dict[str, str], data: str) -> None:
    """Raise InputError if a file of one side is, by name or content, also one of the other.

    Args:
        train: the digest of every file, by its name.
        val: the same.
    """
    contents = set(train.values())
    shared = [name for name, content in val.items() if content in contents or name in train]
    if shared:
        problem = f"{len(shared)} photographs would serve training and validation: {first_names(shared)}"
        raise InputError(problem, path=data, remedy="give a folder of other photographs as --backgrounds.")
