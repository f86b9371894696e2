"""Read-outs and figures on features whose answer is known: random ones, coordinates, mixtures with the neighbour."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge as SklearnRidge

from d3ssl.diagnose.estimates import estimate_ratio
from d3ssl.diagnose.measure import Facts, Features, Measured, measure
from d3ssl.diagnose.readouts import (
    Readout,
    enough,
    fit_ridge,
    most_frequent,
    neighbour_leakage,
    object_folds,
    read_place,
)
from d3ssl.errors import InputError
from d3ssl.seeds import numpy_generator, torch_generator

CLASSES = 3
SIZE = 12
PLACES = torch.tensor([[x, y] for y in (0.2, 0.5, 0.8) for x in (0.2, 0.5, 0.8)], dtype=torch.float64)


def world(alpha: float = 0.0, beta: float = 0.0, count: int = 48, seed: int = 0) -> tuple[Features, Facts]:
    """Features of objects, with a share α of what stands beside them and β times their place mixed in."""
    generator = torch_generator("world", seed)
    own = torch.randn(count, 1, SIZE, generator=generator)
    beside = torch.randn(count, 5, SIZE, generator=generator)
    of_class = torch.randn(CLASSES, SIZE, generator=generator)
    label = torch.arange(2 * CLASSES) % CLASSES
    neighbour = of_class[label] + 0.5 * torch.randn(count, 2 * CLASSES, SIZE, generator=generator)
    place = PLACES.float() @ torch.randn(2, SIZE, generator=generator)
    noise = 0.3 * torch.randn(count, 9, SIZE, generator=generator)
    features = Features(
        context=(1 - alpha) * own + alpha * beside,
        position=own + beta * place + noise,
        neighbour=(1 - alpha) * own + alpha * neighbour,
        receptive=np.linspace(0.2, 0.4, count),
    )
    facts = Facts(
        identities=np.arange(count) + 100,
        centres=np.broadcast_to(PLACES.numpy(), (count, 9, 2)).copy(),
        cells=np.tile(np.arange(9), (count, 1)),
        neighbour_label=label.numpy(),
        neighbour_distance=np.arange(2 * CLASSES) // CLASSES,
        neighbour_fold=np.arange(count) % 3,
        digest="",
    )
    return features, facts


def figures(alpha: float = 0.0, beta: float = 0.0) -> Measured:
    features, facts = world(alpha, beta)
    return measure([features], [facts], 200, 0)


def value(measured: Measured, name: str) -> float:
    return getattr(measured, name).value


def test_a_share_of_the_neighbour_raises_leakage_and_context_sensitivity_step_by_step() -> None:
    found = [figures(alpha=alpha) for alpha in (0.0, 0.15, 0.3, 0.5)]
    leakage = [value(own, "neighbour_leakage") for own in found]
    context = [value(own, "context_sensitivity") for own in found]
    assert leakage == sorted(leakage) and leakage[-1] > 0.5
    assert context == sorted(context) and context[0] == pytest.approx(0, abs=1e-6) and context[-1] > 0.3
    assert abs(leakage[0]) < 0.1
    assert set(found[0].by_distance) == {"touching", "far"}
    mean = np.mean([own.value for own in found[-1].by_distance.values()])
    assert mean == pytest.approx(leakage[-1])  # as many scenes of both


def test_position_times_beta_raises_what_is_read_of_it_step_by_step() -> None:
    found = [figures(beta=beta) for beta in (0.0, 0.5, 1.0, 3.0)]
    r2 = [value(own, "position_r2") for own in found]
    accuracy = [value(own, "location_accuracy") for own in found]
    assert r2 == sorted(r2) and abs(r2[0]) < 0.05 and r2[-1] > 0.7
    assert accuracy[0] < 0.2 and accuracy[-1] > accuracy[0] + 0.2
    sensitivity = [value(own, "position_sensitivity") for own in found]
    assert sensitivity == sorted(sensitivity)


def test_random_features_tell_nothing() -> None:
    features, facts = world()
    noise = torch.randn(48, 6, SIZE, generator=torch_generator("noise"))
    position = torch.randn(48, 9, SIZE, generator=torch_generator("noise", 1))
    found = measure([replace(features, neighbour=noise, position=position)], [facts], 300, 0)
    assert found.neighbour_leakage is not None and found.position_r2 is not None
    assert found.neighbour_leakage.low - 0.05 < 0 < found.neighbour_leakage.high + 0.05
    assert abs(found.neighbour_leakage.value) < 0.15
    assert abs(found.position_r2.value) < 0.05
    assert abs(value(found, "location_accuracy") - 1 / 9) < 0.06


def test_coordinates_are_read_exactly() -> None:
    features, facts = world()
    coordinates = PLACES.float().expand(48, 9, 2) + 0.001 * torch.randn(48, 1, 2, generator=torch_generator(0))
    found = measure([replace(features, position=coordinates)], [facts], 200, 0)
    assert value(found, "position_r2") > 0.999
    assert value(found, "location_accuracy") > 0.9
    assert value(found, "position_sensitivity") > 5


def test_scale_and_order_do_not_matter() -> None:
    features, facts = world(0.3, 0.5)
    expected = measure([features], [facts], 200, 0)
    order = numpy_generator("order").permutation(48)
    mixed = Features(
        context=1000 * features.context[order],  # type: ignore[index]
        position=1000 * features.position[order],  # type: ignore[index]
        neighbour=1000 * features.neighbour[order],  # type: ignore[index]
        receptive=features.receptive[order],  # type: ignore[index]
    )
    moved = replace(facts, identities=facts.identities[order], neighbour_fold=facts.neighbour_fold[order])  # type: ignore[index]
    found = measure([mixed], [moved], 200, 0)
    for name, wanted in expected.as_dict().items():
        assert found.as_dict()[name] == pytest.approx(wanted, rel=1e-3, abs=1e-3), name


def test_intervals_shrink_like_one_by_the_root_of_the_number_of_objects() -> None:
    widths = {}
    for count in (40, 640):
        features, facts = world(0.3, 0.5, count=count)
        some = replace(features, position=None, neighbour=None)
        found = measure([some], [facts], 1000, 0)
        for name in ("context_sensitivity", "receptive_leakage"):
            own = getattr(found, name)
            widths[name, count] = own.high - own.low
            assert own.low < own.value < own.high
    for name in ("context_sensitivity", "receptive_leakage"):
        assert 2.7 < widths[name, 40] / widths[name, 640] < 5.5  # 4


def test_few_objects_are_not_read_out() -> None:
    features, facts = world(count=8)
    found = measure([features], [facts], 100, 0)
    assert found.context_sensitivity is not None and found.receptive_leakage is not None
    assert found.position_r2 is None and found.location_accuracy is None and found.neighbour_leakage is None
    assert found.as_dict()["position_r2_low"] is None


def test_sets_are_averaged_and_an_object_of_two_sets_is_held_out_in_both() -> None:
    parts = [world(0.3, 0.5, seed=seed) for seed in range(2)]
    found = measure([one for one, _ in parts], [two for _, two in parts], 200, 0)
    for name in ("neighbour_leakage", "position_r2", "receptive_leakage"):
        own = getattr(found, name)
        assert own.value == pytest.approx(np.mean(own.by_seed)) and len(own.by_seed) == 2
    folds = object_folds([np.array([5, 7, 9, 11]), np.array([11, 5, 2, 3])], 0)
    assert folds[0][0] == folds[1][1] and folds[0][3] == folds[1][0]


def test_an_object_held_out_is_not_fitted() -> None:
    """Features that name the object by itself, and a place that only the object decides: nothing can be known."""
    count = 30
    x = torch.eye(count)[:, None].expand(-1, 4, -1)
    identities = np.arange(count)
    place = numpy_generator("place").normal(size=(count, 1, 2)).repeat(4, axis=1)
    sets = [Readout(x=x, identities=identities, fold=object_folds([identities], 0)[0])]
    errors, spread = read_place(sets, [place], 0)[0]
    assert 1 - errors.sum() / spread.sum() < 0.02
    assert (errors > 0).all()


def test_ridge_equals_sklearns() -> None:
    generator = numpy_generator("ridge")
    for count, size in ((60, 8), (40, 90)):
        x, image = generator.normal(size=(count, size)), np.arange(count)
        y = x[:, :2] + 0.3 * generator.normal(size=(count, 2))
        found = fit_ridge(x, y, image, 0)
        oracle = SklearnRidge(alpha=found.strength * count).fit((x - x.mean(axis=0)) / x.std(axis=0), y)
        expected = oracle.predict((x - x.mean(axis=0)) / x.std(axis=0)).clip(y.min(axis=0), y.max(axis=0))
        np.testing.assert_allclose(found.predict(x), expected, rtol=1e-6, atol=1e-8)
    silent = np.concatenate([x, np.ones((count, 1))], axis=1)
    np.testing.assert_allclose(fit_ridge(silent, y, image, 0).predict(silent), expected, rtol=1e-6, atol=1e-8)
    assert np.abs(found.predict(1e6 * x)).max() <= np.abs(y).max()


def test_leakage_is_chance_0_and_certainty_1() -> None:
    labels, ids = [np.tile([0, 1, 2, 0], (10, 1))], [np.arange(10)]
    assert most_frequent(labels) == 0.5
    always = neighbour_leakage([np.ones((10, 4), dtype=bool)], labels, ids, 100, numpy_generator(0))
    commonest = neighbour_leakage([labels[0] == 0], labels, ids, 100, numpy_generator(0))
    assert (always.value, always.low, always.high) == (1, 1, 1) and commonest.value == 0
    with pytest.raises(InputError, match="one class"):
        neighbour_leakage([np.ones((10, 4), dtype=bool)], [np.zeros((10, 4), dtype=int)], ids, 100, numpy_generator(0))


def test_a_ratio_counts_objects_by_what_they_weigh() -> None:
    parts = [(np.array([1.0, 0.0, 3.0]), np.array([1.0, 2.0, 3.0]))]
    found = estimate_ratio(parts, [np.arange(3)], 500, numpy_generator(0), scale=2.0, offset=-1.0)
    assert found.value == pytest.approx(2 * 4 / 6 - 1) and found.by_seed == (found.value,)
    assert -1 <= found.low < found.value < found.high <= 1


def test_a_read_out_needs_parts_and_objects() -> None:
    x, ids = torch.randn(12, 2, 3), np.arange(12)
    assert enough([Readout(x=x, identities=ids, fold=ids % 3)])
    assert not enough([Readout(x=x, identities=ids, fold=0 * ids)])
    assert not enough([Readout(x=x[:6], identities=ids[:6], fold=ids[:6] % 3)])
