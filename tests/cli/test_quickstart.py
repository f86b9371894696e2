"""The quickstart in small: every stage, the report, and a second call that keeps what is finished."""

import json
import re
from pathlib import Path

import pytest

from d3ssl.cli.main import main


@pytest.mark.slow
def test_quickstart_in_small(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    out = tmp_path / "quick"
    words = ["quickstart", "--out", str(out), "--images", "120", "--val_images", "60", "--steps", "3"]
    assert main(words) == 0
    text = (out / "report.html").read_text()
    results = json.loads((out / "results.json").read_text())["rows"]
    assert list(results) == ["random init", "host", "D3SSL"]
    for row in results.values():
        for key in ("o_knn", "linear", "context_gap", "context_sensitivity", "position_sensitivity"):
            assert row[f"{key}_low"] <= row[key] <= row[f"{key}_high"]
    shown = results["D3SSL"]
    assert f"{100 * shown['o_knn']:.1f} [{100 * shown['o_knn_low']:.1f}" in text
    assert len(re.findall("<img", text)) == 6  # bars, curves, three views, probes
    host, ours = (json.loads((out / name / "log.jsonl").read_text().splitlines()[-1]) for name in ("host", "d3ssl"))
    assert "loss_deposition" in ours
    assert "loss_deposition" not in host
    weights = (out / "d3ssl" / "backbone.safetensors").read_bytes()
    capfd.readouterr()
    assert main(words) == 0
    assert "finished already" in capfd.readouterr().err
    assert (out / "d3ssl" / "backbone.safetensors").read_bytes() == weights
    assert main([*words[:-1], "4"]) == 2
    assert "other options" in capfd.readouterr().err
