"""Time to find all pairs of similar perceptual hashes, checked for completeness.

    python benchmarks/duplicates.py [--radius 6]

The hashes are random 64-bit numbers; one in a hundred belongs to a pair that differs by one bit. A
sample is checked against brute force.
"""

from __future__ import annotations

import argparse
import os
import time

import numpy as np

from manifests.hamming import pairs_within_radius

COUNTS = (10_000, 100_000, 1_000_000)
SAMPLE_SIZE = 200


def main() -> None:
    """Time the search for sets of several sizes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--radius", type=int, default=6)
    radius = parser.parse_args().radius
    rng = np.random.default_rng(0)
    for count in COUNTS:
        hashes = rng.integers(0, 2**64, count, dtype=np.uint64)
        paired_rows = rng.choice(count, count // 100, replace=False)
        for original, copy in paired_rows[: len(paired_rows) // 2 * 2].reshape(-1, 2):
            hashes[copy] = hashes[original] ^ np.uint64(1 << int(rng.integers(0, 64)))

        started = time.monotonic()
        pairs = pairs_within_radius(hashes, hashes, radius)
        seconds = time.monotonic() - started

        sample = rng.choice(count, SAMPLE_SIZE, replace=False)
        expected = 0
        for row in sample:
            expected += int((np.bitwise_count(hashes ^ hashes[row]) <= radius).sum())
        num_found = int(np.isin(pairs.first, sample).sum())
        assert num_found == expected, f"{num_found} pairs of the sample instead of {expected}"
        num_pairs = int((pairs.first < pairs.second).sum())
        print(
            f"{count:>9,} hashes, radius {radius}: {seconds:6.2f} s, {num_pairs:,} pairs "
            f"({os.cpu_count()} cores)"
        )


if __name__ == "__main__":
    main()
