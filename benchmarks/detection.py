"""Detection rate by the share of the frame that a face fills.

    python benchmarks/detection.py

Every face of the tests' public photographs with a high detector score is placed in a square frame
of 1,600 px, so that the longer side of its box is a given share of the frame.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "support"))

from authface_data.weights import cache_dir  # noqa: E402

os.environ["AUTHFACE_CACHE"] = str(cache_dir())

from public_faces import FRAME_PX, photographs, place_in_frame, read_photo  # noqa: E402

from authface_data.faces.boxes import longer_side  # noqa: E402
from authface_data.faces.detect import detect_faces  # noqa: E402
from authface_data.faces.detectors import Detection, make_detector  # noqa: E402

SHARES = (0.03, 0.04, 0.06, 0.1, 0.3, 0.6, 0.8, 1.0, 1.1)
LONG_SIDE_PX = 1920


def _is_placed_face(detection: Detection, share: float) -> bool:
    """Whether a detection in a frame is the face that fills `share` of it."""
    centre = (detection.box_px[:2] + detection.box_px[2:]) / 2
    offset_px = np.abs(centre - FRAME_PX / 2).max()
    relative_size = longer_side(detection.box_px) / (share * FRAME_PX)
    return bool(offset_px < 0.35 * share * FRAME_PX) and 0.6 < relative_size < 1.6


def main() -> None:
    """Print how many faces are detected at every share of the frame."""
    detector = make_detector("retinaface-mobile")
    detector.setup("cpu", None)
    faces = []
    for path in photographs().values():
        if path.suffix in (".jpg", ".png", ".ppm"):
            photo = read_photo(path)
            detections = detect_faces(
                partial(detector.detect, min_score=0.9), [photo], LONG_SIDE_PX
            )[0]
            faces += [(photo.pixels(), detection.box_px) for detection in detections]
    print(f"{len(faces)} faces, retinaface-mobile, long side {LONG_SIDE_PX} px and a third of that")

    for share in SHARES:
        num_found = 0
        for picture, box in faces:
            frame = place_in_frame(picture, box, share)
            detections = detect_faces(
                partial(detector.detect, min_score=0.7), [frame], LONG_SIDE_PX
            )[0]
            num_found += any(_is_placed_face(detection, share) for detection in detections)
        print(f"{100 * share:.0f} % of the frame: {num_found} of {len(faces)}")


if __name__ == "__main__":
    main()
