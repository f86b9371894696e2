"""How much is trained and measured: for seconds, for a night of two cores, half of it for a study, for one GPU."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Budget:
    """The same for every row of a table."""

    recipe: str
    """Of ``d3ssl pretrain``."""
    options: tuple[str, ...]
    """Over the recipe's."""
    steps: int
    """Of a row that is as long as the others."""
    backbone: str
    """Of the random row: the recipe's."""
    region_path: str
    roi_size: str
    size: str
    """Side of the images in evaluations: that of the views, px."""
    evaluate: dict[str, tuple[str, ...]]
    """Tasks, and their options; they may set another size."""
    diagnose: tuple[str, ...]
    place_step: str
    """Of places that differ in nothing but the place: a multiple of the stride of the map that regions are read from,
    px."""


_SMALL = {
    "recipe": "scenes-photo",
    "backbone": "test_resnet",
    "region_path": "c3",
    "roi_size": "6",
    "size": "64",
    "place_step": "16",
}
_MASKS = (
    *("--dc.background", "outside_masks", "--dp.carried_by", "mask"),
    *("--dp.scale", "[0.7, 1.2]"),
)

BUDGETS: dict[str, Budget] = {
    "smoke": Budget(
        **_SMALL,
        options=(*_MASKS, "--train.batch_size", "16"),
        steps=4,
        evaluate={
            "objects": (),
            "segmentation": ("--max_train_images", "24", "--draws", "100", "--linear_iterations", "20"),
            "detection": ("--steps", "2", "--batch_size", "4", "--max_val_images", "4", "--draws", "20"),
        },
        diagnose=("--objects", "12", "--seeds", "1", "--gradient_objects", "2", "--draws", "100"),
    ),
    "cpu": Budget(
        **_SMALL,
        options=_MASKS,
        steps=1600,
        evaluate={
            "objects": (),
            # Twice the views: an object covers as many cells of a map as the regions are cut into in training.
            "segmentation": ("--size", "128", "--max_train_images", "1000"),
            "detection": ("--max_train_images", "1000", "--draws", "20", "--shown_images", "0"),
        },
        diagnose=(),
    ),
    "objects": Budget(
        **_SMALL,
        options=_MASKS,
        steps=1600,
        evaluate={"objects": ()},
        diagnose=(),
    ),
    "study": Budget(
        **_SMALL,
        options=_MASKS,
        steps=800,
        evaluate={"objects": ()},
        diagnose=(),
    ),
    "gpu": Budget(
        recipe="scenes-photo",
        options=(
            *_MASKS,
            *("--model.backbone", "resnet50", "--host.region_path", "c4", "--host.roi_size", "7"),
            *("--canvas.size", "192", "--views.size", "128", "--views.regions_per_image", "4"),
            *("--host.projector_hidden", "2048", "--host.projector_out", "256"),
            *("--train.batch_size", "128", "--optimizer.lr", "1e-3"),
            *("--runtime.diagnose_every", "100"),  # do the curves flatten?
        ),
        steps=1500,
        backbone="resnet50",
        region_path="c4",
        roi_size="7",
        size="128",
        evaluate={
            "objects": (),
            "segmentation": ("--size", "256", "--max_train_images", "1000"),
            "detection": ("--architecture", "c4", "--draws", "20", "--shown_images", "0"),
        },
        diagnose=(),
        place_step="32",
    ),
}
