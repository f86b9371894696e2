"""N steps, a checkpoint and N more are 2N steps bit for bit, for every host with and without the modules."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from d3ssl.train import checkpoint
from d3ssl.train.loop import Trainer
from tests.train.examples import batches, make_config, make_trainer


def states(trainer: Trainer) -> dict[str, Tensor]:
    """All that a run carries from step to step."""
    optimizer = trainer.optimizer.state_dict()["state"]
    moments = {f"optimizer.{i}.{key}": value for i, own in optimizer.items() for key, value in own.items()}
    return {**trainer.learner.state_dict(), **moments}


HOSTS: list[tuple[str, dict[str, Any]]] = [
    (host, {"loss": loss}) for host in ("soco", "byol") for loss in ("regression", "info_nce")
]
HOSTS += [("detcon", {}), ("densecl", {}), ("ibot", {"local_crops": 1, "local_size": 32})]


@pytest.mark.parametrize("modules", ["", "DC DP"])
@pytest.mark.parametrize(("host", "options"), HOSTS)
def test_a_run_that_was_stopped_goes_on_bit_for_bit(
    host: str, options: dict[str, Any], modules: str, tmp_path: Path
) -> None:
    config = make_config(host, modules, host_options=options, accumulate=2, batch_size=12)
    whole, first, second = (make_trainer(config) for _ in range(3))
    source = batches(config)
    for _ in range(4):
        whole.train_step(source)
    source = batches(config)
    for _ in range(2):
        first.train_step(source)
    first.save(tmp_path, "digest")
    torch.rand(3)  # the global generator has no part in it
    second.restore(checkpoint.load(tmp_path, config, "digest"))
    assert second.step == 2
    for _ in range(2):
        second.train_step(source)
    expected, found = states(whole), states(second)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    name = next(name for name in expected if name.startswith("student.backbone.net."))
    assert not torch.equal(states(first)[name], expected[name])
    remembered = [name for name in expected if name.startswith("memories.") and expected[name].ndim]
    assert bool(remembered) == (host in ("densecl", "ibot"))  # queues, centres
    assert all(not torch.equal(states(first)[name], expected[name]) for name in remembered)
