"""Confidence intervals of means by the percentile bootstrap (Efron 1979)."""

from __future__ import annotations

import numpy as np

RESAMPLES = 10_000
CONFIDENCE = 0.95
MAX_INDICES_AT_ONCE = 1_000_000
"""Maximum number of random indices drawn at a time, to bound the memory."""


def bootstrap_interval(values: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """Bootstrap the confidence interval of a mean.

    Args:
        values: (n,) measurements.
        seed: Seed of the resampling.

    Returns:
        Lower and upper end of the interval: quantiles of the means of `RESAMPLES` samples drawn
        with replacement. NaN for both if there are no values.
    """
    if not len(values):
        return float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    samples_at_once = max(MAX_INDICES_AT_ONCE // len(values), 1)
    means = []
    for first in range(0, RESAMPLES, samples_at_once):
        num_samples = min(samples_at_once, RESAMPLES - first)
        indices = rng.integers(0, len(values), (num_samples, len(values)))
        means.append(values[indices].mean(axis=1))
    tails = [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]
    low, high = np.quantile(np.concatenate(means), tails)
    return float(low), float(high)


def bootstrap_two_ways(values: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """Bootstrap the confidence interval of a mean over raters and items.

    Both are samples of larger populations, so both are resampled with replacement.

    Args:
        values: (raters, items) answers; NaN where a rater has not answered.
        seed: Seed of the resampling.

    Returns:
        Lower and upper end of the interval, see `bootstrap_interval`.
    """
    raters, items = values.shape
    rng = np.random.default_rng(seed)
    # How often each rater and each item is in each sample.
    rater_counts = rng.multinomial(raters, np.full(raters, 1 / raters), RESAMPLES).astype(float)
    item_counts = rng.multinomial(items, np.full(items, 1 / items), RESAMPLES).astype(float)
    sums = ((rater_counts @ np.nan_to_num(values)) * item_counts).sum(axis=1)
    numbers = ((rater_counts @ (~np.isnan(values)).astype(float)) * item_counts).sum(axis=1)
    means = sums[numbers > 0] / numbers[numbers > 0]
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)
