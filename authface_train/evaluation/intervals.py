"""How sure a mean is."""

from __future__ import annotations

import numpy as np

RESAMPLES, SHARE = 10_000, 0.95
AT_ONCE = 1_000_000  # numbers drawn at a time


def bootstrap(values: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """The middle SHARE of the means of RESAMPLES samples with replacement of (n,) values; not a number where there are none."""
    if not len(values):
        return float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    rounds = max(AT_ONCE // len(values), 1)
    means = [
        values[rng.integers(0, len(values), (min(rounds, RESAMPLES - at), len(values)))].mean(
            axis=1
        )
        for at in range(0, RESAMPLES, rounds)
    ]
    low, high = np.quantile(np.concatenate(means), [(1 - SHARE) / 2, (1 + SHARE) / 2])
    return float(low), float(high)
