"""Degraded faces of people who are not in the training set, and scores of their restorations."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from authface_train.callbacks.image_grid import to_image
from authface_train.data.pairs import DegradedPairs
from authface_train.data.sample_keys import SampleKey
from authface_train.reproduce.image_scores import ImageScores


@dataclass(frozen=True)
class ScoredFaces:
    """Degraded faces that are restored and scored.

    Attributes:
        view: Rows of the training view, with `file` and `person`.
        keys: The face and the degradation of each picture; an index is a row of `view`.
        degraded: (size, size, 3) uint8 each.
        clean: (size, size, 3) uint8 each.
        boxes_px: (n, 4) visible eyes and mouth of each picture.
    """

    view: pd.DataFrame
    keys: list[SampleKey]
    degraded: list[np.ndarray]
    clean: list[np.ndarray]
    boxes_px: list[np.ndarray]

    @property
    def file_names(self) -> list[str]:
        """Name of each picture's file."""
        face_ids = self.view["face_id"]
        return [f"{face_ids.iloc[key.index]}-{key.epoch}.png" for key in self.keys]


def degrade_faces(view: pd.DataFrame, pairs: DegradedPairs, drawn_per_face: int) -> ScoredFaces:
    """Degrade the faces of a view.

    Args:
        view: The faces.
        pairs: Degrades them.
        drawn_per_face: Degradations of each face.
    """
    keys = [
        SampleKey(drawn, index) for drawn in range(drawn_per_face) for index in range(len(view))
    ]
    return ScoredFaces(
        view=view,
        keys=keys,
        degraded=[to_image(pairs.make_pair(key, False).degraded) for key in keys],
        clean=[pairs.clean_crop(key, False) for key in keys],
        boxes_px=[pairs.boxes_px[key.index][pairs.visible[key.index]].numpy() for key in keys],
    )


def measure_restored(
    faces: ScoredFaces, restored: list[np.ndarray], folder: Path
) -> list[dict[str, object]]:
    """Save restored faces and measure them.

    Args:
        faces: The degraded and the clean faces.
        restored: (size, size, 3) uint8 each.
        folder: Where the pictures are saved.

    Returns:
        A row per picture: `file`, `person`, `drawn` and the scores.
    """
    image_scores = ImageScores()
    rows: list[dict[str, object]] = []
    for number, image in enumerate(restored):
        save_image(image, folder / faces.file_names[number])
        scores = image_scores.measure(image, faces.clean[number], faces.boxes_px[number])
        key = faces.keys[number]
        face = faces.view.iloc[key.index]
        rows.append({"file": face["file"], "person": face["person"], "drawn": key.epoch, **scores})
    return rows


def save_image(image: np.ndarray, path: Path) -> None:
    """Save a picture and create its folder.

    Args:
        image: (height, width, 3) uint8.
        path: Where to save it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


def source_commit() -> str:
    """The commit of the source code, with a "+" if files are changed; "unknown" without git."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        commit = _output([*git, "rev-parse", "--short", "HEAD"])
        changes = _output([*git, "status", "--short", "."])
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{commit}+" if changes else commit


def _output(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
