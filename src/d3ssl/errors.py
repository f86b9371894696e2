"""The errors a user is meant to read: what is wrong, where, and what to do about it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence


class D3sslError(Exception):
    """Something the user can put right. The command line prints it without a traceback and exits with 2.

    Args:
        problem: one sentence that says what is wrong.
        path: the file or folder at fault; anything that names one as text, such as a member of a shard.
        remedy: one sentence that says what to do.
    """

    def __init__(self, problem: str, *, path: object = None, remedy: str | None = None) -> None:
        self.problem, self.path, self.remedy = problem, path, remedy
        where = f"{path}: " if path is not None else ""
        super().__init__(f"{where}{problem}" + (f"\n  What to do: {remedy}" if remedy else ""))


class InputError(D3sslError):
    """An input (image, annotations file, regions file, option, backbone name) cannot be used."""


class CheckpointError(D3sslError):
    """A checkpoint or exported file is missing, damaged or made for another configuration."""


def nearest(name: str, known: Iterable[str]) -> str:
    """``"Did you mean 'x'? Known: …"`` for an unknown name, for use as a remedy.

    A name with dots (``host.roi_sizes``) is looked for in its group, then at the end of the names of other groups.
    """
    known = sorted(known)
    group, _, last = name.rpartition(".")
    own = [other for other in known if group and other.startswith(f"{group}.")]
    if own:
        close = _closest(last, {other[len(group) + 1 :]: other for other in own}, 0.5)
        close = close or _closest(last, {other.rpartition(".")[2]: other for other in reversed(known)}, 0.8)
    else:
        close = _closest(name, {other: other for other in known}, 0.5)
    return (f"did you mean '{close}'? " if close else "") + f"Known: {first_names(own or known, 30)}."


def _closest(name: str, known: Mapping[str, str], cutoff: float) -> str | None:
    """What is known under the name most like this one, if any is like it."""
    found = difflib.get_close_matches(name, known, n=1, cutoff=cutoff)
    return known[found[0]] if found else None


def first_names(names: Sequence[str], most: int = 5) -> str:
    """``"a, b, c, d, e, …"``: enough of a list to know which ones are meant."""
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")


def one_line(error: Exception, most: int | None = 200) -> str:
    """What an error says, for another one's sentence: without line breaks, of so many characters at most."""
    return " ".join(str(error).split())[:most]


def first_line(error: Exception) -> str:
    """The first line of what an error says; empty if it says nothing."""
    return next(iter(str(error).strip().splitlines()), "")
