"""Self-contained HTML pages: what people look at when a command is done. Nothing is loaded from elsewhere, and the
pages work without scripts, in light and dark, on a phone."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from d3ssl.files import write_text

COLOURS = ("#8a8f98", "#d9822b", "#2b6cb0", "#2f855a", "#805ad5", "#b83280", "#718096", "#975a16")
"""Of the rows of a comparison, in their order, in every plot of a page."""


def write_page(path: str | Path, title: str, parts: Iterable[str]) -> None:
    """Write a page atomically.

    Args:
        title: heading and window title, plain text.
        parts: HTML, from the functions below.
    """
    style = (resources.files("d3ssl") / "page.css").read_text(encoding="utf-8")
    shown = html.escape(title)
    body = "\n".join((f"<h1>{shown}</h1>", *parts))
    write_text(
        path,
        "<!doctype html>\n<html lang=en><head><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width, initial-scale=1'>"
        f"<title>{shown}</title><style>{style}</style></head>\n<body><main>\n{body}\n</main></body></html>\n",
    )


def heading(text: str) -> str:
    """The title of a section."""
    return f"<h2>{html.escape(text)}</h2>"


def paragraph(text: str, quiet: bool = False) -> str:
    """Plain text; ``quiet`` for notes."""
    return f"<p{' class=note' if quiet else ''}>{html.escape(text)}</p>"


def verdict(lines: Iterable[str]) -> str:
    """The conclusion in plain sentences, set off from the rest."""
    return f"<section class=verdict>{''.join(f'<p>{html.escape(line)}</p>' for line in lines)}</section>"


def definitions(terms: Iterable[tuple[str, str]]) -> str:
    """Terms and what they mean."""
    return "<dl>" + "".join(f"<dt>{html.escape(t)}</dt><dd>{html.escape(d)}</dd>" for t, d in terms) + "</dl>"


def table(
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    best: Iterable[tuple[int, int]] = (),
    note: str = "",
    words: bool = False,
) -> str:
    """A table that scrolls by itself on narrow screens; the first column names the rows.

    Args:
        header: one cell a column.
        rows: plain text; what follows a line break in the first cell is set small.
        best: (row, column) of the cells to set bold, counted from 0.
        note: a line below it.
        words: the cells hold sentences, which are wrapped, rather than figures.
    """
    bold = set(best)
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    lines = []
    for number, row in enumerate(rows):
        name, _, small = row[0].partition("\n")
        first = html.escape(name) + (f"<small>{html.escape(small)}</small>" if small else "")
        cells = "".join(
            f"<td{' class=best' if (number, column) in bold else ''}>{html.escape(cell)}</td>"
            for column, cell in enumerate(row[1:], start=1)
        )
        lines.append(f"<tr><th>{first}</th>{cells}</tr>")
    below = paragraph(note, quiet=True) if note else ""
    return (
        f"<div class=wide><table{' class=words' if words else ''}><tr>{head}</tr>{''.join(lines)}</table></div>{below}"
    )


def facts(values: dict[str, str]) -> str:
    """How something was run: names and values."""
    rows = "".join(f"<tr><th>{html.escape(k)}</th><td>{html.escape(v)}</td></tr>" for k, v in values.items())
    return f"<table class=facts>{rows}</table>"


def figure(png: bytes, caption: str) -> str:
    """A picture with its caption, embedded."""
    data = base64.b64encode(png).decode()
    text = html.escape(caption, quote=True)
    return f'<figure><img alt="{text}" src="data:image/png;base64,{data}"><figcaption>{text}</figcaption></figure>'


def plot_png(plot: Figure, dpi: int = 150) -> bytes:
    """A matplotlib figure as PNG; it is closed. Names are shown as they are, those with dollar signs too, which
    matplotlib would take for formulas."""
    for axes in plot.axes:
        for axis in (axes.xaxis, axes.yaxis):
            axis.get_ticklabels()  # makes them, where the names of bars are
    for text in plot.findobj(Text):
        assert isinstance(text, Text)
        if (
            "$" in text.get_text() and "\\mathdefault" not in text.get_text()
        ):  # what matplotlib's own numbers begin with
            text.set_parse_math(False)
    buffer = io.BytesIO()
    plot.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    plt.close(plot)
    return buffer.getvalue()


def image_png(image: Image.Image) -> bytes:
    """A picture as PNG."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()
