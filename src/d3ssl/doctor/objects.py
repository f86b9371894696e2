"""Checks of the annotated objects: how many, how large, beside which others and where."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from d3ssl.data.annotations import CocoAnnotations
from d3ssl.data.bad_images import too_many_bad
from d3ssl.data.image_set import ImageSet
from d3ssl.doctor.bias import Bias, Cooccurrence, Positions, cooccurrence_bias, position_bias
from d3ssl.doctor.check import MAX_LISTED, Check, Status, percent
from d3ssl.doctor.look import GOOD
from d3ssl.doctor.scan import Scan
from d3ssl.train import RunConfig

_SURE = 4.0
"""Standard deviations of chance from which a bias is called one."""
_MARKED = 0.1
_TOP_PAIRS = 20
_LEAST_OBJECTS = 20
"""Least objects of a class whose position preference is listed among the strongest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Objects:
    """All objects that are no crowds, in the order of the images."""

    image: Int64[np.ndarray, "n"]
    label: Int64[np.ndarray, "n"]
    x: Float64[np.ndarray, "n"]
    """Centre, share of the image's width."""
    y: Float64[np.ndarray, "n"]
    per_image: Int64[np.ndarray, "images"]
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectReport:
    """What the annotations say."""

    checks: list[Check]
    figures: dict[str, Any]
    """Plain data."""
    objects: Objects
    cooccurrence: Cooccurrence
    positions: Positions


def gather_objects(annotations: CocoAnnotations) -> Objects:
    """The objects as arrays; crowds left out."""
    counts = [len(rows) for rows in annotations.objects_of]
    rows = np.concatenate([np.zeros(0, dtype=np.int64), *annotations.objects_of])
    image = np.repeat(np.arange(len(annotations), dtype=np.int64), counts)
    kept = ~annotations.crowd[rows]
    rows, image = rows[kept], image[kept]
    centre = (annotations.boxes[rows, :2] + annotations.boxes[rows, 2:]) / 2 / annotations.sizes[image][:, ::-1]
    return Objects(
        image=image,
        label=annotations.labels[rows],
        x=centre[:, 0].astype(np.float64),
        y=centre[:, 1].astype(np.float64),
        per_image=np.bincount(image, minlength=len(annotations)).astype(np.int64),
        names=annotations.names,
    )


def check_annotated(images: ImageSet, chosen: list[int], scan: Scan, run: RunConfig, draws: int) -> ObjectReport:
    """All checks of annotations that could be read.

    Args:
        images: all images, with annotations.
        chosen: positions of those whose files were looked at.
        scan: what these files say.
        run: the run that is planned.
        draws: random assignments that stand for chance.
    """
    annotations = images.annotated
    objects = gather_objects(annotations)
    cooccurrence = cooccurrence_bias(objects.image, objects.label, len(objects.names), draws)
    positions = position_bias(objects.label, objects.x, objects.y, len(objects.names), draws)
    checks = [
        _same_size(images, annotations, chosen, scan, run),
        *_amounts(images, objects),
        _bias_check("class co-occurrence", cooccurrence.bias, "the class of a neighbour predicts an object's class",
                    "--method.decouple true addresses this; measure it with d3ssl diagnose."),
        _bias_check("class positions", positions.bias, "the class predicts an object's position",
                    "--method.deposition true addresses this; measure it with d3ssl diagnose."),
    ]  # fmt: skip
    return ObjectReport(
        checks=checks,
        figures=_figures(objects, cooccurrence, positions),
        objects=objects,
        cooccurrence=cooccurrence,
        positions=positions,
    )


def _same_size(images: ImageSet, annotations: CocoAnnotations, chosen: list[int], scan: Scan, run: RunConfig) -> Check:
    facts = scan.facts
    good = facts["status"] == GOOD
    said = annotations.sizes[chosen].reshape(-1, 2)
    other = good & ((facts["height"] != said[:, 0]) | (facts["width"] != said[:, 1]))
    if not other.any():
        return Check(name="annotated sizes", status="ok", finding="as those of the files")
    places = np.flatnonzero(other)
    names = [images.ids[chosen[i]] for i in places[:MAX_LISTED]]
    swapped = other & (facts["height"] == said[:, 1]) & (facts["width"] == said[:, 0])
    is_used = run.regions is None and run.proposals.method == "annotations"
    fails = is_used and too_many_bad(len(places), len(chosen), run.proposals.max_bad_share)
    first = int(places[0])
    text = (
        f"{percent(len(places), len(chosen))} images have another size than their annotations say "
        f"({names[0]}: {facts['width'][first]}×{facts['height'][first]} px, annotated as {said[first, 1]}×"
        f"{said[first, 0]})."
    )
    turned = f" {int(swapped.sum())} have height and width exchanged." if swapped.any() else ""
    return Check(
        name="annotated sizes",
        status="fail" if fails else "warning",
        finding=text + turned,
        remedy="annotate the images as they are, upright; regions from annotations and evaluations stop at these.",
        count=len(places),
        images=tuple(names),
    )


def _amounts(images: ImageSet, objects: Objects) -> list[Check]:
    total, counts = len(images), objects.per_image
    empty, few = counts == 0, counts < 2
    checks = []
    for name, which, what, remedy in (
        ("images without objects", empty, "have no annotated object", "fine where there is none to be seen."),
        ("images with fewer than two objects", few, "have fewer than two objects",
         "context is learned away where objects stand side by side: prefer images of several."),
    ):  # fmt: skip
        number = int(which.sum())
        listed = tuple(images.ids[i] for i in np.flatnonzero(which)[:MAX_LISTED])
        status: Status = "warning" if number > total / 2 else "note" if number else "ok"
        text = f"{percent(number, total)} {what}." if number else "none"
        checks.append(Check(name=name, status=status, finding=text, remedy=remedy if number else "", count=number,
                            images=listed))  # fmt: skip
    quartiles = np.quantile(counts, [0.25, 0.5, 0.75, 1.0]) if total else np.zeros(4)
    low, middle, high, most = (f"{value:g}" for value in quartiles)
    text = f"{len(objects.label)} objects; an image has {middle} (middle half: {low} to {high}; at most {most})"
    return [*checks, Check(name="objects per image", status="ok", finding=text)]


def _bias_check(name: str, bias: Bias, what: str, remedy: str) -> Check:
    if bias.value is None:
        return Check(name=name, status="ok", finding="undefined: one class, or no image with two objects")
    sure = bias.deviations is not None and bias.deviations > _SURE
    amount = f"{bias.value:.2f} (0: chance, 1: fully; {bias.deviations or 0:.0f} standard deviations above chance)"
    if not sure:
        return Check(name=name, status="ok", finding=f"not clearly above chance: {amount}")
    word = "markedly" if bias.value >= _MARKED else "slightly"
    return Check(name=name, status="note", finding=f"{what} {word}: {amount}.", remedy=remedy)


def _figures(objects: Objects, cooccurrence: Cooccurrence, positions: Positions) -> dict[str, Any]:
    class_objects = np.bincount(objects.label, minlength=len(objects.names))
    return {
        "objects": len(objects.label),
        "images_by_number_of_objects": np.bincount(objects.per_image).tolist() if len(objects.per_image) else [],
        "cooccurrence_bias": _plain(cooccurrence.bias),
        "position_bias": _plain(positions.bias),
        "pairs": _pairs(objects, cooccurrence),
        "classes": [
            {
                "name": name,
                "objects": int(class_objects[label]),
                "position_entropy": _number(positions.entropy[label]),
                "position_entropy_by_chance": _number(positions.expected[label]),
                "position_preference": _number(positions.preference[label]),
            }
            for label, name in enumerate(objects.names)
        ],
    }


def _plain(bias: Bias) -> dict[str, Any]:
    return {
        "value": bias.value,
        "deviations": bias.deviations,
        "information": bias.information,
        "chance": bias.chance,
        "entropy": bias.entropy,
    }


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _pairs(objects: Objects, cooccurrence: Cooccurrence) -> list[dict[str, Any]]:
    """The pairs of classes that are furthest above and below chance, in its standard deviations."""
    if cooccurrence.bias.value is None:
        return []
    floor = 0.5 / max(len(objects.label), 1)
    apart = (cooccurrence.share - cooccurrence.expected) / np.maximum(cooccurrence.spread, floor)
    apart[np.tril_indices(len(apart), k=-1)] = 0
    order = np.argsort(-np.abs(apart), axis=None, kind="stable")[:_TOP_PAIRS]
    found = []
    for one, other in (divmod(int(place), len(apart)) for place in order):
        if abs(apart[one, other]) > _SURE:
            found.append(
                {
                    "classes": [objects.names[one], objects.names[other]],
                    "lift": float(cooccurrence.share[one, other] / max(cooccurrence.expected[one, other], 1e-12)),
                    "deviations": float(apart[one, other]),
                }
            )
    return found


def strongest_positions(report: ObjectReport, most: int) -> list[int]:
    """Labels of the classes with the strongest preference for positions, of those with enough objects."""
    preference = np.where(report.positions.counts.sum(axis=1) >= _LEAST_OBJECTS, report.positions.preference, np.nan)
    order = np.argsort(-np.nan_to_num(preference, nan=-np.inf), kind="stable")[:most]
    return [int(label) for label in order if np.isfinite(preference[label])]
