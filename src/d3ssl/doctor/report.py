"""report.html of an examination: people would rather look than read."""

from __future__ import annotations

from pathlib import Path

from d3ssl import page
from d3ssl.doctor.check import Check
from d3ssl.doctor.examination import Examination
from d3ssl.doctor.pictures import draw_cooccurrence, draw_counts, draw_group, draw_positions, draw_sizes

_SHOWN = ("tiny images", "long images", "blank images", "channels", "annotated sizes", "turned by EXIF",
          "images without objects")  # fmt: skip
"""Checks whose images are shown."""
_GROUPS = 6


def write_report(path: Path, found: Examination) -> None:
    """Write a self-contained page."""
    parts = [page.verdict(_verdict(found)), page.heading("The checks"), _table(found.checks)]
    parts += _offenders(found)
    parts += [page.heading("Sizes"), page.figure(draw_sizes(found.scan.facts), "Width and height of the images, px.")]
    parts += _objects(found)
    parts += [page.heading("How it was looked at"), page.facts(_facts(found))]
    page.write_page(path, f"d3ssl doctor: {found.data}", parts)


def _verdict(found: Examination) -> list[str]:
    fails = [check for check in found.checks if check.status == "fail"]
    warnings = [check for check in found.checks if check.status == "warning"]
    if fails:
        lines = [f"Training would fail: {', '.join(check.name for check in fails)}."]
    else:
        lines = ["Nothing was found that would make training fail."]
    if warnings:
        lines.append(f"Look at these first: {', '.join(check.name for check in warnings)}.")
    if found.objects is not None:
        both = {"neighbours": found.objects.cooccurrence.bias, "positions": found.objects.positions.bias}
        for what, bias in both.items():
            if bias.value is not None:
                lines.append(f"How well {what} predict an object's class: {bias.value:.2f} (0: chance, 1: fully).")
    return lines


def _table(checks: list[Check]) -> str:
    rows = [[check.name, check.status, check.finding, check.remedy] for check in checks]
    return page.table(["", "", "finding", "what to do"], rows, words=True)


def _offenders(found: Examination) -> list[str]:
    paths = dict(zip(found.images.ids, found.images.paths, strict=True))
    parts = []
    for kind, caption in (
        ("exact", "Copies: the same file more than once."),
        ("near", "Near duplicates, one group per row."),
    ):
        groups = found.files.groups.get(kind, [])[:_GROUPS]
        if groups:
            parts.append(
                page.figure(draw_group([[(name, paths[name]) for name in group] for group in groups]), caption)
            )
    for check in found.checks:
        if check.name in _SHOWN and check.images and check.status != "ok":
            row = [(name, paths[name]) for name in check.images]
            parts.append(page.figure(draw_group([row]), f"{check.name}: {check.finding}"))
    return [page.heading("Images with problems"), *parts] if parts else []


def _objects(found: Examination) -> list[str]:
    report = found.objects
    if report is None or not len(report.objects.label):
        return []
    parts = [
        page.heading("Objects"),
        page.figure(draw_counts(report.objects), "Objects per image."),
        page.heading("Which classes appear together"),
        page.figure(
            draw_cooccurrence(report),
            "How often two classes share an image, compared with chance (classes assigned at random): "
            "red more often, blue less often; the classes with the most objects.",
        ),
        page.heading("Where they are"),
        page.figure(
            draw_positions(report),
            "Centres of all objects, then of the classes with the strongest preference for positions (0: placed as "
            "all objects are, 1: always in one of nine cells).",
        ),
    ]
    return parts


def _facts(found: Examination) -> dict[str, str]:
    facts = {"data": found.data, "images": str(len(found.images)), "looked at": str(len(found.chosen))}
    figures = found.files.figures
    facts["channels"] = ", ".join(f"{number} of {kind}" for kind, number in figures["channels"].items())
    facts["bits per channel"] = ", ".join(f"{number} of {kind}" for kind, number in figures["bits"].items())
    return facts
