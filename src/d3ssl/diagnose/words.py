"""A diagnosis in words: what the figures say, and what to do about them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Explained:
    """How a measurement is shown and explained."""

    key: str
    title: str
    meaning: str
    percent: bool = False


EXPLAINED = (
    Explained("context_sensitivity", "context sensitivity",
              "how far the feature of an object moves when only its surroundings change, ÷ how far apart two different "
              "objects are: 0 not at all, 1 as far"),
    Explained("position_sensitivity", "position sensitivity", "the same when only the place of the object changes"),
    Explained("neighbour_leakage", "neighbour leakage",
              "how much of the class of the object beside it a linear probe reads from an object's feature: 0 % is "
              "chance, 100 % every time", percent=True),
    Explained("receptive_leakage", "receptive leakage",
              "share of the gradient of the feature's size that falls on pixels outside the object's "
              "box", percent=True),
    Explained("position_r2", "position R²",
              "how much of the object's place in the image a linear regression reads from its feature: 0 "
              "nothing, 1 all"),
    Explained("location_accuracy", "location accuracy",
              "how often a linear probe tells in which of nine cells of the image the object is", percent=True),
)  # fmt: skip

_MARKED = 0.3
"""A sensitivity or leakage above this is called marked, and something is advised against it."""
_SLIGHT = 0.1


def figure(row: dict[str, Any], explained: Explained) -> str:
    """``value [low, high]`` as text."""
    value, low, high = (row.get(explained.key + end) for end in ("", "_low", "_high"))
    if value is None or low is None or high is None:
        return "–"
    if explained.percent:
        return f"{100 * value:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
    return f"{value:.2f} [{low:.2f}, {high:.2f}]"


def short_names(specs: Iterable[str]) -> dict[str, str]:
    """Names to be read beside each other: of a path, the last parts that tell it from the others."""
    split = {spec: _parts(spec) for spec in specs}
    for count in range(1, max((len(parts) for _, parts in split.values()), default=0) + 1):
        names = {spec: head + "/".join(parts[-count:]) for spec, (head, parts) in split.items()}
        if len(set(names.values())) == len(names):
            return names
    return {spec: spec for spec in split}


def _parts(spec: str) -> tuple[str, list[str]]:
    """What stands before a path, and the path's parts (of a spec without a path: itself)."""
    head, path = "", spec
    if spec.startswith(("timm:", "torchvision:")):
        library, name, *source = spec.split(":", maxsplit=2)
        if not source or "/" not in source[0]:
            return "", [spec]
        head, path = f"{library}:{name}:", source[0]
    return head, [part for part in path.split("/") if part] or [path]


def _named(row: dict[str, Any], key: str) -> str:
    explained = next(own for own in EXPLAINED if own.key == key)
    return f"{explained.title} {figure(row, explained)}"


def _degree(value: float) -> str:
    return "hardly" if value < _SLIGHT else "slightly" if value < _MARKED else "markedly" if value < 0.7 else "strongly"


def verdict(rows: dict[str, dict[str, Any]]) -> list[str]:
    """Plain sentences on the first backbone, then on how the others compare with it."""
    first, *others = rows
    row, who = rows[first], f"{first}: an" if others else "An"
    context, place = row["context_sensitivity"], row["position_sensitivity"]
    lines = [
        f"{who} object's feature depends {_degree(context)} on its surroundings: other surroundings move it "
        f"{context:.0%} as far as another object would ({_named(row, 'context_sensitivity')}).",
        f"It depends {_degree(place)} on where the object stands: another place moves it {place:.0%} as far "
        f"({_named(row, 'position_sensitivity')}).",
        *_read(row),
    ]
    for other in others:
        lines += [_compare(first, other, rows, key) for key in ("context_sensitivity", "position_sensitivity")]
    return lines


def _read(row: dict[str, Any]) -> list[str]:
    found = []
    if row.get("neighbour_leakage") is not None:
        sure = "can" if row["neighbour_leakage_low"] > 0 else "cannot reliably"
        found.append(
            f"The class of the object beside it {sure} be read from it ({_named(row, 'neighbour_leakage')}; 0: chance)."
        )
    if row.get("position_r2") is not None:
        sure = "can" if row["position_r2_low"] > 0 else "cannot reliably"
        found.append(f"Its place in the image {sure} be read from it ({_named(row, 'position_r2')}).")
    if row.get("receptive_leakage") is not None:
        share = row["receptive_leakage"]
        found.append(
            f"{share:.0%} of what moves it lies outside the object's box ({_named(row, 'receptive_leakage')})."
        )
    return found


def _compare(first: str, other: str, rows: dict[str, dict[str, Any]], key: str) -> str:
    one, two = rows[first], rows[other]
    word = "less" if two[key] < one[key] else "more"
    apart = one[f"{key}_low"] > two[f"{key}_high"] or one[f"{key}_high"] < two[f"{key}_low"]
    what = "the surroundings" if key.startswith("context") else "the place"
    sure = "the intervals do not touch" if apart else "the intervals overlap, so this may be chance"
    return f"{other} depends {word} on {what} than {first} ({two[key]:.2f} against {one[key]:.2f}; {sure})."


def advice(row: dict[str, Any]) -> list[str]:
    """What to do about the figures of one backbone; each piece names the figure it rests on."""
    found = []
    context, place = row["context_sensitivity"], row["position_sensitivity"]
    if context >= _MARKED:
        better = _better(row["layers"], "context_sensitivity", context)
        if better:
            found.append(
                f"Read objects from an earlier map: at {better[0]} the context sensitivity is {better[1]:.2f} instead "
                f"of {context:.2f}. (--region_path c3 reads regions one stage earlier; or crop and enlarge objects.)"
            )
        by_mask = _gain_by_mask(row)
        if by_mask:
            found.append(
                f"Pool by masks where you have them: at {by_mask[0]} the context sensitivity is {by_mask[2]:.2f} by "
                f"mask and {by_mask[1]:.2f} by box."
            )
        found.append(
            "The run trained with the de-coupling module already: train longer or on more images that show several "
            "objects, then diagnose again on the same probes (--save_probes, --probes)."
            if "decouple" in row.get("trained_with", ())
            else "Pre-train or go on training with the de-coupling module (d3ssl pretrain ... --method.decouple true), "
            "then diagnose again on the same probes (--save_probes, --probes)."
        )
    touching, far = (row["by_distance"].get(name, {}).get("neighbour_leakage") for name in ("touching", "far"))
    if touching is not None and far is not None and max(touching, far) >= _MARKED:
        if far >= 0.5 * touching:
            found.append("Neighbours are read even from afar: cropping to the object helps more than tighter boxes.")
        else:
            found.append("Only neighbours that touch are read: tighter boxes, masks or larger images help.")
    if place >= _MARKED:
        done = "deposition" in row.get("trained_with", ())
        advised = "Train with the de-positioning module (d3ssl pretrain ... --method.deposition true); and see"
        found.append(
            ("The run trained with the de-positioning module already: see" if done else advised)
            + " with --padding '[zeros,circular,reflect,replicate]' how much of it comes from the padding of "
            "convolutions."
        )
    sizes = {side: own["context_sensitivity"] for side, own in row["by_size"].items()}
    if len(sizes) > 1 and max(sizes.values()) > 1.5 * max(min(sizes.values()), _SLIGHT):
        worst, best = max(sizes, key=lambda s: sizes[s]), min(sizes, key=lambda s: sizes[s])
        found.append(
            f"Size matters: objects of {float(worst):.0%} of the image's side have a context sensitivity of "
            f"{sizes[worst]:.2f}, of {float(best):.0%} {sizes[best]:.2f}. Enlarge images if your objects are of the "
            "worse size."
        )
    return found or ["No problem found: features depend little on surroundings and position."]


def _better(layers: dict[str, Any], key: str, value: float) -> tuple[str, float] | None:
    """The deepest layer that is clearly better (by a fifth, and intervals considered)."""
    for layer, own in reversed(layers.items()):
        if own[key] < 0.8 * value and own[f"{key}_high"] < value:
            return layer, own[key]
    return None


def _gain_by_mask(row: dict[str, Any]) -> tuple[str, float, float] | None:
    for layer, own in reversed(row["layers_by_mask"].items()):
        box, mask = row["layers"][layer]["context_sensitivity"], own["context_sensitivity"]
        if mask < 0.8 * box:
            return layer, box, mask
    return None
