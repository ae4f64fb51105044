"""A folder of photographs: studio portraits, one's own pictures."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from authface_data.photo import SUFFIXES
from manifests.errors import UserMistake
from manifests.fingerprint import fingerprint
from manifests.settings import SETTINGS_FILE

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


def find_photos(folder: Path, passed_over: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(photo_id, input row) of every picture file below a folder, in order of path; links are followed, none twice.

    The id is `fs_` and 16 hex digits over the path within the folder, the size and both ends of the file: it stays the same
    when the folder moves, and needs no full read. `mark` changes with the file's size, its time or its sidecar. Hidden files,
    and folders that are workspaces, are passed over; folders that cannot be read are too, and named in `passed_over`.
    Raises UserMistake where there is no folder or no picture.
    """
    if not folder.is_dir():
        raise UserMistake(f"{folder} is no folder: --path takes the folder that holds the photographs")
    found, seen = False, set()
    for parent, folders, names in os.walk(folder, followlinks=True, onerror=lambda error: passed_over.append(str(error))):
        real = os.path.realpath(parent)
        if real in seen or SETTINGS_FILE in names:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(parent, name)
            if name.startswith(".") or path.suffix.lower() not in SUFFIXES or not path.is_file():
                continue
            found = True
            yield _input(path, path.relative_to(folder).as_posix())
    if not found:
        raise UserMistake(f"no pictures in {folder} (looked for {', '.join(SUFFIXES)})")


def _input(path: Path, within: str) -> tuple[str, dict[str, Any]]:
    """The id and the input row of one file. A file that cannot be read gets an id all the same, to be recorded under."""
    stat, name = path.stat(), os.fsencode(within)  # a name need not be valid text
    digest = hashlib.sha256(name + f"\0{stat.st_size}\0".encode())
    try:
        with path.open("rb") as file:
            digest.update(file.read(LOOK_BYTES))
            file.seek(max(stat.st_size - LOOK_BYTES, 0))
            digest.update(file.read(LOOK_BYTES))
    except OSError:
        digest.update(b"\0unreadable")
    said = _sidecar(path)
    mark = fingerprint(size=stat.st_size, time=stat.st_mtime_ns, sidecar=said)
    row = {"file": str(path), "name": name.decode("utf-8", "replace"), "mark": mark, **said}
    return PREFIX + digest.hexdigest()[:16], row


def _sidecar(path: Path) -> dict[str, str]:
    """Credit and consent from `<picture file>.json` beside the picture. Raises UserMistake for one that cannot be used."""
    beside = path.with_name(f"{path.name}.json")
    if not beside.is_file():
        return {}
    try:
        said = json.loads(beside.read_text("utf-8-sig"))
    except (ValueError, OSError) as error:
        raise UserMistake(f"{beside} cannot be read as JSON: {error}") from error
    if not isinstance(said, dict):
        raise UserMistake(f"{beside} should be a JSON object, with any of {', '.join(SIDECAR)}")
    for name, value in said.items():
        if name not in SIDECAR or not isinstance(value, str | None):
            raise UserMistake(f"{beside}: {name}: it may say {', '.join(SIDECAR)}, each a text")
    return {SIDECAR[name]: value.strip() for name, value in said.items() if value and value.strip()}
