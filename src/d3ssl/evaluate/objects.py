"""``d3ssl evaluate objects``: what a backbone's region features know about the class of an object."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

import d3ssl
from d3ssl.console import say, show_table
from d3ssl.data.sources import ImageSet
from d3ssl.errors import InputError
from d3ssl.evaluate.features import ObjectFeatures, check_features, extract_objects
from d3ssl.evaluate.intervals import bootstrap_accuracy, interval
from d3ssl.evaluate.knn import object_knn
from d3ssl.evaluate.linear import LinearProbe, linear_probe
from d3ssl.evaluate.splits import Splits, limit_objects, open_splits
from d3ssl.files import make_folder, write_json
from d3ssl.models import Backbone, load_backbone
from d3ssl.seeds import numpy_generator


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectsConfig:
    """How objects are classified from frozen features."""

    size: int | None = None
    """Side to which images are stretched, px; None: the backbone's input size (a run's views, or timm's)."""
    k: int = 20
    """Neighbours (design: the ICLR 2024 paper's object classification)."""
    temperature: float = 0.07
    """A neighbour of cosine similarity s weighs exp(s / temperature) (iBOT)."""
    max_train_objects: int | None = 3000
    """Images are drawn at random until they hold this many training objects; None: all. 3000: minutes on a CPU."""
    max_val_objects: int | None = 1500
    """The same for each validation split; 1500 give an interval of about ±2.5 points."""
    val_share: float = 0.2
    """Share of the images that is tested on, where DATA is one set without splits."""
    min_side: float = 0.0
    """Objects whose shorter side in the stretched image is below this many px are passed over."""
    unknown_classes: Literal["error", "leave_out"] = "error"
    """What to do about validation objects of classes that have no training object."""
    draws: int = 2000
    """Bootstrap samples of the intervals."""
    batch_size: int = 64
    """Images at a time."""
    region_path: Literal["c3", "c4", "map"] | None = None
    """How regions are read (see ``d3ssl pretrain``); None: as the run was trained; from timm: c4, or map for ViTs. Give
    a baseline from timm what the run has, or the comparison is not fair."""
    roi_size: int | None = None
    """Cells a side of RoIAlign; None: as the run was trained; from timm: 7."""
    in_channels: int = 3
    """Of the images, for a backbone from timm; a run knows its own."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: a GPU if there is one."""
    workers: int = 0
    """Threads that decode images; 0: one a core."""
    max_bad_share: float = 0.01
    """Share of unreadable images above which the evaluation fails."""
    seed: int = 0
    """Decides which objects are drawn, the linear probe's held-out part and the bootstrap."""

    def reading(self) -> dict[str, Any]:
        """How ``load_backbone`` is to read a backbone."""
        return {"in_channels": self.in_channels, "region_path": self.region_path, "roi_size": self.roi_size}

    def check(self) -> None:
        """Raise InputError for values that make no sense."""
        rules = {
            "size": self.size is None or self.size >= 16,
            "k": self.k >= 1,
            "temperature": self.temperature > 0,
            "max_train_objects": self.max_train_objects is None or self.max_train_objects >= 10,
            "max_val_objects": self.max_val_objects is None or self.max_val_objects >= 10,
            "val_share": 0 < self.val_share < 1,
            "draws": self.draws >= 100,
            "batch_size": self.batch_size >= 1,
            "roi_size": self.roi_size is None or self.roi_size >= 1,
            "in_channels": self.in_channels >= 1,
            "max_bad_share": 0 <= self.max_bad_share <= 1,
        }
        for name in (name for name, holds in rules.items() if not holds):
            problem = f"objects option {name} = {getattr(self, name)!r} is out of range"
            raise InputError(problem, remedy="see d3ssl evaluate objects --help.")


def evaluate_objects(
    backbone: Backbone | str | Path,
    data: str | Path,
    out: str | Path | None = None,
    config: ObjectsConfig | None = None,
) -> dict[str, Any]:
    """Classify validation objects by their nearest training objects (O-KNN) and by a linear probe.

    A feature is pooled over the ground-truth box and, for O-KNN, centred with the training objects' mean.

    Args:
        backbone: a backbone, or its spec (see ``load_backbone``).
        data: a folder of `d3ssl scenes` (train, val, val_shuffled) or one COCO set (split by a hash of the image id).
        out: folder for ``metrics.json``; None: nothing is written.

    Returns:
        What ``metrics.json`` holds: accuracies 0..1 ``o_knn`` and ``linear`` and, with a shuffled split,
        ``o_knn_shuffled``, ``linear_shuffled`` and ``context_gap`` (o_knn − o_knn_shuffled), each also with ``_low``
        and ``_high`` (95 %, bootstrap over images); ``chance`` (and ``chance_shuffled``): always naming the most
        frequent training class; ``counts``, ``protocol``, ``backbone``, ``data``, ``versions``.

    Raises:
        InputError: unusable data or options, too few objects, classes without training objects.
        D3sslError: features are not finite or all the same.
    """
    config = config or ObjectsConfig()
    config.check()
    if out is not None:
        make_folder(out)
    splits = open_splits(data, config.val_share)
    spec = backbone.timm_name if isinstance(backbone, Backbone) else str(backbone)
    network = backbone if isinstance(backbone, Backbone) else load_backbone(backbone, **config.reading())
    size = config.size or network.input_size
    features = _extract(network, splits, size, config)
    _check_classes(features, splits)
    metrics, strength = _measure(features, config)
    metrics["counts"] = _counts(features)
    metrics["protocol"] = asdict(config) | {
        "size": size,
        "splits": splits.rule,
        "linear_l2": strength,
        "region_path": network.region_path,
        "roi_size": network.roi_size,
        "interval": f"95 %, percentiles of {config.draws} bootstrap draws of images",
    }
    metrics |= {"backbone": spec, "data": str(data), "data_digests": _digests(splits)}
    metrics["versions"] = {"d3ssl": d3ssl.__version__, "torch": torch.__version__}
    if out is not None:
        write_json(Path(out) / "metrics.json", metrics)
    _show(spec, metrics)
    return metrics


def _extract(network: Backbone, splits: Splits, size: int, config: ObjectsConfig) -> dict[str, ObjectFeatures]:
    """Features by split: train, val and, if any, shuffled; val without the classes that are to be left out."""

    def extract(name: str, images: ImageSet, most: int | None) -> ObjectFeatures:
        chosen = limit_objects(images, most, config.seed, name)
        if len(chosen) < len(images):
            say(f"{name}: {len(chosen)} of {len(images)} images, drawn at random, hold {most} objects or more")
        return extract_objects(
            network,
            chosen,
            size=size,
            batch_size=config.batch_size,
            min_side=config.min_side,
            device=config.device,
            workers=config.workers,
            max_bad_share=config.max_bad_share,
            label=f"features of {name}",
        )

    features = {"train": extract("train", splits.train, config.max_train_objects)}
    check_features(features["train"].x, "objects")
    for name, images in (("val", splits.val), ("shuffled", splits.shuffled)):
        if images is not None:
            found = extract(name, images, config.max_val_objects)
            check_features(found.x, "objects")
            features[name] = _leave_out(found, features["train"]) if config.unknown_classes == "leave_out" else found
    return features


def _leave_out(found: ObjectFeatures, train: ObjectFeatures) -> ObjectFeatures:
    known = torch.isin(found.y, train.y)
    if bool(known.all()):
        return found
    say(f"{int((~known).sum())} of {len(known)} objects are left out: their classes have no training objects")
    return ObjectFeatures(x=found.x[known], y=found.y[known], image=found.image[known], skipped=found.skipped)


def _check_classes(features: dict[str, ObjectFeatures], splits: Splits) -> None:
    assert splits.train.annotations is not None
    names, path = splits.train.annotations.names, splits.train.annotations.path
    train = features["train"]
    if len(train.y.unique()) < 2 or len(train) < 10:
        problem = f"{len(train)} training objects of {len(train.y.unique())} classes are too few to evaluate on"
        raise InputError(problem, path=path, remedy="give at least 10 objects of at least 2 classes.")
    for name in [name for name in features if name != "train"]:
        if len(features[name].image.unique()) < 2:
            problem = f"only {len(features[name].image.unique())} image(s) of {name} hold objects to test on"
            raise InputError(problem, path=path, remedy="give more images; a figure without an interval is no result.")
        missing = sorted(set(features[name].y.tolist()) - set(train.y.tolist()))
        if missing:
            listed = ", ".join(names[label] for label in missing[:10]) + (", …" if len(missing) > 10 else "")
            problem = f"{len(missing)} classes of {name} have no training objects: {listed}"
            remedy = "raise --max_train_objects, add training images, or use --unknown_classes leave_out."
            raise InputError(problem, path=path, remedy=remedy)


def _measure(features: dict[str, ObjectFeatures], config: ObjectsConfig) -> tuple[dict[str, Any], float]:
    """The accuracies with their intervals, and the linear probe's L2 strength."""
    train = features["train"]
    probe = linear_probe(train.x, train.y, train.image, seed=config.seed)
    common = int(train.y.mode().values)
    metrics: dict[str, Any] = {}
    samples: dict[str, Float64[np.ndarray, "draws"]] = {}
    for split, suffix in (("val", ""), ("shuffled", "_shuffled")):
        if split not in features:
            continue
        tested = features[split]
        predicted = _predict(train, probe, tested, config)
        for key, labels in predicted.items():
            name = key + suffix
            correct = (labels == tested.y).numpy()
            generator = numpy_generator(config.seed, "bootstrap", split)
            samples[name] = bootstrap_accuracy(correct, tested.image.numpy(), config.draws, generator)
            metrics[name] = float(correct.mean())
        metrics[f"chance{suffix}"] = float((tested.y == common).double().mean())
    if "shuffled" in features:
        metrics["context_gap"] = metrics["o_knn"] - metrics["o_knn_shuffled"]
        samples["context_gap"] = samples["o_knn"] - samples["o_knn_shuffled"]  # other images: independent draws
    for name, values in samples.items():
        metrics[f"{name}_low"], metrics[f"{name}_high"] = interval(values)
    return dict(sorted(metrics.items())), probe.strength


def _predict(
    train: ObjectFeatures, probe: LinearProbe, tested: ObjectFeatures, config: ObjectsConfig
) -> dict[str, Int64[Tensor, "M"]]:
    centre = train.x.mean(dim=0)
    nearest = object_knn(train.x - centre, train.y, tested.x - centre, config.k, config.temperature)
    return {"o_knn": torch.as_tensor(nearest), "linear": probe.predict(tested.x)}


def _counts(features: dict[str, ObjectFeatures]) -> dict[str, int]:
    counts = {"classes": len(features["train"].y.unique())}
    for name, found in features.items():
        counts[f"{name}_objects"], counts[f"{name}_images"] = len(found), len(found.image.unique())
        counts[f"{name}_images_skipped"] = len(found.skipped)
    return counts


def _digests(splits: Splits) -> dict[str, str]:
    sets = {"train": splits.train, "val": splits.val, "shuffled": splits.shuffled}
    return {name: images.digest() for name, images in sets.items() if images is not None}


def _show(spec: str, metrics: dict[str, Any]) -> None:
    def cell(key: str) -> str:
        if key not in metrics:
            return "–"
        ends = [f"{100 * metrics[end]:.1f}" for end in (f"{key}_low", f"{key}_high") if end in metrics]
        return f"{100 * metrics[key]:.1f}" + (f" [{', '.join(ends)}]" if ends else "")

    rows = [
        ("O-KNN", cell("o_knn"), cell("o_knn_shuffled"), cell("context_gap")),
        ("linear probe", cell("linear"), cell("linear_shuffled"), ""),
        ("commonest class", cell("chance"), cell("chance_shuffled"), ""),
    ]
    title = f"objects named rightly, % [95 % interval]: {spec}"
    show_table(title, ("", "val", "val shuffled", "context gap"), rows)
