"""Features of the eyes and the mouth of a crop that tell visible regions from hidden ones.

The most telling feature is free of any assumption about what hides a region: the mesh and iris
networks are run on several shifted, scaled and turned squares. Where the network sees an eye or a
mouth, its landmarks stay in place. Where it sees a hand, a mask or the edge of the photograph, it
guesses, and the guesses differ. Contrast and colour complete this for what resembles an eye or a
mouth in shape, such as dark lenses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from authface_data.faces.iris import IrisNetwork, square_around_eye
from authface_data.faces.mesh import (
    EYE_CORNERS,
    INNER_LIPS,
    LEFT_EYE,
    LIPS,
    RIGHT_EYE,
    FaceMesh,
    Mesh,
    crop_square,
)
from authface_data.images.colour import luma
from authface_data.quality import sharpness
from authface_data.quality.face_scale import resize_to_face_scale

MESH_MOVES: tuple[dict[str, float], ...] = (
    {"across": 0.04, "down": 0.03},
    {"across": -0.04, "down": 0.03, "turn": 0.1},
    {"down": -0.04, "scale": 1.1},
    {"across": 0.03, "down": -0.02, "scale": 0.92, "turn": -0.12},
    {"across": -0.02, "scale": 1.04, "turn": 0.15},
)
IRIS_MOVES: tuple[dict[str, float], ...] = (
    {},
    {"across": 0.06, "down": 0.03, "scale": 1.05},
    {"across": -0.06, "down": 0.03, "scale": 0.93},
    {"down": -0.06, "scale": 1.12},
)

EYE_POINTS = {"left_eye": LEFT_EYE, "right_eye": RIGHT_EYE}
CHEEK_POINTS = [50, 280, 205, 425]
FOREHEAD_POINTS = [151, 9, 108, 337]

EYE_FEATURES = (
    "landmark_spread",
    "relative_spread",
    "iris_spread",
    "eyelid_spread",
    "dark_ratio",
    "luma_ratio",
    "contrast",
    "gradient",
    "presence",
)
MOUTH_FEATURES = (
    "landmark_spread",
    "relative_spread",
    "dark_ratio",
    "luma_ratio",
    "contrast",
    "gradient",
    "redness",
    "colour_distance",
    "presence",
)

# All lengths below are in distances between the eyes.
EYE_PATCH = (0.32, 0.16)
"""Half width and half height of the patch around an eye."""
MOUTH_PATCH = (0.38, 0.24)
SKIN_HALF = 0.1
"""Half side of a patch of skin."""
FINE_SIGMA = 0.03
COARSE_SIGMA = 0.12
LIP_RING = 0.1
"""Width of the ring of skin around the lips."""

MIN_SPREAD = 1e-3
MAX_LOG_ODDS = 10.0
"""Largest log-odds of a face, in either direction."""
MAX_CONTRAST = 1.5
MAX_COLOUR = 25.0
"""Largest difference of a*, or of a* and b*, that still counts, in units of CIE Lab."""


@dataclass(frozen=True)
class RegionFeatures:
    """What is known of the regions of one crop.

    Attributes:
        presence: Probability of a face, 0 to 1.
        sharpness: Score of the measure `sharpness`, 0 to 1.
        points_px: (468, 2) landmarks of the mesh, pixel centres in the crop at 512 px.
        eyes: `left_eye` and `right_eye` -> (9,) float in the order of `EYE_FEATURES`.
        mouth: (9,) float in the order of `MOUTH_FEATURES`.
    """

    presence: float
    sharpness: float
    points_px: np.ndarray
    eyes: dict[str, np.ndarray]
    mouth: np.ndarray


class RegionModels:
    """The networks that the features need. Call `setup` before use."""

    def __init__(self) -> None:
        self._mesh = FaceMesh()
        self._iris = IrisNetwork()

    def setup(self, weights_dir: str | None) -> None:
        """Load the weights.

        Raises:
            MissingResourceError: If the weights are missing.
        """
        self._mesh.setup(weights_dir)
        self._iris.setup(weights_dir)

    def measure(self, crop: np.ndarray) -> RegionFeatures:
        """Measure the features of an FFHQ-aligned crop.

        Args:
            crop: (size, size, 3) uint8 sRGB.

        Returns:
            The features of its eyes and its mouth.
        """
        crop = resize_to_face_scale(crop)
        mesh, square = self._mesh.locate(crop, crop_square(len(crop)))
        squares = [square.moved(**move) for move in MESH_MOVES]
        meshes = [mesh, *self._mesh.locate_in(crop, squares)]
        points_px = np.median([mesh.points_px for mesh in meshes], axis=0)
        planes = _Planes(crop, points_px)
        spread = _spread(meshes, points_px) / planes.eye_distance_px

        presence = float(np.median([mesh.presence for mesh in meshes]))
        log_odds = _log_odds(presence)

        eyes = {}
        for name in EYE_POINTS:
            eye = self._eye_features(crop, name, planes, spread)
            eyes[name] = np.array([*eye, log_odds])
        mouth = np.array([*_mouth_features(planes, spread), log_odds])
        return RegionFeatures(presence, sharpness.score(crop), points_px, eyes, mouth)

    def _eye_features(
        self, crop: np.ndarray, name: str, planes: _Planes, spread: np.ndarray
    ) -> list[float]:
        corners_px = planes.points_px[list(EYE_CORNERS[name])]
        square = square_around_eye(corners_px)
        squares = [square.moved(**move) for move in IRIS_MOVES]
        eyes = self._iris.locate_in(crop, squares, is_right_eye=name == "right_eye")
        width_px = max(float(np.linalg.norm(corners_px[1] - corners_px[0])), 1.0)
        irises = np.array([eye.iris_px[:1] for eye in eyes])
        eyelids = np.array([eye.eyelids_px for eye in eyes])
        iris_spread = _deviation(irises).mean() / width_px
        eyelid_spread = _deviation(eyelids).mean() / width_px

        points = EYE_POINTS[name]
        return [
            *_spread_features(spread, points),
            float(np.log(iris_spread + MIN_SPREAD)),
            float(np.log(eyelid_spread + MIN_SPREAD)),
            *planes.contrast_features(points, EYE_PATCH, dark_percentile=5),
        ]


def _log_odds(probability: float) -> float:
    """Log-odds of a probability, within `MAX_LOG_ODDS`."""
    margin = 1 / (1 + np.exp(MAX_LOG_ODDS))
    clipped = np.clip(probability, margin, 1 - margin)
    return float(np.log(clipped / (1 - clipped)))


def _spread(meshes: Sequence[Mesh], points_px: np.ndarray) -> np.ndarray:
    """Mean distance of each landmark from its median position: (468,) in pixels."""
    return np.linalg.norm([mesh.points_px - points_px for mesh in meshes], axis=2).mean(0)


def _deviation(points_px: np.ndarray) -> np.ndarray:
    """Distances of (m, n, 2) points from their medians over m: (m, n)."""
    return np.linalg.norm(points_px - np.median(points_px, axis=0), axis=2)


def _spread_features(spread: np.ndarray, points: list[int]) -> list[float]:
    """Logarithm of the spread of a region, and that relative to the whole face."""
    of_region = np.log(spread[points].mean() + MIN_SPREAD)
    return [of_region, of_region - np.log(spread.mean() + MIN_SPREAD)]


class _Planes:
    """Brightness and colour of a crop, with the landmarks of its face.

    Args:
        crop: (size, size, 3) uint8 sRGB.
        points_px: (468, 2) landmarks.
    """

    def __init__(self, crop: np.ndarray, points_px: np.ndarray) -> None:
        import cv2

        self.points_px = points_px
        across = points_px[RIGHT_EYE].mean(0) - points_px[LEFT_EYE].mean(0)
        self.eye_distance_px = max(float(np.hypot(*across)), 1.0)
        self.luma = luma(crop)
        fine = cv2.GaussianBlur(self.luma, (0, 0), FINE_SIGMA * self.eye_distance_px)
        coarse = _blur_reduced(self.luma, COARSE_SIGMA * self.eye_distance_px)
        self.band = fine - coarse
        self.gradient = np.hypot(
            cv2.Sobel(fine, cv2.CV_32F, 1, 0), cv2.Sobel(fine, cv2.CV_32F, 0, 1)
        )
        self.lab = cv2.cvtColor(crop.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)

        skin = [self.skin_patch(self.luma, point) for point in CHEEK_POINTS + FOREHEAD_POINTS]
        lumas = [float(np.median(patch)) for patch in skin if patch.size]
        self.skin_luma = float(np.median(lumas)) + 1 if lumas else 128.0
        """Brightness of the skin: the median of eight places, of which some may be covered."""

    def skin_patch(self, plane: np.ndarray, point: int) -> np.ndarray:
        """The part of a plane around a landmark."""
        return self.patch(plane, self.points_px[point], (SKIN_HALF, SKIN_HALF))

    def patch(
        self, plane: np.ndarray, centre_px: np.ndarray, half: tuple[float, float]
    ) -> np.ndarray:
        """The part of a plane around a point; it may be empty.

        Args:
            plane: (size, size, ...) array.
            centre_px: (2,) pixel centre.
            half: Half width and half height in distances between the eyes.
        """
        reach_px = np.array(half) * self.eye_distance_px
        low = np.clip(np.rint(centre_px - reach_px), 0, len(plane)).astype(int)
        high = np.clip(np.rint(centre_px + reach_px) + 1, 0, len(plane)).astype(int)
        return plane[low[1] : high[1], low[0] : high[0]]

    def contrast_features(
        self, points: list[int], half: tuple[float, float], *, dark_percentile: float
    ) -> list[float]:
        """`dark_ratio`, `luma_ratio`, `contrast` and `gradient` of a region.

        Args:
            points: Indices of its landmarks.
            half: Half size of its patch, as for `patch`.
            dark_percentile: Percentile of the brightness that counts as its darkest part.
        """
        centre_px = self.points_px[points].mean(0)
        patch = self.patch(self.luma, centre_px, half)
        if not patch.size:
            return [1.0, 1.0, 0.0, 0.0]
        median = float(np.median(patch)) + 1
        dark = float(np.percentile(patch, dark_percentile))
        contrast = float(np.ptp(self.patch(self.band, centre_px, half))) / self.skin_luma
        gradient = float(self.patch(self.gradient, centre_px, half).mean())
        gradient *= self.eye_distance_px / self.skin_luma
        return [
            dark / median,
            min(median / self.skin_luma, 2.0),
            min(contrast, MAX_CONTRAST),
            float(np.log(gradient + 0.1)),
        ]

    def lip_colours(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean a* and b* of the lips, and of the skin around them; NaN if out of the crop."""
        import cv2

        lips = np.zeros(self.luma.shape, np.uint8)
        cv2.fillPoly(lips, [np.rint(self.points_px[LIPS]).astype(np.int32)], 1)
        width_px = max(round(LIP_RING * self.eye_distance_px), 1)
        side_px = 2 * width_px + 1
        around = cv2.dilate(lips, np.ones((side_px, side_px), np.uint8))
        cv2.fillPoly(lips, [np.rint(self.points_px[INNER_LIPS]).astype(np.int32)], 2)
        colours = self.lab[..., 1:]
        is_ring = (around == 1) & (lips == 0)
        return _mean(colours[lips == 1]), _mean(colours[is_ring])


def _blur_reduced(plane: np.ndarray, sigma_px: float) -> np.ndarray:
    """Blur a plane with a large sigma at a quarter of its size, which takes a tenth of the time."""
    import cv2

    size_px = plane.shape[::-1]
    reduced = cv2.resize(plane, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    blurred = cv2.GaussianBlur(reduced, (0, 0), max(sigma_px / 4, 0.1))
    return cv2.resize(blurred, size_px, interpolation=cv2.INTER_LINEAR)


def _mean(colours: np.ndarray) -> np.ndarray:
    return colours.mean(0) if len(colours) else np.full(2, np.nan)


def _mouth_features(planes: _Planes, spread: np.ndarray) -> list[float]:
    skin = [planes.skin_patch(planes.lab, point) for point in CHEEK_POINTS + FOREHEAD_POINTS]
    skin_colours = [
        np.median(patch[..., 1:].reshape(-1, 2), axis=0) for patch in skin if patch.size
    ]
    lips, ring = planes.lip_colours()
    redness, distance = 0.0, 0.0
    if np.isfinite([*lips, *ring]).all() and skin_colours:
        redness = float(np.clip(lips[0] - ring[0], -MAX_COLOUR, MAX_COLOUR))
        distance = min(float(np.hypot(*(ring - np.median(skin_colours, axis=0)))), MAX_COLOUR)
    return [
        *_spread_features(spread, LIPS),
        *planes.contrast_features(LIPS, MOUTH_PATCH, dark_percentile=3),
        redness,
        distance,
    ]
