"""The rows of the table and of the study: what each one changes in the budget's recipe."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Row:
    """A way of training a backbone."""

    options: tuple[str, ...] = ()
    """Of ``d3ssl pretrain``, over the recipe's."""
    regions: str = "annotations"
    """Which regions it is trained on (see ``REGIONS``)."""
    longer: float = 1.0
    """Times the budget's steps."""
    trained: bool = True
    """False: random initialisation."""
    blurred: bool = False
    """The budget's network, but with a blur before every stride (see ``benchmarks.scenes_table.blurred``)."""


def _modules(decouple: bool, deposition: bool) -> tuple[str, ...]:
    return ("--method.decouple", str(decouple).lower(), "--method.deposition", str(deposition).lower())


_HOST = _modules(False, False)
_BOXES = ("--dc.background", "outside_boxes", "--dp.carried_by", "box")
_SEARCHED = (*_BOXES, "--dp.scale", "[0.5, 0.8]")  # larger boxes, which need room to move
_REGRESSION = ("--host.loss", "regression")
_PAPERS_RCC = ("--dc.cutout", "0.3", "--dc.background", "keep")
_ANY_HUE = (
    *("--host.photometric_x1.jitter_p", "1", "--host.photometric_x1.hue", "0.5"),
    *("--host.photometric_x1.saturation", "0.8", "--host.photometric_x2.jitter_p", "1"),
    *("--host.photometric_x2.hue", "0.5", "--host.photometric_x2.saturation", "0.8"),
)
_BYOL = ("--method.host", "byol", *_HOST, "--host.area", "[0.2, 1.0]")
"""Crops of small images: a fifth or more, as DenseCL's."""
_DETCON = ("--method.host", "detcon", "--host.area", "[0.3, 1.0]")
_DENSECL = (
    *("--method.host", "densecl", "--host.queue", "1024"),  # fewer keys than images, or queries meet their own
    *("--host.grid", "4", "--host.level", "-2", "--host.momentum", "0.99"),
)

BLURRED = "blurred_"
"""Before a network's name in timm: the same one with a blur before every stride."""

TABLE: dict[str, Row] = {
    "random": Row(trained=False),
    "image-level BYOL": Row(options=(*_BYOL, *_REGRESSION)),
    "image-level InfoNCE": Row(options=_BYOL),
    "host": Row(options=_HOST),
    "host + DC": Row(options=_modules(True, False)),
    "host + DP": Row(options=_modules(False, True)),
    "D3SSL": Row(),
    "D3SSL without RCC": Row(options=("--dc.cutout", "0")),
    "D3SSL without mixing": Row(options=("--dc.background", "keep", "--dp.background", "mean")),
    "D3SSL without shift": Row(options=("--dp.shift", "none")),
    "DetCon": Row(options=(*_DETCON, *_HOST)),
    "DetCon + DC + DP": Row(options=_DETCON),
    "DenseCL": Row(options=(*_DENSECL, *_HOST)),
    "DenseCL + DC + DP": Row(options=_DENSECL),
}
"""Everything but the named part is the same: data, backbone, optimiser, images seen, and within a host the draws of its
views."""

_PAPERS_DC = "host + DC as in the paper"
_NO_MASKS = "boxes instead of masks"

STUDY: dict[str, Row] = {
    _PAPERS_DC: Row(options=(*_modules(True, False), *_PAPERS_RCC)),
    "RCC ratio 0.05": Row(options=("--dc.cutout", "0.05")),
    "RCC ratio 0.3": Row(options=("--dc.cutout", "0.3")),
    "RCC in x3 too": Row(options=("--dp.cutout", "0.1")),
    "RCC of the context": Row(options=("--dc.cutout_where", "context")),
    "fill: another image": Row(options=("--dc.cutout_fill", "mix")),
    "teacher sees cut views": Row(options=("--dc.teacher", "cut")),
    "L_dp × 0.3": Row(options=("--dp.weight", "0.3")),
    "L_dp × 3": Row(options=("--dp.weight", "3")),
    "shift of the union": Row(options=("--dp.shift", "union")),
    "shift, scale 0.4–0.9": Row(options=("--dp.scale", "[0.4, 0.9]")),
    "shift, scale 1": Row(options=("--dp.scale", "[1.0, 1.0]")),
    "2 regions an image": Row(options=("--views.regions_per_image", "2")),
    "5 regions an image": Row(options=("--views.regions_per_image", "5")),
    "twice the steps": Row(longer=2),
    "twice the steps, host": Row(longer=2, options=_HOST),
    "batch of 64": Row(longer=0.5, options=("--train.batch_size", "64")),
    "batch of 64, host": Row(longer=0.5, options=("--train.batch_size", "64", *_HOST)),
    "batch of 16": Row(longer=2, options=("--train.batch_size", "16")),
    "L_reg instead of L_con": Row(options=_REGRESSION),
    "L_reg instead of L_con, host": Row(options=(*_REGRESSION, *_HOST)),
    "blur before strides": Row(blurred=True),
    "blur before strides, host": Row(blurred=True, options=_HOST),
    "blur before strides, random": Row(blurred=True, trained=False),
    "any hue": Row(options=_ANY_HUE),
    "any hue, host": Row(options=(*_ANY_HUE, *_HOST)),
    "x2_small at half size": Row(options=("--host.small_ratio", "0.5")),
    _NO_MASKS: Row(options=_BOXES),
    "what stands out": Row(regions="contrast"),
    "what stands out, host": Row(regions="contrast", options=_HOST),
    "Felzenszwalb's segments": Row(regions="segments"),
    "Felzenszwalb's segments, host": Row(regions="segments", options=_HOST),
    "selective search": Row(regions="search", options=_SEARCHED),
    "selective search, host": Row(regions="search", options=(*_SEARCHED, *_HOST)),
    "grid": Row(regions="grid", options=_SEARCHED),
}
"""One factor at a time, from D3SSL."""

ROWS = TABLE | STUDY

PAIRS = (
    ("D3SSL", "host"),
    ("twice the steps", "twice the steps, host"),
    ("batch of 64", "batch of 64, host"),
    ("L_reg instead of L_con", "L_reg instead of L_con, host"),
    ("blur before strides", "blur before strides, host"),
    ("any hue", "any hue, host"),
    ("what stands out", "what stands out, host"),
    ("selective search", "selective search, host"),
    ("Felzenszwalb's segments", "Felzenszwalb's segments, host"),
)
"""Rows, and the hosts on the same regions that the goals compare them with."""

_HOSTS = {"host", *(host for _, host in PAIRS)}
_NO_CHANGE_OF_D3SSL = {_PAPERS_DC, *_HOSTS, *(name for name, row in STUDY.items() if not row.trained)}
_LEFT_OUT = ("D3SSL without RCC", "D3SSL without mixing", "D3SSL without shift")

COMPARED = {
    "host": [
        *(name for name, row in TABLE.items() if row.trained and name not in {"host", *_LEFT_OUT}),
        _PAPERS_DC,
        _NO_MASKS,  # trained on what the host is given, and no more
    ],
    "host + DC": ["D3SSL"],
    "host + DP": ["D3SSL"],
    "D3SSL": [*_LEFT_OUT, *(name for name in STUDY if name not in _NO_CHANGE_OF_D3SSL)],
}
"""A row → those whose changes from it are shown: what a module brings, and what a part of the method is worth."""

REGIONS: dict[str, tuple[str, ...]] = {
    "search": ("--colours", "lab", "--scales", "[100.0]"),
    "annotations": ("--method", "annotations"),
    "grid": ("--method", "grid"),
    "segments": ("--method", "felzenszwalb"),
    "contrast": ("--method", "contrast"),
}
"""Options of ``d3ssl regions``. The rows of the table are trained on the objects' masks: what the modules do with
regions that are objects. What they do without labels, the study's rows on other regions say."""
