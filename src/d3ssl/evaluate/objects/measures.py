"""From features of objects to figures with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor
from torch.nn.functional import normalize

from d3ssl.evaluate.compare import Measure
from d3ssl.evaluate.features import ObjectFeatures
from d3ssl.evaluate.intervals import Draws, bootstrap_accuracy, bootstrap_class_accuracy, class_accuracy, interval
from d3ssl.evaluate.knn import object_knn
from d3ssl.evaluate.linear import LinearProbe, linear_probe
from d3ssl.evaluate.objects.config import ObjectsConfig
from d3ssl.seeds import numpy_generator


def measures(shots: Sequence[int]) -> tuple[Measure, ...]:
    """What is compared."""
    few = tuple(
        Measure(
            key=f"few_shot_{count}",
            title=f"{count}-shot",
            meaning=f"objects of new images named by the nearest class mean of {count} training object(s) a class",
        )
        for count in shots
    )
    return (
        Measure(
            key="o_knn",
            title="O-KNN, val",
            meaning="objects of new images named by their nearest training objects: how well features tell them apart",
        ),
        Measure(
            key="o_knn_shuffled",
            title="O-KNN, shuffled",
            meaning="the same where company and places of the objects are shuffled, so that neither helps to guess",
        ),
        Measure(key="linear", title="linear probe, val", meaning="a linear classifier on the frozen features"),
        Measure(key="linear_shuffled", title="linear probe, shuffled", meaning="the same on the shuffled split"),
        Measure(
            key="context_gap",
            title="context gap",
            meaning="O-KNN on val minus O-KNN on shuffled: what the features owe to company and place",
            higher_is_better=False,
        ),
        Measure(
            key="o_knn_per_class",
            title="O-KNN, mean of classes",
            meaning="O-KNN's accuracy averaged over the classes, so that frequent ones count no more than rare ones",
        ),
        *few,
    )


def measure_features(
    features: dict[str, ObjectFeatures], config: ObjectsConfig, seed: int
) -> tuple[dict[str, Any], float, Int64[Tensor, "M"], Draws]:
    """The accuracies with their intervals, the linear probe's L2 strength, O-KNN's labels of val, and the bootstrap's
    draws, which are of the same images for every backbone.

    Args:
        features: ``train``, ``val`` and, if any, ``shuffled``.
        seed: decides the linear probe's held-out part, the few shots and the bootstrap.
    """
    train = features["train"]
    probe = linear_probe(train.x, train.y, train.image, seed=seed)
    common = int(train.y.mode().values)
    metrics: dict[str, Any] = {}
    samples: Draws = {}
    named = torch.empty(0, dtype=torch.int64)
    for split, suffix in (("val", ""), ("shuffled", "_shuffled")):
        if split not in features:
            continue
        tested = features[split]
        predicted = _predict(train, probe, tested, config)
        named = predicted["o_knn"] if split == "val" else named
        correct = {name: (labels == tested.y).double().numpy() for name, labels in predicted.items()}
        correct |= {f"few_shot_{n}": _few_shot(train, tested, n, config.shot_draws, seed) for n in config.shots}
        image, truth = tested.image.numpy(), tested.y.numpy()
        for key, right in correct.items():
            generator = numpy_generator(seed, "bootstrap", split)
            samples[key + suffix] = bootstrap_accuracy(right, image, config.draws, generator)
            metrics[key + suffix] = float(right.mean())
        generator = numpy_generator(seed, "bootstrap", split)
        per_class = bootstrap_class_accuracy(correct["o_knn"], truth, image, config.draws, generator)
        samples[f"o_knn_per_class{suffix}"] = per_class
        metrics[f"o_knn_per_class{suffix}"] = class_accuracy(correct["o_knn"], truth)
        metrics[f"chance{suffix}"] = float((tested.y == common).double().mean())
    if "shuffled" in features:
        metrics["context_gap"] = metrics["o_knn"] - metrics["o_knn_shuffled"]
        samples["context_gap"] = samples["o_knn"] - samples["o_knn_shuffled"]  # other images: independent draws
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
