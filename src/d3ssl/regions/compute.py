"""Finding the regions of a whole image set: many processes, parts kept on disk, the same result whatever happened.

The images are worked on in chunks of a fixed number. A finished chunk is a small regions file in the folder OUT.parts,
named by a digest of its images and of the options: a run that was killed goes on with the chunks that are missing, and
a part made for other images or options is never taken. The parts are removed when OUT is whole.
"""

from __future__ import annotations

import json
import multiprocessing
import shutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np

import d3ssl
from d3ssl.console import progress, say, warn
from d3ssl.data.bad_images import SHOWN, listed, too_many_bad
from d3ssl.data.formats.torch_dataset import cannot_be_sent
from d3ssl.data.image_set import ImageSet
from d3ssl.data.place import file_bytes
from d3ssl.data.processes import end_with_parent, num_cores
from d3ssl.errors import D3sslError, InputError
from d3ssl.files import digest
from d3ssl.regions.annotations import count_without_mask
from d3ssl.regions.cluster import work_on_cluster
from d3ssl.regions.config import RegionsConfig
from d3ssl.regions.find import compile_method, encode_png, find_in_file
from d3ssl.regions.table import RegionTable, content_digest, read_regions, write_regions

CHUNK = 32
"""Images in a part: what a killed process loses at most."""


def compute_regions(
    images: ImageSet, config: RegionsConfig, out: str | Path, cluster: str | None = None
) -> RegionTable:
    """Find the regions of all images and write them to ``out``; what is done already is not done again.

    Unreadable images are left out, listed in ``metadata["skipped"]`` and warned of.

    Args:
        images: the images.
        config: the method, its options, and the number of processes.
        out: the Parquet file. If it holds these regions already, it is read; other regions are replaced.
        cluster: address of a Ray cluster whose nodes do the work, see ``work_on_cluster``; None: this machine. The
            file is the same.

    Raises:
        InputError: more than ``config.max_bad_share`` of the images cannot be read, or there are no annotations.
        D3sslError: the disk is full, a process was killed, or something is wrong with the cluster.
    """
    out = Path(out)
    wanted = {"params": config.parameters(), "data_digest": images.digest(), "d3ssl": d3ssl.__version__}
    if config.method == "annotations":
        wanted["objects_digest"] = _objects_digest(images, range(len(images)))
        _say_without_mask(images, config)
    finished = _finished(out, wanted)
    if finished is not None:
        say(f"{out} holds these regions already")
        return finished
    folder = out.with_name(out.name + ".parts")
    table = _merge(_all_parts(images, config, folder, cluster), config, wanted)
    write_regions(out, table)
    shutil.rmtree(folder, ignore_errors=True)
    say(f"{out}: {sum(map(len, table.boxes))} regions of {len(table)} images")
    return table


def _say_without_mask(images: ImageSet, config: RegionsConfig) -> None:
    lacking, count = count_without_mask(images.annotated)
    if lacking and config.label_maps:
        say(f"{lacking} of {count} objects have no mask: kept as boxes")


def _finished(out: Path, wanted: dict[str, object]) -> RegionTable | None:
    """The regions in ``out``, if they are those that are wanted."""
    if not out.exists():
        return None
    try:
        table = read_regions(out)
    except InputError as error:
        warn(f"{error.problem}; it is made again: {out}")
        return None
    if all(table.metadata.get(key) == value for key, value in wanted.items()):
        return table
    say(f"{out} was made with other images or options and is replaced")
    return None


def _all_parts(images: ImageSet, config: RegionsConfig, folder: Path, cluster: str | None) -> list[RegionTable]:
    """Every chunk's regions, from disk or computed now."""
    chunks = [range(start, min(start + CHUNK, len(images))) for start in range(0, len(images), CHUNK)]
    paths = [folder / f"{_part_name(images, chunk, config)}.parquet" for chunk in chunks]
    parts = [_read_part(path) for path in paths]
    pending = [number for number, part in enumerate(parts) if part is None]
    done = len(images) - sum(len(chunks[number]) for number in pending)
    if done:
        say(f"going on: {done} of {len(images)} images were done before")
    bad = _bad_images(parts)
    _fail_if_too_many(bad, images, config, paths, parts)
    with progress("regions", len(images), done) as ticker:
        if pending and cluster is None and config.is_compiled:
            ticker.advance(0, "compiling (some seconds, the first time only)")
            # Here, so that the processes find the compiled code instead of all making it.
            compile_method(config)
            ticker.advance(0, "")
        tasks = [(number, chunks[number], paths[number]) for number in pending]
        for number in _work(images, config, tasks, cluster):
            part = read_regions(paths[number])
            parts[number] = part
            if part.metadata["skipped"]:
                bad = _bad_images(parts)
                _fail_if_too_many(bad, images, config, paths, parts)
            ticker.advance(len(chunks[number]), f"{len(bad)} unreadable" if bad else None)
    if bad:
        first = "\n  ".join(list(bad.values())[:SHOWN])
        more = f"\n  … and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
        warn(f"{len(bad)} of {len(images)} images are left out:\n  {first}{more}")
    return [part for part in parts if part is not None]


def _part_name(images: ImageSet, chunk: range, config: RegionsConfig) -> str:
    options = json.dumps(config.parameters(), sort_keys=True)
    # What the annotations say of the images is part of the input where they are the method.
    objects = [_objects_digest(images, chunk)] if config.method == "annotations" else []
    return digest(d3ssl.__version__, options, images.subset(chunk).digest(), *objects)


def _objects_digest(images: ImageSet, indices: range) -> str:
    """Identifies all that the annotations say of some images and that their regions depend on."""
    annotations = images.annotated
    found = [b"True" if annotations.has_masks else b"masks of some"]  # "False" was: the masks of some are left out
    for index in indices:
        objects = annotations.objects(index)
        arrays = (annotations.sizes[index], objects.boxes, objects.ids, objects.crowd)
        found += [array.tobytes() for array in arrays]
        found += [annotations.segmentations.content(int(row)) for row in annotations.objects_of[index]]
    return digest(*found)


def _read_part(path: Path) -> RegionTable | None:
    if not path.exists():
        return None
    try:
        return read_regions(path)
    except InputError as error:
        warn(f"{error.problem}; it is made again: {path}")
        return None


def _bad_images(parts: list[RegionTable | None]) -> dict[str, str]:
    """Id of every unreadable image → what is wrong with it (with its path)."""
    return {name: reason for part in parts if part is not None for name, reason in part.metadata["skipped"].items()}


def _fail_if_too_many(
    bad: dict[str, str],
    images: ImageSet,
    config: RegionsConfig,
    paths: list[Path],
    parts: list[RegionTable | None],
) -> None:
    if not too_many_bad(len(bad), len(images), config.max_bad_share):
        return
    for path, part in zip(paths, parts, strict=True):
        if part is not None and part.metadata["skipped"]:
            path.unlink(missing_ok=True)  # so that images repaired in place are tried again
    share = f"more than the share of {config.max_bad_share:g}"
    problem = f"{len(bad)} of {len(images)} images are unreadable so far, {share}:\n  {listed(bad.values())}"
    remedy = "repair or remove these images, or raise max_bad_share to leave them out."
    raise InputError(problem, path=images.root, remedy=remedy)


def _work(
    images: ImageSet, config: RegionsConfig, tasks: list[tuple[int, range, Path]], cluster: str | None
) -> Iterator[int]:
    """Make parts and yield their numbers as they are finished."""
    if cluster is not None:
        if tasks:
            yield from work_on_cluster(cluster, find_part, images, config, tasks)
        return
    workers = min(config.workers or num_cores(), len(tasks))
    if workers > 1 and (reason := cannot_be_sent(images)):
        warn(f"the data set cannot be handed to other processes ({reason}): this one does all the work")
        workers = 1
    if workers <= 1:
        for number, chunk, path in tasks:
            _make_part(images, config, chunk, path)
            yield number
        return
    context = multiprocessing.get_context("spawn")  # forking a process that has threads may lock up
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start, initargs=(images, config))
    try:
        running = {pool.submit(_make_part_here, chunk, path): number for number, chunk, path in tasks}
        for future in as_completed(running):
            future.result()
            yield running[future]
    except BrokenProcessPool as error:
        remedy = "run the command again, it goes on where it was; with too little memory use fewer workers."
        raise D3sslError("a process was killed while it looked for regions", remedy=remedy) from error
    finally:
        pool.shutdown(cancel_futures=True)


_shared: list[tuple[ImageSet, RegionsConfig]] = []
"""What a worker process was started with: sent once instead of with every chunk."""


def _start(images: ImageSet, config: RegionsConfig) -> None:
    _shared[:] = [(images, config)]
    end_with_parent()


def _make_part_here(chunk: range, path: Path) -> None:
    _make_part(*_shared[0], chunk, path)


def _make_part(images: ImageSet, config: RegionsConfig, chunk: range, path: Path) -> None:
    write_regions(path, find_part(images, config, chunk))


def find_part(images: ImageSet, config: RegionsConfig, chunk: range) -> RegionTable:
    """The regions of a chunk, with the images that cannot be read in ``metadata["skipped"]``."""
    rows, found, skipped = [], [], {}
    for index in chunk:
        try:
            found.append(find_in_file(images, index, config))
            rows.append(index)
        except InputError as error:
            skipped[images.ids[index]] = str(error).splitlines()[0]
    return RegionTable(
        ids=tuple(images.ids[index] for index in rows),
        sizes=np.array([regions.size for regions in found], dtype=np.int64).reshape(-1, 2),
        boxes=[regions.boxes for regions in found],
        label_maps=[None if regions.labels is None else encode_png(regions.labels) for regions in found],
        metadata={"skipped": skipped},
        file_bytes=np.array([file_bytes(images.paths[index]) for index in rows], dtype=np.int64),
    )


def _merge(parts: list[RegionTable], config: RegionsConfig, wanted: dict[str, object]) -> RegionTable:
    file_bytes = [part.file_bytes for part in parts if part.file_bytes is not None]
    skipped = _bad_images(list(parts))
    table = RegionTable(
        ids=tuple(name for part in parts for name in part.ids),
        sizes=np.concatenate([part.sizes for part in parts]),
        boxes=[boxes for part in parts for boxes in part.boxes],
        label_maps=[png for part in parts for png in part.label_maps],
        metadata={"method": config.method, **wanted, "skipped": skipped},
        file_bytes=np.concatenate(file_bytes),
    )
    table.metadata["digest"] = content_digest(table)
    return table
