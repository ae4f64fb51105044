"""Gaze tags: whether the person looks into the camera or away.

The gaze angle is the yaw of the head plus the turn of the eyes. MediaPipe's iris network gives the
position of each iris between the corners of the eye, from -1 (left corner) to 1 (right corner); the
mean position of both eyes, times 60 degrees, is the turn of the eyes. Below 6.5 degrees the gaze is
direct, provided that the head is neither raised by more than 10 degrees nor bowed by more than 14;
beyond 28 degrees the person looks away. Beyond 60 degrees of yaw, the yaw alone decides.

Eyes that look up or down are not direct either: the irises of direct gazes lie 0.24 above to 0.02
below the line through the corners, in half widths of the eye, and a turn of 15 degrees moves them
by about 0.2. From 0.28 above or 0.05 below on, the gaze is not direct.

The gaze is not measured if an eye is not visible, or if the positions of the two irises differ by
more than 0.5. Eyes that look up or down by less than 10 degrees count as direct.
"""

from __future__ import annotations

from authface_data.captions.measured.measurement import FaceCrop, Measurement

DEGREES_PER_POSITION = 60.0
MAX_POSITION_DIFFERENCE = 0.5
MAX_DIRECT_DEG = 6.5
MIN_AWAY_DEG = 28.0
MIN_PROFILE_YAW_DEG = 60.0
MAX_BOWED_DEG = 14.0
MAX_RAISED_DEG = 10.0
MIN_IRIS_DROP = -0.28
MAX_IRIS_DROP = 0.05
IRIS_DROP_WIDTH = 0.02
WIDTH_DEG = 2.5


def measure_gaze(face: FaceCrop) -> list[Measurement]:
    """Measure the gaze from yaw and the positions of the irises."""
    yaw = float(face.row["yaw_deg"])
    if abs(yaw) > MIN_PROFILE_YAW_DEG:
        return [
            Measurement.above(
                "gaze", "looking away", abs(yaw), bound=MIN_PROFILE_YAW_DEG, width=WIDTH_DEG
            )
        ]
    if not face.both_eyes_visible or face.iris_positions is None:
        return []
    left, right = face.iris_positions[:, 0]
    drop = float(face.iris_positions[:, 1].mean())
    if abs(left - right) > MAX_POSITION_DIFFERENCE:
        return []

    angle = abs(yaw + DEGREES_PER_POSITION * float(left + right) / 2)
    pitch = float(face.row["pitch_deg"])
    direct = Measurement.below("gaze", "direct gaze", angle, bound=MAX_DIRECT_DEG, width=WIDTH_DEG)
    not_bowed = Measurement.above(
        "gaze", "direct gaze", pitch, bound=-MAX_BOWED_DEG, width=WIDTH_DEG
    )
    not_raised = Measurement.below(
        "gaze", "direct gaze", pitch, bound=MAX_RAISED_DEG, width=WIDTH_DEG
    )
    eyes_not_up = Measurement.above(
        "gaze", "direct gaze", drop, bound=MIN_IRIS_DROP, width=IRIS_DROP_WIDTH
    )
    eyes_not_down = Measurement.below(
        "gaze", "direct gaze", drop, bound=MAX_IRIS_DROP, width=IRIS_DROP_WIDTH
    )
    conditions = (not_bowed, not_raised, eyes_not_up, eyes_not_down)
    return [
        direct.capped(min(condition.confidence for condition in conditions)),
        Measurement.above("gaze", "looking away", angle, bound=MIN_AWAY_DEG, width=WIDTH_DEG),
    ]
