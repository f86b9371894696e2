"""Synchronised batch norm equals batch norm on the concatenated batch."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from timm.layers.norm_act import BatchNormAct2d
from torch import nn

from d3ssl.errors import InputError
from d3ssl.models.sync_batch_norm import SynchronisedBatchNorm, convert_sync_batch_norm

CASES = {
    "rows": ((5, 3, 4), lambda: nn.BatchNorm1d(4)),
    "maps": ((2, 6, 4, 5, 3), lambda: nn.BatchNorm2d(4)),
    "no rows in one": ((4, 0, 4), lambda: nn.BatchNorm1d(4)),
    "no maps in one": ((0, 3, 4, 5, 3), lambda: nn.BatchNorm2d(4)),
    "one row each": ((1, 1, 4), lambda: nn.BatchNorm1d(4)),
    "plain average": ((5, 3, 4), lambda: nn.BatchNorm1d(4, momentum=None)),
    "no affine": ((5, 3, 4), lambda: nn.BatchNorm1d(4, affine=False)),
    "no statistics": ((5, 3, 4, 2, 2), lambda: nn.BatchNorm2d(4, track_running_stats=False)),
    "with activation": ((5, 3, 4, 2, 2), lambda: BatchNormAct2d(4)),
    "in a network": ((3, 2, 4, 6, 6), lambda: nn.Sequential(nn.Conv2d(4, 3, 3), nn.BatchNorm2d(3), nn.ReLU())),
}


def make_case(name: str) -> tuple[nn.Module, list[torch.Tensor], list[torch.Tensor]]:
    """Module, inputs of two steps, gradients of the outputs of two steps; all of the concatenated batch, float64.

    The mean is far from 0, so that the variance has digits to lose.
    """
    torch.manual_seed(sum(map(ord, name)))
    (first, second, *rest), make = CASES[name]
    module = make().double().train()
    for parameter in module.parameters():
        parameter.data = torch.randn_like(parameter)
    inputs = [torch.randn(first + second, *rest, dtype=torch.float64) * 3 + 20 for _ in range(2)]
    with torch.no_grad():
        inputs = [x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x for x in inputs]
        seeds = [torch.randn_like(make().double().train()(x)) for x in inputs]
    return module, inputs, seeds


def run(module: nn.Module, inputs: list[torch.Tensor], seeds: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    found = {}
    for step, (x, seed) in enumerate(zip(inputs, seeds, strict=True)):
        x = x.clone().requires_grad_()
        output = module(x)
        (output * seed).sum().backward()
        assert x.grad is not None
        found |= {f"output {step}": output.detach(), f"input gradient {step}": x.grad}
    found |= {f"gradient of {name}": p.grad for name, p in module.named_parameters() if p.grad is not None}
    with torch.no_grad():
        found["evaluation"] = module.eval()(inputs[0])
    return found | module.state_dict()


def worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    found = {}
    for name, ((first, *_), _) in CASES.items():
        for dtype in (torch.float64, torch.float32):
            module, inputs, seeds = make_case(name)
            rows = slice(0, first) if rank == 0 else slice(first, None)
            module = convert_sync_batch_norm(module).to(dtype)
            found[name, str(dtype)] = run(
                module, [x[rows].to(dtype) for x in inputs], [s[rows].to(dtype) for s in seeds]
            )
    try:
        convert_sync_batch_norm(nn.BatchNorm1d(2))(torch.zeros(1 - rank, 2))
    except ValueError as error:
        found["too few"] = str(error)
    torch.save(found, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    folder = tmp_path_factory.mktemp("processes")
    mp.spawn(worker, args=(str(folder),), nprocs=2)  # type: ignore[attr-defined]
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", CASES)
def test_two_processes_equal_the_concatenated_batch(name: str, dtype: torch.dtype, found: list[dict]) -> None:
    """To 1e-9 in float64. In float32 to 1e-6, beside what batch norm on the concatenated batch loses itself."""
    module, inputs, seeds = make_case(name)
    exact = run(module, inputs, seeds)
    module, inputs, seeds = make_case(name)
    plain = run(module.to(dtype), [x.to(dtype) for x in inputs], [seed.to(dtype) for seed in seeds])
    one, two = (part[name, str(dtype)] for part in found)
    assert one.keys() == two.keys() == exact.keys()
    for key, expected in exact.items():
        if key == "evaluation" or key.startswith(("output", "input")):
            actual = torch.cat([one[key], two[key]])
        elif key.startswith("gradient"):
            actual = one[key] + two[key]  # DDP's work
        else:
            assert torch.equal(one[key], two[key])
            actual = one[key]
        assert actual.shape == expected.shape
        loss = (plain[key] - expected).abs().max()
        allowed = 4 * loss + (1e-9 if dtype == torch.float64 else 1e-6) * (1 + expected.abs().max())
        assert (actual - expected).abs().max() <= allowed, key


def test_fewer_than_two_values_are_refused_in_every_process(found: list[dict]) -> None:
    for part in found:
        assert "two values" in part["too few"]


def test_without_processes_it_is_batch_norm() -> None:
    for name in CASES:
        expected = run(*make_case(name))
        module, inputs, seeds = make_case(name)
        actual = run(convert_sync_batch_norm(module), inputs, seeds)
        assert actual.keys() == expected.keys()
        for key, value in expected.items():
            torch.testing.assert_close(actual[key], value, msg=f"{name}: {key}")


def test_conversion_keeps_names_parameters_and_modes() -> None:
    shared = nn.BatchNorm2d(3)
    inner = nn.Sequential(shared, BatchNormAct2d(3))
    network = nn.Sequential(nn.Conv2d(3, 3, 1), shared, inner, nn.LayerNorm(3)).eval()
    parameters, names = dict(network.named_parameters()), list(network.state_dict())
    converted = convert_sync_batch_norm(network)
    assert converted is network
    assert list(network.state_dict()) == names
    assert all(parameter is parameters[name] for name, parameter in network.named_parameters())
    assert isinstance(network[1], SynchronisedBatchNorm)
    assert inner[0] is network[1]
    assert isinstance(network[3], nn.LayerNorm)
    assert not any(module.training for module in network.modules())
    assert convert_sync_batch_norm(network)[1] is network[1]


def test_an_unknown_kind_of_batch_norm_is_refused() -> None:
    class Odd(nn.BatchNorm2d):
        pass

    with pytest.raises(InputError, match="Odd") as error:
        convert_sync_batch_norm(nn.Sequential(Odd(3)))
    assert "sync_batch_norm false" in str(error.value)
