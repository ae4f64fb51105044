"""How long it takes to find every pair of near perceptual hashes, and whether all are found.

    python benchmarks/duplicates.py [--radius 6]

Random 64-bit hashes, of which one in a hundred has a near twin. A sample is held against brute force.
"""

from __future__ import annotations

import argparse
import os
import time

import numpy as np

from manifests.hamming import pairs_within_radius


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--radius", type=int, default=6)
    radius = parser.parse_args().radius
    rng = np.random.default_rng(0)
    for count in (10_000, 100_000, 1_000_000):
        hashes = rng.integers(0, 2**64, count, dtype=np.uint64)
        twins = rng.choice(count, count // 100, replace=False)
        for twin in twins[: len(twins) // 2 * 2].reshape(-1, 2):
            hashes[twin[1]] = hashes[twin[0]] ^ np.uint64(1 << int(rng.integers(0, 64)))
        started = time.monotonic()
        one, other, _ = pairs_within_radius(hashes, hashes, radius)
        seconds = time.monotonic() - started
        sample = rng.choice(count, 200, replace=False)
        brute = sum(int((np.bitwise_count(hashes ^ hashes[row]) <= radius).sum()) for row in sample)
        ours = int(np.isin(one, sample).sum())
        assert ours == brute, f"{ours} pairs of the sample instead of {brute}"
        pairs = int((one < other).sum())
        print(
            f"{count:>9,} hashes, radius {radius}: {seconds:6.2f} s, {pairs:,} pairs ({os.cpu_count()} cores)"
        )


if __name__ == "__main__":
    main()
