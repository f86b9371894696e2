"""The parts of the frozen protocols against slow, naive ones."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from d3ssl.evaluate.segmentation import SegmentationConfig, features
from d3ssl.evaluate.segmentation.features import dense_levels, labels_at, name_pixels, soft_labels
from d3ssl.evaluate.segmentation.linear import fit_lbfgs
from d3ssl.evaluate.segmentation.pool import CellPool
from d3ssl.evaluate.segmentation.retrieval import remember
from d3ssl.models import create_backbone
from d3ssl.seeds import torch_generator

CPU = torch.device("cpu")


def make_pool(cells: int, widths: tuple[int, ...], classes: int, seed: int = 0) -> CellPool:
    generator = torch_generator("pool", seed)
    y = torch.rand(cells, classes, generator=generator) ** 3
    return CellPool(
        x=torch.randn(cells, sum(widths), generator=generator) + 0.5,
        y=y / y.sum(dim=1, keepdim=True),
        weight=0.1 + 0.9 * torch.rand(cells, generator=generator),
        widths=widths,
    )


def naive_retrieval(
    keys: Tensor, values: Tensor, maps: Tensor, neighbours: int, temperature: float
) -> list[list[list[list[float]]]]:
    """Hummingbird's formula, cell by cell and key by key: (B, h, w, classes)."""
    answer = []
    for image in maps.double():
        rows = []
        for row in range(image.shape[1]):
            columns = []
            for column in range(image.shape[2]):
                query = image[:, row, column].tolist()
                length = math.sqrt(sum(q * q for q in query))
                near = []
                for place, key in enumerate(keys.double().tolist()):
                    product = sum(q * k for q, k in zip(query, key, strict=True))
                    near.append((product / (length * math.sqrt(sum(k * k for k in key))), place))
                near = sorted(near, reverse=True)[:neighbours]
                weights = [math.exp(similarity / temperature) for similarity, _ in near]
                distribution = [0.0] * values.shape[1]
                for weight, (_, place) in zip(weights, near, strict=True):
                    for label in range(values.shape[1]):
                        distribution[label] += weight / sum(weights) * float(values[place, label])
                columns.append(distribution)
            rows.append(columns)
        answer.append(rows)
    return answer


@pytest.mark.parametrize(("neighbours", "temperature"), [(30, 0.02), (3, 0.5), (100, 0.1)])
def test_retrieval_equals_the_naive_formula(neighbours: int, temperature: float) -> None:
    pool = make_pool(60, (7,), 4)
    maps = torch.randn(2, 7, 3, 5, generator=torch_generator("maps"))
    config = SegmentationConfig(neighbours=neighbours, temperature=temperature, retrieval_centre=False)
    found = remember(pool, config, CPU).scores(maps)
    expected = torch.tensor(naive_retrieval(pool.x, pool.y, maps, neighbours, temperature))
    torch.testing.assert_close(found.permute(0, 2, 3, 1).double(), expected.double(), rtol=1e-4, atol=1e-5)


def test_centred_retrieval_is_the_formula_on_centred_features() -> None:
    pool = make_pool(60, (7,), 4)
    maps = torch.randn(1, 7, 3, 5, generator=torch_generator("maps"))
    found = remember(pool, SegmentationConfig(retrieval_centre=True), CPU).scores(maps)
    mean = pool.x.mean(dim=0)
    expected = torch.tensor(naive_retrieval(pool.x - mean, pool.y, maps - mean[:, None, None], 30, 0.02))
    torch.testing.assert_close(found.permute(0, 2, 3, 1).double(), expected.double(), rtol=1e-4, atol=1e-5)


def test_several_levels_count_alike_whatever_their_scale() -> None:
    """The similarity is the mean of the levels' cosines: a factor on one level changes nothing."""
    pool = make_pool(50, (4, 6), 3)
    maps = torch.randn(1, 10, 4, 4, generator=torch_generator("maps"))
    config = SegmentationConfig(retrieval_centre=False)
    first = remember(pool, config, CPU)
    scale = torch.tensor([1000.0] * 4 + [0.01] * 6)
    scaled = CellPool(x=pool.x * scale, y=pool.y, weight=pool.weight, widths=pool.widths)
    second = remember(scaled, config, CPU)
    torch.testing.assert_close(first.scores(maps), second.scores(maps * scale[:, None, None]), rtol=1e-4, atol=1e-5)
    cosines = [F.cosine_similarity(own[:1], own[1:]).item() for own in pool.x[:2].split([4, 6], dim=1)]
    assert float(first.keys[0] @ first.keys[1]) == pytest.approx(sum(cosines) / 2, abs=1e-5)


def test_lbfgs_equals_scikit_learns_logistic_regression() -> None:
    """Shares of classes as labels are the same as every cell several times, with weights."""
    pool = make_pool(300, (5,), 3)
    head = fit_lbfgs(pool, 1e-2, 300, CPU)
    x = ((pool.x - pool.x.mean(dim=0)) / pool.x.std(dim=0, correction=0)).numpy()
    weights = (pool.weight[:, None] * pool.y / pool.weight.sum()).numpy()
    model = LogisticRegression(C=1 / 1e-2, tol=1e-8, max_iter=2000)
    model.fit(np.repeat(x, 3, axis=0), np.tile(np.arange(3), 300), sample_weight=weights.ravel())
    probability = head.scores(pool.x[:, :, None, None]).softmax(dim=1)[:, :, 0, 0]
    assert np.allclose(probability.numpy(), model.predict_proba(x), atol=2e-3)


def test_a_constant_feature_counts_for_nothing() -> None:
    pool = make_pool(100, (5,), 3)
    padded = CellPool(x=F.pad(pool.x, (0, 1), value=3.3), y=pool.y, weight=pool.weight, widths=(6,))
    one, other = fit_lbfgs(pool, 1e-2, 100, CPU), fit_lbfgs(padded, 1e-2, 100, CPU)
    cells = pool.x[:, :, None, None]
    more = F.pad(cells, (0, 0, 0, 0, 0, 1), value=7.0)
    torch.testing.assert_close(one.scores(cells), other.scores(more), rtol=1e-3, atol=1e-3)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 999), st.integers(1, 5), st.integers(1, 5), st.integers(1, 4))
def test_soft_labels_equal_the_naive_mean(seed: int, height: int, width: int, stride: int) -> None:
    rng = np.random.default_rng(seed)
    labels = np.where(
        rng.random((height * stride, width * stride)) < 0.4, 255, rng.integers(0, 3, (height * stride, width * stride))
    )
    shares, counted = soft_labels(labels, height, width, stride, 3)
    for row in range(height):
        for column in range(width):
            cell = labels[row * stride : (row + 1) * stride, column * stride : (column + 1) * stride].ravel().tolist()
            known = [label for label in cell if label != 255]
            place = row * width + column
            assert counted[place] == pytest.approx(len(known) / stride**2)
            for label in range(3):
                assert shares[place, label] == pytest.approx(known.count(label) / max(len(known), 1))


@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 30), st.integers(1, 30))
def test_labels_at_takes_the_pixel_below_the_centre(height: int, width: int, to_height: int, to_width: int) -> None:
    labels = np.arange(height * width, dtype=np.int64).reshape(height, width)
    found = labels_at(labels, to_height, to_width)
    for row in range(to_height):
        for column in range(to_width):
            y, x = math.floor((row + 0.5) * height / to_height), math.floor((column + 0.5) * width / to_width)
            assert found[row, column] == labels[y, x]


@pytest.mark.parametrize(("height", "width"), [(4, 6), (17, 23), (3, 5)])
def test_name_pixels_is_bilinear_upsampling(height: int, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = torch.randn(5, 4, 6, generator=torch_generator("scores"))
    expected = F.interpolate(scores[None], size=(height, width), mode="bilinear", align_corners=False)[0].argmax(dim=0)
    assert np.array_equal(name_pixels(scores, height, width), expected.numpy())
    monkeypatch.setattr(features, "_SCORES_AT_A_TIME", 5 * width * 2)  # bands of two rows
    assert np.array_equal(name_pixels(scores, height, width), expected.numpy())


def test_levels_have_the_size_of_the_finest() -> None:
    images = torch.randn(2, 3, 64, 64, generator=torch_generator("images"))
    backbone = create_backbone("test_resnet", seed=0).eval()
    with torch.no_grad():
        maps = backbone.maps(images)
        found = dense_levels(backbone, images, 3)
    assert [tuple(own.shape[1:]) for own in found] == [(48, 8, 8), (192, 8, 8), (96, 8, 8)]
    assert torch.equal(found[0], maps[2])
    assert torch.equal(found[2], F.interpolate(maps[4], size=(8, 8), mode="bilinear", align_corners=False))
    vit = create_backbone("test_vit", seed=0).eval()
    with torch.no_grad():
        assert [tuple(own.shape) for own in dense_levels(vit, images, 3)] == [(2, 64, 4, 4)]
