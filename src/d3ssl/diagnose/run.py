"""``d3ssl diagnose``: how much a backbone's region features depend on context and on place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

import d3ssl
from d3ssl.console import Ticker, progress, show_table
from d3ssl.data.sources import ImageSet
from d3ssl.diagnose.config import DiagnoseConfig
from d3ssl.diagnose.cutouts import find_candidates, open_probe_images, procedural_images
from d3ssl.diagnose.probes import Probe, ProbeSet, build_probes
from d3ssl.diagnose.sensitivity import Distances, Estimate, distances, estimate
from d3ssl.diagnose.sheet import draw_sheet
from d3ssl.errors import InputError
from d3ssl.evaluate.features import encode_regions, frozen, pick_device
from d3ssl.files import digest, make_folder, write_atomically, write_json
from d3ssl.models import Backbone, load_backbone
from d3ssl.seeds import numpy_generator


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """How much features depend on what they should not."""

    context_sensitivity: Estimate
    position_sensitivity: Estimate
    objects: tuple[int, ...]
    """Number of objects in each probe set."""
    probe_digests: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """``name``, ``name_low``, ``name_high``, ``name_by_seed`` of every measurement, and the probes' description."""
        found: dict[str, Any] = {}
        for name in ("context_sensitivity", "position_sensitivity"):
            measured: Estimate = getattr(self, name)
            found |= {name: measured.value, f"{name}_low": measured.low, f"{name}_high": measured.high}
            found[f"{name}_by_seed"] = list(measured.by_seed)
        found["probe_objects"] = list(self.objects)
        found["probe_digest"] = digest(*self.probe_digests)
        return found


def diagnose(
    backbone: Backbone,
    probes: ProbeSet | Iterable[ProbeSet],
    *,
    batch_size: int = 64,
    device: str = "auto",
    draws: int = 2000,
    seed: int = 0,
) -> Diagnosis:
    """Measure context and position sensitivity on one or several probe sets (see ``build_probes``).

    The figure is the mean over the sets; the interval (95 %) comes from drawing objects again. Different objects are
    compared in any contexts, and at the same place (see ``sensitivity``).

    Args:
        probes: a set, or sets, which may be made while they are consumed: one is held at a time.
        device: ``auto``, ``cpu`` or ``cuda``.
        draws: bootstrap samples.
        seed: decides them.

    Raises:
        D3sslError: the features are not finite or all the same.
    """
    contexts: list[Distances] = []
    places: list[Distances] = []
    identities: list[np.ndarray] = []
    digests: list[str] = []
    with frozen(backbone, pick_device(device)):
        for own in [probes] if isinstance(probes, ProbeSet) else probes:
            total = own.context.boxes[..., 0].size + own.position.boxes[..., 0].size
            with progress(f"features of probe set {len(digests) + 1}", total) as ticker:
                contexts.append(distances(_features(backbone, own.context, batch_size, ticker), "any"))
                places.append(distances(_features(backbone, own.position, batch_size, ticker), "same"))
            identities.append(own.identities)
            digests.append(own.digest)
    if not digests:
        raise InputError("no probe sets to diagnose with", remedy="give at least one.")
    return Diagnosis(
        context_sensitivity=estimate(contexts, identities, draws, numpy_generator(seed, "bootstrap", "context")),
        position_sensitivity=estimate(places, identities, draws, numpy_generator(seed, "bootstrap", "position")),
        objects=tuple(len(own) for own in identities),
        probe_digests=tuple(digests),
    )


def _features(backbone: Backbone, probe: Probe, batch_size: int, ticker: Ticker) -> Float32[Tensor, "O C D"]:
    objects, conditions = probe.boxes.shape[:2]
    images, boxes = probe.images.reshape(-1, *probe.images.shape[2:]), probe.boxes.reshape(-1, 1, 4)
    rows = []
    for start in range(0, len(images), batch_size):
        part = slice(start, start + batch_size)
        rows.append(encode_regions(backbone, images[part], list(boxes[part])))
        ticker.advance(len(rows[-1]))
    return torch.cat(rows).unflatten(0, (objects, conditions))


def diagnose_backbone(
    backbone: Backbone | str | Path,
    data: str | Path | None = None,
    out: str | Path | None = None,
    config: DiagnoseConfig | None = None,
) -> dict[str, Any]:
    """Build probes from data, diagnose, and write ``OUT/diagnosis.json`` and ``OUT/probes.png``.

    Args:
        backbone: a backbone, or its spec (see ``load_backbone``).
        data: COCO data with masks, or a folder of `d3ssl scenes` (its ``val``); None: procedural scenes are made.
        out: folder; None: nothing is written.

    Returns:
        What ``diagnosis.json`` holds: ``context_sensitivity`` and ``position_sensitivity`` with ``_low``, ``_high``
        and ``_by_seed``, ``probe_objects``, ``probe_digest``, ``protocol``, ``backbone``, ``data``, ``versions``.

    Raises:
        InputError: unusable data or options, no masks, too few objects.
        D3sslError: the features are not finite or all the same.
    """
    config = config or DiagnoseConfig()
    config.check()
    if out is not None:
        make_folder(out)
    with ExitStack() as stack:
        made = data is None
        images = stack.enter_context(procedural_images(config.seed)) if made else open_probe_images(data)
        find_candidates(images, config.min_side)  # fails before the backbone is loaded
        spec = backbone.timm_name if isinstance(backbone, Backbone) else str(backbone)
        network = backbone if isinstance(backbone, Backbone) else load_backbone(backbone, **config.reading())
        config = replace(config, size=config.size or network.input_size)
        probes = _probes(images, config, network.in_channels, out)
        options = {"batch_size": config.batch_size, "device": config.device, "draws": config.draws}
        found = diagnose(network, probes, **options, seed=config.seed).as_dict()
    found["protocol"] = asdict(config) | {
        "region_path": network.region_path,
        "roi_size": network.roi_size,
        "interval": f"95 %, percentiles of {config.draws} bootstrap draws of objects",
        "different_objects": "in any contexts (context_sensitivity), at the same place (position_sensitivity)",
    }
    found |= {"backbone": spec, "data": "procedural scenes" if made else str(data)}
    found["versions"] = {"d3ssl": d3ssl.__version__, "torch": torch.__version__}
    if out is not None:
        write_json(Path(out) / "diagnosis.json", found)
    _show(spec, found)
    return found


def _probes(images: ImageSet, config: DiagnoseConfig, channels: int, out: str | Path | None) -> Iterator[ProbeSet]:
    """The probe sets, one after the other; of the first a contact sheet is drawn."""
    for seed in range(config.seeds):
        probes = build_probes(images, config, seed, channels=channels)
        if seed == 0 and out is not None:
            with write_atomically(Path(out) / "probes.png") as temporary:
                draw_sheet(probes).save(temporary, format="PNG")
        yield probes


def _show(spec: str, found: dict[str, Any]) -> None:
    rows = []
    for name in ("context_sensitivity", "position_sensitivity"):
        low, high = found[f"{name}_low"], found[f"{name}_high"]
        rows.append((name.replace("_", " "), f"{found[name]:.3f}", f"[{low:.3f}, {high:.3f}]"))
    title = f"{spec} (0: does not matter; 1: matters as much as which object it is)"
    show_table(title, ("", "value", "95 % interval"), rows)
