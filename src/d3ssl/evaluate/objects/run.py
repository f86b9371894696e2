"""``d3ssl evaluate objects``: what a backbone's region features know about the class of an object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from d3ssl.console import say
from d3ssl.data.image_set import ImageSet
from d3ssl.data.sources import name_of
from d3ssl.distributed import rank
from d3ssl.errors import InputError
from d3ssl.evaluate.cache import annotations_digest, cached_objects
from d3ssl.evaluate.compare import compare, make_rows
from d3ssl.evaluate.features import ObjectFeatures, check_features
from d3ssl.evaluate.intervals import save_draws
from d3ssl.evaluate.objects.config import ObjectsConfig
from d3ssl.evaluate.objects.measures import measure_features, measures
from d3ssl.evaluate.objects.pictures import draw_confusion
from d3ssl.evaluate.splits import Splits, drawn_as, limit_objects, open_splits, photographs
from d3ssl.files import digest
from d3ssl.models import Backbone


class ObjectsTask:
    """Validation objects named by their nearest training objects (O-KNN), by a linear probe and from few shots.

    Raises:
        InputError: unusable data or options.
    """

    name = "objects"

    def __init__(self, data: Any, config: ObjectsConfig | None = None) -> None:
        self.config = config or ObjectsConfig()
        self.config.check()
        self.data, self.splits = name_of(data), open_splits(data, self.config.val_share)
        self.measures = measures(self.config.shots, tuple(self.splits.tested))
        self.captions = {"confusion.png": "what the objects of val are taken for by O-KNN"}
        for images in self._sets().values():
            if self.config.regions == "mask" and not images.annotated.has_masks:
                remedy = "give data with segmentations, or use --regions box."
                raise InputError("has objects without masks", path=images.annotated.path, remedy=remedy)

    def _sets(self) -> dict[str, ImageSet]:
        return {"train": self.splits.train, **self.splits.tested}

    def fingerprint(self) -> str:
        options = {key: value for key, value in asdict(self.config).items() if key not in ("workers", "device")}
        return digest(self.name, str(options), *(annotations_digest(images) for images in self._sets().values()))

    def budget(self) -> str:
        train, val = self.config.max_train_objects, self.config.max_val_objects
        return f"frozen features; {train or 'all'} training and {val or 'all'} validation objects, drawn by the seed"

    def measure(self, backbone: Backbone, seed: int, folder: Path) -> dict[str, Any]:
        seed = self.config.seed + seed
        size = self.config.size or backbone.input_size
        features = self._extract(backbone, size, seed, folder)
        _check_classes(features, self.splits)
        metrics, strength, named, draws = measure_features(features, self.config, seed)
        metrics["counts"] = _counts(features)
        metrics["protocol"] = asdict(self.config) | {
            "size": size,
            "splits": self.splits.rule,
            "linear_l2": strength,
            "region_path": backbone.region_path,
            "roi_size": backbone.roi_size,
            "shots": list(self.config.shots),
            "interval": f"95 %, percentiles of {self.config.draws} bootstrap draws of images",
        }
        metrics |= {"data": self.data, "data_digests": {name: found.digest() for name, found in self._sets().items()}}
        if rank() == 0:
            save_draws(folder, draws)
            names = self.splits.train.annotated.names
            draw_confusion(folder / "confusion.png", features["val"].y.numpy(), named.numpy(), names)
        return metrics

    def _extract(self, backbone: Backbone, size: int, seed: int, folder: Path) -> dict[str, ObjectFeatures]:
        """Features by split, train first; the others without the classes that are to be left out."""
        config = self.config
        features: dict[str, ObjectFeatures] = {}
        for name, images in self._sets().items():
            most = config.max_train_objects if name == "train" else config.max_val_objects
            chosen = limit_objects(images, most, seed, name if name == "train" else drawn_as(name))
            if len(chosen) < len(images):
                say(f"{name}: {len(chosen)} of {len(images)} images, drawn at random, hold {most} objects or more")
            found = cached_objects(
                folder.parent / "features",
                backbone,
                chosen,
                size=size,
                regions=config.regions,
                batch_size=config.batch_size,
                min_side=config.min_side,
                device=config.device,
                workers=config.workers,
                max_bad_share=config.max_bad_share,
                label=f"features of {name}",
            )
            check_features(found.x, "objects")
            is_tested = name != "train" and config.unknown_classes == "leave_out"
            found = _leave_out(found, features["train"]) if is_tested else found
            features[name] = replace(found, image=torch.from_numpy(photographs(chosen))[found.image])
        return features


def evaluate_objects(
    backbone: Backbone | str | Path,
    data: Any,
    out: str | Path | None = None,
    config: ObjectsConfig | None = None,
    *,
    baselines: Sequence[str] = (),
    seeds: int = 1,
) -> dict[str, Any]:
    """Classify validation objects by their nearest training objects (O-KNN), by a linear probe and from few shots.

    A feature is pooled over the ground-truth box (or mask) and, for O-KNN, centred with the training objects' mean.

    Args:
        backbone: a backbone, or its spec (see ``load_backbone``).
        data: a folder of `d3ssl scenes` (train, val, val_shuffled or val_CONDITION) or one COCO set (split by a hash of
            the image id).
        out: folder for ``metrics.json``, ``report.html``, features and cells; None: nothing is written.
        baselines: specs of other backbones to measure beside it; ``random``: the same network, random weights.
        seeds: each draws other objects (and other random weights).

    Returns:
        What ``metrics.json`` holds: accuracies 0..1 ``o_knn``, ``linear``, ``o_knn_per_class`` and ``few_shot_N`` and,
        with other splits, the same with ``_shuffled`` or ``_CONDITION``, and the differences of ``GAPS`` such as
        ``context_gap`` (o_knn − o_knn_shuffled), each also with ``_low`` and ``_high`` (95 %: bootstrap over
        photographs, the same draws for all conditions; of several seeds Student's t over seeds); ``rows`` with
        the figures of every backbone; ``cells`` with all that was found for each seed. With one seed also ``chance``
        (and ``chance_SPLIT``: always naming the most frequent training class), ``counts`` and ``protocol``.

    Raises:
        InputError: unusable data or options, too few objects, classes without training objects.
        D3sslError: features are not finite or all the same.
    """
    task = ObjectsTask(data, config)
    return compare(task, make_rows(backbone, baselines, task.config.reading(), task.config.size), seeds, out)


def _leave_out(found: ObjectFeatures, train: ObjectFeatures) -> ObjectFeatures:
    known = torch.isin(found.y, train.y)
    if bool(known.all()):
        return found
    say(f"{int((~known).sum())} of {len(known)} objects are left out: their classes have no training objects")
    return replace(found, x=found.x[known], y=found.y[known], image=found.image[known])


def _check_classes(features: dict[str, ObjectFeatures], splits: Splits) -> None:
    names, path = splits.train.annotated.names, splits.train.annotated.path
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


def _counts(features: dict[str, ObjectFeatures]) -> dict[str, int]:
    counts = {"classes": len(features["train"].y.unique())}
    for name, found in features.items():
        counts[f"{name}_objects"], counts[f"{name}_images"] = len(found), len(found.image.unique())
        counts[f"{name}_images_skipped"] = len(found.skipped)
    return counts
