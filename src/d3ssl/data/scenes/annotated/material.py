"""All that a set of out-of-context scenes is made of, gathered and checked before the first scene is made."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from d3ssl import console
from d3ssl.data.scenes.annotated.backgrounds import Scenery, folder_scenery, own_scenery, read_backgrounds
from d3ssl.data.scenes.annotated.conditions import Conditions
from d3ssl.data.scenes.annotated.hosts import find_hosts, usable_photographs
from d3ssl.data.scenes.annotated.instances import choose_instances, masked_instances
from d3ssl.data.scenes.annotated.manifest import Sources, check_disjoint, digests
from d3ssl.data.scenes.annotated.natural import write_natural
from d3ssl.data.scenes.annotated.sides import Side
from d3ssl.data.scenes.annotated.sprites import read_objects
from d3ssl.data.scenes.compose import Split, World, draw_habits
from d3ssl.data.scenes.config import OutOfContextConfig
from d3ssl.data.scenes.write import Described, Plan
from d3ssl.files import write_text
from d3ssl.seeds import numpy_generator


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """What the splits are made of. All validation splits have the same objects and photographs."""

    config: OutOfContextConfig
    classes: tuple[str, ...]
    sources: Mapping[str, Sources]
    """By side."""
    digests: Mapping[str, Mapping[str, str]]
    """By side: of every file, by its name in the manifest."""
    plan: Plan
    """The splits to make; without ``train`` where its photographs are taken as they are."""

    def finish(self, folder: Path, described: dict[str, list[Described]]) -> None:
        """Write what is not scenes: photographs taken as they are, and ``manifest.json``."""
        made = set(described)
        if "train" not in described:
            own = self.sources["train"]
            natural = write_natural(folder / "train", own.side, own.instances, self.classes)
            described = {"train": natural, **described}
        splits = {
            split: {
                "made": "scenes" if split in made else "photographs",
                "files": dict(self.digests[_side_of(split)]),
                "images": self.sources[_side_of(split)].describe(scenes),
            }
            for split, scenes in described.items()
        }
        write_text(folder / "manifest.json", _text({"seed": self.config.seed, "data": self.config.data}, splits))


def gather(config: OutOfContextConfig, sides: tuple[Side, Side], splits: Sequence[Split]) -> Material:
    """Choose and read objects and backgrounds, and make sure that training and validation share none.

    Args:
        splits: the scenes to make; with ``conditions`` these say themselves what they make.

    Raises:
        InputError: too few objects of a class, no masks, too few or too small backgrounds, photographs on both sides.
    """
    return _gather_conditions(config, sides) if config.conditions else _gather_scenes(config, sides, splits)


def _gather_scenes(config: OutOfContextConfig, sides: tuple[Side, Side], splits: Sequence[Split]) -> Material:
    classes, instances = choose_instances(sides, config)
    if config.themes > len(classes):
        console.say(f"themes: {len(classes)} instead of {config.themes}, as there are no more classes")
        config = replace(config, themes=len(classes))
    pasted = sides if config.train == "scenes" else sides[1:]
    scenery = _scenery(config, pasted, classes)
    sources = {
        side.name: Sources(side=side, instances=own, scenery=scenery.get(side.name))
        for side, own in zip(sides, instances, strict=True)
    }
    contents = _digests(sources, config)
    habits = draw_habits(len(classes), config)
    worlds = {}
    for side in pasted:
        objects = read_objects(side, sources[side.name].instances, classes, config)
        backgrounds = read_backgrounds(side.name, scenery[side.name], config)
        worlds[side.name] = World(config=config, objects=objects, backgrounds=backgrounds, habits=habits)
    plan = [(split, worlds[_side_of(split.name)]) for split in splits]
    return Material(config=config, classes=classes, sources=sources, digests=contents, plan=plan)


def _gather_conditions(config: OutOfContextConfig, sides: tuple[Side, Side]) -> Material:
    """Nothing is read yet but the photographs' headers: images are made from the files, one by one."""
    train, val = sides[0], usable_photographs(sides[1], config)
    classes, (trained, usable) = choose_instances((train, val), config)
    folder = folder_scenery(replace(config, themes=1), ["val"])["val"] if config.backgrounds is not None else []
    hosts = find_hosts((train, val), classes, config.size, tuple(one.place for one in folder))
    names = val.annotations.names
    instances = tuple(one for one in masked_instances(val) if names[one.label] in classes)
    numbers = {one: number for number, one in enumerate(instances)}
    order = numpy_generator(config.seed, "queried").permutation(len(usable))[: config.num_val()]
    maker = Conditions(
        config=config,
        names=classes,
        hosts=hosts,
        instances=instances,
        labels=tuple(classes.index(names[one.label]) for one in instances),
        usable=tuple(numbers[one] for one in usable),
        queried=tuple(numbers[usable[place]] for place in np.sort(order)),
    )
    photographs = zip(val.photographs, val.images.paths, strict=True)
    scenery = [Scenery(name, place, PurePosixPath(name)) for name, place in photographs] + folder
    sources = {
        "train": Sources(side=train, instances=trained, scenery=None),
        "val": Sources(side=val, instances=instances, scenery=scenery),
    }
    plan = [(split, maker) for split in maker.splits()]
    return Material(config=config, classes=classes, sources=sources, digests=_digests(sources, config), plan=plan)


def _scenery(
    config: OutOfContextConfig, pasted: tuple[Side, ...], classes: tuple[str, ...]
) -> dict[str, list[Scenery]]:
    if config.backgrounds is not None:
        return folder_scenery(config, [side.name for side in pasted])
    return {side.name: own_scenery(side, classes, config) for side in pasted}


def _digests(sources: Mapping[str, Sources], config: OutOfContextConfig) -> dict[str, dict[str, str]]:
    """By side, of every file.

    Raises:
        InputError: the sides share one.
    """
    files = {name: own.files() for name, own in sources.items()}
    with console.progress("reading photographs", sum(map(len, files.values()))) as ticker:
        found = {name: digests(own.items(), ticker.advance) for name, own in files.items()}
    check_disjoint(found["train"], found["val"], config.data)
    return found


def _side_of(split: str) -> str:
    """The side that a split is made of: ``val_shuffled`` shows the objects of ``val``."""
    return "train" if split == "train" else "val"


def _text(head: dict[str, Any], splits: dict[str, dict[str, Any]]) -> str:
    """JSON with a line for every file and every image, so that it can be read and searched."""
    parts = [f'  "{key}": {json.dumps(value)}' for key, value in head.items()]
    listed = []
    for split, entry in splits.items():
        lines = [f'      "made": {json.dumps(entry["made"])}']
        for key in ("files", "images"):
            rows = ",\n".join(f"        {json.dumps(name)}: {json.dumps(value)}" for name, value in entry[key].items())
            lines.append(f'      "{key}": {{\n{rows}\n      }}')
        listed.append(f"    {json.dumps(split)}: {{\n" + ",\n".join(lines) + "\n    }")
    parts.append('  "splits": {\n' + ",\n".join(listed) + "\n  }")
    return "{\n" + ",\n".join(parts) + "\n}\n"
