"""One process with a batch of 2B and two gloo processes with B each give the same loss and gradients.

In float64, so that equality is not blurred by rounding: in float32, ReLUs at the edge of 0 switch with the last bit.
"""

import os
import socket
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel

from d3ssl.contracts import View, ViewSet, map_tensors
from d3ssl.methods import D3ssl, MethodConfig
from d3ssl.models.network import ModelConfig
from d3ssl.models.sync_batch_norm import convert_sync_batch_norm

MODEL = ModelConfig(backbone="test_resnet", roi_size=3, projector_hidden=32, projector_out=16)
BATCH = 4


def make_views() -> ViewSet:
    generator = torch.Generator().manual_seed(3)
    count, slots = 2 * BATCH, 3

    def view(side: int) -> View:
        corner = torch.rand(count, slots, 2, generator=generator) * side / 2
        boxes = torch.cat([corner, corner + side / 3], dim=-1)
        images = torch.randn(count, 3, side, side, generator=generator)
        return View(images=images.double(), boxes=boxes.double(), matrix=torch.eye(3).repeat(count, 1, 1))

    valid = torch.rand(count, slots, generator=generator) < 0.7
    valid[:2] = True
    corner = torch.rand(count, slots, 2, generator=generator) * 30
    return ViewSet(
        teacher_x1=view(48), teacher_x2=view(48), student_x1=view(48), student_x2_small=view(24), student_x3=view(48),
        valid=valid, canvas_boxes=torch.cat([corner, corner + 20], dim=-1), index=torch.arange(count),
    )  # fmt: skip


def make_method(objective: str) -> D3ssl:
    torch.manual_seed(0)
    return D3ssl(MethodConfig(objective=objective), MODEL).double().train()  # type: ignore[arg-type]


def gradients(method: D3ssl) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in method.named_parameters() if p.grad is not None}


def worker(rank: int, port: int, objective: str, folder: str) -> None:
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    dist.init_process_group("gloo", rank=rank, world_size=2)
    method = convert_sync_batch_norm(make_method(objective))
    network = DistributedDataParallel(method)
    mine = map_tensors(make_views(), lambda tensor: tensor[rank * BATCH : (rank + 1) * BATCH].clone())
    output = network(mine)
    output.loss.backward()
    torch.save({"loss": output.loss.detach(), "gradients": gradients(method)}, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("objective", ["regression", "info_nce"])
def test_two_processes_equal_one(objective: str, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(worker, args=(port, objective, str(tmp_path)), nprocs=2)  # type: ignore[attr-defined]
    method = make_method(objective)
    output = method(make_views())
    output.loss.backward()
    results = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    # Each process reports its share of the mean, times the number of processes: their mean is the loss.
    assert float(output.loss.detach()) == pytest.approx(float(sum(r["loss"] for r in results) / 2), abs=1e-5)
    expected = gradients(method)
    assert results[0]["gradients"].keys() == expected.keys()
    for name, gradient in expected.items():
        for result in results:
            torch.testing.assert_close(result["gradients"][name], gradient, atol=1e-7, rtol=1e-5, msg=name)
