"""The benchmark's data, from annotated photographs and a folder of backgrounds.

    python benchmarks/photographs/data.py VOC240 --backgrounds WALLPAPERS --out DATA

VOC240 comes in two parts, train and val, with instance masks. Written are two sets of the same make: ``DATA/dev``, a
fifth of train's photographs against the others, on which options are chosen; and ``DATA/final``, val against train,
which is looked at once. They share no background: half of the folder's subfolders are each one's. Each holds

    natural/train, natural/val                    the photographs (links) with their objects that have masks
    scenes/train                                  natural/train again: where objects are remembered
    scenes/val, scenes/val_shuffled               natural/val's objects, pasted on the backgrounds
    scenes/manifest.json                          which objects and which background every scene was made of
    conditions/train                              natural/train again
    conditions/val, conditions/val_CONDITION      objects of natural/val: their context changed one thing at a time

so ``d3ssl evaluate objects --data DATA/dev/natural`` asks about objects in context, ``DATA/dev/scenes`` out of it.
Takes about eight minutes on two cores.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from d3ssl import console
from d3ssl.data.scenes import OutOfContextConfig, make_scenes
from d3ssl.data.scenes.annotated import Side, open_sides
from d3ssl.data.scenes.annotated.instances import masked_instances
from d3ssl.data.scenes.annotated.natural import write_natural
from d3ssl.data.sources import open_images
from d3ssl.errors import InputError
from d3ssl.seeds import numpy_generator

PREVIEWS = "screenshot.*"
"""Small copies of the wallpapers that desktops show in their menus."""
SIZE = 160
"""Side of the scenes, px."""
MIN_SIDE, MIN_PIXELS = 20.0, 250
"""Least objects of the conditions, px of the photographs: these are small, and larger objects too few."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", metavar="VOC240", help="annotated photographs: train/ and val/ in COCO format")
    parser.add_argument("--backgrounds", required=True, help="folder of photographs that nothing is trained on")
    parser.add_argument("--out", type=Path, required=True, help="folder to make")
    parser.add_argument("--val_images", type=int, default=500, help="scenes in each of val and val_shuffled")
    parser.add_argument("--dev_share", type=float, default=0.2, help="share of train's photographs kept aside for dev")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.out.exists():
        raise InputError("is there already", path=options.out, remedy="remove it, or choose another --out.")
    train = str(Path(options.data) / "train")
    sets = {
        "dev": OutOfContextConfig(data=train, val_share=options.dev_share, seed=options.seed),
        "final": OutOfContextConfig(data=options.data, seed=options.seed),
    }
    for (name, config), excluded in zip(sets.items(), halves(Path(options.backgrounds), options.seed), strict=True):
        write_photographs(options.out / name / "natural", open_sides(config))
        scenes = OutOfContextConfig(
            data=str(options.out / name / "natural"),
            train="natural",
            size=SIZE,
            val_images=options.val_images,
            backgrounds=options.backgrounds,
            exclude=(PREVIEWS, *excluded),
            seed=options.seed,
        )
        make_scenes(options.out / name / "scenes", scenes)
        asked = OutOfContextConfig(
            data=scenes.data,
            conditions=True,
            size=SIZE,
            val_images=options.val_images,
            min_side=MIN_SIDE,
            min_pixels=MIN_PIXELS,
            seed=options.seed,
        )
        make_scenes(options.out / name / "conditions", asked)
    show(options.out, list(sets))


def halves(backgrounds: Path, seed: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The subfolders (or files) that the first set leaves to the second, and those that the second leaves."""
    names = sorted(path.name for path in backgrounds.iterdir() if not path.name.startswith("."))
    order = [names[number] for number in numpy_generator(seed, "dev and final").permutation(len(names)).tolist()]
    return tuple(sorted(order[1::2])), tuple(sorted(order[::2]))


def write_photographs(folder: Path, sides: tuple[Side, Side]) -> None:
    """Both sides' photographs with those of their objects that have masks."""
    for side in sides:
        write_natural(folder / side.name, side, tuple(masked_instances(side)), side.annotations.names)


def show(out: Path, sets: list[str]) -> None:
    """How much there is of everything."""
    rows = []
    for name in sets:
        for part in ("natural/train", "natural/val", "scenes/train", "scenes/val", "scenes/val_shuffled"):
            found = open_images(out / name / part).annotations
            assert found is not None
            labels = [label for index in range(len(found)) for label in found.objects(index).labels.tolist()]
            rarest = min(labels.count(label) for label in set(labels))
            rows.append((f"{name}/{part}", str(len(found)), str(len(labels)), str(len(set(labels))), str(rarest)))
    header = ("set", "images", "objects", "classes", "objects of the rarest")
    console.show_table("Data of the post-training benchmark", header, rows)


if __name__ == "__main__":
    main()
