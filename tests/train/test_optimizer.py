"""Optimisers: groups, rates and one step of each against its formula."""

import copy
import itertools
from typing import Any, Literal

import pytest
import timm
import torch
from torch import Tensor, nn

from d3ssl.errors import InputError
from d3ssl.train.optimizer import OptimizerConfig, base_lr, make_optimizer

Name = Literal["lars", "sgd", "adamw"]
NAMES: tuple[Name, ...] = ("lars", "sgd", "adamw")


def make_network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))


def step_of(optimizer: torch.optim.Optimizer, network: nn.Module, gradients: list[Tensor]) -> None:
    for parameter, gradient in zip(network.parameters(), gradients, strict=True):
        parameter.grad = gradient.clone()
    optimizer.step()


def run(
    config: OptimizerConfig, steps: int = 3, batch: int = 512
) -> tuple[list[Tensor], list[list[Tensor]], list[Tensor]]:
    """Parameters before, gradients of every step, parameters after."""
    network = make_network()
    before = [p.detach().clone() for p in network.parameters()]
    gradients = [[torch.randn_like(p) for p in before] for _ in range(steps)]
    optimizer = make_optimizer(network, config, batch)
    for gradient in gradients:
        step_of(optimizer, network, gradient)
    return before, gradients, [p.detach() for p in network.parameters()]


@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
def test_lars_equals_its_formula(weight_decay: float) -> None:
    """Also without weight decay, where timm's LARS would not adapt if it were not asked to."""
    config = OptimizerConfig(name="lars", lr=0.5, weight_decay=weight_decay, trust_coefficient=0.02)
    before, gradients, after = run(config)
    for number, (start, end) in enumerate(zip(before, after, strict=True)):
        value, momentum = start.clone(), torch.zeros_like(start)
        for step in gradients:
            gradient = step[number]
            if value.ndim > 1:
                ratio = 0.02 * value.norm() / (gradient.norm() + weight_decay * value.norm())
                gradient = ratio * (gradient + weight_decay * value)
            momentum = 0.9 * momentum + gradient
            value = value - 1.0 * momentum  # 0.5 · 512/256
        torch.testing.assert_close(end, value, atol=1e-6, rtol=1e-5)


def test_sgd_equals_its_formula() -> None:
    before, gradients, after = run(OptimizerConfig(name="sgd", lr=0.3, weight_decay=0.01))
    for number, (start, end) in enumerate(zip(before, after, strict=True)):
        value, momentum = start.clone(), torch.zeros_like(start)
        for step in gradients:
            momentum = 0.9 * momentum + step[number] + (0.01 * value if value.ndim > 1 else 0)
            value = value - 0.6 * momentum
        torch.testing.assert_close(end, value, atol=1e-6, rtol=1e-5)


def test_adamw_equals_its_formula() -> None:
    config = OptimizerConfig(name="adamw", lr=0.01, weight_decay=0.05, betas=(0.8, 0.95))
    before, gradients, after = run(config)
    for number, (start, end) in enumerate(zip(before, after, strict=True)):
        value, first, second = start.clone(), torch.zeros_like(start), torch.zeros_like(start)
        for count, step in enumerate(gradients, 1):
            value = value * (1 - 0.01 * (0.05 if value.ndim > 1 else 0))
            first = 0.8 * first + 0.2 * step[number]
            second = 0.95 * second + 0.05 * step[number] ** 2
            value = value - 0.01 * (first / (1 - 0.8**count)) / ((second / (1 - 0.95**count)).sqrt() + 1e-8)
        torch.testing.assert_close(end, value, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_groups(name: Name) -> None:
    config = OptimizerConfig(name=name, lr=0.4, weight_decay=0.02)
    network, predictor = make_network(), nn.Linear(2, 2)
    linear, conv = network[3], network[0]
    assert isinstance(linear, nn.Linear)
    assert isinstance(conv, nn.Conv2d)
    linear.weight.requires_grad_(False)
    predictor.again = conv.weight
    optimizer = make_optimizer([network, predictor, nn.Identity()], config, 128)
    decayed, plain = optimizer.param_groups
    assert {p.ndim for p in decayed["params"]} == {2, 4}
    assert {p.ndim for p in plain["params"]} == {1}
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.02, 0.0)
    assert len(decayed["params"]) + len(plain["params"]) == 2 + 2 + 1 + 2
    assert decayed["base_lr"] == plain["base_lr"] == decayed["lr"] == base_lr(config, 128)


def test_rates_follow_the_batch_where_they_should() -> None:
    cases: list[tuple[Name, bool | None, float]] = [
        ("lars", None, 0.2), ("sgd", None, 0.2), ("adamw", None, 0.1), ("lars", False, 0.1), ("adamw", True, 0.2),
    ]  # fmt: skip
    for name, scale, expected in cases:
        assert base_lr(OptimizerConfig(name=name, lr=0.1, scale_lr=scale), 512) == pytest.approx(expected)


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_state_continues_bitwise(name: Name, tmp_path: Any) -> None:
    config = OptimizerConfig(name=name, lr=0.1, weight_decay=0.01)
    network = make_network()
    optimizer = make_optimizer(network, config, 256)
    gradients = [torch.randn_like(p) for p in network.parameters()]
    step_of(optimizer, network, gradients)
    torch.save(optimizer.state_dict(), tmp_path / "state.pt")
    twin = copy.deepcopy(network)
    resumed = make_optimizer(twin, config, 256)
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert resumed.param_groups[0]["base_lr"] == 0.1
    step_of(optimizer, network, gradients)
    step_of(resumed, twin, gradients)
    for one, other in zip(network.parameters(), twin.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    "wrong",
    [
        {"lr": 0.0},
        {"lr": float("nan")},
        {"weight_decay": -1.0},
        {"momentum": 1.0},
        {"trust_coefficient": 0.0},
        {"betas": (0.9, 1.0)},
        {"eps": 0.0},
    ],
)
def test_values_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"optimizer.{next(iter(wrong))}"):
        make_optimizer(nn.Linear(2, 2), OptimizerConfig(**wrong), 256)


def test_rates_fall_towards_the_first_layer() -> None:
    net = timm.create_model("test_vit", num_classes=0)
    head = nn.Linear(4, 4)
    optimizer = make_optimizer([net, head], OptimizerConfig(name="adamw", lr=1.0, layer_decay=0.5), 256)
    rate = {p: group["base_lr"] for group in optimizer.param_groups for p in group["params"]}
    blocks = [rate[block.attn.qkv.weight] for block in net.blocks]  # type: ignore[union-attr]
    assert all(later == 2 * earlier for earlier, later in itertools.pairwise(blocks))
    assert rate[net.patch_embed.proj.weight] == rate[net.pos_embed] == blocks[0] / 2  # type: ignore[union-attr]
    assert rate[head.weight] == rate[head.bias] == 1.0
    assert all(group["weight_decay"] == 0 for group in optimizer.param_groups if group["params"][0].ndim <= 1)


def test_rates_by_layer_need_layers() -> None:
    with pytest.raises(InputError, match="layers"):
        make_optimizer(make_network(), OptimizerConfig(name="adamw", layer_decay=0.5), 256)
