"""What all measures share: their input, a face crop, and their result, a measured tag."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from authface_data.faces.landmarks import to_five_points
from authface_data.images.colour import luma
from authface_data.quality.face_scale import FACE_SCALE_PX, resize_to_face_scale, sigmoid

MIN_CONFIDENCE = 0.5
"""Measurements with a lower confidence are discarded."""

HIGH_CONFIDENCE = 0.8
"""From this confidence on, a measurement overrules a tag of a model that contradicts it."""


@dataclass(frozen=True)
class Measurement:
    """A measured tag of one face, as stored in the column `measurements` of `captions`.

    Attributes:
        facet: Name of the tag's facet in the vocabulary.
        tag: The canonical tag.
        value: The measured quantity, in the unit of its measure.
        confidence: 0 to 1. It is 0.5 if the value equals the bound of the tag's rule, and
            approaches 1 far beyond the bound.
    """

    facet: str
    tag: str
    value: float
    confidence: float

    @classmethod
    def above(
        cls, facet: str, tag: str, value: float, *, bound: float, width: float
    ) -> Measurement:
        """Create a measurement of a tag that applies to values above a bound.

        Args:
            facet: Name of the tag's facet.
            tag: The canonical tag.
            value: The measured quantity.
            bound: Value at which the confidence is 0.5.
            width: Scale of the logistic function that gives the confidence, in the unit of `value`.
                The confidence is 0.73 at one width above the bound.

        Returns:
            The measurement.
        """
        return cls(facet, tag, value, sigmoid(value, bound, width))

    @classmethod
    def below(
        cls, facet: str, tag: str, value: float, *, bound: float, width: float
    ) -> Measurement:
        """Create a measurement of a tag that applies to values below a bound.

        Args:
            facet: Name of the tag's facet.
            tag: The canonical tag.
            value: The measured quantity.
            bound: Value at which the confidence is 0.5.
            width: Scale of the logistic function, as for `above`.

        Returns:
            The measurement.
        """
        return cls(facet, tag, value, sigmoid(-value, -bound, width))

    def capped(self, confidence: float) -> Measurement:
        """Return a copy whose confidence is at most `confidence`.

        Use it for a tag that depends on two conditions: the less certain condition decides.
        """
        return replace(self, confidence=min(self.confidence, confidence))


@dataclass(frozen=True)
class FaceCrop:
    """An aligned face crop, scaled to 512 px, with its landmarks and metadata.

    "Left" and "right" are meant as seen in the image.

    Attributes:
        pixels: (512, 512, 3) uint8 sRGB.
        brightness: (512, 512) float32, 0 to 255.
        landmarks: (68, 2) or (5, 2) float; (x, y) in px of `pixels`.
        landmarks5: (5, 2) float; left eye, right eye, nose, left and right corner of the mouth.
        row: The row of `faces`, with the camera columns and the size of its photo.
        background: (512, 512) bool; pixels away from the person. None if unknown.
        iris_positions: (2, 2) float; a row for the iris of the left and of the right eye: its place
            between the corners of the eye, -1 to 1 from left to right, and its distance below the
            line through the corners, in half widths of the eye. None if unknown.
    """

    pixels: np.ndarray
    brightness: np.ndarray
    landmarks: np.ndarray
    landmarks5: np.ndarray
    row: Mapping[str, Any]
    background: np.ndarray | None = None
    iris_positions: np.ndarray | None = None

    @classmethod
    def from_row(cls, row: Mapping[str, Any], crop: np.ndarray) -> FaceCrop:
        """Scale a stored crop and its landmarks.

        Args:
            row: The row of `faces`, with the camera columns of its photo.
            crop: (size, size, 3) uint8 sRGB; the aligned crop of the row.

        Returns:
            The crop at 512 px.
        """
        pixels = resize_to_face_scale(crop)
        scale = FACE_SCALE_PX / len(crop)
        points = np.array([list(point) for point in row["landmarks_crop_px"]], float)
        landmarks = (points + 0.5) * scale - 0.5
        landmarks5 = landmarks if len(landmarks) == 5 else to_five_points(landmarks)
        return cls(pixels, luma(pixels), landmarks, landmarks5, row)

    @property
    def eye_distance_px(self) -> float:
        """Distance between the centres of the eyes."""
        return float(np.linalg.norm(self.landmarks5[1] - self.landmarks5[0]))

    @property
    def both_eyes_visible(self) -> bool:
        """Whether neither eye is covered or cut off."""
        return bool(self.row["left_eye_visible"] and self.row["right_eye_visible"])

    @property
    def all_regions_visible(self) -> bool:
        """Whether eyes and mouth are neither covered nor cut off."""
        return self.both_eyes_visible and bool(self.row["mouth_visible"])

    def brightness_patch(self, centre: np.ndarray, half_size: np.ndarray) -> np.ndarray:
        """Cut a rectangle out of the brightness.

        Args:
            centre: (2,) float; (x, y) in px.
            half_size: (2,) float; half the width and half the height in px.

        Returns:
            (height, width) float32; the part of the rectangle inside the crop, which may be empty.
        """
        low = np.clip(np.rint(centre - half_size), 0, FACE_SCALE_PX).astype(int)
        high = np.clip(np.rint(centre + half_size) + 1, 0, FACE_SCALE_PX).astype(int)
        return self.brightness[low[1] : high[1], low[0] : high[0]]


def face_oval() -> np.ndarray:
    """The oval that the face fills in an aligned crop.

    Returns:
        (512, 512) bool.
    """
    y, x = (np.mgrid[:FACE_SCALE_PX, :FACE_SCALE_PX] + 0.5) / FACE_SCALE_PX
    return (x - 0.5) ** 2 / 0.05 + (y - 0.55) ** 2 / 0.07 < 1


def gradient_magnitude(brightness: np.ndarray) -> np.ndarray:
    """Compute the magnitude of the gradient with Sobel filters.

    Args:
        brightness: (height, width) float32, 0 to 255.

    Returns:
        (height, width) float32 in levels per px.
    """
    import cv2

    horizontal = cv2.Sobel(brightness, cv2.CV_32F, 1, 0) / 8
    vertical = cv2.Sobel(brightness, cv2.CV_32F, 0, 1) / 8
    return np.hypot(horizontal, vertical)
