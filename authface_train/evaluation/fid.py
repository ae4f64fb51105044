"""Fréchet inception distance (Heusel et al. 2017), computed by pyiqa in clean-fid's mode."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from authface_data.quality import iqa
from authface_train.evaluation.image_pairs import find_pictures, is_plain_rgb, read_picture

MIN_PICTURES = 2048
"""Number of Inception features. With fewer pictures the covariance is rank-deficient and the
distance is biased upwards."""


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
    """The FID network.

    Args:
        weights_dir: Folder of downloaded weights.
        device: Device of the network, such as "cpu" or "cuda".

    Raises:
        MissingResourceError: If the weights of Inception are missing and cannot be downloaded.
    """

    def __init__(self, weights_dir: str | None, device: str) -> None:
        self._metric = iqa.create_metric("fid", device, weights_dir)

    def compute(self, pictures: Iterable[Path], reference: Iterable[Path]) -> float:
        """Compute the distance between two sets of picture files.

        Args:
            pictures: The pictures to evaluate.
            reference: The pictures to compare them with.
        """
        with (
            tempfile.TemporaryDirectory() as pictures_folder,
            tempfile.TemporaryDirectory() as reference_folder,
        ):
            _collect(pictures, Path(pictures_folder))
            _collect(reference, Path(reference_folder))
            return float(
                self._metric(
                    pictures_folder, reference_folder, mode="clean", num_workers=0, verbose=False
                )
            )


def _collect(pictures: Iterable[Path], folder: Path) -> None:
    """Link pictures into a flat folder, which pyiqa reads."""
    for number, path in enumerate(pictures):
        if is_plain_rgb(path):
            (folder / f"{number:06d}{path.suffix}").symlink_to(path.resolve())
        else:
            # pyiqa would ignore orientation and colour profile.
            picture, _ = read_picture(path)
            Image.fromarray(picture).save(folder / f"{number:06d}.png")
