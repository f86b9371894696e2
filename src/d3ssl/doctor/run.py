"""``d3ssl doctor``: from DATA to a table, doctor.json and report.html."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from d3ssl.console import say, show_table
from d3ssl.data.formats import find_format
from d3ssl.data.image_set import ImageSet
from d3ssl.data.sources import name_of
from d3ssl.doctor.annotations import bad_objects, check_objects
from d3ssl.doctor.check import Check, ordered
from d3ssl.doctor.config import DoctorConfig
from d3ssl.doctor.estimates import estimate
from d3ssl.doctor.examination import Examination
from d3ssl.doctor.files import check_files, usable
from d3ssl.doctor.objects import check_annotated
from d3ssl.doctor.regions import check_region_choice
from d3ssl.doctor.report import write_report
from d3ssl.doctor.scan import scan_files
from d3ssl.errors import InputError
from d3ssl.files import make_folder, write_json
from d3ssl.seeds import derive_seed
from d3ssl.train import RunConfig
from d3ssl.train.config import check
from d3ssl.train.pretrain import try_parts


def examine(data: Any, run: RunConfig, config: DoctorConfig | None = None) -> Examination:
    """Look through a data set for a run that is planned.

    Args:
        data: as ``open_images`` takes it.
        run: the run; its ``data`` is not used.
        config: how closely.

    Raises:
        InputError: there is no such data, no image in it, or options that no run can have.
    """
    config = config or DoctorConfig()
    config.check()
    check(run, 1)
    images, checks = _open(data)
    try_parts(run, len(images))
    chosen = _choose(images, config.sample)
    scan = scan_files([images.paths[index] for index in chosen], config.workers)
    files = check_files([images.ids[index] for index in chosen], scan, run, config)
    objects = None
    if images.annotations is not None:
        objects = check_annotated(images, chosen, scan, run, config.draws)
    checks += [*files.checks, *(objects.checks if objects else []), *check_region_choice(images, run)]
    good = [chosen[place] for place in np.flatnonzero(usable(scan, run))]
    estimates: dict[str, Any] = {}
    if good and not any(check.name == "regions" and check.status == "fail" for check in checks):
        estimates, more = estimate(images, good, run, timed=config.time)
        checks += more
    return Examination(
        data=name_of(data),
        images=images,
        chosen=chosen,
        scan=scan,
        files=files,
        objects=objects,
        checks=ordered(checks),
        estimates=estimates,
    )


def _open(data: Any) -> tuple[ImageSet, list[Check]]:
    """The images, with what is wrong with the annotations; where these cannot be read, the images alone."""
    source, checks = find_format(data), []
    try:
        if found := bad_objects(source.document()):
            checks = check_objects(*found, source.max_bad_share)
        return source.images(), checks
    except InputError as error:
        alone = source.images_alone()
        if alone is None:
            raise
        finding = f"{error.path}: {error.problem}"
        return alone, [*checks, Check(name="annotations", status="fail", finding=finding, remedy=error.remedy or "")]


def _choose(images: ImageSet, most: int | None) -> list[int]:
    """Positions of images, by a hash of their ids: the same whatever other images there are, and in whatever order."""
    if most is None or most >= len(images):
        return list(range(len(images)))
    ranks = np.array([derive_seed("doctor", name) for name in images.ids], dtype=np.int64)
    return sorted(np.argsort(ranks, kind="stable")[:most].tolist())


def run_doctor(
    data: str | Path, run: RunConfig, config: DoctorConfig, out: str | None = None, json_file: str | None = None
) -> bool:
    """Examine, print a table, and write ``OUT/doctor.json``, ``OUT/report.html`` and the JSON file that is asked for.

    Returns:
        Whether training would fail.
    """
    folder = None if out is None else make_folder(out)
    found = examine(data, run, config)
    for place in [*([folder / "doctor.json"] if folder else []), *([Path(json_file)] if json_file else [])]:
        write_json(place, found.summary())
    if folder is not None:
        write_report(folder / "report.html", found)
    rows = [(check.name, check.status, check.finding, check.remedy) for check in found.checks]
    title = f"{data}: {len(found.images)} images"
    looked = len(found.chosen)
    title += f", {looked} of them looked at" if looked < len(found.images) else ""
    show_table(title, ("check", "", "finding", "what to do"), rows, words=True)
    for check_ in found.checks:
        if check_.status == "fail":
            say(f"training would fail: {check_.name}: {check_.finding}\n  What to do: {check_.remedy}")
    if folder is not None:
        say(f"{folder / 'report.html'}")
    return found.fails
