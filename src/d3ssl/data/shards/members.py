"""The images in shards, by the WebDataset layout.

The files of one sample are neighbours in the tar and share their key: the path up to the first dot of its last part.
``street/0001.jpg``, ``street/0001.json`` and ``street/0001.seg.png`` are the sample ``street/0001``; what follows the
first dot is the files' ending. Layout: github.com/webdataset/webdataset, "The WebDataset Format".
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path, PurePosixPath

from d3ssl.console import progress
from d3ssl.data.images import IMAGE_SUFFIXES
from d3ssl.data.place import Member
from d3ssl.data.shards.index import make_index, read_index
from d3ssl.data.shards.tar import Contents
from d3ssl.errors import InputError

MAX_IMAGE_BYTES = 2_000_000_000
"""Largest image file in a shard that is taken, bytes (2 GB)."""


def read_members(shards: Sequence[Path], *, one_a_sample: bool) -> dict[str, Member]:
    """The image files of some shards, by id: the name in Unicode's composed form (NFC), without ``./``.

    Hidden files and folders (a part of the path begins with a dot) are passed over, as in folders, and so are files
    that are no images.

    Args:
        shards: uncompressed tars.
        one_a_sample: take the one image of every sample, see ``sample_image``; otherwise all image files, for those who
            know the names they want.

    Raises:
        InputError: a shard cannot be read (see ``scan_tar`` and ``check_names``); two files have the same id; a file is
            larger than ``MAX_IMAGE_BYTES``; a sample has several images.
    """
    found: dict[str, Member] = {}
    for shard, contents in zip(shards, _index(shards), strict=True):
        for name, member in _images(shard, contents, one_a_sample):
            if name in found:
                problem = f"holds the image {member.name!r}, which {found[name].shard} holds too"
                raise InputError(problem, path=shard, remedy="give every image a name of its own.")
            found[name] = member
    return found


def _index(shards: Sequence[Path]) -> list[Contents]:
    """What lies where in every shard; the headers are read of those that have no index."""
    kept = [read_index(shard) for shard in shards]
    lacking = kept.count(None)
    if not lacking:
        return [contents for contents in kept if contents is not None]
    with progress("indexing shards", len(shards), len(shards) - lacking) as ticker:
        for number, shard in enumerate(shards):
            if kept[number] is None:
                kept[number] = make_index(shard)
                ticker.advance()
    return [contents for contents in kept if contents is not None]


def _images(shard: Path, contents: Contents, one_a_sample: bool) -> list[tuple[str, Member]]:
    rows = _image_rows(shard, contents.names) if one_a_sample else _named_like_images(contents.names)
    found = []
    for row in rows:
        member = Member(shard, contents.names[row], int(contents.offsets[row]), int(contents.sizes[row]))
        if member.size > MAX_IMAGE_BYTES:
            problem = f"has {member.size:,} bytes; images of up to {MAX_IMAGE_BYTES:,} are taken"
            raise InputError(problem, path=member, remedy="cut the image into tiles, or take it away.")
        found.append((member_id(member.name), member))
    return found


def member_id(name: str) -> str:
    """The id of an image from its name in a tar."""
    if name.startswith("./") or "//" in name or "/./" in name:
        name = PurePosixPath(name).as_posix()
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def split_key(name: str) -> tuple[str, str]:
    """The key of a file's sample, and the file's ending in lower case; the ending is empty if the name has no dot."""
    folder, slash, last = name.rpartition("/")
    stem, _, ending = last.partition(".")
    return folder + slash + stem, ending.lower()


def _named_like_images(names: Sequence[str]) -> list[int]:
    suffixes = tuple(IMAGE_SUFFIXES)
    return [row for row, name in enumerate(names) if name.lower().endswith(suffixes) and not _is_hidden(name)]


def _is_hidden(name: str) -> bool:
    return (name.startswith(".") or "/." in name) and any(part[:1] == "." for part in PurePosixPath(name).parts)


def _image_rows(shard: Path, names: Sequence[str]) -> list[int]:
    """The rows of the images, one a sample."""
    listed = [(*split_key(name), row) for row, name in enumerate(names) if not _is_hidden(name)]
    found = []
    for _, files in groupby((entry for entry in listed if entry[1]), key=lambda entry: entry[0]):
        sample = {ending: row for _, ending, row in files}
        chosen = sample_image(list(sample))
        if len(chosen) > 1:
            some = ", ".join(names[sample[ending]] for ending in chosen[:3])
            remedy = "one image a sample: rename them, or give masks and the like a longer ending (name.mask.png)."
            raise InputError(f"holds a sample with {len(chosen)} images: {some}", path=shard, remedy=remedy)
        found += [sample[ending] for ending in chosen]
    return found


def sample_image(endings: Sequence[str]) -> list[str]:
    """Which of a sample's files is its image: the only one whose ending is or ends in an image's (``jpg``, ``1.jpg``);
    of several, the one with nothing else in its ending (``jpg`` beside ``seg.png``). More than one: it is not known."""
    images = [ending for ending in endings if "." + ending.rpartition(".")[2] in IMAGE_SUFFIXES]
    plain = [ending for ending in images if "." not in ending]
    return images if len(images) == 1 else plain or images
