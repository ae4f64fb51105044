"""Tags from facts, no model: EXIF, landmarks and pixels. A tag is given only where the measure is clear; else none.

| tag | from | rule |
|---|---|---|
| framing | quad / short side of the photo | > .75 close-up, > .35 head and shoulders, > .2 half-length, else full-length |
| view | yaw | < 15 degrees front view, 20 to 50 three-quarter view, > 60 profile view |
| tilt | roll | > 10 degrees tilted head |
| light | brightness of the two cheeks | one at least 1.3 times the other: light from that side; within 1.1: even light |
| key | mean brightness of the crop | < 60 low-key, > 185 high-key |
| colour | CIELAB chroma of the crop | 95th percentile < 4 black and white; mean b* > 12 warm, < -4 cool |
| focus | `sharpness` of the face | > .7 sharp focus, < .3 soft focus |
| background | detail of the corners / detail of the face | < .25 blurred background |
| lens, aperture, ISO | EXIF | as they stand |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from authface_data.captions import tokens
from authface_data.engine.stage import Dropped, Item, Rows, WritePixels
from authface_data.quality import sharpness
from authface_data.quality.luma import luma
from manifests.ledger import Subject
from manifests.schema import CAPTIONS


class MeasuredStage:
    """Measured tags of a crop. They are photographic by nature: the semantic family stays empty."""

    name = "measured"
    version = 2  # 2: another measure of sharpness
    subject: Subject = "face"
    gives = CAPTIONS
    input_mark = "crop_sha256"
    uses_gpu = False
    batch_size = 1

    def __init__(self, model: str, weights_dir: str | None):
        del model, weights_dir  # the other captioners' concern

    def settings(self) -> dict[str, Any]:
        return {}

    def setup(self, device: str) -> None:
        return

    def process(self, batch: Sequence[Item], write_pixels: WritePixels) -> list[Rows | Dropped]:
        return [Rows([self._row(item)]) for item in batch]

    def _row(self, item: Item) -> dict[str, Any]:
        tags = measured_tags(item.row, item.picture.pixels())
        caption = ", ".join(tags)
        return {
            "face_id": item.key,
            "captioner": self.name,
            "semantic_tags": [],
            "photographic_tags": tags,
            "measured_tags": tags,
            "caption": caption,
            "model": "measured",
            "model_revision": str(self.version),
            "token_count": tokens.count(caption),
        }


def measured_tags(row: Mapping[str, Any], crop: np.ndarray) -> list[str]:
    """Tags of one face: a row of faces joined with its photo's size and camera columns, and its crop (H, W, 3) uint8."""
    tags = [
        _framing(row["qsize_px"], min(row["width"], row["height"])),
        *_view(row["yaw_deg"], row["roll_deg"]),
        *_light(crop, np.array([list(point) for point in row["landmarks_crop_px"]], float)),
        *_colour(crop),
        *_focus(crop),
        *_camera(row),
    ]
    return list(dict.fromkeys(tag for tag in tags if tag))


def _framing(qsize_px: float, short_side_px: int) -> str:
    share = qsize_px / short_side_px
    for least, tag in ((0.75, "close-up"), (0.35, "head and shoulders"), (0.2, "half-length")):
        if share > least:
            return tag
    return "full-length"


def _view(yaw_deg: float, roll_deg: float) -> list[str]:
    yaw = abs(yaw_deg)
    view = (
        "front view" if yaw < 15
        else "three-quarter view" if 20 < yaw < 50
        else "profile view" if yaw > 60
        else ""
    )  # fmt: skip
    return [view, "tilted head" if abs(roll_deg) > 10 else ""]


def _light(crop: np.ndarray, landmarks: np.ndarray) -> list[str]:
    """Key light from the two cheeks: patches between eye, nose and mouth corner, on each side."""
    brightness = luma(crop)
    if len(landmarks) == 5:
        left_eye, right_eye, nose, left_mouth, right_mouth = landmarks
    else:
        left_eye, right_eye = landmarks[36:42].mean(0), landmarks[42:48].mean(0)
        nose, left_mouth, right_mouth = landmarks[30], landmarks[48], landmarks[54]
    radius = 0.12 * float(np.linalg.norm(right_eye - left_eye))
    left = _patch(brightness, np.array([left_eye[0], (nose[1] + left_mouth[1]) / 2]), radius)
    right = _patch(brightness, np.array([right_eye[0], (nose[1] + right_mouth[1]) / 2]), radius)
    mean = float(brightness.mean())
    key = "low-key" if mean < 60 else "high-key" if mean > 185 else ""
    if left is None or right is None:
        return [key]
    ratio = (left + 1) / (right + 1)
    side = (
        "light from the left" if ratio > 1.3
        else "light from the right" if ratio < 1 / 1.3
        else "even light" if 1 / 1.1 < ratio < 1.1
        else ""
    )  # fmt: skip
    return [side, key]


def _patch(brightness: np.ndarray, centre: np.ndarray, radius: float) -> float | None:
    """Mean brightness around a point, or None where it is not in the crop."""
    x0, y0 = np.maximum(np.rint(centre - radius), 0).astype(int)
    x1, y1 = np.rint(centre + radius).astype(int) + 1
    patch = brightness[y0:y1, x0:x1]
    return float(patch.mean()) if patch.size else None


def _colour(crop: np.ndarray) -> list[str]:
    import cv2

    lab = cv2.cvtColor(crop.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    chroma = np.hypot(lab[..., 1], lab[..., 2])
    if float(np.percentile(chroma, 95)) < 4:
        return ["black and white"]
    warmth = float(lab[..., 2].mean())
    return ["warm colours" if warmth > 12 else "cool colours" if warmth < -4 else ""]


def _focus(crop: np.ndarray) -> list[str]:
    size = len(crop)
    face = crop[int(0.3 * size) : int(0.8 * size), int(0.25 * size) : int(0.75 * size)]
    score = sharpness.score(crop)
    focus = "sharp focus" if score > 0.7 else "soft focus" if score < 0.3 else ""
    corners = [crop[: size // 5, : size // 5], crop[: size // 5, -(size // 5) :]]
    behind = min(_detail(corner) for corner in corners)
    return [focus, "blurred background" if behind < 0.25 * _detail(face) else ""]


def _detail(picture: np.ndarray) -> float:
    import cv2

    return float(np.abs(cv2.Laplacian(luma(picture), cv2.CV_32F)).mean())


def _camera(row: Mapping[str, Any]) -> list[str]:
    def value(name: str) -> float:
        return float(row.get(name) or 0)  # lenses without contacts write 0

    return [
        f"{value('focal_length_mm'):.0f}mm lens" if value("focal_length_mm") else "",
        f"f/{round(value('aperture'), 1):g}" if value("aperture") else "",
        f"ISO {value('iso'):.0f}" if value("iso") else "",
    ]
