"""How many scenes a second one core makes, files included. Goal: at least 100 of 128 px.

    python benchmarks/scenes.py [--images 1000] [--size 128] [--cutouts DIR] [--backgrounds DIR] [--exclude NAME ...]

Expected on a 2.8 GHz core: about 200 procedural, about 170 photographic scenes a second. What is done once (reading
cut-outs and photographs) is measured with a single scene and taken off, and shown as "start". Core seconds hold on a
busy machine too. The median of three runs counts.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from d3ssl import console
from d3ssl.data.scenes import ScenesConfig, make_scenes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--cutouts")
    parser.add_argument("--backgrounds")
    parser.add_argument("--exclude", nargs="*", default=[])
    options = parser.parse_args()
    config = ScenesConfig(
        val_images=1,
        size=options.size,
        cutouts=options.cutouts,
        backgrounds=options.backgrounds,
        exclude=tuple(options.exclude),
        workers=1,
    )
    measured = []
    for _ in range(3):
        start_wall, start_core = _seconds(replace(config, images=1))
        wall, core = _seconds(replace(config, images=options.images + 1))
        measured.append((options.images / (core - start_core), options.images / (wall - start_wall), start_wall))
    rate, rate_wall, start = sorted(measured)[1]
    header = ("size", "scenes a core second", "scenes a second (wall clock)", "start, s", "goal")
    row = (f"{config.size} px", f"{rate:.0f}", f"{rate_wall:.0f}", f"{start:.2f}", "100")
    console.show_table("Making scenes", header, [row])


def _seconds(config: ScenesConfig) -> tuple[float, float]:
    """Wall-clock seconds and core seconds (user and system) that making the scenes takes in one process."""
    with tempfile.TemporaryDirectory() as folder:
        wall, core = time.perf_counter(), time.process_time()
        make_scenes(Path(folder) / "scenes", config)
        return time.perf_counter() - wall, time.process_time() - core


if __name__ == "__main__":
    main()
