"""``d3ssl diagnose``: how much a backbone's region features depend on context and on place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

import d3ssl
from d3ssl.console import show_table
from d3ssl.data.image_set import ImageSet
from d3ssl.diagnose.collect import Collector
from d3ssl.diagnose.config import DiagnoseConfig, PaddingMode
from d3ssl.diagnose.cutouts import find_candidates, open_probe_images, procedural_images
from d3ssl.diagnose.diagnosis import Diagnosis, Options
from d3ssl.diagnose.measure import MEASURES
from d3ssl.diagnose.past import modules_of
from d3ssl.diagnose.pictures import Pictures, draw_pictures
from d3ssl.diagnose.probes import build_probes
from d3ssl.diagnose.report import write_report
from d3ssl.diagnose.sets import ProbeSet
from d3ssl.diagnose.sheet import draw_sheet
from d3ssl.diagnose.stored import ProbeFile, save_probes
from d3ssl.errors import InputError
from d3ssl.files import make_folder, write_atomically, write_json
from d3ssl.models import Backbone, load_backbone
from d3ssl.models.backbone import check_size

_OF_PROBES = (
    "size", "objects", "seeds", "object_side", "contexts", "uniform_contexts", "neighbours", "neighbour_side",
    "neighbour_classes", "other_sides", "grid", "min_side",
)  # fmt: skip
"""Options that decide what the probes are; those of a file of probes are kept in it."""
_DRAWN = 6
"""Objects of the first probe set that the report shows."""


def diagnose(
    backbone: Backbone,
    probes: ProbeSet | Iterable[ProbeSet],
    *,
    batch_size: int = 64,
    device: str = "auto",
    draws: int = 2000,
    seed: int = 0,
    layers: bool = True,
    blocks: int = 4,
    gradient_objects: int = 16,
    receptive_margin: float = 0.0,
    padding: Sequence[PaddingMode] = (),
) -> Diagnosis:
    """Take all measurements on one or several probe sets (see ``build_probes``; definitions: docs/measurements.md).

    A figure is the mean over the sets; the interval (95 %) comes from drawing objects again. Different objects are
    compared in any contexts, and at the same place (see ``sensitivity``).

    Args:
        probes: a set, or sets, which may be made while they are consumed: one is held at a time.
        device: ``auto``, ``cpu`` or ``cuda``.
        draws: bootstrap samples.
        seed: decides them, and which objects the read-outs hold out.
        layers: measure every map of the network too, by box and by mask.
        blocks: of a ViT, how many of its blocks.
        gradient_objects: objects of each set whose gradients are computed for receptive leakage.
        receptive_margin: border around the box that counts as inside it, share of the image.
        padding: modes of padding under which position sensitivity is measured as well.

    Raises:
        D3sslError: the features are not finite or all the same.
    """
    options = Options(
        batch_size=batch_size,
        device=device,
        draws=draws,
        seed=seed,
        layers=layers,
        blocks=blocks,
        gradient_objects=gradient_objects,
        receptive_margin=receptive_margin,
        padding=tuple(padding),
    )
    collector = Collector(backbone, options)
    for own in [probes] if isinstance(probes, ProbeSet) else probes:
        collector.add(own)
    return collector.finish()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Subject:
    """A backbone to diagnose."""

    spec: str
    network: Backbone


def diagnose_backbone(
    backbone: nn.Module | str | Path | Sequence[nn.Module | str | Path],
    data: str | Path | None = None,
    out: str | Path | None = None,
    config: DiagnoseConfig | None = None,
    *,
    probes: str | Path | None = None,
    save_to: str | Path | None = None,
) -> dict[str, Any]:
    """Build probes from data, diagnose, and write ``OUT/diagnosis.json``, ``OUT/report.html`` and ``OUT/probes.png``.

    Args:
        backbone: a backbone, a module of timm or torchvision, or a spec (see ``load_backbone``; what it makes of other
            modules with ``maps=``); or several, which are measured on the same probes.
        data: COCO data with masks, or a folder of `d3ssl scenes` (its ``val``); None: procedural scenes are made.
        out: folder; None: nothing is written.
        probes: a file of probes to use instead of data; its options hold.
        save_to: file that the probes are saved to.

    Returns:
        What ``diagnosis.json`` holds: every measurement (``context_sensitivity``, ``position_sensitivity``,
        ``neighbour_leakage``, ``receptive_leakage``, ``position_r2``, ``location_accuracy``) with ``_low``, ``_high``
        and ``_by_seed``; ``layers``, ``layers_by_mask``, ``by_size``, ``by_distance``, ``by_padding``;
        ``probe_objects``, ``probe_digest``, ``protocol``, ``backbone``, ``data``, ``versions``; of several backbones
        those of the first. ``rows``: the measurements of every backbone by its spec. None: not measured.

    Raises:
        InputError: unusable data, probes or options, no masks, too few objects.
        CheckpointError: a damaged file of probes.
        D3sslError: the features are not finite or all the same.
    """
    config = config or DiagnoseConfig()
    config.check()
    if out is not None:
        make_folder(out)
    with ExitStack() as stack:
        file = None if probes is None else stack.enter_context(ProbeFile(probes))
        images = None
        if file is None:
            images = stack.enter_context(procedural_images(config.seed)) if data is None else open_probe_images(data)
            find_candidates(images, config.min_side)  # fails before the backbone is loaded
        elif data is not None or save_to is not None:
            raise InputError("a file of probes and data to make them of", remedy="give one of --probes and --data.")
        subjects = _load(backbone, config)
        config = replace(config, size=config.size or subjects[0].network.input_size) if file is None else config
        config = config if file is None else _as_stored(config, file)
        _check(subjects, config, file)
        source = file.data if file is not None else "procedural scenes" if data is None else str(data)
        sets = _make(images, config, subjects[0].network.in_channels) if images is not None else iter(file or ())
        if save_to is not None:
            sets = save_probes(save_to, sets, options=_plain(config, _OF_PROBES), data=source)
        diagnoses, first = _collect(subjects, sets, config)
    rows = {
        own.spec: found.as_dict() | {"trained_with": modules_of(own.spec)}
        for own, found in zip(subjects, diagnoses, strict=True)
    }
    for row in rows.values():
        _add_size(row, config)
    found = dict(rows[subjects[0].spec])
    found["protocol"] = _protocol(config, subjects[0].network, probes)
    found |= {"backbone": subjects[0].spec, "data": source}
    found["versions"] = {"d3ssl": d3ssl.__version__, "torch": torch.__version__}
    found["rows"] = rows
    if out is not None:
        _write(Path(out), found, first, subjects, config)
    _show(found)
    return found


def _load(
    backbones: nn.Module | str | Path | Sequence[nn.Module | str | Path], config: DiagnoseConfig
) -> list[_Subject]:
    listed = list(backbones) if isinstance(backbones, list | tuple) else [backbones]
    subjects = [
        _given(own, config)
        if not isinstance(own, str | Path)
        else _Subject(spec=str(own), network=load_backbone(own, **config.reading()))
        for own in listed
    ]
    specs = [own.spec for own in subjects]
    if not specs or len(set(specs)) < len(specs):
        problem = "no backbone" if not specs else "the same backbone twice: " + ", ".join(specs)
        raise InputError(f"{problem} to diagnose", remedy="give every backbone once.")
    return subjects


def _given(module: Any, config: DiagnoseConfig) -> _Subject:
    """A backbone, or a module that ``load_backbone`` takes."""
    network = module if isinstance(module, Backbone) else load_backbone(module, **config.reading())
    return _Subject(spec=network.timm_name, network=network)


def _as_stored(config: DiagnoseConfig, file: ProbeFile) -> DiagnoseConfig:
    """The options that the probes of a file were made with; one that was asked for otherwise is an error."""
    default = DiagnoseConfig()
    stored = {name: file.options[name] for name in _OF_PROBES if name in file.options}
    stored = {name: tuple(value) if isinstance(value, list) else value for name, value in stored.items()}
    for name, value in stored.items():
        if getattr(config, name) not in (value, getattr(default, name)):
            problem = f"holds probes with {name} = {value!r}, not {getattr(config, name)!r}"
            raise InputError(problem, path=file.path, remedy="leave the option out, or make new probes.")
    return replace(config, **stored)


def _check(subjects: Sequence[_Subject], config: DiagnoseConfig, file: ProbeFile | None) -> None:
    """All that can go wrong before long work."""
    channels = subjects[0].network.in_channels if file is None else file.channels
    for own in subjects:
        if own.network.in_channels != channels:
            problem = f"'{own.spec}' takes images of {own.network.in_channels} channels, the probes have {channels}"
            raise InputError(problem, remedy="diagnose it by itself, on probes of its own.")
        if config.size is not None and hasattr(own.network, "layout"):
            check_size(own.network, (config.size, config.size))


def _make(images: ImageSet, config: DiagnoseConfig, channels: int) -> Iterator[ProbeSet]:
    """The probe sets, one after the other."""
    for seed in range(config.seeds):
        yield build_probes(images, config, seed, channels=channels)


def _collect(
    subjects: Sequence[_Subject], sets: Iterable[ProbeSet], config: DiagnoseConfig
) -> tuple[list[Diagnosis], ProbeSet | None]:
    """The diagnoses of all backbones on the same sets, and the first objects of the first set for pictures."""
    options = Options(**{option.name: getattr(config, option.name) for option in fields(Options)})
    collectors = [Collector(own.network, options, own.spec if len(subjects) > 1 else "") for own in subjects]
    first = None
    for probes in sets:
        for collector in collectors:
            collector.add(probes)
        first = first or probes.first(_DRAWN)
    return [collector.finish() for collector in collectors], first


def _add_size(row: dict[str, Any], config: DiagnoseConfig) -> None:
    """The objects' own size among the others, in order."""
    if row["by_size"]:
        keys = [name + end for name in MEASURES[:2] for end in ("", "_low", "_high")]
        row["by_size"][f"{config.object_side:g}"] = {key: row[key] for key in keys}
        row["by_size"] = dict(sorted(row["by_size"].items(), key=lambda item: float(item[0])))


def _plain(config: DiagnoseConfig, names: Iterable[str]) -> dict[str, Any]:
    """Options as JSON knows them."""
    values = asdict(config)
    return {name: list(values[name]) if isinstance(values[name], tuple) else values[name] for name in names}


def _protocol(config: DiagnoseConfig, network: Backbone, probes: str | Path | None) -> dict[str, Any]:
    return _plain(config, asdict(config)) | {
        "region_path": network.region_path,
        "roi_size": network.roi_size,
        "probes": None if probes is None else str(probes),
        "interval": f"95 %, percentiles of {config.draws} bootstrap draws of objects",
        "different_objects": "in any contexts (context_sensitivity), at the same place (position_sensitivity)",
    }


def _write(
    out: Path, found: dict[str, Any], first: ProbeSet | None, subjects: Sequence[_Subject], config: DiagnoseConfig
) -> None:
    assert first is not None
    sheet = draw_sheet(first)
    with write_atomically(out / "probes.png") as temporary:
        sheet.save(temporary, format="PNG")
    pictures: dict[str, Pictures] = {own.spec: draw_pictures(own.network, first, config) for own in subjects}
    write_report(out / "report.html", found, pictures, sheet)
    write_json(out / "diagnosis.json", found)


def _show(found: dict[str, Any]) -> None:
    specs = list(found["rows"])
    lines = []
    for name in MEASURES:
        cells = []
        for row in found["rows"].values():
            value, low, high = (row[name + end] for end in ("", "_low", "_high"))
            cells.append("–" if value is None else f"{value:.3f} [{low:.3f}, {high:.3f}]")
        lines.append((name.replace("_", " "), *cells))
    title = "value [95 % interval]; sensitivities: 0: does not matter; 1: matters as much as which object it is"
    show_table(title, ("", *specs), lines)
