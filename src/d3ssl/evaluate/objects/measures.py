"""From features of objects to figures with intervals."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor
from torch.nn.functional import normalize

from d3ssl.evaluate.features import ObjectFeatures
from d3ssl.evaluate.intervals import Draws, bootstrap_accuracy, bootstrap_class_accuracy, class_accuracy, interval
from d3ssl.evaluate.knn import object_knn
from d3ssl.evaluate.linear import LinearProbe, linear_probe
from d3ssl.evaluate.objects.config import ObjectsConfig
from d3ssl.evaluate.splits import TESTED, drawn_as, suffix
from d3ssl.evaluate.task import Measure
from d3ssl.seeds import numpy_generator


class Gap(NamedTuple):
    """A difference of O-KNN between two splits: what changing one thing costs."""

    key: str
    familiar: str
    unfamiliar: str
    title: str
    meaning: str
    when: str


GAPS = (
    Gap(
        "context_gap",
        "val",
        "shuffled",
        "context gap",
        "O-KNN on val minus O-KNN on shuffled: what the features owe to neighbours and position",
        "where neighbours and positions are unfamiliar",
    ),
    Gap(
        "background_gap",
        "replaced",
        "elsewhere",
        "background gap",
        "O-KNN on replaced minus elsewhere: what is lost with the surroundings, neighbours included; both are pasted",
        "when the background changes",
    ),
    Gap(
        "scene_gap",
        "congruent",
        "elsewhere",
        "scene gap",
        "O-KNN on congruent minus elsewhere: the part of it that the kind of scene costs",
        "when the scene is not one of its class",
    ),
    Gap(
        "context_gap",
        "replaced",
        "anywhere",
        "context gap",
        "O-KNN on replaced minus anywhere: what is lost with background, position and neighbours",
        "when background, position and neighbours change",
    ),
    Gap(
        "pasting_gap",
        "val",
        "replaced",
        "pasting gap",
        "O-KNN on val minus replaced: what cutting out and pasting costs by itself",
        "by being cut out and pasted back",
    ),
)


def _gaps(splits: Collection[str]) -> list[Gap]:
    return [gap for gap in GAPS if gap.familiar in splits and gap.unfamiliar in splits]


def measures(shots: Sequence[int], splits: Sequence[str]) -> tuple[Measure, ...]:
    """What is compared.

    Args:
        splits: that are tested on, ``val`` first.
    """
    figures = {
        "o_knn": ("O-KNN", "objects named by their nearest training objects: how well features tell them apart"),
        "linear": ("linear probe", "a linear classifier on the frozen features"),
    }
    for count in shots:
        meaning = f"objects named by the nearest class mean of {count} training object(s) a class"
        figures[f"few_shot_{count}"] = (f"{count}-shot", meaning)
    meaning = "O-KNN's accuracy averaged over the classes, so that frequent ones count no more than rare ones"
    figures["o_knn_per_class"] = ("O-KNN, mean of classes", meaning)

    def of(key: str, split: str) -> Measure:
        title, meaning = figures[key]
        return Measure(key=key + suffix(split), title=title, split=split, meaning=f"{meaning}; in {TESTED[split]}")

    everywhere = ["o_knn", "linear", *(f"few_shot_{count}" for count in shots[-1:])]
    gaps = [
        Measure(key=gap.key, title=gap.title, meaning=gap.meaning, higher_is_better=False, loss_when=gap.when)
        for gap in _gaps(splits)
    ]
    rest = [of(key, "val") for key in figures if key not in everywhere]
    return (*(of(key, split) for key in everywhere for split in splits), *gaps, *rest)


def measure_features(
    features: dict[str, ObjectFeatures], config: ObjectsConfig, seed: int
) -> tuple[dict[str, Any], float, Int64[Tensor, "M"], Draws]:
    """The accuracies with their intervals, the linear probe's L2 strength, O-KNN's labels of val, and the bootstrap's
    draws, which are of the same images for every backbone.

    Args:
        features: ``train``, ``val`` and those of other tested splits. Splits of the same objects have the same draws.
        seed: decides the linear probe's held-out part, the few shots and the bootstrap.
    """
    train = features["train"]
    probe = linear_probe(train.x, train.y, train.image, seed=seed)
    common = int(train.y.mode().values)
    metrics: dict[str, Any] = {}
    samples: Draws = {}
    named = torch.empty(0, dtype=torch.int64)
    for split in (name for name in features if name != "train"):
        tested, end = features[split], suffix(split)
        predicted = _predict(train, probe, tested, config)
        named = predicted["o_knn"] if split == "val" else named
        correct = {name: (labels == tested.y).double().numpy() for name, labels in predicted.items()}
        correct |= {f"few_shot_{n}": _few_shot(train, tested, n, config.shot_draws, seed) for n in config.shots}
        image, truth = tested.image.numpy(), tested.y.numpy()
        for key, right in correct.items():
            generator = numpy_generator(seed, "bootstrap", drawn_as(split))
            samples[key + end] = bootstrap_accuracy(right, image, config.draws, generator)
            metrics[key + end] = float(right.mean())
        generator = numpy_generator(seed, "bootstrap", drawn_as(split))
        per_class = bootstrap_class_accuracy(correct["o_knn"], truth, image, config.draws, generator)
        samples[f"o_knn_per_class{end}"] = per_class
        metrics[f"o_knn_per_class{end}"] = class_accuracy(correct["o_knn"], truth)
        metrics[f"chance{end}"] = float((tested.y == common).double().mean())
    for gap in _gaps(features):
        familiar, unfamiliar = (f"o_knn{suffix(split)}" for split in (gap.familiar, gap.unfamiliar))
        metrics[gap.key] = metrics[familiar] - metrics[unfamiliar]
        samples[gap.key] = samples[familiar] - samples[unfamiliar]
    for name, values in samples.items():
        metrics[f"{name}_low"], metrics[f"{name}_high"] = interval(values)
    return dict(sorted(metrics.items())), probe.strength, named, samples


def _predict(
    train: ObjectFeatures, probe: LinearProbe, tested: ObjectFeatures, config: ObjectsConfig
) -> dict[str, Int64[Tensor, "M"]]:
    centre = train.x.mean(dim=0)
    nearest = object_knn(train.x - centre, train.y, tested.x - centre, config.k, config.temperature)
    return {"o_knn": torch.as_tensor(nearest), "linear": probe.predict(tested.x)}


def _few_shot(
    train: ObjectFeatures, tested: ObjectFeatures, shots: int, draws: int, seed: int
) -> Float64[np.ndarray, "M"]:
    """Share of the draws in which each object is named rightly by the nearest class mean (prototypes of Snell et al.,
    arXiv 1703.05175) of centred, L2-normalised features. A class with fewer objects gives all it has."""
    centre = train.x.mean(dim=0)
    known, unknown = normalize(train.x - centre, dim=1), normalize(tested.x - centre, dim=1)
    labels = train.y.unique()
    right = np.zeros(len(tested))
    for draw in range(draws):
        generator = numpy_generator(seed, "shots", shots, draw)
        order = torch.from_numpy(generator.permutation(len(train)))
        means = [known[order[train.y[order] == label][:shots]].mean(dim=0) for label in labels]
        named = labels[(unknown @ normalize(torch.stack(means), dim=1).T).argmax(dim=1)]
        right += (named == tested.y).double().numpy()
    return right / draws
