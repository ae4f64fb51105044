"""Framing of the crop, which is what a model sees, from the face's box: its height over the quad's side.

From .5 on it is a close-up, and FFHQ's alignment makes nearly every crop one, whatever the photograph's own framing was.
"""

from __future__ import annotations

from authface_data.captions.measured.measurement import FaceCrop, Measurement, above, below

BOUND, WIDTH = 0.5, 0.03


def measure(face: FaceCrop) -> list[Measurement]:
    box, side = face.row["box_px"], face.row["qsize_px"]
    if box is None or not side:  # an aligned picture of another source has none
        return []
    share = (box[3] - box[1]) / side
    return [
        above("framing", "close-up", share, BOUND, WIDTH),
        below("framing", "head and shoulders", share, BOUND, WIDTH),
    ]
