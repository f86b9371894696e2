"""report.html: a diagnosis to be read in a minute, or in ten."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt
from PIL import Image

from d3ssl import page
from d3ssl.diagnose.pictures import Pictures
from d3ssl.diagnose.words import EXPLAINED, Explained, advice, figure, short_names, verdict


def write_report(path: Path, found: dict[str, Any], pictures: dict[str, Pictures], sheet: Image.Image) -> None:
    """Write a self-contained page.

    Args:
        found: what ``diagnosis.json`` holds.
        pictures: of every backbone, by its spec.
        sheet: the probes.
    """
    names = short_names(found["rows"])
    rows: dict[str, dict[str, Any]] = {names[spec]: row for spec, row in found["rows"].items()}
    parts = [page.verdict(verdict(rows)), page.heading("The measurements"), _table(found, rows)]
    parts += [page.definitions((own.title, own.meaning) for own in EXPLAINED)]
    parts += [page.heading("What to do about it")]
    for spec, row in rows.items():
        parts += [page.paragraph(_for(spec, rows, line)) for line in advice(row)]
    parts += [page.heading("Where in the network it arises")] if any(row["layers"] for row in rows.values()) else []
    for spec, row in rows.items():
        if row["layers"]:
            parts.append(page.figure(_bars(row, row["layers"]), _for(spec, rows, _BARS)))
    parts += _conditions(rows)
    for spec, own in pictures.items():
        parts += _draw(names[spec], rows, own)
    parts += [
        page.heading("What was measured on"),
        page.figure(page.image_png(sheet), "Some of the probes; the box is what the feature is read from."),
        page.heading("How it was run"),
        page.facts(_facts(found)),
    ]
    page.write_page(path, "d3ssl diagnose", parts)


_BARS = (
    "Bars: every map of the network, read by boxes; the last is as the backbone itself reads regions. Points: read by "
    "masks. Whiskers: 95 % intervals."
)


def _for(spec: str, rows: dict[str, Any], text: str) -> str:
    return f"{spec}: {text}" if len(rows) > 1 else text


def _table(found: dict[str, Any], rows: dict[str, dict[str, Any]]) -> str:
    lines = [[f"{own.title}", *(figure(row, own) for row in rows.values())] for own in EXPLAINED]
    chance = found.get("location_chance")
    note = "value [95 % interval, bootstrap over objects]; lower is better in every row, for features of objects."
    note += "" if chance is None else f" Location accuracy by chance: {chance:.1%}."
    return page.table(["", *rows], lines, note=note)


def _bars(row: dict[str, Any], layers: dict[str, Any]) -> bytes:
    """A panel for each measurement: the layers, then the backbone's own way."""
    plot, axes = plt.subplots(2, 3, figsize=(9, 5.6), layout="constrained")
    for axis, own in zip(axes.flat, EXPLAINED, strict=True):
        factor = 100.0 if own.percent else 1.0
        shown = [*((name, values) for name, values in layers.items()), ("own way", row)]
        for place, (_, values) in enumerate(shown):
            colour = page.COLOURS[1] if place == len(layers) else page.COLOURS[2]
            _bar(axis, place, values, own, factor, colour)
        for place, name in enumerate(layers):
            _point(axis, place, row["layers_by_mask"].get(name, {}), own, factor)
        axis.set_xticks(range(len(shown)), [name for name, _ in shown], fontsize=7, rotation=45, ha="right")
        axis.set_title(own.title + (" (%)" if own.percent else ""), fontsize=9)
        axis.spines[["top", "right"]].set_visible(False)
    return page.plot_png(plot)


def _ends(values: dict[str, Any], own: Explained, factor: float) -> tuple[float, list[list[float]]] | None:
    value, low, high = (values.get(own.key + end) for end in ("", "_low", "_high"))
    if value is None or low is None or high is None:
        return None
    return value * factor, [[max(value - low, 0) * factor], [max(high - value, 0) * factor]]


def _bar(axis: Any, place: int, values: dict[str, Any], own: Explained, factor: float, colour: str) -> None:
    ends = _ends(values, own, factor)
    if ends:
        axis.bar(place, ends[0], yerr=ends[1], color=colour, capsize=3, width=0.7)


def _point(axis: Any, place: int, values: dict[str, Any], own: Explained, factor: float) -> None:
    ends = _ends(values, own, factor)
    if ends:
        axis.errorbar(place + 0.2, ends[0], yerr=ends[1], fmt="o", color="#1a202c", markersize=4, capsize=2)


def _conditions(rows: dict[str, dict[str, Any]]) -> list[str]:
    """Tables by size, by the neighbour's distance and by padding, as far as they were measured."""
    context, place, leakage = EXPLAINED[0], EXPLAINED[1], EXPLAINED[2]
    lines: list[list[str]] = []
    for side in _keys(rows, "by_size"):
        size = f"objects of {float(side):.0%} of the image's side"
        lines += [[f"{own.title}\n{size}", *_cells(rows, "by_size", side, own)] for own in (context, place)]
    for name in _keys(rows, "by_distance"):
        what = "a neighbour that touches" if name == "touching" else "a neighbour in a corner"
        lines += [[f"{leakage.title}\n{what}", *_cells(rows, "by_distance", name, leakage)]]
    for mode in _keys(rows, "by_padding"):
        lines += [[f"{place.title}\npadding: {mode}", *_cells(rows, "by_padding", mode, place)]]
    return [page.heading("By size, by distance"), page.table(["", *rows], lines)] if lines else []


def _keys(rows: dict[str, dict[str, Any]], group: str) -> list[str]:
    return list(dict.fromkeys(key for row in rows.values() for key in row[group]))


def _cells(rows: dict[str, dict[str, Any]], group: str, key: str, own: Explained) -> list[str]:
    return [figure(row[group].get(key, {}), own) for row in rows.values()]


def _draw(spec: str, rows: dict[str, Any], own: Pictures) -> list[str]:
    parts = [
        page.heading(f"In pictures: {spec}" if len(rows) > 1 else "In pictures"),
        page.figure(
            own.places,
            "The same object at nine places. Number: how far its feature is from that in the middle, ÷ how far apart "
            "different objects are (1: as far as another object).",
        ),
        page.figure(own.contexts, "The same object in several contexts; number: the distance from that in the first."),
    ]
    if own.similarity is not None:
        text = (
            "Where else in the image the map looks like the point + in the object (red: alike, blue: unlike), in two "
            "contexts. Of a feature that is the object's alone, red fills the object and stays when "
            "the context changes."
        )
        parts.append(page.figure(own.similarity, text))
    if own.receptive is not None:
        text = (
            "What moves the feature: size of its gradient at every pixel (square root, bright is large). Light outside "
            "the box is receptive leakage."
        )
        parts.append(page.figure(own.receptive, text))
    return parts


def _facts(found: dict[str, Any]) -> dict[str, str]:
    protocol, versions = found["protocol"], found["versions"]
    return {
        "backbones": ", ".join(found["rows"]),
        "data": found["data"],
        "probes": f"{protocol['seeds']} sets of {' and '.join(map(str, sorted(set(found['probe_objects']))))} objects, "
        f"{protocol['size']} px; checksum {found['probe_digest']}",
        "regions": f"{protocol['region_path']}, RoIAlign {protocol['roi_size']} × {protocol['roi_size']}",
        "intervals": protocol["interval"],
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
    }
