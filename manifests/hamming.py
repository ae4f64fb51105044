"""Perceptual hashes that differ in few bits: every pair, found exactly, without comparing all with all.

Multi-index hashing (Norouzi, Punjani and Fleet 2012): of `radius + 1` parts of a hash, two hashes within `radius` bits agree in
at least one. So only hashes that agree in a part are compared, part by part.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np

BITS = 64
BLOCK = 1 << 21  # comparisons at once, per thread

Pairs = tuple[np.ndarray, np.ndarray, np.ndarray]


def to_bits(hashes: Sequence[str]) -> np.ndarray:
    """(n,) uint64 of hashes of 16 hex digits."""
    return np.array([int(text, 16) for text in hashes], np.uint64)


def pairs_within_radius(a: np.ndarray, b: np.ndarray, radius: int) -> Pairs:
    """(index into a, index into b, distance) of every pair within `radius` bits of (n,) and (m,) uint64, each once.

    In no particular order. 0 <= radius < 64.
    """
    parts = _parts(radius + 1)
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        found = list(
            pool.map(lambda number: _agreeing(a, b, radius, parts, number), range(len(parts)))
        )
    columns = [np.concatenate([pairs[column] for pairs in found]) for column in range(3)]
    return columns[0], columns[1], columns[2]


def _parts(count: int) -> list[np.uint64]:
    """Masks of parts of nearly equal length that make up the 64 bits."""
    edges = [round(BITS * number / count) for number in range(count + 1)]
    return [np.uint64((1 << high) - (1 << low)) for low, high in pairwise(edges)]


def _agreeing(
    a: np.ndarray, b: np.ndarray, radius: int, parts: list[np.uint64], number: int
) -> Pairs:
    """The pairs that agree in a part and in none before it: those were found there."""
    mask, before = parts[number], parts[:number]
    found_a, found_b, distances = (
        [np.empty(0, np.int64)],
        [np.empty(0, np.int64)],
        [np.empty(0, np.uint8)],
    )
    for rows_a, rows_b in _buckets(a & mask, b & mask):
        step = max(BLOCK // len(rows_b), 1)
        for at in range(0, len(rows_a), step):
            some = rows_a[at : at + step]
            differ = a[some][:, None] ^ b[rows_b][None, :]
            distance = np.bitwise_count(differ)
            i, j = np.nonzero(distance <= radius)
            if not len(i):
                continue
            apart = differ[i, j]
            first_here = np.ones(len(i), bool)
            for earlier in before:
                first_here &= (apart & earlier) != 0
            i, j = i[first_here], j[first_here]
            found_a.append(some[i])
            found_b.append(rows_b[j])
            distances.append(distance[i, j])
    return np.concatenate(found_a), np.concatenate(found_b), np.concatenate(distances)


def _buckets(keys_a: np.ndarray, keys_b: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows of a and rows of b that have the same key, key by key."""
    order_a, order_b = np.argsort(keys_a, kind="stable"), np.argsort(keys_b, kind="stable")
    sorted_a, sorted_b = keys_a[order_a], keys_b[order_b]
    for key in np.intersect1d(sorted_a, sorted_b):
        of_a = slice(
            np.searchsorted(sorted_a, key, "left"), np.searchsorted(sorted_a, key, "right")
        )
        of_b = slice(
            np.searchsorted(sorted_b, key, "left"), np.searchsorted(sorted_b, key, "right")
        )
        yield order_a[of_a], order_b[of_b]
