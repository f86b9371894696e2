"""The report: self-contained, whole, and true to the figures it was given."""

import re
from html.parser import HTMLParser
from pathlib import Path

from PIL import Image

from d3ssl.cli.report import MEASURES, Row, verdict, write_report


def row(name: str, level: float, trained: bool) -> Row:
    metrics = {"chance": 0.05}
    for measure in MEASURES:
        metrics |= {measure.key: level, f"{measure.key}_low": level - 0.01, f"{measure.key}_high": level + 0.01}
    log = [
        {"step": s, "loss": 1 / s, "embedding_std": 0.9, "effective_rank": 9.0, "images_per_s": 50.0} for s in (1, 2)
    ]
    return Row(name=name, metrics=metrics, log=log if trained else [], seconds=12.0 if trained else None)


ROWS = [row("random", 0.2, False), row("host", 0.3, True), row("D3SSL", 0.15, True)]


def test_report_is_self_contained_and_whole(tmp_path: Path) -> None:
    picture = tmp_path / "p.png"
    Image.new("RGB", (8, 8)).save(picture)
    write_report(tmp_path / "report.html", ROWS, [("views", picture)], {"seed": "0", "odd": "<b>&"})
    text = (tmp_path / "report.html").read_text()
    HTMLParser().feed(text)
    assert not re.findall(r"""(?:src|href)=["'](?!data:)""", text)
    assert "http" not in text.replace("http-equiv", "")
    assert "20.0 [19.0, 21.0]" in text
    assert "&lt;b&gt;&amp;" in text
    assert text.count("<img") == 3


def test_verdict_says_what_was_measured_whatever_its_sign() -> None:
    assert "50% less on the surroundings" in " ".join(verdict(ROWS))
    assert "100% more on the surroundings" in " ".join(verdict([ROWS[0], ROWS[2], ROWS[1]]))
    same = verdict([ROWS[0], ROWS[1], ROWS[1]])
    assert "the intervals overlap" in " ".join(same)
