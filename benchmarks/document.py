"""Tables in documents, between marks, so that the command that made them can make them again."""

from __future__ import annotations

from pathlib import Path

from d3ssl.files import write_atomically


def put(document: Path, name: str, text: str, by: str) -> None:
    """Replace what stands between a document's marks of this name, or add it at the end; make the document if need be.

    Args:
        by: the folder of the benchmark, which the marks name.

    Raises:
        ValueError: only one of the two marks is there.
    """
    begin, end = _marks(name, by)
    old = document.read_text(encoding="utf-8") if document.exists() else ""
    if (begin in old) != (end in old):
        raise ValueError(f"{document} holds only one of the marks of {name}")
    block = f"{begin}\n{text}\n{end}"
    if begin in old:
        before, _, rest = old.partition(begin)
        new = before + block + rest.partition(end)[2]
    else:
        new = f"{old.rstrip()}\n\n{block}\n".lstrip()
    with write_atomically(document) as temporary:
        temporary.write_text(new, encoding="utf-8")


def get(document: Path, name: str, by: str) -> str | None:
    """What stands between the marks of this name; None: they are not there."""
    begin, end = _marks(name, by)
    text = document.read_text(encoding="utf-8")
    return text.partition(begin)[2].partition(end)[0].strip("\n") if begin in text else None


def _marks(name: str, by: str) -> tuple[str, str]:
    return f"<!-- {name}: written by {by} -->", f"<!-- end of {name} -->"
