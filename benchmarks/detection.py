"""Which faces are found, by their share of the frame.

    python benchmarks/detection.py

Every face that the detector is sure of in the tests' public photographs is put into a square frame of 1,600 px, so that the
longer side of its box is a given share of the frame: cut out of its photograph where that is large enough, else on grey.
"""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "support"))

from authface_data.weights import cache_dir  # noqa: E402

os.environ["AUTHFACE_CACHE"] = str(cache_dir())

from public_faces import photographs  # noqa: E402

from authface_data.faces.detect import detect  # noqa: E402
from authface_data.faces.detectors import make_detector  # noqa: E402
from authface_data.images.open import Photo  # noqa: E402

SHARES, FRAME_PX = (0.03, 0.04, 0.06, 0.1, 0.3, 0.6, 0.8, 1.0, 1.1), 1600


def in_frame(picture: np.ndarray, box: np.ndarray, share: float) -> Photo:
    scale = FRAME_PX * share / float((box[2:] - box[:2]).max())
    centre = (box[:2] + box[2:]) / 2
    if scale < 1:
        picture, centre = (
            cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA),
            centre * scale,
        )
        scale = 1.0
    shift = FRAME_PX / 2 - centre * scale
    matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
    out = io.BytesIO()
    frame = cv2.warpAffine(picture, matrix, (FRAME_PX, FRAME_PX), borderValue=(90, 110, 120))
    Image.fromarray(frame).save(out, "JPEG", quality=95)
    return Photo(out.getvalue)


def main() -> None:
    detector = make_detector("retinaface-mobile")
    detector.setup("cpu", None)
    faces = []
    for path in photographs().values():
        if path.suffix in (".jpg", ".png", ".ppm"):
            photo = Photo(path.read_bytes)
            faces += [
                (photo.pixels(), face.box_px) for face in detect(detector, [photo], 1920, 0.9)[0]
            ]
    print(f"{len(faces)} faces, retinaface-mobile, long side 1920 px and a third of that")
    for share in SHARES:
        found = 0
        for picture, box in faces:
            for one in detect(detector, [in_frame(picture, box, share)], 1920, 0.7)[0]:
                centre, side = (
                    (one.box_px[:2] + one.box_px[2:]) / 2,
                    float((one.box_px[2:] - one.box_px[:2]).max()),
                )
                near = np.abs(centre - FRAME_PX / 2).max() < 0.35 * share * FRAME_PX
                if near and 0.6 < side / (share * FRAME_PX) < 1.6:
                    found += 1
                    break
        print(f"{100 * share:.0f} % of the frame: {found} of {len(faces)}")


if __name__ == "__main__":
    main()
