"""Fetching the images of a benchmark: in parallel, resumable, each checked before it is kept."""

from __future__ import annotations

import hashlib
import threading
import urllib.parse
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from d3ssl import __version__
from d3ssl.console import Ticker, progress, say
from d3ssl.data.image_set import ANNOTATIONS
from d3ssl.data.open_images.build import coco_info
from d3ssl.data.open_images.coco_json import SplitData, write_coco
from d3ssl.data.open_images.config import SPLITS
from d3ssl.data.open_images.fetch import FetchError, Patience, check_jpeg, fetch
from d3ssl.data.open_images.masks import find_mask_files
from d3ssl.data.open_images.objects import read_objects
from d3ssl.data.open_images.records import ImageRecord, Records
from d3ssl.data.open_images.statistics import read_class_table
from d3ssl.data.open_images.tree import (
    CLASSES,
    IDS,
    IMAGE_RECORDS,
    IMAGES,
    MISSING,
    OBJECTS,
    check_whole,
    read_checksums,
    read_ids,
    write_checksums,
)
from d3ssl.errors import InputError
from d3ssl.files import make_folder, open_file, write_atomically, write_text

MAX_WORKERS = 32
STOP_AFTER = 64
"""So many failures, with no image arriving between them, end the download: the server is at fault, or the address. That
the server has no such image (404) counts only as long as it has given none at all."""


@dataclass(frozen=True, kw_only=True)
class DownloadConfig:
    """How the images are fetched. Images that are there are not asked for again."""

    base_url: str
    """Address (http or https) below which the images lie as ``SPLIT/IMAGE_ID.jpg``, such as that of the public bucket
    which the download page of Open Images names, or of a mirror of your own."""
    splits: tuple[str, ...] = ()
    """Splits to fetch; none given: all that the benchmark has."""
    workers: int = 8
    """Connections at a time, at most 32."""
    timeout: float = 30.0
    """Seconds without an answer after which an attempt has failed."""
    attempts: int = 5
    """How often an image is asked for before it counts as missing; once where the server says that there is none."""
    backoff: float = 1.0
    """Seconds before the second attempt; twice as long before each further one, up to a minute."""
    checksums: str | None = None
    """File in the layout of ``sha256sum`` with names such as ``train/0001eeaf4aed83f9.jpg``: images must be these."""
    masks: str | None = None
    """Folder (searched recursively) of the mask PNG files, which then become run lengths in the annotations."""
    accept_missing: bool = False
    """Whether to finish without the images that cannot be had: they are left out of the annotations and listed."""
    user_agent: str = f"d3ssl/{__version__}"
    """What the server is told about who asks; add a contact where its owner wants one."""

    def check(self) -> None:
        """Raise InputError for values with which nothing can be fetched."""
        parts = urllib.parse.urlsplit(self.base_url)
        rules = (
            ("base_url", parts.scheme in ("http", "https") and bool(parts.netloc), "is an address with http or https"),
            ("splits", set(self.splits) <= set(SPLITS), f"names some of {', '.join(SPLITS)}"),
            ("workers", 1 <= self.workers <= MAX_WORKERS, f"lies in 1..{MAX_WORKERS}"),
            ("timeout", self.timeout > 0, "is above 0 s"),
            ("attempts", 1 <= self.attempts <= 20, "lies in 1..20"),
            ("backoff", self.backoff >= 0, "is at least 0 s"),
            ("user_agent", self.user_agent.isascii() and self.user_agent.isprintable(), "is plain ASCII text"),
        )
        for name, holds, rule in rules:
            if not holds:
                problem = f"option {name} = {getattr(self, name)!r} is out of range"
                raise InputError(problem, remedy=f"choose {name} such that it {rule}.")


def download_images(root: str | Path, config: DownloadConfig) -> None:
    """Fetch the images of a finished benchmark into ``SPLIT/images``.

    A split that is complete has its annotations rewritten, in pixels of the images. What is missing at the end is
    listed with the reasons in ``missing.txt``; another call asks for these images alone.

    Raises:
        InputError: an option is out of range; not a finished benchmark; images are missing at the end.
    """
    config.check()
    root = Path(root)
    files = set(_check_tables(root))
    here = [split for split in SPLITS if (root / split / IDS).is_file()]
    for split in config.splits:
        if split not in here:
            raise InputError(f"has no split {split}", path=root, remedy=f"choose among {', '.join(here)}.")
    wanted = {} if config.checksums is None else read_checksums(Path(config.checksums))
    missing = {} if not config.splits else _still_missing(root, config.splits)
    lists = {split: read_ids(root / split / IDS) for split in config.splits or here}
    for split, ids in lists.items():
        failed, records = _fetch_split(root, split, ids, wanted, config)
        missing |= failed
        if not failed or config.accept_missing:
            _write_annotations(root / split, split, ids, records, config)
            files.add(f"{split}/{IMAGE_RECORDS}")
    if missing:
        write_text(root / MISSING, "".join(f"{name}\t{reason}\n" for name, reason in missing.items()))
    else:
        (root / MISSING).unlink(missing_ok=True)
    write_checksums(root, sorted(files))
    _report(root, missing, sum(map(len, lists.values())), config)


def _check_tables(root: Path) -> list[str]:
    """Names of all files of the benchmark, after those have been checked that a download does not write itself."""
    written_here = [f"{split}/{name}" for split in SPLITS for name in (ANNOTATIONS, IMAGE_RECORDS)]
    return list(check_whole(root, without=written_here))


def _still_missing(root: Path, splits: tuple[str, ...]) -> dict[str, str]:
    """What an earlier call found missing in splits that this one does not ask for."""
    lines = (root / MISSING).read_text(encoding="utf-8").splitlines() if (root / MISSING).is_file() else []
    pairs = (line.partition("\t") for line in lines)
    return {name: reason for name, _, reason in pairs if name.partition("/")[0] not in splits}


def _fetch_split(
    root: Path, split: str, ids: tuple[str, ...], wanted: dict[str, str], config: DownloadConfig
) -> tuple[dict[str, str], dict[str, ImageRecord]]:
    """Fetch what is not there.

    Returns:
        The missing images, ``SPLIT/ID.jpg``, with the reasons; and image id → record of the others.
    """
    folder = make_folder(root / split / IMAGES)
    stopped = threading.Event()
    patience = Patience(
        timeout_s=config.timeout, attempts=config.attempts, backoff_s=config.backoff, user_agent=config.user_agent
    )
    with closing(Records(root / split)) as records:

        def work(name: str) -> bool | FetchError:
            """Whether the image was fetched now (it may have been there), or why it could not be."""
            checksum = wanted.get(f"{split}/{name}.jpg")
            path = folder / f"{name}.jpg"
            if _is_there(path, name, checksum, records):
                return False
            try:
                data = fetch(f"{config.base_url.rstrip('/')}/{split}/{name}.jpg", patience, checksum, stopped)
            except FetchError as error:
                return error
            with write_atomically(path) as temporary:
                temporary.write_bytes(data)
            records.add(name, _record(data))
            return True

        with progress(f"images of {split}", len(ids)) as ticker, ThreadPoolExecutor(config.workers) as pool:
            try:
                failed = _work_through(pool, work, ids, stopped, ticker)
            finally:
                stopped.set()  # whatever ends this: those at work make no further attempts
        if not failed or config.accept_missing:
            records.finish(ids)
        return {f"{split}/{name}.jpg": failed[name] for name in ids if name in failed}, records.images


def _work_through(
    pool: ThreadPoolExecutor,
    work: Callable[[str], bool | FetchError],
    ids: tuple[str, ...],
    stopped: threading.Event,
    ticker: Ticker,
) -> dict[str, str]:
    """Give the images to the threads, some at a time. Returns the failed ones with the reasons."""
    failed: dict[str, str] = {}
    waiting: dict[Future[bool | FetchError], str] = {}
    todo = iter(ids)
    any_there, faults = False, 0
    while True:
        while len(waiting) < 2 * MAX_WORKERS and (name := next(todo, None)) is not None:
            waiting[pool.submit(work, name)] = name
        if not waiting:
            return failed
        for future in wait(waiting, return_when=FIRST_COMPLETED).done:
            name, result = waiting.pop(future), future.result()
            if isinstance(result, FetchError):
                failed[name] = str(result)
                faults += result.again or not any_there
                if faults >= STOP_AFTER:
                    stopped.set()
            else:
                any_there, faults = True, 0 if result else faults
            ticker.advance(note=f"{len(failed)} failed" if failed else "")


def _is_there(path: Path, name: str, checksum: str | None, records: Records) -> bool:
    """Whether an image was fetched before. One without a record is checked as if it had just arrived."""
    record = records.images.get(name)
    try:
        if record is not None and path.stat().st_size == record.bytes:
            found = record
        else:
            with open_file(path) as file:
                found = _record(file.read())
            records.add(name, found)
    except (FileNotFoundError, FetchError):
        found = None
    if found is None or checksum not in (None, found.sha256):
        records.forget(name)
        return False
    return True


def _record(data: bytes) -> ImageRecord:
    height, width = check_jpeg(data)
    return ImageRecord(height=height, width=width, bytes=len(data), sha256=hashlib.sha256(data).hexdigest())


def _write_annotations(
    folder: Path, split: str, ids: tuple[str, ...], images: dict[str, ImageRecord], config: DownloadConfig
) -> None:
    """Write the split's annotations in pixels of the images that there are."""
    found = [(images[name].height, images[name].width) if name in images else (0, 0) for name in ids]
    sizes = np.array(found, dtype=np.int64).reshape(-1, 2)
    classes, kept = read_class_table(folder.parent / CLASSES)
    objects = read_objects(folder / OBJECTS)
    mask_files = None if config.masks is None else find_mask_files(Path(config.masks), objects)
    data = SplitData(ids=ids, objects=objects, classes=classes, kept=kept, sizes=sizes, mask_files=mask_files)
    write_coco(folder / ANNOTATIONS, data, coco_info(split), sizes[:, 0] > 0)


def _report(root: Path, missing: dict[str, str], total: int, config: DownloadConfig) -> None:
    if not missing:
        say(f"{root}: all images are there; d3ssl benchmark openimage-mini verify {root} checks them")
        return
    name, reason = next(iter(missing.items()))
    problem = f"{len(missing)} of {total} images are missing, such as {name}: {reason}"
    if config.accept_missing:
        say(f"{root}: {problem}; they are left out and listed in {root / MISSING}")
        return
    remedy = "call it again: only these are asked for. Without those that are gone: --accept_missing true."
    raise InputError(f"{problem}; all are listed in this file", path=root / MISSING, remedy=remedy)
