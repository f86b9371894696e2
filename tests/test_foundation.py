"""The foundation: seeds, collectives of one process, contracts, errors, progress."""

from __future__ import annotations

import io

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from d3ssl import console
from d3ssl.contracts import CanvasBatch, Rows, Slots, View, ViewSet, map_tensors, to_device
from d3ssl.distributed import all_reduce_sum, barrier, gather_rows, is_active, rank, world_size
from d3ssl.errors import CheckpointError, D3sslError, InputError, nearest
from d3ssl.seeds import derive_seed, numpy_generator, torch_generator

# --- seeds ---------------------------------------------------------------------------------------------------------


def test_seeds_are_the_same_everywhere() -> None:
    assert derive_seed(0, "views", 3) == 3226641246303733670
    assert derive_seed(0, "views", 3) != derive_seed(0, "views", 4)
    assert derive_seed(1, "2") != derive_seed("1", 2) != derive_seed(12)
    assert torch.equal(torch.rand(3, generator=torch_generator(1)), torch.rand(3, generator=torch_generator(1)))
    assert numpy_generator(1).integers(10**9) == numpy_generator(1).integers(10**9)
    assert numpy_generator(1).integers(10**9) != numpy_generator(2).integers(10**9)


@given(st.lists(st.integers() | st.text(), max_size=4), st.lists(st.integers() | st.text(), max_size=4))
def test_seeds_fit_63_bits_and_differ_with_their_parts(first: list[int | str], second: list[int | str]) -> None:
    assert 0 <= derive_seed(*first) < 2**63
    if "\x1f" not in "".join(map(str, first + second)):
        assert (derive_seed(*first) == derive_seed(*second)) == (first == second)


# --- one process ---------------------------------------------------------------------------------------------------


def test_collectives_of_one_process_change_nothing() -> None:
    assert not is_active()
    assert (rank(), world_size()) == (0, 1)
    barrier()
    rows = torch.randn(5, 3, requires_grad=True)
    gathered = gather_rows(rows)
    assert torch.equal(gathered, rows)
    assert not gathered.requires_grad
    summed = all_reduce_sum(rows)
    assert torch.equal(summed, rows)
    assert not summed.requires_grad
    summed += 1  # a copy, not the input
    assert not torch.equal(summed, rows)


# --- contracts -----------------------------------------------------------------------------------------------------


def make_canvas_batch(labels: bool) -> CanvasBatch:
    return CanvasBatch(
        canvas=torch.zeros(2, 3, 8, 8, dtype=torch.uint8),
        image_size=torch.ones(2, 2),
        boxes=torch.ones(2, 4, 4),
        valid=torch.ones(2, 4, dtype=torch.bool),
        labels=torch.ones(2, 8, 8, dtype=torch.uint8) if labels else None,
        index=torch.arange(2),
    )


@pytest.mark.parametrize("labels", [True, False])
def test_map_tensors_reaches_every_tensor_and_leaves_the_rest(labels: bool) -> None:
    batch = make_canvas_batch(labels)
    seen: list[torch.Tensor] = []

    def flip(tensor: torch.Tensor) -> torch.Tensor:
        seen.append(tensor)
        return tensor.flip(0)

    mapped = map_tensors(batch, flip)
    assert len(seen) == (6 if labels else 5)
    assert mapped.index.tolist() == [1, 0]
    assert batch.index.tolist() == [0, 1]
    assert (mapped.labels is None) == (not labels)
    assert map_tensors("text", flip) == "text"
    assert map_tensors(None, flip) is None


def test_map_tensors_goes_into_nested_contracts() -> None:
    def view(value: float) -> View:
        return View(images=torch.full((2, 3, 4, 4), value), boxes=torch.ones(2, 4, 4), matrix=torch.ones(2, 3, 3))

    slots = Slots(
        distinct=torch.ones(2, 4, dtype=torch.bool),
        source=torch.arange(4).repeat(2, 1),
        weight=torch.ones(2, 4),
        boxes=torch.ones(2, 4, 4),
        index=torch.arange(2),
    )
    views = ViewSet(views={"x1": view(1.0), "x2": view(2.0)}, slots=slots, scale=torch.tensor(0.5))
    doubled = map_tensors(views, lambda tensor: tensor * 2 if tensor.is_floating_point() else tensor)
    for number, name in enumerate(views.views, start=1):
        assert torch.equal(doubled.views[name].images, torch.full((2, 3, 4, 4), 2.0 * number))
        assert doubled.views[name].keep is None
    assert torch.equal(doubled.slots.weight, torch.full((2, 4), 2.0))
    assert doubled.slots.source.tolist() == slots.source.tolist()
    assert doubled.scale == 1.0
    moved = to_device(Rows(image=torch.arange(3), boxes=torch.ones(3, 4), weight=torch.ones(3), start=2), "cpu")
    assert moved.image.tolist() == [0, 1, 2]
    assert moved.start == 2


# --- errors --------------------------------------------------------------------------------------------------------


def test_errors_say_where_what_and_what_to_do() -> None:
    error = InputError("is empty", path="a/b.json", remedy="fill it.")
    assert str(error) == "a/b.json: is empty\n  What to do: fill it."
    assert isinstance(error, D3sslError)
    assert isinstance(CheckpointError("x"), D3sslError)
    assert str(D3sslError("is empty")) == "is empty"


def test_nearest_names_the_closest_and_lists_the_known() -> None:
    assert nearest("resnet5O", ["vit", "resnet50"]) == "did you mean 'resnet50'? Known: resnet50, vit."
    assert nearest("qqq", ["vit", "resnet50"]) == "Known: resnet50, vit."
    assert nearest("x", [f"name{number:02d}" for number in range(40)]).endswith("name29, ….")


def test_nearest_looks_in_the_group_of_a_dotted_name_then_in_the_others() -> None:
    known = ["data", "host", "host.flip", "host.roi_size", "train.steps", "train.epochs"]
    assert nearest("host.roi_sizes", known) == "did you mean 'host.roi_size'? Known: host.flip, host.roi_size."
    assert nearest("host.xyz", known) == "Known: host.flip, host.roi_size."
    assert nearest("train.roi_size", known).startswith("did you mean 'host.roi_size'? Known: train.epochs")
    assert nearest("trian.steps", known).startswith("did you mean 'train.steps'? Known: data, ")


# --- console -------------------------------------------------------------------------------------------------------


@pytest.fixture
def output(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    stream = io.StringIO()
    monkeypatch.setattr(console, "console", Console(file=stream, width=200, highlight=False))
    return stream


def test_progress_outside_a_terminal_prints_a_line_now_and_then(
    output: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(console.time, "monotonic", lambda: now)
    with console.progress("making", total=10) as bar:
        for step in range(10):
            now += 4.0
            bar.advance(note=f"loss {step}")
    lines = output.getvalue().splitlines()
    # Every 15 s or more: at 16 s and at 32 s; then the end.
    assert lines == [
        "making: 4/10, 0:24 left  loss 3",
        "making: 8/10, 0:08 left  loss 7",
        "making: 10/10 in 0:40  loss 9",
    ]


def test_resumed_progress_does_not_count_earlier_work_into_the_rate(
    output: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(console.time, "monotonic", lambda: now)
    with console.progress("making", total=5000, start=1000) as bar:
        now += 20.0
        bar.advance(10)
    assert output.getvalue().splitlines()[0].startswith("making: 1010/5000, 2:13:00 left")


def test_progress_in_a_terminal_shows_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(console, "console", Console(file=stream, width=120, force_terminal=True))
    with console.progress("making", total=2) as bar:
        bar.advance()
        bar.advance(note="done")
    assert "making" in stream.getvalue()
    assert "2/2" in stream.getvalue()


def test_messages_are_printed_as_they_are(output: io.StringIO) -> None:
    console.say("a [bold] path /x[1].png")
    console.warn("something [odd]", "do this.")
    assert output.getvalue().splitlines() == [
        "a [bold] path /x[1].png",
        "warning: something [odd]",
        "  What to do: do this.",
    ]


def test_long_lines_for_people_are_not_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(console, "console", Console(file=stream, width=80, highlight=False))
    console.say("word " * 40 + "end")
    assert stream.getvalue() == "word " * 40 + "end\n"


def test_tables_go_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    console.show_table("Results", ("", "host", "both"), [("o_knn", "0.1", "0.2")])
    shown = capsys.readouterr()
    assert "o_knn" in shown.out
    assert "Results" in shown.out
    assert shown.err == ""
