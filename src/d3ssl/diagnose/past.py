"""What a backbone's training has done already, so that a diagnosis does not advise it again."""

from __future__ import annotations

from pathlib import Path

import yaml

from d3ssl.files import read_text

MODULES = ("decouple", "deposition")
"""Options of ``--method`` that a diagnosis may advise."""


def modules_of(spec: str) -> list[str]:
    """The modules that the run trained with whose folder or exported file this is; none for other backbones."""
    place = Path(spec)
    file = (place if place.is_dir() else place.parent) / "config.yaml"
    is_run = place.is_dir() or (place.suffix == ".safetensors" and place.is_file())
    if not is_run or not file.is_file():
        return []
    try:
        config = yaml.safe_load(read_text(file))
    except (yaml.YAMLError, UnicodeDecodeError):  # of another program, for which nothing is known either
        return []
    method = config.get("method") if isinstance(config, dict) else None
    return [name for name in MODULES if isinstance(method, dict) and method.get(name) is True]
