"""Images that are there more than once: byte for byte, or to the eye."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int64, UInt8, UInt64
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

MOST_NEIGHBOURS = 200
"""An image is compared with so many of those that agree with it in a band: where more do (a camera that stands still),
groups still form, as each overlaps with the next."""
_BITS = 128
_MOST_PAIRS = 4_000_000


def exact_groups(content: UInt64[np.ndarray, "n 2"]) -> list[Int64[np.ndarray, "_"]]:
    """Groups of two or more equal rows, each ascending, in the order of their first members."""
    _, group = np.unique(content, axis=0, return_inverse=True)
    return _groups(group.reshape(-1))


def near_groups(look: UInt64[np.ndarray, "n 2"], distance: int) -> list[Int64[np.ndarray, "_"]]:
    """Groups of two or more rows that are linked by pairs which differ in at most ``distance`` of 128 bits, each
    ascending, in the order of their first members.

    Two rows that differ in d bits agree in at least one of d + 1 bands of bits, so only rows that agree in a band are
    compared (pigeonhole): exact as long as no more than ``MOST_NEIGHBOURS`` agree in one.
    """
    if len(look) == 0:
        return []
    values, place = np.unique(look, axis=0, return_inverse=True)
    group = np.arange(len(values), dtype=np.int64)
    if distance > 0:  # bands of 64 bits at most
        packed = values.astype(">u8").view(np.uint8).reshape(-1, _BITS // 8)
        for band in np.array_split(np.arange(_BITS), distance + 1):
            group = _join_band(values, _band(packed, int(band[0]), int(band[-1]) + 1), distance, group)
    return _groups(group[place.reshape(-1)])


def _band(packed: UInt8[np.ndarray, "n 16"], start: int, stop: int) -> UInt64[np.ndarray, "n"]:
    """Some of the bits as a number."""
    first = start // 8
    bits = np.unpackbits(packed[:, first : (stop + 7) // 8], axis=1)[:, start - 8 * first : stop - 8 * first]
    number = np.zeros(len(packed), dtype=np.uint64)
    for column in bits.T:
        number = (number << np.uint64(1)) | column
    return number


def _join_band(
    values: UInt64[np.ndarray, "n 2"], band: UInt64[np.ndarray, "n"], distance: int, group: Int64[np.ndarray, "n"]
) -> Int64[np.ndarray, "n"]:
    """Join the groups of rows that agree in the band and are near."""
    order = np.argsort(band, kind="stable")
    ordered = band[order]
    start = np.arange(len(order))
    edges: list[np.ndarray] = []
    for step in range(1, MOST_NEIGHBOURS + 1):
        start = start[start + step < len(order)]
        start = start[ordered[start] == ordered[start + step]]
        if not len(start):
            break
        one, other = order[start], order[start + step]
        is_near = np.bitwise_count(values[one] ^ values[other]).sum(axis=1) <= distance
        edges.append(np.stack([one[is_near], other[is_near]]))
        if sum(part.shape[1] for part in edges) > _MOST_PAIRS:
            group, edges = _join(group, edges), []
    return _join(group, edges)


def _join(group: Int64[np.ndarray, "n"], edges: list[np.ndarray]) -> Int64[np.ndarray, "n"]:
    one, other = np.concatenate([np.zeros((2, 0), dtype=np.int64), *edges], axis=1)
    size = len(group)
    links = coo_array((np.ones(len(one), dtype=np.int8), (group[one], group[other])), shape=(size, size))
    return connected_components(links, directed=False)[1].astype(np.int64)[group]


def _groups(number: Int64[np.ndarray, "n"]) -> list[Int64[np.ndarray, "_"]]:
    order = np.argsort(number, kind="stable").astype(np.int64)
    cuts = np.flatnonzero(np.diff(number[order])) + 1
    return sorted((part for part in np.split(order, cuts) if len(part) > 1), key=lambda part: int(part[0]))
