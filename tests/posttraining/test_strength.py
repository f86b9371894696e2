"""The dial: retrieval with known answers, and the rule that proposes a strength."""

from __future__ import annotations

import pytest
import torch

from d3ssl.posttraining import Retrieval, propose, retrieve


def frontier(*rows: tuple[float, float, float]) -> list[Retrieval]:
    return [Retrieval(strength=s, familiar=f, unfamiliar=u) for s, f, u in rows]


def test_the_same_rows_are_all_found_and_shuffled_ones_are_not() -> None:
    rows, image = torch.randn(30, 8), torch.arange(30)
    assert retrieve(rows, rows, image) == 1.0
    assert retrieve(rows, rows.roll(1, 0), image) == 0.0


def test_retrieval_is_that_of_a_loop() -> None:
    memory, queries, image = torch.randn(20, 4), torch.randn(20, 4), torch.arange(20) // 3
    hits, mean = 0, memory.mean(0)
    for query in range(20):
        scores = {
            other: torch.cosine_similarity(queries[query] - mean, memory[other] - mean, dim=0).item()
            for other in range(20)
            if other == query or image[other] != image[query]
        }
        hits += max(scores, key=scores.__getitem__) == query
    assert retrieve(memory, queries, image) == pytest.approx(hits / 20)


def test_other_regions_of_the_own_image_do_not_compete() -> None:
    memory = torch.eye(4)
    queries = memory[[1, 0, 2, 3]]
    assert retrieve(memory, queries, torch.tensor([0, 0, 1, 2])) == 1.0
    assert retrieve(memory, queries, torch.arange(4)) == 0.5


def test_the_most_unfamiliar_gain_that_costs_at_most_a_point() -> None:
    rows = frontier((0.0, 0.80, 0.30), (0.25, 0.80, 0.40), (0.5, 0.79, 0.50), (0.75, 0.78, 0.60))
    assert propose(rows) == 0.5


def test_the_start_where_nothing_gains() -> None:
    assert propose(frontier((0.0, 0.8, 0.3), (0.5, 0.8, 0.3), (1.0, 0.9, 0.2))) == 0.0


def test_of_equal_gains_the_weaker() -> None:
    assert propose(frontier((0.0, 0.8, 0.3), (0.5, 0.8, 0.4), (1.0, 0.8, 0.4))) == 0.5
