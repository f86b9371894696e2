"""The model card of an exported backbone: what it is, what it was made from, how well it does, under which licence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

import d3ssl
from d3ssl.errors import D3sslError
from d3ssl.export.target import Origin
from d3ssl.files import read_json
from d3ssl.models.backbone import Backbone


def write_card(backbone: Backbone, origin: Origin, loading: str) -> str:
    """Markdown with Hugging Face's front matter. What the run does not hold is not mentioned, or said to be unknown."""
    head: dict[str, Any] = {"library_name": "timm", "tags": ["image-feature-extraction", "timm", "d3ssl"]}
    if origin.licence is not None:
        head["license"] = origin.licence
    parts = [
        f"---\n{yaml.safe_dump(head, sort_keys=False)}---",
        f"# {backbone.timm_name}, trained with d3ssl",
        _facts(backbone, origin),
        f"## Load it\n\n```python\n{loading}\n```",
        *_run_parts(origin.run),
        "## Licence\n\n" + _licence(origin),
    ]
    return "\n\n".join(parts) + "\n"


def _facts(backbone: Backbone, origin: Origin) -> str:
    mean, std = list(backbone.mean), list(backbone.std)
    maps = ", ".join(f"{c} at stride {s}" for c, s in zip(backbone.channels, backbone.strides, strict=True))
    rows = {
        "network": f"{backbone.library}'s {backbone.timm_name}, without classifier",
        "images": f"{backbone.in_channels} channels, 0..1, minus {mean}, divided by {std}",
        "trained at": f"{backbone.input_size} px",
        "channels of the maps": maps,
        "exported from": f"{origin.spec if origin.run is None else origin.run.name}, with d3ssl {d3ssl.__version__}",
    }
    return "\n".join(["| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in rows.items())])


def _run_parts(run: Path | None) -> list[str]:
    """Recipe, data and measures, as far as the run's folder has them."""
    if run is None:
        return []
    manifest, parts = read_json(run / "manifest.json"), []
    known = [
        key for key in ("data_digest", "images", "steps", "strength", "start_digest") if manifest.get(key) is not None
    ]
    if known:
        rows = "\n".join(f"- {key.replace('_', ' ')}: {manifest[key]}" for key in known)
        parts.append(f"## Training\n\n{rows}")
    if (run / "config.yaml").is_file():
        parts.append(f"## Recipe\n\n```yaml\n{_recipe(run / 'config.yaml')}```")
    if (run / "metrics.json").is_file():
        rows = "\n".join(f"- {key}: {value:.4g}" for key, value in _numbers(read_json(run / "metrics.json")).items())
        if rows:
            parts.append(f"## Measures\n\n{rows}")
    return parts


def _recipe(path: Path) -> str:
    """The run's options, without the paths of the machine that it ran on."""
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise D3sslError("cannot be read", path=path, remedy="copy the run's own config.yaml.") from error
    for key in ("data", "out", "regions"):
        config.pop(key, None)
    return yaml.safe_dump(config, sort_keys=False)


def _numbers(found: Any, name: str = "") -> dict[str, float]:
    """The figures in nested dictionaries, by their dotted names; lists are left to the report."""
    if isinstance(found, dict):
        nested = [_numbers(value, f"{name}.{key}" if name else str(key)) for key, value in found.items()]
        return {key: value for part in nested for key, value in part.items()}
    is_number = isinstance(found, int | float) and not isinstance(found, bool)
    return {name: float(found)} if is_number else {}


def _licence(origin: Origin) -> str:
    if origin.licence is not None:
        return f"{origin.licence}, as stated by whoever exported it."
    return (
        "Not stated. It depends on the licences of the weights that the training started from and of its images; "
        "`d3ssl export ... --licence NAME` writes it here."
    )
