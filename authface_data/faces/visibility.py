"""Visibility of the eyes and the mouth, which a profile, glasses, a hand or a mask can hide.

A region is visible if all of these hold:

- There is a face: the face mesh's presence is at least `MIN_PRESENCE`.
- The region's box lies within the crop and, mapped back to the photograph, within that.
- The head is not turned so far that the region is on its far side (`FAR_EYE_YAW_DEG`,
  `MOUTH_YAW_DEG`).
- A logistic model of the features of `region_features` does not call it hidden.
- For the mouth: it is not surrounded by another colour than the rest of the face while its
  landmarks are unstable, as under a mask that covers the nose and the cheeks too.

In a small or blurred crop, contrast and colour say little about what hides a region. There a region
is hidden only if its landmarks do not stay in place either, or an eye is as dark and even as a lens;
otherwise it counts as visible, and it is left to the gates on size and sharpness to drop the face.

The models have ten numbers each. They were fitted on 46 faces of public photographs with
occlusions painted on them and on 96 labelled faces (benchmarks/fit_visibility.py); docs/filter.md
states how they do on other photographs, with real masks, hands and hats.

Fails on: hair over an eye (dark strands in front of light skin count as visible) and tinted glasses
behind which the eyes can just be seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from authface_data.faces.align import Quad
from authface_data.faces.region_features import EYE_FEATURES, MOUTH_FEATURES, RegionFeatures

MIN_PRESENCE = 0.5
"""Presence below which there is no face whose regions could be seen."""

# Beyond these angles the far eye and the far half of the mouth are seen edge-on or not at all.
FAR_EYE_YAW_DEG = 50.0
MOUTH_YAW_DEG = 75.0

MIN_CLEAR_QUAD_PX = 160
"""A face with a smaller quad is too small for the models' features other than the spread."""
MIN_CLEAR_SHARPNESS = 0.3
"""Below this score of `sharpness`, a crop is too blurred for them."""
UNCLEAR_EYE_SPREAD = -3.2
"""Logarithm of the spread of an eye's landmarks, in distances between the eyes, from which it may
be hidden in a crop that is not clear."""
UNCLEAR_MOUTH_SPREAD = -3.0
"""The same for the mouth."""
LENS_LUMA_RATIO = 0.35
"""Largest brightness of dark lenses, relative to the skin."""
LENS_DARK_RATIO = 0.65
"""Smallest ratio of the darkest parts of dark lenses to their median: they are even."""
COVER_COLOUR_DISTANCE = 14.0
"""Distance in CIE Lab (a*, b*) between the surroundings of the mouth and the rest of the face."""
COVER_LANDMARK_SPREAD = -3.5
"""Logarithm of the spread of the mouth's landmarks, in distances between the eyes."""


@dataclass(frozen=True)
class LogisticModel:
    """A logistic model of whether a region is hidden.

    Attributes:
        intercept: Log-odds if all features are zero.
        weights: Feature -> change of the log-odds per unit of the feature.
    """

    intercept: float
    weights: Mapping[str, float]

    def log_odds(self, names: tuple[str, ...], features: np.ndarray) -> float:
        """Compute the log-odds that the region is hidden.

        Args:
            names: The features' names.
            features: (len(names),) their values.

        Returns:
            A positive number if it is more probably hidden than visible.
        """
        weights = np.array([self.weights[name] for name in names])
        return self.intercept + float(features @ weights)


# As printed by benchmarks/fit_visibility.py.
EYE_MODEL = LogisticModel(
    intercept=10.659,
    weights={
        "landmark_spread": 0.441,
        "relative_spread": 3.997,
        "iris_spread": 2.711,
        "eyelid_spread": 1.126,
        "dark_ratio": 6.914,
        "luma_ratio": -0.450,
        "contrast": 4.891,
        "gradient": -2.931,
        "presence": 0.595,
    },
)
MOUTH_MODEL = LogisticModel(
    intercept=1.644,
    weights={
        "landmark_spread": 1.430,
        "relative_spread": 8.941,
        "dark_ratio": 3.927,
        "luma_ratio": 2.119,
        "contrast": 0.026,
        "gradient": -1.418,
        "redness": -0.052,
        "colour_distance": 0.217,
        "presence": -0.101,
    },
)


def region_visibility(
    features: RegionFeatures,
    boxes: dict[str, np.ndarray],
    *,
    size_px: int,
    quad: Quad,
    photo_px: tuple[int, int],
    yaw_deg: float,
) -> dict[str, bool]:
    """Decide whether the eyes and the mouth of a crop can be seen.

    Args:
        features: Measurements of the crop.
        boxes: `left_eye`, `right_eye` and `mouth` (as seen in the image) as (4,) pixel edges in the
            crop, see `region_boxes`.
        size_px: Side of the crop.
        quad: The quad of the crop in the photograph.
        photo_px: (width, height) of the photograph.
        yaw_deg: Yaw of the head, positive to the right of the image.

    Returns:
        Whether each region is visible, by the names of `boxes`.
    """
    # A head that looks to the right of the image hides its right eye first.
    is_turned_away = {
        "left_eye": yaw_deg < -FAR_EYE_YAW_DEG,
        "right_eye": yaw_deg > FAR_EYE_YAW_DEG,
        "mouth": abs(yaw_deg) > MOUTH_YAW_DEG,
    }
    is_clear = quad.size_px >= MIN_CLEAR_QUAD_PX and features.sharpness >= MIN_CLEAR_SHARPNESS
    is_hidden = {name: _is_eye_hidden(eye, is_clear) for name, eye in features.eyes.items()}
    is_hidden["mouth"] = _is_mouth_hidden(features.mouth, is_clear)
    return {
        name: bool(
            features.presence >= MIN_PRESENCE
            and not is_hidden[name]
            and not is_turned_away[name]
            and _lies_in_crop_and_photo(box, size_px, quad, photo_px)
        )
        for name, box in boxes.items()
    }


def _is_eye_hidden(eye: np.ndarray, is_clear: bool) -> bool:
    """Whether an eye is hidden, by its features in the order of `EYE_FEATURES`."""
    values = dict(zip(EYE_FEATURES, eye, strict=True))
    is_unstable = values["landmark_spread"] >= UNCLEAR_EYE_SPREAD
    is_lens = values["luma_ratio"] <= LENS_LUMA_RATIO and values["dark_ratio"] >= LENS_DARK_RATIO
    may_be_hidden = is_clear or is_unstable or is_lens
    return bool(may_be_hidden and EYE_MODEL.log_odds(EYE_FEATURES, eye) > 0)


def _is_mouth_hidden(mouth: np.ndarray, is_clear: bool) -> bool:
    """Whether a mouth is hidden, by its features in the order of `MOUTH_FEATURES`."""
    values = dict(zip(MOUTH_FEATURES, mouth, strict=True))
    if not is_clear and values["landmark_spread"] < UNCLEAR_MOUTH_SPREAD:
        return False
    is_covered = (
        values["colour_distance"] >= COVER_COLOUR_DISTANCE
        and values["landmark_spread"] >= COVER_LANDMARK_SPREAD
    )
    return is_covered or MOUTH_MODEL.log_odds(MOUTH_FEATURES, mouth) > 0


def _lies_in_crop_and_photo(
    box: np.ndarray, size_px: int, quad: Quad, photo_px: tuple[int, int]
) -> bool:
    """Whether a box of the crop lies within the crop and on the photograph."""
    if (box < 0).any() or (box > size_px).any():
        return False
    left, top, right, bottom = box
    corners = np.array([[left, top], [right, top], [right, bottom], [left, bottom]]) / size_px

    # Adding half a pixel turns pixel centres into pixel edges.
    north_west, south_west, _, north_east = quad.corners_px + 0.5
    across = corners[:, :1] * (north_east - north_west)
    down = corners[:, 1:] * (south_west - north_west)
    on_photo = north_west + across + down
    return bool((on_photo >= -0.5).all() and (on_photo <= np.array(photo_px) + 0.5).all())
