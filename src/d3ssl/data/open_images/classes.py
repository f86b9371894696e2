"""The boxable classes of Open Images."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from pathlib import Path

from d3ssl.data.open_images.columns import open_text, read_rows
from d3ssl.errors import InputError

_LABEL = re.compile(r"/[a-z]/[0-9a-z_]+")
_REMEDY = "take class-descriptions-boxable.csv as Open Images publishes it: a label such as /m/01g317, a name."


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxableClasses:
    """Classes, sorted by label, so that a class has the same number whatever the order of the file."""

    labels: tuple[str, ...]
    """As in the files, such as ``/m/01g317``."""
    names: tuple[str, ...]
    """For people, such as ``Person``."""

    def __len__(self) -> int:
        return len(self.labels)

    def numbers(self) -> dict[str, int]:
        """Label → its position here."""
        return {label: number for number, label in enumerate(self.labels)}


def read_classes(path: Path) -> BoxableClasses:
    """Read ``class-descriptions-boxable.csv``, with or without a header (LabelName, DisplayName): releases differ.

    Raises:
        InputError: no such file, an empty one, or a malformed or repeated line; names the line.
    """
    found: dict[str, str] = {}
    with open_text(path) as file:
        reader = read_rows(file)
        try:
            for row in reader:
                if not row or (reader.line_num == 1 and row[0] == "LabelName"):
                    continue
                if len(row) != 2 or not _LABEL.fullmatch(row[0]) or not row[1].strip():
                    problem = f"line {reader.line_num}: {','.join(row)[:100]!r} is no label and name of a class"
                    raise InputError(problem, path=path, remedy=_REMEDY)
                if row[0] in found:
                    problem = f"line {reader.line_num}: the label {row[0]!r} stands here for the second time"
                    raise InputError(problem, path=path, remedy="keep one of the lines.")
                found[row[0]] = row[1].strip()
        except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
            problem = f"cannot be read after line {reader.line_num} ({error})"
            raise InputError(problem, path=path, remedy=_REMEDY) from error
    if not found:
        raise InputError("names no class", path=path, remedy=_REMEDY)
    labels = tuple(sorted(found))
    return BoxableClasses(labels=labels, names=tuple(found[label] for label in labels))
