"""Training views of the small experiment: faces, changed copies of them, and pieces of photographs.

A few hundred faces are few for a restorer. In the paper Stage II learns from the 70,000 faces of
FFHQ; here it learns from the training people's faces, slightly turned, scaled and coloured copies
of them, and pieces of photographs. Pieces have no facial regions, so the facial loss ignores them.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from PIL import Image

from authface_train.data.crops import load_crop
from authface_train.facial_loss.regions import REGIONS
from manifests.support.files import atomic_path
from manifests.workspace import Workspace

CROP_PX = 256
"""Side of the stored copies of faces."""
PIECE_PX = 128
"""Side of the stored pieces."""
COPIES_PER_FACE = 4
MAX_TURN_DEG = 8.0
SCALES = (0.95, 1.15)
MAX_SHIFT = 0.04
"""Largest shift of a copy, as a fraction of the side."""
BRIGHTNESS = (0.8, 1.2)
COLOUR_CAST = (0.9, 1.1)
"""Factor of each colour channel."""


def with_copies(workspace: Workspace, view: pd.DataFrame) -> pd.DataFrame:
    """Add changed copies of faces to a training view.

    Args:
        workspace: Holds the crops; the copies are stored with them.
        view: The faces.

    Returns:
        The faces, then `COPIES_PER_FACE` copies of each.
    """
    rows = view.to_dict("records")
    copies = [
        _make_copy(workspace, row, number) for row in rows for number in range(COPIES_PER_FACE)
    ]
    return pd.DataFrame([*rows, *copies])


def _make_copy(workspace: Workspace, row: dict[str, object], number: int) -> dict[str, object]:
    face_id = f"{row['face_id']}-copy{number}"
    seed = int.from_bytes(hashlib.sha256(face_id.encode()).digest()[:8], "big")
    rng = np.random.default_rng(seed)
    turn_deg = rng.uniform(-MAX_TURN_DEG, MAX_TURN_DEG)
    centre = (CROP_PX / 2, CROP_PX / 2)
    matrix = cv2.getRotationMatrix2D(centre, turn_deg, rng.uniform(*SCALES))
    matrix[:, 2] += rng.uniform(-MAX_SHIFT, MAX_SHIFT, 2) * CROP_PX
    gains = rng.uniform(*COLOUR_CAST, 3) * rng.uniform(*BRIGHTNESS)

    crop = load_crop(workspace, str(row["crop_path"]), CROP_PX)
    size = (CROP_PX, CROP_PX)
    warped = cv2.warpAffine(
        crop, matrix, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT
    )
    is_grey = bool((crop[..., 0] == crop[..., 1]).all() and (crop[..., 1] == crop[..., 2]).all())
    coloured = np.clip(warped * (gains.mean() if is_grey else gains), 0, 255).astype(np.uint8)

    # The boxes are edges; OpenCV's matrix maps pixel centres. Half a pixel of 256 does not matter.
    scale = CROP_PX / float(str(row["crop_size_px"]))
    boxes = {
        f"{name}_box_crop_px": _move_box(np.asarray(row[f"{name}_box_crop_px"]) * scale, matrix)
        for name in REGIONS
    }
    stored = _store(workspace, f"faces/{face_id}.png", coloured)
    return {**row, "face_id": face_id, "crop_size_px": CROP_PX, **boxes, **stored}


def _move_box(box_px: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """The upright box of the same shape around the moved centre."""
    scale = float(np.hypot(matrix[0, 0], matrix[0, 1]))
    centre = (box_px[:2] + box_px[2:]) / 2
    half = (box_px[2:] - box_px[:2]) / 2 * scale
    moved = matrix[:, :2] @ centre + matrix[:, 2]
    return np.concatenate([moved - half, moved + half])


def piece_rows(
    workspace: Workspace,
    images: list[np.ndarray],
    count: int,
    *,
    prefix: str,
    licence_basis: str,
    seed: int,
) -> pd.DataFrame:
    """Rows of a training view of random squares of images.

    Args:
        workspace: The squares are stored with its crops.
        images: (height, width, 3) uint8 each.
        count: Number of squares; image i modulo their number gives square i.
        prefix: Start of the rows' ids.
        licence_basis: Licence basis of the rows.
        seed: Seed of positions and sizes.
    """
    rng = np.random.default_rng(seed)
    rows: list[dict[str, object]] = []
    for number in range(count):
        piece_id = f"{prefix}-{number:04d}"
        piece = random_piece(images[number % len(images)], rng)
        rows.append(
            {
                "face_id": piece_id,
                "photo_id": f"{prefix}-photo-{number % len(images)}",
                "crop_size_px": PIECE_PX,
                "source": "folder",
                "sha256": "",
                "photographer_name": None,
                "photographer_url": None,
                "source_url": None,
                "licence": None,
                "tags": [],
                "caption": "",
                "licence_basis": licence_basis,
                **{f"{name}_box_crop_px": np.zeros(4) for name in REGIONS},
                **{f"{name}_visible": False for name in REGIONS},
                **_store(workspace, f"faces/{piece_id}.png", piece),
            }
        )
    return pd.DataFrame(rows)


def random_piece(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Cut a random square out of an image, resize it to PIECE_PX and mirror it at random.

    Args:
        image: (height, width, 3) uint8.
        rng: Draws the side (half to four times PIECE_PX), the position and the mirroring.

    Returns:
        (PIECE_PX, PIECE_PX, 3) uint8.
    """
    shorter_side = min(image.shape[:2])
    min_side = min(shorter_side, PIECE_PX // 2)
    side = int(rng.integers(min_side, min(shorter_side, 4 * PIECE_PX) + 1))
    top, left = (int(rng.integers(0, extent - side + 1)) for extent in image.shape[:2])
    square = Image.fromarray(image[top : top + side, left : left + side])
    resized = np.asarray(square.resize((PIECE_PX, PIECE_PX), Image.Resampling.LANCZOS))
    return resized[:, :: rng.choice([-1, 1])].copy()


def _store(workspace: Workspace, path: str, pixels: np.ndarray) -> dict[str, object]:
    """Save pixels in the workspace's folder; return the columns that name them."""
    file: Path = workspace.local_path(path)
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(file) as temporary:
            Image.fromarray(pixels).save(temporary, "PNG")
    return {"crop_path": path, "crop_sha256": hashlib.sha256(pixels.tobytes()).hexdigest()}
