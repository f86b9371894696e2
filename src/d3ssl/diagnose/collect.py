"""Probe sets through one backbone, one after the other; then its diagnosis."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from d3ssl.console import Ticker, progress
from d3ssl.diagnose.diagnosis import Diagnosis, Options
from d3ssl.diagnose.features import REGION, Way, probed, read_probe
from d3ssl.diagnose.measure import Facts, Features, Measured, know, measure
from d3ssl.diagnose.padding import with_padding
from d3ssl.diagnose.readouts import most_frequent
from d3ssl.diagnose.receptive import receptive_leakage
from d3ssl.diagnose.sets import Probe, ProbeSet
from d3ssl.errors import InputError
from d3ssl.evaluate.features import pick_device
from d3ssl.models import Backbone


class Collector:
    """Keeps the features of all probe sets of one backbone; the images go."""

    def __init__(self, backbone: Backbone, options: Options, label: str = "") -> None:
        self.backbone, self.options, self.label = backbone, options, label
        self._device = pick_device(options.device)
        self._variants = {mode: with_padding(backbone, mode) for mode in options.padding}
        self._facts: list[Facts] = []
        self._ways: dict[Way, list[Features]] = {}
        self._sizes: dict[float, list[Features]] = {}
        self._padding: dict[str, list[Features]] = {mode: [] for mode in options.padding}

    def add(self, probes: ProbeSet) -> None:
        """Read all features of a probe set, on the device."""
        options = self.options
        blocks = options.blocks if options.layers else None
        total = sum(probe.boxes[..., 0].size for _, probe in probes.probes())
        total += min(options.gradient_objects, len(probes.labels))
        total += len(self._variants) * probes.position.boxes[..., 0].size
        label = f"features of probe set {len(self._facts) + 1}" + (f", {self.label}" if self.label else "")
        with progress(label, total) as ticker:
            with probed(self.backbone, self._device):
                self._read(probes, ticker, blocks)
            for mode, changed in self._variants.items():
                with probed(changed, self._device):
                    found = self._plain(changed, probes.position, ticker)
                self._padding[mode].append(Features(position=found))
        self._facts.append(know(probes))

    def _read(self, probes: ProbeSet, ticker: Ticker, blocks: int | None) -> None:
        options = self.options
        context = read_probe(self.backbone, probes.context, options.batch_size, ticker, blocks)
        position = read_probe(self.backbone, probes.position, options.batch_size, ticker, blocks)
        neighbour: dict[Way, Tensor] = {}
        if probes.neighbour is not None:
            neighbour = read_probe(self.backbone, probes.neighbour.shown, options.batch_size, ticker, blocks)
        for sized in probes.sizes:
            found = [self._plain(self.backbone, probe, ticker) for probe in (sized.context, sized.position)]
            self._sizes.setdefault(sized.side, []).append(Features(context=found[0], position=found[1]))
        shares: dict[Way, np.ndarray] = {}
        if options.gradient_objects:
            count, margin = options.gradient_objects, options.receptive_margin * probes.context.images.shape[2]
            centres = {way: own.flatten(0, 1).mean(dim=0) for way, own in context.items()}
            some = Probe(
                images=probes.context.images[:count],
                boxes=probes.context.boxes[:count],
                alpha=None if probes.context.alpha is None else probes.context.alpha[:count],
            )
            shares = receptive_leakage(self.backbone, some, centres, ticker, margin=margin, blocks=blocks).share
        for way, own in context.items():
            read = Features(
                context=own, position=position[way], neighbour=neighbour.get(way), receptive=shares.get(way)
            )
            self._ways.setdefault(way, []).append(read)

    def _plain(self, backbone: Backbone, probe: Probe, ticker: Ticker) -> Tensor:
        return read_probe(backbone, probe, self.options.batch_size, ticker, None)[REGION]

    def finish(self) -> Diagnosis:
        """The diagnosis from all sets.

        Raises:
            InputError: there were none.
            D3sslError: features are not finite or all the same.
        """
        if not self._facts:
            raise InputError("no probe sets to diagnose with", remedy="give at least one.")
        draws, seed = self.options.draws, self.options.seed
        ways = {REGION: self._ways[REGION]} | self._ways
        measured: dict[Way, Measured] = {}
        with progress("measuring" + (f", {self.label}" if self.label else ""), len(ways)) as ticker:
            for way, own in ways.items():
                measured[way] = measure(own, self._facts, draws, seed)
                ticker.advance(note=" ".join(way))
        by_size = {side: measure(own, self._facts, draws, seed, read_out=False) for side, own in self._sizes.items()}
        by_padding = {mode: measure(own, self._facts, draws, seed) for mode, own in self._padding.items()}
        region = measured[REGION]
        assert region.context_sensitivity is not None and region.position_sensitivity is not None
        return Diagnosis(
            context_sensitivity=region.context_sensitivity,
            position_sensitivity=region.position_sensitivity,
            neighbour_leakage=region.neighbour_leakage,
            receptive_leakage=region.receptive_leakage,
            position_r2=region.position_r2,
            location_accuracy=region.location_accuracy,
            layers={way.layer: own for way, own in measured.items() if way.pooling == "box"},
            layers_by_mask={way.layer: own for way, own in measured.items() if way.pooling == "mask"},
            by_distance=region.by_distance,
            by_size=by_size,
            by_padding=by_padding,
            neighbour_chance=None if region.neighbour_leakage is None else self._chance(),
            location_chance=None if region.location_accuracy is None else most_frequent([f.cells for f in self._facts]),
            objects=tuple(len(own.identities) for own in self._facts),
            probe_digests=tuple(own.digest for own in self._facts),
        )

    def _chance(self) -> float:
        labels = [own.neighbour_label for own in self._facts if own.neighbour_label is not None]
        counts = [len(own.identities) for own in self._facts]
        return most_frequent([np.tile(own, (count, 1)) for own, count in zip(labels, counts, strict=True)])
