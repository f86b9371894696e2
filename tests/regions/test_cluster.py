"""Regions on a Ray cluster: the file of one process, whatever is lost on the way."""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from d3ssl.cli.main import main
from d3ssl.data.image_set import ImageSet
from d3ssl.data.shards.pack import pack_shards
from d3ssl.data.sources import open_images
from d3ssl.errors import D3sslError, InputError
from d3ssl.regions import cluster as cluster_module
from d3ssl.regions import compute
from d3ssl.regions.cluster import _find_there, _Job
from d3ssl.regions.compute import compute_regions, find_part
from d3ssl.regions.config import RegionsConfig
from d3ssl.regions.table import RegionTable

STORE = 78 * 2**20
"""Shared memory of a node, bytes (Ray takes no less than 75 MiB)."""
ONE = RegionsConfig(workers=1, method="slic", max_bad_share=0.5)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compute, "CHUNK", 1)


def test_without_ray_the_remedy_is_named(photos: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # importing it fails
    with pytest.raises(InputError, match=r"(?s)Ray, which is not installed.*pip install 'd3ssl\[ray\]'"):
        compute_regions(photos, ONE, tmp_path / "r.parquet", cluster="auto")
    assert not (tmp_path / "r.parquet").exists()


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.0.0.1:123456", "nonsense"])
def test_an_address_at_which_nobody_listens(photos: ImageSet, tmp_path: Path, address: str) -> None:
    with pytest.raises(InputError, match=rf"no Ray cluster answers at '{address}'"):
        compute_regions(photos, ONE, tmp_path / "r.parquet", cluster=address)


@pytest.fixture
def job(photos: ImageSet, monkeypatch: pytest.MonkeyPatch) -> _Job:
    """A job as a worker has it after its first chunk."""
    job = _Job(find_part, photos, ONE, "1.0", os.getcwd())
    monkeypatch.setattr(cluster_module.d3ssl, "__version__", "1.0")
    monkeypatch.setitem(cluster_module._jobs, "aa", job)
    return job


class Reference:
    def hex(self) -> str:
        return "aa"


def there(job: _Job, chunk: range, sizes: list[int]) -> RegionTable | D3sslError:
    return _find_there([Reference()], chunk, sizes)


def test_a_node_with_other_files_or_another_version_is_an_error_and_not_an_unreadable_image(
    job: _Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = [(job.images.root / name).stat().st_size for name in job.images.ids]
    found = there(job, range(2), sizes[:2])
    assert isinstance(found, RegionTable) and found.ids == job.images.ids[:2]
    (job.images.root / job.images.ids[1]).unlink()
    found = there(job, range(2), sizes[:2])
    assert isinstance(found, D3sslError) and "sees another file" in str(found) and job.images.ids[1] in str(found)
    monkeypatch.setattr(cluster_module.d3ssl, "__version__", "2.0")
    found = there(job, range(1), sizes[:1])
    assert isinstance(found, D3sslError) and "has d3ssl 2.0, this machine has 1.0" in str(found)


def test_a_node_with_a_shard_cut_off(
    photos: ImageSet, job: _Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = open_images(pack_shards(photos.root, tmp_path / "shards"))
    packed_job = _Job(find_part, packed, ONE, "1.0", os.getcwd())
    monkeypatch.setitem(cluster_module._jobs, "aa", packed_job)
    sizes = [(photos.root / name).stat().st_size for name in packed.ids]
    assert isinstance(there(packed_job, range(7), sizes), RegionTable)
    with open(tmp_path / "shards" / "000.tar", "rb+") as file:
        file.truncate(20_000)
    found = there(packed_job, range(7), sizes)
    assert isinstance(found, D3sslError) and "000.tar: " in str(found) and "sees another file" in str(found)


@pytest.fixture
def two_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A cluster of two nodes with a core each on this machine; loopback only, nothing reported anywhere."""
    for name, value in {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        "RAY_health_check_initial_delay_ms": "500",
        "RAY_health_check_period_ms": "500",
        "RAY_health_check_timeout_ms": "1000",
        "RAY_health_check_failure_threshold": "2",
    }.items():
        monkeypatch.setenv(name, value)
    from ray.cluster_utils import Cluster

    # Ray takes 127.0.0.1 for a wish to be reached from outside, and replaces it with this machine's address.
    options = {"num_cpus": 1, "object_store_memory": STORE, "node_ip_address": "127.0.0.2"}
    with tempfile.TemporaryDirectory(prefix="ray") as folder:  # short: the paths of sockets have at most 107 bytes
        monkeypatch.setenv("RAY_TMPDIR", folder)  # where it notes its address too, which temp_dir does not change
        head = {**options, "include_dashboard": False}
        made = Cluster(initialize_head=True, head_node_args=head)
        try:
            made.add_node(**options)
            assert processes_naming(folder)
            yield made
        finally:
            made.shutdown()
        end = time.monotonic() + 10
        while (left := processes_naming(folder)) and time.monotonic() < end:
            time.sleep(0.1)
        assert left == []


def processes_naming(folder: str) -> list[str]:
    """Command lines of the processes that name a folder; Ray's do."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes().decode(errors="replace"))
        except OSError:  # it ended meanwhile
            continue
    return [line for line in found if folder in line]


@pytest.mark.slow
def test_a_node_is_lost_in_the_middle_and_the_file_is_that_of_one_process(
    photos: ImageSet, two_nodes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every chunk says where it is worked on; the second node is killed while it works."""
    (photos.root / photos.ids[3]).write_bytes(b"no image")
    images = pack_shards(photos.root, tmp_path / "shards", "30KB")
    wanted = compute_regions(open_images(images), ONE, tmp_path / "one.parquet")
    log, doomed = tmp_path / "log", two_nodes.worker_nodes.copy().pop()
    first_to_go = doomed.node_id

    def find_slowly(images: ImageSet, config: RegionsConfig, chunk: range) -> RegionTable:
        import ray

        from d3ssl.regions.compute import find_part  # the node's: here, this function stands in its place

        node = ray.get_runtime_context().get_node_id()
        with open(log, "a") as file:
            file.write(f"begin {chunk.start} {node}\n")
        time.sleep(5.0 if node == first_to_go else 0.2)
        found = find_part(images, config, chunk)
        with open(log, "a") as file:
            file.write(f"end {chunk.start} {node}\n")
        return found

    def kill() -> None:
        while not log.exists() or f" {first_to_go}\n" not in log.read_text():
            time.sleep(0.05)
        two_nodes.remove_node(doomed, allow_graceful=False)

    monkeypatch.setattr(compute, "find_part", find_slowly)
    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    command = ["regions", str(images), "--method", "slic", "--max_bad_share", "0.5"]
    assert main([*command, "--out", str(tmp_path / "two.parquet"), "--ray", two_nodes.address]) == 0
    killer.join(10)
    assert not killer.is_alive()
    lines = [line.split() for line in log.read_text().splitlines()]
    begun, ended = ([(c, n) for what, c, n in lines if what == kind] for kind in ("begin", "end"))
    lost = [(chunk, node) for chunk, node in begun if (chunk, node) not in ended]
    assert lost and {node for _, node in lost} == {first_to_go}
    assert {chunk for chunk, _ in ended} == {str(number) for number in range(7)}
    assert list(wanted.metadata["skipped"]) == [photos.ids[3]]
    assert (tmp_path / "two.parquet").read_bytes() == (tmp_path / "one.parquet").read_bytes()
