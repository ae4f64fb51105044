"""View and tilt from the head's pose, degrees.

Front below 14 of yaw, three-quarter from 20 to 58, profile above 62; chin up or down beyond 18 of pitch. Roll is no fact about
an aligned crop: alignment takes it away.
"""

from __future__ import annotations

from authface_data.captions.measured.measurement import FaceCrop, Measurement, above, below, with_doubt

FRONT, THREE_QUARTER, PROFILE, TILTED = 14.0, (20.0, 58.0), 62.0, 18.0
WIDTH, WIDTH_TILTED = 2.5, 2.0


def measure(face: FaceCrop) -> list[Measurement]:
    yaw, pitch = abs(face.row["yaw_deg"]), face.row["pitch_deg"]
    beyond_front = above("view", "three-quarter view", yaw, THREE_QUARTER[0], WIDTH)
    before_profile = below("view", "three-quarter view", yaw, THREE_QUARTER[1], WIDTH)
    return [
        below("view", "front view", yaw, FRONT, WIDTH),
        with_doubt(beyond_front, before_profile.confidence),
        above("view", "profile view", yaw, PROFILE, WIDTH),
        above("view", "chin up", pitch, TILTED, WIDTH_TILTED),
        below("view", "chin down", pitch, -TILTED, WIDTH_TILTED),
    ]
