"""Pairs of perceptual hashes that differ in few bits, found exactly without comparing all pairs.

Multi-index hashing (Norouzi, Punjani and Fleet 2012, "Fast Search in Hamming Space with Multi-Index
Hashing"): a hash is cut into `radius + 1` parts. Two hashes within `radius` bits agree in at least
one part, so it is enough to compare hashes that agree in a part, part by part.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import numpy as np

BITS = 64
COMPARISONS_PER_BLOCK = 1 << 21
"""Number of pairs that a thread compares at once. It bounds the memory."""


class HashPairs(NamedTuple):
    """Pairs of hashes, one per position of three arrays of the shape (num_pairs,).

    Attributes:
        first: int64, indices into the first set of hashes.
        second: int64, indices into the second set.
        distance: uint8, number of bits that differ.
    """

    first: np.ndarray
    second: np.ndarray
    distance: np.ndarray


def parse_hashes(hashes: Sequence[str]) -> np.ndarray:
    """Parse hexadecimal hashes.

    Args:
        hashes: Hashes of 16 hexadecimal digits.

    Returns:
        (len(hashes),) uint64.
    """
    return np.frombuffer(bytes.fromhex("".join(hashes)), ">u8").astype(np.uint64)


def pairs_within_radius(a: np.ndarray, b: np.ndarray, radius: int) -> HashPairs:
    """Find every pair of a hash of `a` and a hash of `b` within a Hamming distance.

    Args:
        a: (n,) uint64.
        b: (m,) uint64.
        radius: Largest distance, 0 <= radius < 64.

    Returns:
        Every pair once, in no particular order.
    """
    masks = _part_masks(radius + 1)
    find_pairs = partial(_pairs_agreeing_in_part, a, b, radius, masks)
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        pairs_by_part = list(pool.map(find_pairs, range(len(masks))))
    return _concatenate(pairs_by_part)


def _concatenate(pieces: Sequence[HashPairs]) -> HashPairs:
    first, second, distance = zip(*pieces, strict=True)
    return HashPairs(np.concatenate(first), np.concatenate(second), np.concatenate(distance))


def _part_masks(count: int) -> list[np.uint64]:
    """Bit masks of `count` parts of nearly equal length that cover the 64 bits."""
    edges = [round(BITS * number / count) for number in range(count + 1)]
    return [np.uint64((1 << high) - (1 << low)) for low, high in pairwise(edges)]


def _pairs_agreeing_in_part(
    a: np.ndarray, b: np.ndarray, radius: int, masks: Sequence[np.uint64], part: int
) -> HashPairs:
    """Pairs that agree in a part and in no earlier one, so that no pair is found twice."""
    empty = HashPairs(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.uint8))
    pieces = [empty]
    for rows_a, rows_b in _rows_with_equal_keys(a & masks[part], b & masks[part]):
        block_rows = max(COMPARISONS_PER_BLOCK // len(rows_b), 1)
        for start in range(0, len(rows_a), block_rows):
            block = rows_a[start : start + block_rows]
            differing_bits = a[block][:, None] ^ b[rows_b][None, :]
            distance = np.bitwise_count(differing_bits)
            i, j = np.nonzero(distance <= radius)
            if not len(i):
                continue

            new = np.ones(len(i), bool)
            for earlier_mask in masks[:part]:
                new &= (differing_bits[i, j] & earlier_mask) != 0
            i, j = i[new], j[new]
            pieces.append(HashPairs(block[i], rows_b[j], distance[i, j]))
    return _concatenate(pieces)


def _rows_with_equal_keys(
    keys_a: np.ndarray, keys_b: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For every key that occurs in both arrays, the rows of a and the rows of b that have it."""
    order_a = np.argsort(keys_a, kind="stable")
    order_b = np.argsort(keys_b, kind="stable")
    sorted_a = keys_a[order_a]
    sorted_b = keys_b[order_b]
    for key in np.intersect1d(sorted_a, sorted_b):
        yield order_a[_equal_range(sorted_a, key)], order_b[_equal_range(sorted_b, key)]


def _equal_range(sorted_keys: np.ndarray, key: np.uint64) -> slice:
    start = np.searchsorted(sorted_keys, key, "left")
    stop = np.searchsorted(sorted_keys, key, "right")
    return slice(int(start), int(stop))
