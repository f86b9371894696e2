"""What a training step waits for and what it sends: data-dependent operations and collectives, counted."""

import contextlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

import d3ssl.train.loop
from d3ssl.methods.losses.queue import Queue
from tests.train.examples import batches, make_config, make_trainer

WAITING_METHODS = ("item", "tolist", "__bool__", "__float__", "__int__", "__index__", "numpy", "cpu")
WAITING_OPERATORS = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "is_nonzero", "equal")


class OnDevice:
    """Which tensors would lie on the device: what came by ``to_device``, parameters, and all that is made of them."""

    def __init__(self) -> None:
        self.known: set[int] = set()
        self.kept: list[torch.Tensor] = []  # so that no address is used again while counting

    def add(self, tensor: torch.Tensor) -> None:
        self.known.add(self._key(tensor))
        self.kept.append(tensor.detach())

    def __contains__(self, tensor: object) -> bool:
        return isinstance(tensor, torch.Tensor) and self._key(tensor) in self.known

    @staticmethod
    def _key(tensor: torch.Tensor) -> int:
        return tensor.untyped_storage()._cdata


class Spread(TorchDispatchMode):
    """Whatever is computed from a tensor on the device lies there too; operators that would wait are counted."""

    def __init__(self, device: OnDevice, waits: Counter[str]) -> None:
        super().__init__()
        self.device, self.waits = device, waits

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        if any(leaf in self.device for leaf in inputs):
            name = func.overloadpacket.__name__
            by_mask = name.startswith("index") and any(leaf.dtype in (torch.bool, torch.uint8) for leaf in inputs[1:2])
            if name in WAITING_OPERATORS or by_mask:
                self.waits[name] += 1
            for leaf in tree_leaves(out):
                if isinstance(leaf, torch.Tensor):
                    self.device.add(leaf)
        return out


class Methods(TorchFunctionMode):
    """Methods that bring a value to Python, which on the CPU need no operator."""

    def __init__(self, device: OnDevice, waits: Counter[str]) -> None:
        super().__init__()
        self.device, self.waits = device, waits

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        name = getattr(func, "__name__", "")
        if name in WAITING_METHODS and args and args[0] in self.device:
            self.waits[name] += 1
            with torch._C.DisableTorchFunctionSubclass(), _no_dispatch():
                return func(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def _no_dispatch() -> Iterator[None]:
    """So that ``tolist`` of n numbers is one wait, not n."""
    with _disable_current_modes():
        yield


@contextlib.contextmanager
def counted_waits(trainer: d3ssl.train.loop.Trainer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    device, waits = OnDevice(), Counter()
    for tensor in (*trainer.learner.parameters(), *trainer.learner.buffers()):
        device.add(tensor)
    to_device = d3ssl.train.loop.to_device

    def travel(batch: Any, where: torch.device) -> Any:
        def moved(tensor: torch.Tensor) -> torch.Tensor:
            copy = tensor.clone()
            device.add(copy)
            return copy

        return d3ssl.train.loop.map_tensors(to_device(batch, where), moved)

    monkeypatch.setattr(d3ssl.train.loop, "to_device", travel)
    with Spread(device, waits), Methods(device, waits):
        yield waits


def test_the_counter_counts() -> None:
    device, waits = OnDevice(), Counter()
    on_device, elsewhere = torch.rand(5), torch.rand(5)
    device.add(on_device)
    with Spread(device, waits), Methods(device, waits):
        for tensor in (elsewhere, on_device):
            before = waits.total()
            (tensor * 2).tolist()
            bool(tensor.sum() > 0)
            tensor[tensor > 0.5].sum()
            (tensor > 0).nonzero()
            tensor[0].item()
            assert waits.total() - before == (0 if tensor is elsewhere else 5)


CASES: list[tuple[str, str, dict[str, Any]]] = [
    (host, modules, options)
    for host in ("soco", "byol")
    for modules, options in (("", {}), ("DC DP", {}), ("DC DP", {"loss": "info_nce"}))
]
CASES += [("detcon", modules, {}) for modules in ("", "DC DP")]
CASES += [(host, modules, {}) for host in ("densecl", "ibot") for modules in ("", "DC DP")]


@pytest.mark.parametrize(("host", "modules", "options"), CASES)
def test_a_step_waits_for_the_device_once(
    host: str, modules: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(host, modules, host_options=options)
    trainer, source = make_trainer(config), batches(config)
    trainer.train_step(source)  # the optimiser makes its state
    for _ in range(2):  # one step that is logged, one that is not
        with monkeypatch.context() as patch, counted_waits(trainer, patch) as waits:
            trainer.train_step(source)
        assert waits == {"tolist": 1}


def test_an_fpn_and_accumulated_parts_wait_once_too(monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_config("soco", "DC DP", host_options={"region_path": "fpn"}, accumulate=3, clip_grad_norm=1.0)
    trainer, source = make_trainer(config), batches(config)
    trainer.train_step(source)
    with counted_waits(trainer, monkeypatch) as waits:
        trainer.train_step(source)
    assert waits == {"tolist": 1}


# ---- collectives --------------------------------------------------------------------------------------------------


@pytest.fixture
def group(tmp_path) -> Iterator[None]:  # type: ignore[no-untyped-def]
    """A process group of one process."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize(("host", "modules", "options"), CASES)
@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.usefixtures("group")
def test_the_messages_of_a_step(
    host: str, modules: str, options: dict[str, Any], accumulate: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One small vector per part; for InfoNCE the teacher's keys of each view and where the rows come from; and what
    each memory of a loss takes from the step: the keys of a queue, the sum for a centre."""
    config = make_config(host, modules, host_options=options, accumulate=accumulate)
    trainer, source, sent = make_trainer(config), batches(config), Counter()
    for name in ("all_reduce", "all_gather", "broadcast", "all_gather_object", "barrier", "reduce_scatter"):
        own = getattr(dist, name)

        def count(*args: Any, name: str = name, own: Any = own, **options: Any) -> Any:
            sent[name] += 1
            return own(*args, **options)

        monkeypatch.setattr(dist, name, count)
    contrasting = {name: o for name, o in trainer.learner.plan.objectives.items() if o.loss.contrasts}
    kinds = {objective.reader.rows for objective in contrasting.values()}
    read = {(p.teacher, o.shares or n) for n, o in contrasting.items() for p in o.pairs}
    gathered = accumulate * (len(read) + len(kinds))
    memories = list(trainer.learner.memories.values())
    queues = sum(isinstance(memory, Queue) for memory in memories)
    for step in (1, 2, 3):
        sent.clear()
        trainer.train_step(source)
        reduced = accumulate + trainer.is_logged(step) + len(memories) - queues
        expected = Counter(all_reduce=reduced, all_gather=gathered + queues)
        assert sent == expected
