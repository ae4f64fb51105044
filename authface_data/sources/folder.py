"""A folder of photographs: studio portraits, one's own pictures."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from authface_data.photo import SUFFIXES
from manifests.errors import UserMistake

PREFIX = "fs_"
LOOK_BYTES = 65536
# What a sidecar may say -> the column of `photos`.
SIDECAR = {
    "photographer": "photographer_name",
    "photographer_url": "photographer_url",
    "source_url": "source_url",
    "licence": "licence",
    "licence_basis": "licence_basis",
    "consent_ref": "consent_ref",
    "person": "person",
    "note": "note",
}


def find_photos(folder: Path) -> Iterator[tuple[str, dict]]:
    """(photo_id, input row) of every picture file below a folder, in order of path. Hidden files are passed over.

    The id is `fs_` and 16 hex digits over the path within the folder, the size and both ends of the file: it stays the same
    when the folder moves, differs when the picture changes, and needs no full read. Raises UserMistake where there is no folder
    or no picture.
    """
    if not folder.is_dir():
        raise UserMistake(f"{folder} is no folder: --path takes the folder that holds the photographs")
    found = False
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(parent, name)
            if name.startswith(".") or path.suffix.lower() not in SUFFIXES or not path.is_file():
                continue
            found = True
            within = path.relative_to(folder).as_posix()
            yield _photo_id(path, within), {"file": str(path), "name": within, **_sidecar(path)}
    if not found:
        raise UserMistake(f"no pictures in {folder} (looked for {', '.join(SUFFIXES)})")


def _sidecar(path: Path) -> dict[str, str]:
    """Credit and consent from `<picture file>.json` beside the picture. Raises UserMistake for one that cannot be read."""
    beside = path.with_name(f"{path.name}.json")
    if not beside.is_file():
        return {}
    try:
        said = json.loads(beside.read_text("utf-8"))
        unknown = sorted(set(said) - set(SIDECAR))
    except (ValueError, TypeError) as error:
        raise UserMistake(f"{beside} is no JSON object: {error}") from error
    if unknown:
        raise UserMistake(f"{beside} says {', '.join(unknown)}; it may say {', '.join(SIDECAR)}")
    return {SIDECAR[name]: str(value) for name, value in said.items()}


def _photo_id(path: Path, within: str) -> str:
    size = path.stat().st_size
    digest = hashlib.sha256(f"{within}\0{size}\0".encode())
    with path.open("rb") as file:
        digest.update(file.read(LOOK_BYTES))
        file.seek(max(size - LOOK_BYTES, 0))
        digest.update(file.read(LOOK_BYTES))
    return PREFIX + digest.hexdigest()[:16]
