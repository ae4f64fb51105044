"""The Fréchet inception distance by pyiqa (clean-fid's way), against a reference set that says what it is."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from authface_data.quality import iqa
from authface_train.evaluation.image_pairs import is_plain, pictures_by_name, read

FEW = 2048  # fewer pictures than features: the covariance is not of full rank, and the distance is biased upwards


@dataclass(frozen=True)
class ReferenceSet:
    """digest: sha256 over the names and contents of its pictures."""

    folder: Path
    count: int
    digest: str

    @property
    def words(self) -> str:
        return f"{self.folder.name}, {self.count} pictures, sha256 {self.digest[:12]}"


def reference_set(folder: Path) -> ReferenceSet:
    """Raises UserError for a folder without pictures."""
    pictures = pictures_by_name(folder)
    digest = hashlib.sha256()
    for name, path in sorted(pictures.items()):
        digest.update(f"{name}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return ReferenceSet(folder, len(pictures), digest.hexdigest())


class Fid:
    """Loaded once. Raises MissingResourceError where Inception's weights cannot be had."""

    def __init__(self, weights_dir: str | None, device: str):
        self._metric = iqa.create("fid", device, weights_dir)

    def of(self, pictures: Iterable[Path], reference: Iterable[Path]) -> float:
        with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
            for folder, paths in ((one, pictures), (other, reference)):
                for number, path in enumerate(paths):
                    if is_plain(path):
                        Path(folder, f"{number:06d}{path.suffix}").symlink_to(path.resolve())
                    else:  # pyiqa reads files by itself, and other than `read` does
                        Image.fromarray(read(path)[0]).save(Path(folder, f"{number:06d}.png"))
            return float(self._metric(one, other, mode="clean", num_workers=0, verbose=False))
