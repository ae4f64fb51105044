"""Pairs of perceptual hashes that differ in few bits, found exactly without comparing all pairs.

Multi-index hashing (Norouzi, Punjani and Fleet 2012, "Fast Search in Hamming Space with Multi-Index
Hashing"), with two parts per index: a hash is cut into `radius + 2` parts. Two hashes within
`radius` bits agree in at least two of them, so it is enough to compare hashes that agree in two
parts, for every choice of two parts. For radii whose parts would be short, it is three parts of
`radius + 3`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import combinations, pairwise
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

BITS = 64
ROWS_PER_BLOCK = 1 << 15
"""Number of pairs that a thread compares at once, so that they fit into its cache."""
KEY_BITS = 16
"""Number of bits by which hashes are put into buckets, as many of them from each chosen part."""
TRIPLE_RADII = range(7, 10)
"""Radii for which three parts must agree: with two, far more hashes would be compared."""
MIN_INDEXED_HASHES = 256
"""Fewer hashes are compared with all others: this is as fast as sorting the others."""
MAX_INDEXED_RADIUS = 12
"""With a larger radius the parts are so short that comparing all pairs is as fast."""


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
    return _parse_digits("".join(hashes))


def parse_hash_column(
    hashes: pa.Array | pa.ChunkedArray,
) -> tuple[np.ndarray, np.ndarray]:
    """Parse the perceptual hashes of a column.

    Args:
        hashes: (n,) string. Texts of another length than 16 are no hashes.

    Returns:
        (m,) int64, the rows that have a hash; and (m,) uint64, the hashes.
    """
    num_digits = BITS // 4
    has_length = pc.equal(pc.binary_length(hashes), num_digits)
    has_hash = pc.and_(has_length, pc.string_is_ascii(hashes)).fill_null(False)
    rows = np.flatnonzero(has_hash.to_numpy(zero_copy_only=False))
    # Python's strings would take five times the memory.
    digits = hashes.filter(has_hash).cast(pa.binary()).cast(pa.binary(num_digits))
    chunks = digits.chunks if isinstance(digits, pa.ChunkedArray) else [digits]
    texts = [
        np.frombuffer(
            chunk.buffers()[1], np.uint8, len(chunk) * num_digits, chunk.offset * num_digits
        )
        for chunk in chunks
        if len(chunk)
    ]
    joined = np.concatenate([np.zeros(0, np.uint8), *texts])
    return rows, _parse_digits(joined.tobytes().decode("ascii"))


def _parse_digits(digits: str) -> np.ndarray:
    """Parse the hexadecimal digits of hashes, one after the other: (n,) uint64."""
    return np.frombuffer(bytes.fromhex(digits), ">u8").astype(np.uint64)


def pairs_within_radius(a: np.ndarray, b: np.ndarray, radius: int) -> HashPairs:
    """Find every pair of a hash of `a` and a hash of `b` within a Hamming distance.

    Args:
        a: (n,) uint64.
        b: (m,) uint64. The same array as `a` takes half the time of an equal one.
        radius: Largest distance, 0 <= radius < 64.

    Returns:
        Every pair once, in no particular order.
    """
    if len(a) < len(b):
        swapped = pairs_within_radius(b, a, radius)
        return HashPairs(swapped.second, swapped.first, swapped.distance)

    num_agreeing = 3 if radius in TRIPLE_RADII else 2
    parts = _cut_parts(radius + num_agreeing)
    choices: list[tuple[int, ...]] = list(combinations(range(len(parts)), num_agreeing))
    if radius > MAX_INDEXED_RADIUS or len(b) < MIN_INDEXED_HASHES:
        choices = [()]  # compare all pairs
    find_pairs = partial(_pairs_agreeing_in_parts, a, b, radius, parts)
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        pairs = _concatenate(list(pool.map(find_pairs, choices)))
    if a is not b:
        return pairs
    same = HashPairs(np.arange(len(a)), np.arange(len(a)), np.zeros(len(a), np.uint8))
    return _concatenate([pairs, HashPairs(pairs.second, pairs.first, pairs.distance), same])


def _concatenate(pieces: Sequence[HashPairs]) -> HashPairs:
    first, second, distance = zip(*pieces, strict=True)
    return HashPairs(np.concatenate(first), np.concatenate(second), np.concatenate(distance))


class _Part(NamedTuple):
    """Some bits of a hash, the lowest and the number of them."""

    low: int
    width: int

    @property
    def mask(self) -> np.uint64:
        """The bits of the part."""
        return np.uint64(((1 << self.width) - 1) << self.low)


def _cut_parts(count: int) -> list[_Part]:
    """`count` parts of nearly equal length that cover the 64 bits."""
    edges = [round(BITS * number / count) for number in range(count + 1)]
    return [_Part(low, high - low) for low, high in pairwise(edges)]


def _bucket_keys(hashes: np.ndarray, parts: Sequence[_Part]) -> np.ndarray:
    """(n,) uint16: the lowest bits of some parts; equal for hashes that agree in them."""
    keys = np.zeros(len(hashes), np.uint16)
    for part in parts:
        width = min(part.width, KEY_BITS // len(parts))
        bits = (hashes >> np.uint64(part.low)) & np.uint64((1 << width) - 1)
        keys = (keys << np.uint16(width)) | bits.astype(np.uint16)
    return keys


def _pairs_agreeing_in_parts(
    a: np.ndarray, b: np.ndarray, radius: int, parts: Sequence[_Part], chosen: tuple[int, ...]
) -> HashPairs:
    """Pairs whose first parts that agree are the chosen ones, so that no pair is found twice.

    If `a` is `b`, a pair is found in one order only, and no hash is paired with itself.
    """
    chosen_mask = np.uint64(sum(int(parts[number].mask) for number in chosen))
    earlier = range(max(chosen, default=0))
    earlier_masks = [parts[number].mask for number in earlier if number not in chosen]
    chosen_parts = [parts[number] for number in chosen]
    keys_a = _bucket_keys(a, chosen_parts)
    keys_b = _bucket_keys(b, chosen_parts)
    # Hashes with one key are neighbours. A stable sort of 16-bit keys is a radix sort.
    order_a = np.argsort(keys_a, kind="stable")
    order_b = order_a if a is b else np.argsort(keys_b, kind="stable")
    sorted_b = b[order_b]
    bucket_sizes = np.bincount(keys_b, minlength=1 << KEY_BITS)
    bucket_starts = np.cumsum(bucket_sizes) - bucket_sizes

    pieces = [HashPairs(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.uint8))]
    for start in range(0, len(a), ROWS_PER_BLOCK):
        rows = order_a[start : start + ROWS_PER_BLOCK]
        position = bucket_starts[keys_a[rows]]
        if a is b:  # every pair once: with the later hashes of the bucket
            stop = position + bucket_sizes[keys_a[rows]]
            position = np.arange(start + 1, start + len(rows) + 1)
            num_others = stop - position
        else:
            num_others = bucket_sizes[keys_a[rows]]
        # Rows with many others come first, so that the rows with another hash left are a slice.
        most = int(num_others.max())
        num_missing = (most - num_others).astype(np.min_scalar_type(most))  # small integers: radix
        by_number = np.argsort(num_missing, kind="stable")
        rows, position = rows[by_number], position[by_number]
        hashes = a[rows]
        num_rows_of_number = np.bincount(num_others)
        for num_left in (len(rows) - np.cumsum(num_rows_of_number))[:-1].tolist():
            differing_bits = hashes[:num_left] ^ sorted_b[position[:num_left]]
            distance = np.bitwise_count(differing_bits)
            near = np.flatnonzero(distance <= radius)
            if len(near):
                near = near[(differing_bits[near] & chosen_mask) == 0]
                for mask in earlier_masks:
                    near = near[(differing_bits[near] & mask) != 0]
                pieces.append(HashPairs(rows[near], order_b[position[near]], distance[near]))
            position += 1
    return _concatenate(pieces)
