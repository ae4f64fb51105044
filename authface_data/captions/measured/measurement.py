"""Facts about a crop: what was measured, the tag that it makes, and how sure that is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from authface_data.faces.landmarks import to_five_points
from authface_data.quality.face_scale import FACE_SCALE_PX, resize_to_face_scale, sigmoid
from authface_data.images.colour import luma

MIN_CONFIDENCE, HIGH_CONFIDENCE = 0.5, 0.8  # from this confidence on a tag is given, and contradicts what a model says


@dataclass(frozen=True)
class Measurement:
    """value: what was measured, in the unit of its measure; confidence: .5 at the bound of its rule, to 1 far from it."""

    facet: str
    tag: str
    value: float
    confidence: float


@dataclass(frozen=True)
class FaceCrop:
    """A crop at face scale. pixels: (512, 512, 3) uint8 sRGB; brightness: (512, 512) 0..255; points: landmarks, (68, 2) or
    (5, 2); five: eye centres, nose and mouth corners, left ones first; row: of `faces`, with its photo's camera columns."""

    pixels: np.ndarray
    brightness: np.ndarray
    points: np.ndarray
    five: np.ndarray
    row: Mapping[str, Any]

    @classmethod
    def of(cls, row: Mapping[str, Any], crop: np.ndarray) -> FaceCrop:
        """crop: (H, H, 3) uint8."""
        pixels = resize_to_face_scale(crop)
        scale = FACE_SCALE_PX / len(crop)
        points = (
            np.array([list(point) for point in row["landmarks_crop_px"]], float) + 0.5
        ) * scale - 0.5
        return cls(
            pixels, luma(pixels), points, points if len(points) == 5 else to_five_points(points), row
        )

    @property
    def eye_distance(self) -> float:
        return float(np.linalg.norm(self.five[1] - self.five[0]))

    @property
    def both_eyes(self) -> bool:
        return bool(self.row["left_eye_visible"] and self.row["right_eye_visible"])

    def around(self, centre: np.ndarray, half: np.ndarray) -> np.ndarray:
        """The brightness around a point, as much of it as lies in the crop."""
        low = np.clip(np.rint(centre - half), 0, FACE_SCALE_PX).astype(int)
        high = np.clip(np.rint(centre + half) + 1, 0, FACE_SCALE_PX).astype(int)
        return self.brightness[low[1] : high[1], low[0] : high[0]]


def above(facet: str, tag: str, value: float, bound: float, width: float) -> Measurement:
    """That a value is above a bound: sure by how many widths."""
    return Measurement(facet, tag, value, sigmoid(value, bound, width))


def below(facet: str, tag: str, value: float, bound: float, width: float) -> Measurement:
    """That it is below."""
    return Measurement(facet, tag, value, sigmoid(-value, -bound, width))


def with_doubt(fact: Measurement, confidence: float) -> Measurement:
    """The fact no surer than something else that it rests on."""
    return Measurement(fact.facet, fact.tag, fact.value, min(fact.confidence, confidence))
