"""The data card: what is in a benchmark, how it came about, and what it must not be taken for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from d3ssl.data.open_images.classes import BoxableClasses
from d3ssl.data.open_images.plots import draw_plots
from d3ssl.data.open_images.select import Pool
from d3ssl.data.open_images.statistics import SplitStatistics, closest_pairs, effective_number
from d3ssl.files import write_text

CARD = "README.md"
PLOTS = "card"
_LISTED = 15


def write_card(
    root: Path,
    definition: Mapping[str, Any],
    classes: BoxableClasses,
    kept: np.ndarray,
    pools: Mapping[str, Pool],
    statistics: Mapping[str, SplitStatistics],
) -> None:
    """Write ``README.md`` and the plots beside it; the plots show the training split."""
    captions = draw_plots(root / PLOTS, statistics["train"], pools["train"], classes, kept)
    parts = (
        _head(definition, int(kept.sum())),
        _splits(definition, pools, statistics),
        "\n\n".join(f"![{caption}]({PLOTS}/{name})\n\n*{caption}*" for name, caption in captions.items()),
        _classes(classes, kept, pools["train"], statistics["train"]),
        _company(classes, kept, statistics["train"]),
        _notes(definition),
    )
    write_text(root / CARD, "\n\n".join(parts) + "\n")


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table; the first column names the rows."""
    align = ["---", *("---:" for _ in header[1:])]
    lines = [header, align, *([str(cell).replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _head(definition: Mapping[str, Any], num_classes: int) -> str:
    options = definition["options"]
    return f"""# OpenImage-MINI, as d3ssl defines it

Images with several objects of several classes, chosen from Open Images by a published rule with a hash of the image id.
It is named after the benchmark of arXiv 2303.16947, whose list of images was not published: **this is not that list**.

An image satisfies the rule when at least {options["min_boxes"]} of its boxes count and they are of at least
{options["min_classes"]} classes. A box counts when IsGroupOf and IsDepiction are 0{
        " or unknown (-1)" if options["unknown_counts"] else " (a box for which one is unknown, -1, does not)"
    }, and its class
is kept: at least {options["min_class_images"]} training images that satisfy the rule show it ({num_classes} classes).
Images are taken in ascending order of u·n, where u in [0, 1) is the hash and n the number of objects that the rarest of
the image's classes has. Options: `benchmark.json`. The rule in full: docs/openimage-mini.md of d3ssl."""


def _splits(definition: Mapping[str, Any], pools: Mapping[str, Pool], statistics: Mapping[str, SplitStatistics]) -> str:
    rows = []
    for split, found in statistics.items():
        pool = pools[split]
        rows.append(
            (
                split,
                f"{found.images:,}",
                f"{len(pool.images):,}",
                f"{found.boxes:,}",
                f"{found.objects:,}",
                f"{found.groups:,}",
                f"{found.depictions:,}",
                f"{found.unknown:,}",
                f"{found.masks:,}",
                f"{effective_number(found.class_objects):.1f}",
                f"{effective_number(pool.class_objects):.1f}",
                f"{definition['splits'][split]['reached_cap']:.1f}",
            )
        )
    header = (
        *("split", "images", "satisfy the rule", "boxes", "that count", "groups", "depictions", "unknown", "masks"),
        *("effective classes", "without balancing", "cap reached"),
    )
    return f"""## Splits

{table(header, rows)}

Effective classes: exp of the entropy of the classes' objects; higher is more even. Cap reached: about as many objects
of each class were chosen for their own sake, if there are so many; more came along in images chosen for a rarer
class."""


def _classes(classes: BoxableClasses, kept: np.ndarray, pool: Pool, found: SplitStatistics) -> str:
    order = np.flatnonzero(kept)[np.argsort(-found.class_objects[kept], kind="stable")].tolist()
    shown = order if len(order) <= 2 * _LISTED else order[:_LISTED] + order[-_LISTED:]
    rows = [
        (classes.names[n], found.class_images[n], found.class_objects[n], pool.class_objects[n], _share(found, n))
        for n in shown
    ]
    header = ("class", "images", "objects", "objects without the choice", "place entropy")
    note = "" if shown is order else f"The {_LISTED} most and the {_LISTED} least frequent; all: `classes.csv`.\n\n"
    return f"## Classes (train)\n\n{note}{table(header, rows)}"


def _share(found: SplitStatistics, number: int) -> str:
    value = float(found.place_entropy[number])
    return "" if np.isnan(value) else f"{value:.2f}"


def _company(classes: BoxableClasses, kept: np.ndarray, found: SplitStatistics) -> str:
    names = [classes.names[number] for number in np.flatnonzero(kept).tolist()]
    least = max(10, found.images // 1000)
    pairs = closest_pairs(found, least, _LISTED)
    rows = [(f"{names[a]}, {names[b]}", f"{lift:.1f}", both) for a, b, lift, both in pairs]
    listed = table(("classes", "lift", "images with both"), rows) if rows else "None."
    return f"""## Company (train)

Pairs of classes in at least {least} common images that are together most often, compared with chance (lift).

{listed}"""


def _notes(definition: Mapping[str, Any]) -> str:
    sources = [(entry["file"], f"{entry['bytes']:,}", entry["sha256"]) for entry in definition["sources"]]
    return f"""## Limits

- Open Images annotates classes that were verified to be in an image, not all classes: what has no box may be there.
- Classes form a hierarchy (Person, Woman, Human face): two classes of an image can be of one thing.
- Boxes of classes that are not kept are left out of the annotations.
- All images come from Flickr: places, people and objects are not a sample of the world.

## Licences

Annotations: Google LLC, CC BY 4.0. Images: listed by Open Images as CC BY 2.0; Open Images does not vouch for it, so
verify the licence of each image that you show or pass on. No image is part of this folder until you download it.

## Files

`SPLIT/ids.txt`: image ids, the first chosen first, so that the first n lines are the benchmark of n images.
`SPLIT/annotations.json`: COCO instances; where `size_known` is false, boxes are shares of the image × 1024.
`SPLIT/objects.parquet`: the same boxes as shares of the image, exactly. `classes.csv`, `statistics.json`: figures.
`checksums.txt`: SHA-256 of all files; `d3ssl benchmark openimage-mini verify` compares them.

## Sources

{table(("file", "bytes", "SHA-256"), sources)}"""
