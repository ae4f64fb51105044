"""Counter-based randomness: every random number follows from the seed, the epoch and the face.

No global generator is used. A resumed run therefore draws the same numbers as an uninterrupted one,
and the number of processes and workers does not matter.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from manifests.support.fingerprint import short_hash


@dataclass(frozen=True)
class SampleKey:
    """Identifies one training sample."""

    epoch: int
    """Number of earlier passes over the training faces."""
    index: int
    """Row of the face in the training view."""


def derive_seed(*parts: object) -> int:
    """Hash the parts into a seed.

    Args:
        parts: Values that identify what the seed is for; they are hashed as text.

    Returns:
        An integer in [0, 2**63), from the first 8 bytes of the SHA-256 digest.
    """
    digest = hashlib.sha256("\0".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def torch_generator(seed: int, epoch: int, face_id: str, purpose: str) -> torch.Generator:
    """Create the generator of one sample for one purpose.

    Args:
        seed: Seed of the run.
        epoch: Epoch of the sample.
        face_id: Face of the sample.
        purpose: What is drawn, such as "draw". Each purpose has independent random numbers.

    Returns:
        A seeded generator on the CPU.
    """
    return torch.Generator().manual_seed(derive_seed(seed, epoch, face_id, purpose))


def numpy_generator(seed: int, epoch: int, face_id: str, purpose: str) -> np.random.Generator:
    """Create a NumPy generator for one sample and purpose.

    Args:
        seed: Seed of the run.
        epoch: Epoch of the sample.
        face_id: Face of the sample.
        purpose: What is drawn, such as "degrade".
    """
    return np.random.default_rng(derive_seed(seed, epoch, face_id, purpose))


def step_keys(seed: int, step: int, batch: int, num_faces: int) -> list[SampleKey]:
    """The samples of one optimizer step.

    The steps consume an endless sequence of epochs, each a permutation of the faces.

    Args:
        seed: Seed of the run.
        step: Number of the step, from 0.
        batch: Global batch size.
        num_faces: Number of training faces.

    Returns:
        `batch` keys; a step may span two or more epochs.
    """
    keys = []
    for position in range(step * batch, (step + 1) * batch):
        epoch, place = divmod(position, num_faces)
        keys.append(SampleKey(epoch, _epoch_order(seed, epoch, num_faces)[place]))
    return keys


def micro_batches(
    keys: Sequence[SampleKey], rank: int, world_size: int, micro_batch: int
) -> Iterator[list[SampleKey]]:
    """Split a process's share of a global batch into micro-batches.

    Args:
        keys: The global batch.
        rank: Index of the process.
        world_size: Number of processes; it divides the global batch.
        micro_batch: Samples per micro-batch.

    Yields:
        The keys of one micro-batch.
    """
    share = len(keys) // world_size
    local_keys = keys[rank * share : (rank + 1) * share]
    for start in range(0, share, micro_batch):
        yield list(local_keys[start : start + micro_batch])


@lru_cache(maxsize=4)
def _epoch_order(seed: int, epoch: int, num_faces: int) -> tuple[int, ...]:
    """The order of the faces in one epoch."""
    generator = np.random.default_rng(derive_seed(seed, epoch, "order"))
    return tuple(generator.permutation(num_faces).tolist())


def hash_order(ids: Sequence[str]) -> list[int]:
    """Indices of ids in the order of their hashes; its first n are a fixed random selection.

    Args:
        ids: Face ids or cache keys. Their own order does not matter.
    """
    return sorted(range(len(ids)), key=lambda index: short_hash(ids[index], 16))
