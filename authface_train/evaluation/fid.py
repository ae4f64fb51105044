"""Fréchet inception distance (Heusel et al. 2017) of pyiqa's features in clean-fid's mode."""

from __future__ import annotations

import hashlib
import math
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from authface_data.quality import iqa
from authface_train.evaluation.image_pairs import find_pictures, is_plain_rgb, read_picture

MIN_PICTURES = 2048
"""Number of Inception features. With fewer pictures the covariance is rank-deficient and the
distance is biased upwards."""

BATCH_SIZE = 8
"""Pictures that Inception gets at once."""


@dataclass(frozen=True)
class ReferenceSet:
    """The pictures that FID is measured against.

    Attributes:
        folder: Their folder.
        count: Number of pictures.
        digest: SHA-256 over the names and contents of the pictures.
    """

    folder: Path
    count: int
    digest: str

    @property
    def description(self) -> str:
        """Name, size and hash of the set."""
        return f"{self.folder.name}, {self.count} pictures, sha256 {self.digest[:12]}"


def describe_reference_set(folder: Path) -> ReferenceSet:
    """Count and hash the pictures of a folder.

    Raises:
        UserError: If the folder holds no pictures.
    """
    pictures = find_pictures(folder)
    digest = hashlib.sha256()
    for name, path in sorted(pictures.items()):
        digest.update(f"{name}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return ReferenceSet(folder, len(pictures), digest.hexdigest())


class Fid:
    """The FID network, and the features of the reference set.

    Args:
        reference: The pictures to compare with.
        weights_dir: Folder of downloaded weights.
        device: Device of the network, such as "cpu" or "cuda".

    Raises:
        MissingResourceError: If the weights of Inception are missing and cannot be downloaded.
    """

    def __init__(self, reference: Iterable[Path], weights_dir: str | None, device: str) -> None:
        metric: Any = iqa.create_metric("fid", device, weights_dir)
        self._inception = metric.net.model
        self._device = device
        self._reference_features = self._compute_features(reference)

    def compute(self, pictures: Iterable[Path]) -> float:
        """Compute the distance between picture files and the reference set."""
        return frechet_distance(self._compute_features(pictures), self._reference_features)

    def _compute_features(self, pictures: Iterable[Path]) -> np.ndarray:
        """Compute Inception's (pictures, 2048) features."""
        from pyiqa.archs.fid_arch import get_folder_features

        with tempfile.TemporaryDirectory() as folder:
            _collect(pictures, Path(folder))
            return get_folder_features(
                folder,
                self._inception,
                num_workers=0,
                batch_size=BATCH_SIZE,
                device=self._device,
                mode="clean",
                verbose=False,
            )


def frechet_distance(features: np.ndarray, reference: np.ndarray) -> float:
    """Compute the Fréchet distance between the Gaussians of two sets (Heusel et al. 2017, Eq. 6).

    With centred features A and B, divided such that their covariances are A^T A and B^T B, the
    trace of the square root of the covariances' product is the sum of the singular values of A B^T.
    This takes seconds, where the square root of a product of rank-deficient matrices takes minutes.

    Args:
        features: (pictures, features) of one set.
        reference: (pictures, features) of the other.

    Returns:
        The squared distance.
    """
    difference = features.mean(0, dtype=np.float64) - reference.mean(0, dtype=np.float64)
    first = _covariance_factor(features)
    second = _covariance_factor(reference)
    trace_of_root = np.linalg.svd(first @ second.T, compute_uv=False).sum()
    variance = np.square(first).sum() + np.square(second).sum()
    return float(difference @ difference + variance - 2 * trace_of_root)


def _covariance_factor(features: np.ndarray) -> np.ndarray:
    """A factor A of the covariance A^T A, with no more rows than columns."""
    features = features.astype(np.float64)
    factor = (features - features.mean(0)) / math.sqrt(len(features) - 1)
    if len(factor) <= factor.shape[1]:
        return factor
    return np.asarray(np.linalg.qr(factor, mode="r"))


def _collect(pictures: Iterable[Path], folder: Path) -> None:
    """Link pictures into a flat folder, which pyiqa reads."""
    for number, path in enumerate(pictures):
        if is_plain_rgb(path):
            (folder / f"{number:06d}{path.suffix}").symlink_to(path.resolve())
        else:
            # pyiqa would ignore orientation and colour profile.
            picture, _ = read_picture(path)
            Image.fromarray(picture).save(folder / f"{number:06d}.png")
