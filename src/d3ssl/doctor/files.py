"""Checks of the image files, from the facts of each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64

from d3ssl.data.bad_images import too_many_bad
from d3ssl.doctor.check import MAX_LISTED, Check, Status, percent, some
from d3ssl.doctor.config import DoctorConfig
from d3ssl.doctor.duplicates import exact_groups, near_groups
from d3ssl.doctor.look import BOMB, GOOD, UNREADABLE
from d3ssl.doctor.scan import Scan
from d3ssl.train import RunConfig

_WORTH_A_WARNING = 0.05
"""Share of near duplicates, or of long images, above which they are a warning instead of a note."""
_FEW = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class FileReport:
    """What the files of the images that were looked at say."""

    checks: list[Check]
    figures: dict[str, Any]
    """Plain data."""
    groups: dict[str, list[list[str]]] = field(default_factory=dict)
    """Ids of ``exact`` and ``near`` duplicates."""


def check_files(ids: list[str], scan: Scan, run: RunConfig, config: DoctorConfig) -> FileReport:
    """All checks that need no annotations.

    Args:
        ids: of the images that were looked at.
        scan: what their files say.
        run: the run that is planned.
        config: the thresholds.
    """
    facts = scan.facts
    good = facts["status"] == GOOD
    exact, near = _duplicates(scan, config)
    checks = [
        *_readable(ids, scan, run),
        _channels(ids, scan, run),
        _exact(ids, exact),
        _near(ids, near, config),
        *_sizes(ids, scan, run, config),
        *_notes(ids, scan),
        _enough(int(good.sum()), run),
    ]
    groups = {"exact": exact, "near": near}
    named = {name: [[ids[i] for i in group] for group in found[:MAX_LISTED]] for name, found in groups.items()}
    return FileReport(checks=checks, figures=_figures(scan), groups=named)


def _listed(ids: list[str], which: Bool[np.ndarray, "n"] | Int64[np.ndarray, "n"]) -> tuple[str, ...]:
    places = np.flatnonzero(which) if which.dtype == bool else which
    return tuple(ids[i] for i in places[:MAX_LISTED])


def _readable(ids: list[str], scan: Scan, run: RunConfig) -> list[Check]:
    status, total = scan.facts["status"], len(ids)
    limit = run.proposals.max_bad_share if run.regions is None else run.canvas.max_bad_share
    option = "proposals.max_bad_share" if run.regions is None else "canvas.max_bad_share"
    bad = int((status != GOOD).sum())
    fails = too_many_bad(bad, total, limit)
    verdict: Status = "fail" if fails else "warning"
    remedy = "replace them or take them away" + (f"; or raise --{option} (now {limit:g})" if fails else "")
    checks = []
    for name, kind, what in (
        ("unreadable files", UNREADABLE, "cannot be read"),
        ("oversized images", BOMB, "have more pixels than are read unseen"),
    ):
        which = status == kind
        count = int(which.sum())
        if not count:
            checks.append(Check(name=name, status="ok", finding="none"))
            continue
        first = scan.messages.get(int(np.flatnonzero(which)[0]), ids[int(np.flatnonzero(which)[0])])
        share = f", with the others of their kind {percent(bad, total)}" if bad > count else ""
        more = f" Training stops above {limit:.1%}{share}." if fails else " They are left out."
        found = f"{percent(count, total)} {what}, such as {first}.{more}"
        one = {"name": name, "status": verdict, "finding": found, "remedy": remedy, "count": count}
        checks.append(Check(**one, images=_listed(ids, which)))
    return checks


def usable(scan: Scan, run: RunConfig) -> Bool[np.ndarray, "images"]:
    """Which images a run can train on: those that can be read and have its channels, or one where it has three."""
    channels, wanted = scan.facts["channels"], run.canvas.channels
    return (scan.facts["status"] == GOOD) & ((channels == wanted) | ((channels == 1) & (wanted == 3)))


def _channels(ids: list[str], scan: Scan, run: RunConfig) -> Check:
    good, fits = scan.facts["status"] == GOOD, usable(scan, run)
    channels, wanted = scan.facts["channels"], run.canvas.channels
    wrong = good & ~fits
    kinds = _histogram(channels[good])
    mix = ", ".join(f"{number} of {kind} channel{'s' if kind != '1' else ''}" for kind, number in kinds.items())
    if not wrong.any():
        return Check(name="channels", status="ok", finding=mix or "no image can be read")
    count, readable = int(wrong.sum()), int(good.sum())
    fails = too_many_bad(count, readable, run.canvas.max_bad_share)
    most = max(kinds, key=lambda kind: kinds[kind])
    fitting = int(fits.sum()) >= count
    convert = f"take them away, or convert them to {wanted} channels."
    return Check(
        name="channels",
        status="fail" if fails else "warning",
        finding=f"{mix}; canvas.channels is {wanted}: {percent(count, readable)} do not fit"
        + (f", more than canvas.max_bad_share {run.canvas.max_bad_share:g}." if fails else " and are passed over."),
        remedy=convert if fitting else f"set --canvas.channels {most}; {convert}",
        count=count,
        images=_listed(ids, wrong),
    )


def _duplicates(scan: Scan, config: DoctorConfig) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Groups of positions; a near group has at least two different files."""
    facts = scan.facts
    there = np.flatnonzero(facts["bytes"] > 0)
    exact = [there[group] for group in exact_groups(facts["content"][there])]
    seen = np.flatnonzero((facts["status"] == GOOD) & ~facts["blank"])
    near = [seen[group] for group in near_groups(facts["look"][seen], config.near_bits)]
    return exact, [group for group in near if len(np.unique(facts["content"][group], axis=0)) > 1]


def _exact(ids: list[str], groups: list[np.ndarray]) -> Check:
    if not groups:
        return Check(name="exact duplicates", status="ok", finding="none")
    spare = np.sort(np.concatenate([group[1:] for group in groups]))
    example = some([ids[i] for i in groups[0]])
    return Check(
        name="exact duplicates",
        status="warning",
        finding=f"{percent(len(spare), len(ids))} are copies of other files ({example}).",
        remedy="take the copies away: as negatives they teach that an image is not itself.",
        count=len(spare),
        images=_listed(ids, spare),
    )


def _near(ids: list[str], groups: list[np.ndarray], config: DoctorConfig) -> Check:
    if not groups:
        return Check(name="near duplicates", status="ok", finding="none besides exact ones")
    count = sum(map(len, groups))
    largest = max(groups, key=len)
    return Check(
        name="near duplicates",
        status="warning" if count > _WORTH_A_WARNING * len(ids) else "note",
        finding=f"{percent(count, len(ids))} look like another; groups: {len(groups)}, the largest of {len(largest)} "
        f"({some([ids[i] for i in largest])}).",
        remedy="look at them (report.html with --out); keep one of each, and never one in train and one in val.",
        count=count,
        images=_listed(ids, np.concatenate(groups)),
    )


def _sizes(ids: list[str], scan: Scan, run: RunConfig, config: DoctorConfig) -> list[Check]:
    facts = scan.facts
    good = facts["status"] == GOOD
    sides = np.stack([facts["height"], facts["width"]], axis=1).astype(np.float64)
    short, long = sides.min(axis=1), sides.max(axis=1)
    least = config.tiny if config.tiny is not None else run.canvas.size // 4
    total = int(good.sum())
    stretched = long > config.aspect * np.maximum(short, 1)
    found = (
        ("tiny images", short < least, f"have a short side below {least} px (canvas: {run.canvas.size} px)", _FEW,
         "leave them out, or train at a smaller --canvas.size and --views.size."),
        ("long images", stretched, f"are more than {config.aspect:g} times as long as wide", _WORTH_A_WARNING,
         "cut them into pieces: the canvas is square, and they are squeezed into it."),
        ("blank images", facts["blank"], "have hardly any contrast", _FEW, "look at them and leave them out."),
    )  # fmt: skip
    checks = []
    for name, which, what, limit, remedy in found:
        which = which & good
        count = int(which.sum())
        if count:
            said: Status = "warning" if count > limit * total else "note"
            text = f"{percent(count, total)} {what}, such as {some(_listed(ids, which))}."
            one = {"name": name, "status": said, "finding": text, "remedy": remedy, "count": count}
            checks.append(Check(**one, images=_listed(ids, which)))
        else:
            checks.append(Check(name=name, status="ok", finding="none"))
    return checks


def _notes(ids: list[str], scan: Scan) -> list[Check]:
    good = scan.facts["status"] == GOOD
    total = int(good.sum())
    deep, turned = good & (scan.facts["bits"] > 8), good & (scan.facts["orientation"] > 1)
    found = (
        ("bit depth", deep, "have 16 bits a channel; they are read as 8, by the bits that each of them uses"),
        ("turned by EXIF", turned, "are stored turned or mirrored; they are read upright, as annotations must be"),
    )
    checks = []
    for name, which, what in found:
        count = int(which.sum())
        text = f"{percent(count, total)} {what}." if count else "none"
        said: Status = "note" if count else "ok"
        checks.append(Check(name=name, status=said, finding=text, count=count, images=_listed(ids, which)))
    return checks


def _enough(readable: int, run: RunConfig) -> Check:
    batch = run.train.batch_size
    if readable < 2:
        remedy = "give two images or more: a region's background is another image."
        return Check(name="number of images", status="fail", finding=f"{readable} can be read.", remedy=remedy)
    if readable < batch:
        remedy = f"choose a --train.batch_size of {readable} or less."
        text = f"{readable} are fewer than a batch of {batch}: an image is in it more than once."
        return Check(name="number of images", status="warning", finding=text, remedy=remedy)
    return Check(name="number of images", status="ok", finding=f"{readable} can be read")


def _histogram(values: np.ndarray) -> dict[str, int]:
    return {str(value): int(number) for value, number in zip(*np.unique(values, return_counts=True), strict=True)}


def _figures(scan: Scan) -> dict[str, Any]:
    facts = scan.facts[scan.facts["status"] == GOOD]
    quantiles = [0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0]

    def spread(values: np.ndarray) -> list[float]:
        return np.quantile(values.astype(np.float64), quantiles).tolist() if len(values) else []

    return {
        "readable": len(facts),
        "bytes": int(scan.facts["bytes"].sum()),
        "channels": _histogram(facts["channels"]),
        "bits": _histogram(facts["bits"]),
        "exif_orientation": _histogram(facts["orientation"]),
        "quantiles": quantiles,
        "height": spread(facts["height"]),
        "width": spread(facts["width"]),
        "aspect": spread(facts["width"] / np.maximum(facts["height"], 1)),
    }
