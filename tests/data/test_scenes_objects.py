"""Objects: size, edges, premultiplied colours, and what tells a class."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.neighbors import KNeighborsClassifier

from d3ssl.data.scenes import ScenesConfig, Sprite, straight_rgba
from d3ssl.data.scenes.objects import SHAPES, TEXTURES, ProceduralObjects, procedural_classes, trim
from d3ssl.errors import InputError

OBJECTS = ProceduralObjects(ScenesConfig(num_classes=48))


@settings(max_examples=60, deadline=None)
@given(label=st.integers(0, 47), side=st.floats(8, 90), seed=st.integers(0, 2**32))
def test_sprites_are_trimmed_premultiplied_and_repeatable(label: int, side: float, seed: int) -> None:
    sprite = OBJECTS.render(label, side, np.random.default_rng(seed))
    assert (sprite.colour <= sprite.alpha[..., None]).all()
    inside = sprite.alpha >= 128
    assert inside.any()
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    assert rows[0] <= 1
    assert columns[0] <= 1
    assert rows[-1] >= inside.shape[0] - 2
    assert columns[-1] >= inside.shape[1] - 2
    again = OBJECTS.render(label, side, np.random.default_rng(seed))
    assert np.array_equal(sprite.colour, again.colour)
    assert np.array_equal(sprite.alpha, again.alpha)


@pytest.mark.parametrize(("shape", "share"), [("disc", np.pi / 4), ("square", 0.81), ("ring", np.pi / 4 * 0.75)])
def test_area_of_known_shapes(shape: str, share: float) -> None:
    label = [name.startswith(shape) for name in OBJECTS.names].index(True)
    for seed, side in enumerate((24.0, 40.0, 64.0)):
        area = OBJECTS.render(label, side, np.random.default_rng(seed)).alpha.sum() / 255
        assert area == pytest.approx(share * side**2, rel=0.02)


@pytest.mark.parametrize("shape", SHAPES)
def test_distance_has_unit_slope_near_the_edge(shape: str) -> None:
    """Edges are as soft as one pixel only if the distance grows by one per unit across them."""
    line = (np.arange(400, dtype=np.float32) - 199.5) / 160
    u, v = np.meshgrid(line, line)
    distance = SHAPES[shape](u, v)
    slope = np.hypot(*np.gradient(distance, line[1] - line[0]))[np.abs(distance) < 0.01]
    assert np.median(slope) == pytest.approx(1, abs=0.02)
    assert (distance[[0, -1]] < 0).all()  # nothing reaches out of the frame, here −1.25..1.25
    assert (distance[:, [0, -1]] < 0).all()
    assert (distance[np.maximum(np.abs(u), np.abs(v)) > 1.0] <= 0.01).all()


def test_classes_use_shapes_and_textures_evenly() -> None:
    for number in (24, 48):
        pairs = procedural_classes(number)
        assert len(set(pairs)) == number
        shapes = [sum(shape == name for shape, _ in pairs) for name in SHAPES]
        textures = [sum(texture == name for _, texture in pairs) for name in TEXTURES]
        assert max(shapes) == min(shapes)
        assert max(textures) == min(textures)
    with pytest.raises(InputError, match="48 exist"):
        procedural_classes(49)


def test_mean_colour_does_not_tell_the_class_but_form_does() -> None:
    objects = ProceduralObjects(ScenesConfig())
    rng = np.random.default_rng(0)
    labels = np.tile(np.arange(24), 60)
    colour, form = [], []
    for label in labels:
        sprite = objects.render(int(label), 40.0, rng)
        colour.append(sprite.colour.sum((0, 1)) / (sprite.alpha.sum() / 255))
        grey = np.asarray(Image.fromarray(sprite.colour).convert("L").resize((16, 16)), np.float32)
        alpha = np.asarray(Image.fromarray(sprite.alpha).resize((16, 16)), np.float32)
        form.append(np.concatenate([alpha.ravel(), np.abs(np.fft.fft2(grey))[:8].ravel() / 16]))

    def accuracy(features: list[np.ndarray]) -> float:
        train = len(labels) * 2 // 3
        model = KNeighborsClassifier(10).fit(np.array(features[:train]), labels[:train])
        return float(model.score(np.array(features[train:]), labels[train:]))

    assert accuracy(colour) < 2.2 / 24
    assert accuracy(form) > 0.4


def test_trim_and_straight_colours() -> None:
    alpha = np.zeros((6, 7), np.uint8)
    alpha[2:4, 3] = (255, 128)
    colour = np.zeros((6, 7, 3), np.uint8)
    colour[2:4, 3] = ((200, 100, 0), (64, 128, 0))
    sprite = trim(Sprite(colour, alpha))
    assert sprite.alpha.tolist() == alpha[1:5, 2:5].tolist()
    rgba = straight_rgba(sprite)
    assert rgba[1, 1].tolist() == [200, 100, 0, 255]
    assert rgba[2, 1].tolist() == [128, 255, 0, 128]
    assert not rgba[0].any()
    assert trim(Sprite(colour, np.zeros_like(alpha))).alpha.size == 0
