"""One process with a batch of 2B and two gloo processes with B each give the same loss and gradients.

In float64, so that equality is not blurred by rounding: in float32, ReLUs at the edge of 0 switch with the last bit.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel

from d3ssl.contracts import ViewSet, map_tensors
from d3ssl.methods import Learner, Plan
from d3ssl.models.sync_batch_norm import convert_sync_batch_norm
from tests.methods.examples import make_learner, make_views, tiny_plan

BATCH = 4
CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "soco": ("soco", "DC DP", {}),
    "soco-info_nce": ("soco", "DC DP", {"loss": "info_nce"}),
    "byol-info_nce": ("byol", "DC DP", {"loss": "info_nce"}),
    "detcon": ("detcon", "DC DP", {}),
    "densecl": ("densecl", "DC DP", {}),
    "ibot": ("ibot", "DP", {"local_crops": 1, "local_size": 32}),  # cut copies are of the last images of each process
}


def make_plan(case: str) -> Plan:
    host, modules, options = CASES[case]
    return tiny_plan(host, modules, size=48, **options)


def make_double_views(case: str) -> ViewSet:
    """Regions of several weights; those of the first image of the second process weigh nothing."""
    weight = torch.tensor([[1.0, 0.5, 0.5], [1.0, 1.0, 1.0]]).repeat(BATCH, 1)
    weight[BATCH] = 0.0
    views = make_views(make_plan(case), 2 * BATCH, 3, weight)

    def double(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.double() if tensor.is_floating_point() else tensor

    return map_tensors(views, double)


def make_double_learner(case: str) -> Learner:
    return make_learner(make_plan(case)).double()


def gradients(learner: Learner) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in learner.named_parameters() if p.grad is not None}


def worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    for case in CASES:
        learner = convert_sync_batch_norm(make_double_learner(case))
        network = DistributedDataParallel(learner)
        whole = make_double_views(case)
        own = slice(rank * BATCH, (rank + 1) * BATCH)
        mine = ViewSet(
            views=map_tensors(whole.views, lambda tensor, own=own: tensor[own].clone()),
            slots=map_tensors(whole.slots, lambda tensor, own=own: tensor[own].clone()),
            scale=whole.scale * 2,  # of all rows, times the number of processes
        )
        output = network(mine, 0.0)
        output.loss.backward()
        found = {"loss": output.loss.detach(), "gradients": gradients(learner)}
        learner.after_step(0.0, [output.carry])
        found["memories"] = learner.memories.state_dict()
        torch.save(found, Path(folder) / f"{case}-{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes find for every case."""
    folder = tmp_path_factory.mktemp("two")
    mp.spawn(worker, args=(str(folder),), nprocs=2)  # type: ignore[attr-defined]
    return folder


@pytest.mark.parametrize("case", CASES)
def test_two_processes_equal_one(case: str, folder: Path) -> None:
    learner = make_double_learner(case)
    output = learner(make_double_views(case), 0.0)
    output.loss.backward()
    results = [torch.load(folder / f"{case}-{rank}.pt", weights_only=True) for rank in range(2)]
    # Each process reports its share of the mean, times the number of processes: their mean is the loss.
    assert float(output.loss.detach()) == pytest.approx(float(sum(r["loss"] for r in results) / 2), abs=1e-8)
    expected = gradients(learner)
    assert results[0]["gradients"].keys() == expected.keys()
    for name, gradient in expected.items():
        for result in results:
            torch.testing.assert_close(result["gradients"][name], gradient, atol=1e-7, rtol=1e-5, msg=name)
    learner.after_step(0.0, [output.carry])
    for name, value in learner.memories.state_dict().items():
        for result in results:
            torch.testing.assert_close(result["memories"][name], value, atol=1e-8, rtol=1e-8, msg=name)


def test_the_example_has_rows_that_count_differently() -> None:
    assert make_double_views("soco").slots.weight.unique().tolist() == [0.0, 0.5, 1.0]
