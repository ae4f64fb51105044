"""Degraded faces that all runs of the small experiment share, computed once.

Degrading a face takes as long on a CPU as a third of a training step of a small model. Each face
therefore has a few degradations, which the epochs take in turn.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from authface_train.data.pairs import DegradedPairs
from authface_train.data.sample_keys import SampleKey
from authface_train.data.samples import NoiseSampler, Sample
from manifests.support.files import atomic_path
from manifests.support.progress import ProgressBar

VARIANTS = 4
"""Degradations of each face, and as many of its mirror image."""


def degraded_variants(file: Path, pairs: DegradedPairs) -> np.ndarray:
    """Degrade all faces, unless the file exists.

    Args:
        file: Where the result is stored, as .npy.
        pairs: Degrades the faces.

    Returns:
        (faces, VARIANTS, 2 flips, 3, size, size) uint8, mapped from the file.
    """
    num_faces = len(pairs.face_ids)
    shape = (num_faces, VARIANTS, 2, 3, pairs.size_px, pairs.size_px)
    if not file.is_file():
        degraded = np.empty(shape, np.uint8)
        with ProgressBar("degrade", num_faces, unit="faces") as bar:
            for index in range(num_faces):
                for variant in range(VARIANTS):
                    for flip in (False, True):
                        pair = pairs.make_pair(SampleKey(variant, index), flip)
                        pixels = (pair.degraded * 255).round().byte()
                        degraded[index, variant, int(flip)] = pixels.numpy()
                bar.advance()
        with atomic_path(file) as temporary, temporary.open("wb") as stream:
            np.save(stream, degraded)
    return np.asarray(np.load(file, mmap_mode="r"))


class SharedPairs(Dataset[Sample]):
    """Samples of Stage II, or of the regression, with degradations that were computed before.

    Args:
        noise_sampler: Draws latent, noise, timestep and mirroring.
        pairs: Gives regions and clean faces.
        degraded: See `degraded_variants`.
        clean: (faces, 3, size, size) uint8 clean faces, which become `clean` of the samples, or
            None for Stage II.
    """

    def __init__(
        self,
        noise_sampler: NoiseSampler,
        pairs: DegradedPairs,
        degraded: np.ndarray,
        clean: np.ndarray | None = None,
    ) -> None:
        self.noise_sampler = noise_sampler
        self.pairs = pairs
        self.degraded = degraded
        self.clean = clean

    def __getitem__(self, key: SampleKey) -> Sample:
        """The tensors of `RestorerDataset`, or `degraded` and `clean` in [0, 1]."""
        sample, flip = self.noise_sampler.sample(key)
        pixels = self.degraded[key.index, key.epoch % VARIANTS, int(flip)]
        degraded = torch.from_numpy(pixels.copy()).float() / 255
        if self.clean is not None:
            clean = torch.from_numpy(self.clean[key.index].copy()).float() / 255
            return {"degraded": degraded, "clean": clean.flip(-1) if flip else clean}
        boxes_px, visible = self.pairs.regions(key, flip)
        return {**sample, "degraded": degraded, "boxes_px": boxes_px, "visible": visible}
