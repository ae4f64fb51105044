"""View, framing and camera tags, computed from stored values without looking at pixels.

View and tilt follow from the head pose: front view below 12 degrees of yaw, three-quarter view from
23 to 58, profile view above 62. The chin is up above 25 degrees of pitch and down below -22, if eyes
and mouth are visible: the pitch is wrong by up to 20 degrees for babies and covered faces. Roll
gives no tag, because alignment removes it.

Framing follows from the height of the face's box relative to the side of its quad. From 0.5 on, the
crop is a close-up. FFHQ alignment makes every crop a close-up, whatever the framing of the
photograph: the tag describes the crop, which is what a model is trained on.

Focal length, aperture and ISO are copied from EXIF.
"""

from __future__ import annotations

from authface_data.captions.measured.measurement import FaceCrop, Measurement

MAX_FRONT_YAW_DEG = 12.0
THREE_QUARTER_YAW_DEG = (23.0, 58.0)
MIN_PROFILE_YAW_DEG = 62.0
YAW_WIDTH_DEG = 2.5
MIN_CHIN_UP_DEG = 25.0
MIN_CHIN_DOWN_DEG = 22.0
TILT_WIDTH_DEG = 2.0

MIN_CLOSE_UP_SHARE = 0.5
SHARE_WIDTH = 0.03


def measure_view(face: FaceCrop) -> list[Measurement]:
    """Measure view and tilt from yaw and pitch."""
    yaw = abs(face.row["yaw_deg"])
    low, high = THREE_QUARTER_YAW_DEG
    three_quarter = Measurement.above(
        "view", "three-quarter view", yaw, bound=low, width=YAW_WIDTH_DEG
    )
    before_profile = Measurement.below(
        "view", "three-quarter view", yaw, bound=high, width=YAW_WIDTH_DEG
    )
    tilts = _measure_tilt(face) if face.all_regions_visible else []
    return [
        Measurement.below("view", "front view", yaw, bound=MAX_FRONT_YAW_DEG, width=YAW_WIDTH_DEG),
        three_quarter.capped(before_profile.confidence),
        Measurement.above(
            "view", "profile view", yaw, bound=MIN_PROFILE_YAW_DEG, width=YAW_WIDTH_DEG
        ),
        *tilts,
    ]


def _measure_tilt(face: FaceCrop) -> list[Measurement]:
    pitch = face.row["pitch_deg"]
    return [
        Measurement.above("view", "chin up", pitch, bound=MIN_CHIN_UP_DEG, width=TILT_WIDTH_DEG),
        Measurement.below(
            "view", "chin down", pitch, bound=-MIN_CHIN_DOWN_DEG, width=TILT_WIDTH_DEG
        ),
    ]


def measure_framing(face: FaceCrop) -> list[Measurement]:
    """Measure the framing of the crop from the box of the face."""
    box = face.row["box_px"]
    quad_size = face.row["qsize_px"]
    if box is None or not quad_size:  # crops that were collected already aligned have neither
        return []
    share = (box[3] - box[1]) / quad_size
    return [
        Measurement.above("framing", "close-up", share, bound=MIN_CLOSE_UP_SHARE, width=SHARE_WIDTH)
    ]


def measure_camera(face: FaceCrop) -> list[Measurement]:
    """Copy focal length, aperture and ISO from EXIF; their confidence is 1."""
    # Lenses without electronic contacts write 0.
    focal_length_mm = float(face.row.get("focal_length_mm") or 0)
    aperture = float(face.row.get("aperture") or 0)
    iso = float(face.row.get("iso") or 0)
    candidates = [
        (f"{focal_length_mm:.0f}mm lens", focal_length_mm),
        (f"f/{round(aperture, 1):g}", aperture),
        (f"ISO {iso:.0f}", iso),
    ]
    return [Measurement("camera", tag, value, 1.0) for tag, value in candidates if value > 0]
