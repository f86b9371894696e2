"""Packing images into shards: the same bytes, the same ids, the same tars on every machine.

The shards are written into the folder OUT.parts, which becomes OUT when all of them are whole, with a list of them
(``d3ssl-shards.json``). A shard is read back and compared before it gets its name, so a packing that was stopped goes
on behind the last whole one.
"""

from __future__ import annotations

import io
import os
import shutil
import tarfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from d3ssl import __version__
from d3ssl.console import Ticker, progress, say
from d3ssl.data.image_set import ANNOTATIONS, ImageSet
from d3ssl.data.place import file_bytes, open_place
from d3ssl.data.shards.index import make_index
from d3ssl.data.shards.members import MAX_IMAGE_BYTES, member_id, split_key
from d3ssl.data.shards.packed import FORMAT, PACKED, read_packed
from d3ssl.data.shards.tar import BLOCK
from d3ssl.data.sources import open_images
from d3ssl.errors import D3sslError, InputError, first_names
from d3ssl.files import read_json, write_atomically, write_json

MAX_SHARDS = 100_000
_PLAN = "plan.json"
_UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shard:
    name: str
    rows: range
    """Positions of its images."""
    bytes: int
    """Of the finished tar."""


def parse_size(text: str) -> int:
    """``1GB``, ``500 MB`` (decimal), ``1GiB`` (binary) or a plain number of bytes → bytes.

    Raises:
        InputError: it is none of these, or not above 0.
    """
    number = text.strip().rstrip("BbKkMmGgTtIi ")
    unit = text.strip()[len(number) :].strip().upper() or "B"
    try:
        size = int(float(number) * _UNITS[unit])
    except (ValueError, KeyError, OverflowError):
        size = 0
    if size <= 0:
        raise InputError(f"'{text}' is no size", remedy="write a number and a unit, such as 500MB or 1GB.")
    return size


def _shown(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.2f} MB"


def pack_shards(data: str | Path, out: str | Path, size: str = "1GB") -> Path:
    """Pack DATA into shards; annotations (COCO) are copied beside them.

    Member names are the images' ids, in their order, so the shards give the same ids, digest, regions and training
    order as DATA. Other files than images (semantic maps beside them) are not packed.

    Args:
        data: anything that ``open_images`` opens.
        out: folder to make; it appears when it is whole. If it holds these images already, nothing is done.
        size: largest shard, see ``parse_size``; a larger image has a shard of its own.

    Returns:
        The folder.

    Raises:
        InputError: an image is missing or too large; two images would be one sample; ``out`` holds something else.
        D3sslError: the disk is too small, or a shard could not be read back as it was written.
    """
    out, limit = Path(out), parse_size(size)
    images = open_images(data)
    _check_annotations(images)
    sizes = _sizes(images)
    identity = {"d3ssl_shards": FORMAT, "data_digest": images.digest(), "limit": limit}
    if _is_packed(out, identity):
        say(f"{out} holds these shards already")
        return out
    plan = _plan(images.ids, sizes, limit)
    parts = out.with_name(out.name + ".parts")
    _start(parts, identity, plan)
    with progress("packing", len(images)) as ticker:
        for shard in plan:
            _write_shard(parts / shard.name, images, shard, sizes, ticker)
    _finish(parts, out, images, identity, plan)
    say(f"{out}: {len(images)} images in {len(plan)} shards, {_shown(sum(shard.bytes for shard in plan))}")
    return out


def _check_annotations(images: ImageSet) -> None:
    if images.annotations is None:
        return
    path = images.annotations.path
    if path.suffix.lower() != ".json":
        raise InputError("is no COCO file, so it cannot be copied beside shards", path=path, remedy="convert it.")
    if len(read_json(path).get("images", ())) != len(images):
        problem = "names images that are not among those to be packed"
        raise InputError(problem, path=path, remedy="pack the whole data set, or a copy of the file without them.")


def _sizes(images: ImageSet) -> list[int]:
    """Bytes of all images, after a look at all of them and at the samples that they will be."""
    sizes = [file_bytes(path) for path in images.paths]
    missing = [str(path) for path, size in zip(images.paths, sizes, strict=True) if size < 0]
    if missing:
        problem = f"{len(missing)} images cannot be found: {first_names(missing)}"
        raise InputError(problem, path=images.root, remedy="restore them.")
    for path, size in zip(images.paths, sizes, strict=True):
        if size > MAX_IMAGE_BYTES:
            problem = f"has {size:,} bytes; shards take images of up to {MAX_IMAGE_BYTES:,}"
            raise InputError(problem, path=path, remedy="cut the image into tiles, or take it away.")
    seen: dict[str, str] = {}
    for name in images.ids:
        other = seen.setdefault(split_key(name)[0], name)
        if other != name:
            problem = f"{other} and {name} are alike up to the first dot, so they would be one sample"
            remedy = "rename one of them: in shards the name up to the first dot tells samples apart."
            raise InputError(problem, path=images.root, remedy=remedy)
        if member_id(name) != name or any(part.startswith(".") for part in name.split("/")):
            raise InputError(f"the image {name!r} would be hidden in a shard", path=images.root, remedy="rename it.")
    return sizes


def _is_packed(out: Path, identity: dict[str, Any]) -> bool:
    """Whether ``out`` holds what is wanted; an error if it holds something else."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    listed = read_packed(out) if out.is_dir() else None
    if listed is not None and all(listed.get(key) == value for key, value in identity.items()):
        open_images(out)  # all there
        return True
    raise InputError("is there already and holds something else", path=out, remedy="choose another --out.")


def _info(name: str, size: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644  # time, user and group are 0 and unnamed
    return info


def _plan(ids: Sequence[str], sizes: Sequence[int], limit: int) -> list[_Shard]:
    """Which images go into which shard: as many as fit, in their order."""
    cuts, totals, end = [0], [0], 2 * BLOCK
    for row, (name, size) in enumerate(zip(ids, sizes, strict=True)):
        header = _info(name, size).tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
        taken = len(header) + -(-size // BLOCK) * BLOCK
        if totals[-1] and _rounded(totals[-1] + taken + end) > limit:
            cuts.append(row)
            totals.append(0)
        totals[-1] += taken
    if len(totals) > MAX_SHARDS:
        raise InputError(f"{len(totals):,} shards are too many", remedy="choose a larger --size.")
    digits = max(3, len(str(len(totals) - 1)))
    rows = [range(first, last) for first, last in zip(cuts, [*cuts[1:], len(ids)], strict=True)]
    return [
        _Shard(name=f"{number:0{digits}d}.tar", rows=own, bytes=_rounded(total + end))
        for number, (own, total) in enumerate(zip(rows, totals, strict=True))
    ]


def _rounded(size: int) -> int:
    return -(-size // tarfile.RECORDSIZE) * tarfile.RECORDSIZE


def _start(parts: Path, identity: dict[str, Any], plan: Sequence[_Shard]) -> None:
    """Make the folder of parts, or go on in one that was left by the same packing."""
    if (parts / _PLAN).exists():
        if read_json(parts / _PLAN) != identity:
            remedy = "remove it, or give the images and the size that it was begun with."
            raise InputError("was begun with other images or another size", path=parts, remedy=remedy)
    elif parts.exists() and any(parts.iterdir()):
        raise InputError("is in the way", path=parts, remedy="remove it, or choose another --out.")
    else:
        write_json(parts / _PLAN, identity)
    for torn in parts.glob(".*.tmp"):  # of a process that was killed while it wrote
        torn.unlink()
    needed = sum(shard.bytes for shard in plan if not (parts / shard.name).exists())
    free = shutil.disk_usage(parts).free
    if needed > free:
        problem = f"takes {_shown(needed)}, and {_shown(free)} are free"
        raise D3sslError(problem, path=parts, remedy="free some space, or choose another --out.")


def _write_shard(path: Path, images: ImageSet, shard: _Shard, sizes: Sequence[int], ticker: Ticker) -> None:
    if path.exists():
        ticker.advance(len(shard.rows), "kept from before")
        return
    sums: list[int] = []
    with write_atomically(path) as temporary:
        with tarfile.open(temporary, "w", format=tarfile.PAX_FORMAT, encoding="utf-8") as tar:
            for row in shard.rows:
                with open_place(images.paths[row]) as file:
                    content = file.read()
                if len(content) != sizes[row]:
                    problem = f"had {sizes[row]} bytes before and has {len(content)} now"
                    raise InputError(problem, path=images.paths[row], remedy="pack when nobody changes the images.")
                tar.addfile(_info(images.ids[row], len(content)), io.BytesIO(content))
                sums.append(zlib.crc32(content))
                ticker.advance(note=path.name)
        _check_written(temporary, path, shard, images.ids, sums)
    make_index(path)


def _check_written(written: Path, path: Path, shard: _Shard, ids: Sequence[str], sums: Sequence[int]) -> None:
    """Read a shard back, by the standard library's reader, and compare names and contents with what was read."""
    found: list[tuple[str, int]] = []
    with tarfile.open(written, "r:", encoding="utf-8") as tar:
        for info in tar:
            content = tar.extractfile(info)
            assert content is not None  # regular files only were written
            found.append((info.name, zlib.crc32(content.read())))
    wanted = list(zip((ids[row] for row in shard.rows), sums, strict=True))
    if found != wanted or written.stat().st_size != shard.bytes:
        raise D3sslError("cannot be read back as it was written", path=path, remedy="check the disk.")


def _finish(parts: Path, out: Path, images: ImageSet, identity: dict[str, Any], plan: Sequence[_Shard]) -> None:
    if images.annotations is not None:
        with write_atomically(parts / ANNOTATIONS) as temporary:
            shutil.copyfile(images.annotations.path, temporary)
    shards = {shard.name: shard.bytes for shard in plan}
    write_json(parts / PACKED, {**identity, "images": len(images), "d3ssl": __version__, "shards": shards})
    packed = open_images(parts)
    if packed.ids != images.ids or packed.digest() != identity["data_digest"]:
        raise D3sslError("does not give the images that were packed", path=parts, remedy="report this, please.")
    (parts / _PLAN).unlink()
    try:
        os.replace(parts, out)
    except OSError as error:
        remedy = f"rename {parts} to it, all is there, or call again."
        raise D3sslError(f"cannot be made ({error.strerror})", path=out, remedy=remedy) from error
