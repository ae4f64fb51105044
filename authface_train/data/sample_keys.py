"""Randomness from counters: what a sample gets depends on the seed, the epoch and the face, and on nothing else.

No global generator is touched, so that resuming is exact and the number of processes and workers does not matter.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch


@dataclass(frozen=True)
class SampleKey:
    """One sample to be made: the face by its place in the training view, and the epoch."""

    epoch: int
    index: int


def derive_seed(*parts: object) -> int:
    digest = hashlib.sha256("\0".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def torch_generator(seed: int, epoch: int, face_id: str, purpose: str) -> torch.Generator:
    """A CPU generator of its own for one sample and purpose."""
    return torch.Generator().manual_seed(derive_seed(seed, epoch, face_id, purpose))


def numpy_generator(seed: int, epoch: int, face_id: str, purpose: str) -> np.random.Generator:
    """The same for numpy."""
    return np.random.default_rng(derive_seed(seed, epoch, face_id, purpose))


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, count: int) -> tuple[int, ...]:
    return tuple(
        np.random.default_rng(derive_seed(seed, epoch, "order")).permutation(count).tolist()
    )


def step_keys(seed: int, step: int, batch: int, count: int) -> list[SampleKey]:
    """The global batch of a step: the next `batch` of an endless row of epochs, each a permutation of `count` faces."""
    numbers = range(step * batch, (step + 1) * batch)
    return [SampleKey(n // count, _order(seed, n // count, count)[n % count]) for n in numbers]


def micro_batches(
    draws: list[SampleKey], rank: int, world: int, size: int
) -> Iterator[list[SampleKey]]:
    """This process's part of a global batch, in pieces of `size`."""
    share = len(draws) // world
    mine = draws[rank * share : (rank + 1) * share]
    for at in range(0, share, size):
        yield mine[at : at + size]
