"""Finding regions on a Ray cluster: the function that local processes run, on the cluster's nodes.

A chunk of images is a task. It is a pure function of its images, so a task whose worker or node is lost is simply run
again elsewhere. The nodes read the images from the same paths as this machine (a shared disk, or copies), and send the
regions back; this machine writes them.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import d3ssl
from d3ssl.data.image_set import ImageSet
from d3ssl.data.place import Member, Place, file_bytes
from d3ssl.errors import D3sslError, InputError, one_line
from d3ssl.regions.config import RegionsConfig
from d3ssl.regions.table import RegionTable, write_regions

FindPart = Callable[[ImageSet, RegionsConfig, range], RegionTable]
MAX_RETRIES = 10
"""How often a chunk is tried again whose worker or node was lost; one that kills its workers ends the work so."""
_QUEUED = 4
"""Chunks handed over for each core of the cluster, so that none waits for this machine."""
_LOOK_EVERY_S = 20.0


@dataclass(frozen=True, slots=True)
class _Job:
    """What is the same for all chunks; sent to every node once."""

    find: FindPart
    images: ImageSet
    config: RegionsConfig
    version: str
    folder: str
    """What relative paths are relative to."""


def work_on_cluster(
    address: str, find: FindPart, images: ImageSet, config: RegionsConfig, tasks: Sequence[tuple[int, range, Path]]
) -> Iterator[int]:
    """Make parts on a cluster and yield their numbers as they are finished and written.

    Args:
        address: of a running cluster, ``host:port`` or ``auto``, as Ray has it.
        find: makes the regions of a chunk.
        tasks: number, chunk of images and regions file to write.

    Raises:
        InputError: Ray is not installed, or no cluster answers.
        D3sslError: a node has another version of d3ssl or other files, or a chunk was lost too often.
    """
    ray = _import_ray()
    own = not ray.is_initialized()
    if own:
        _connect(ray, address)
    try:
        yield from _run(ray, _Job(find, images, config, d3ssl.__version__, os.getcwd()), list(tasks))
    finally:
        if own:
            ray.shutdown()


def _import_ray() -> ModuleType:
    try:
        import ray
    except ModuleNotFoundError as error:
        raise InputError("--ray takes Ray, which is not installed", remedy="pip install 'd3ssl[ray]'.") from error
    return ray


def _connect(ray: ModuleType, address: str) -> None:
    host, _, port = address.rpartition(":")
    # One attempt, of about half a minute, where Ray would make twenty at an address that nobody listens at.
    os.environ.setdefault("RAY_gcs_server_port_wait_time_s", "1")
    try:
        if port.isdecimal():
            socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (OSError, OverflowError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        reason = one_line(error, 300)
        remedy = "check --ray; `ray start --head` on one machine and `ray start --address …` on others make a cluster."
        raise InputError(f"no Ray cluster answers at '{address}' ({reason})", remedy=remedy) from error


def _run(ray: ModuleType, job: _Job, waiting: list[tuple[int, range, Path]]) -> Iterator[int]:
    sent = ray.put(job)
    task = ray.remote(num_cpus=1, max_retries=MAX_RETRIES)(_find_there)
    running: dict[Any, tuple[int, Path]] = {}
    waiting = waiting[::-1]
    try:
        while waiting or running:
            while waiting and len(running) < _QUEUED * max(_cores(ray), 16):
                number, chunk, path = waiting.pop()
                sizes = [file_bytes(job.images.paths[index]) for index in chunk]
                running[task.remote([sent], chunk, sizes)] = number, path
            done, _ = ray.wait(list(running), num_returns=1, timeout=_LOOK_EVERY_S)
            if not done and _cores(ray) == 0:
                remedy = "start nodes and run the command again, it goes on where it was."
                raise D3sslError("the Ray cluster has no node with a core left", remedy=remedy)
            for reference in done:
                number, path = running.pop(reference)
                write_regions(path, _result(ray, reference))
                yield number
    finally:
        for reference in running:  # an error, or nobody wants more: the cluster may be someone else's too
            ray.cancel(reference, force=True)


def _cores(ray: ModuleType) -> int:
    return int(ray.cluster_resources().get("CPU", 0))


def _result(ray: ModuleType, reference: Any) -> RegionTable:
    try:
        found = ray.get(reference)
    except ray.exceptions.RayError as error:
        reason = one_line(error, 500)
        remedy = "run the command again, it goes on where it was; see Ray's log for why workers were lost."
        raise D3sslError(f"a chunk of images was lost on the Ray cluster ({reason})", remedy=remedy) from error
    if isinstance(found, D3sslError):  # handed over as a value: raised there, its text would drown in a traceback
        raise found
    return found


_jobs: dict[str, _Job] = {}
"""Of a worker process: the job, fetched with its first chunk."""


def _find_there(sent: list[Any], chunk: range, sizes: list[int]) -> RegionTable | D3sslError:
    """Runs on a node. The reference to the job comes in a list, or Ray would unpack the job for every chunk.

    Args:
        sizes: of the chunk's files as the sending machine sees them, bytes. A node that does not see the same files
            would otherwise take them for unreadable, and leave them out.
    """
    key = sent[0].hex()
    if key not in _jobs:
        _jobs.clear()
        _jobs[key] = _import_ray().get(sent[0])
    job = _jobs[key]
    if job.version != d3ssl.__version__:
        problem = f"the Ray node {socket.gethostname()} has d3ssl {d3ssl.__version__}, this machine has {job.version}"
        return D3sslError(problem, remedy="install the same version on all nodes.")
    if not job.images.root.is_absolute():
        try:
            os.chdir(job.folder)
        except OSError:
            problem = f"the Ray node {socket.gethostname()} has no such folder, and DATA is relative to it"
            return D3sslError(problem, path=job.folder, remedy="give DATA as a path that all nodes have.")
    for index, size in zip(chunk, sizes, strict=True):
        place = job.images.paths[index]
        if _bytes_here(place) != size:
            problem = f"the Ray node {socket.gethostname()} sees another file than this machine, or none"
            remedy = "mount or copy the data to the same path on all nodes."
            return D3sslError(problem, path=place, remedy=remedy)
    try:
        return job.find(job.images, job.config, chunk)
    except D3sslError as error:
        return error


def _bytes_here(place: Place) -> int:
    """Size of a file; −1 if it, or the part of a shard that it lies in, is not there."""
    if isinstance(place, Member):
        return place.size if place.is_there() else -1
    return file_bytes(place)
