"""``d3ssl benchmark openimage-mini`` as people meet it."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from d3ssl.cli.benchmark import run
from d3ssl.data.open_images import card as card_module
from d3ssl.errors import InputError
from d3ssl.files import read_json
from tests.data.test_open_images_layout import random_rows, write_release


@pytest.fixture(autouse=True)
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(card_module, "draw_plots", lambda *_: {})


@pytest.mark.parametrize("words", [["--help"], [], ["openimage-mini"], ["openimage-mini", "--help"]])
def test_usage(words: list[str], capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(words)
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert "examples:" in text
    for action in ("build", "download", "verify"):
        assert f"d3ssl benchmark openimage-mini {action}" in text


@pytest.mark.parametrize(
    ("action", "options"),
    [
        (
            "build",
            ["--metadata", "--out", "--images", "--min_classes", "--min_boxes", "--per_class_cap", "--seed_text"],
        ),
        ("download", ["--base_url", "--workers", "--attempts", "--checksums", "--accept_missing"]),
        ("verify", ["--decode"]),
    ],
)
def test_every_action_explains_itself(action: str, options: list[str], capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(["openimage-mini", action, "--help"])
    assert stopped.value.code in (0, None)
    text = capsys.readouterr().out
    assert "examples:" in text
    assert all(option in text for option in options)


def test_build_and_verify(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    release = write_release(tmp_path / "release", {"train": random_rows(200)})
    words = ["--images", "20", "--val_images", "0", "--test_images", "0", "--min_class_images", "5"]
    out = str(tmp_path / "mini")
    run(["openimage-mini", "build", "--metadata", str(release), "--out", out, *words, "--seed_text", "mine"])
    assert read_json(tmp_path / "mini/benchmark.json")["options"]["seed_text"] == "mine"
    assert len((tmp_path / "mini/train/ids.txt").read_text().split()) == 20
    capfd.readouterr()
    run(["openimage-mini", "verify", out])
    assert "train: 20 images" in capfd.readouterr().err
    with open(tmp_path / "mini/classes.csv", "a", newline="") as file:
        csv.writer(file).writerow(["one more"])
    with pytest.raises(InputError, match=r"classes\.csv: was changed"):
        run(["openimage-mini", "verify", out])


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["openimage-mni", "build"], "there is no benchmark 'openimage-mni'"),
        (["openimage-mini", "buidl"], "openimage-mini has no action 'buidl'"),
        (["openimage-mini", "build", "--metadata", "m", "--out", "o", "--imagse", "9"], "there is no option 'imagse'"),
        (["openimage-mini", "build", "--out", "o"], "metadata"),
        (["openimage-mini", "build", "--metadata", "m", "--out", "o", "--images", "many"], "images"),
        (["openimage-mini", "build", "--metadata", "none", "--out", "o"], "none: no such folder of metadata"),
        (["openimage-mini", "download", "none"], "base_url"),
        (["openimage-mini", "download", "none", "--base_url", "http://127.0.0.1:9"], "is no finished benchmark"),
        (["openimage-mini", "verify", "none"], "is no finished benchmark"),
    ],
)
def test_mistakes_are_named(words: list[str], problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as caught:
        run(words)
    assert problem in str(caught.value)
    assert not list(tmp_path.iterdir())
