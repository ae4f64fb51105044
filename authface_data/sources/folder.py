"""A folder of photographs: studio portraits, one's own pictures."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from authface_data.images.open import IMAGE_SUFFIXES
from authface_data.sources.sidecars import Sidecars
from manifests.settings import SETTINGS_FILE
from manifests.support.errors import UserError
from manifests.support.fingerprint import fingerprint

PREFIX = "fs_"
LOOK_BYTES = 65536


def find_photos(folder: Path, passed_over: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(photo_id, input row) of every picture file below a folder, in order of path; links are followed, none twice.

    The id is `fs_` and 16 hex digits over the path within the folder, the size and both ends of the file: it stays the same
    when the folder moves, and needs no full read. `mark` changes with the file's size, its time or what sidecars say of it.
    Hidden files, and folders that are workspaces, are passed over; folders that cannot be read are too, and named in
    `passed_over`, as are rows of sidecars that name no picture. Raises UserError where there is no folder or no picture.
    """
    found, sidecars = False, Sidecars()
    for path, within in walk(folder, passed_over, sidecars):
        found = True
        yield _input(path, within, sidecars.of(path))
    passed_over.extend(sidecars.unused())
    if not found:
        raise UserError(f"no pictures in {folder} (looked for {', '.join(IMAGE_SUFFIXES)})")


def walk(
    folder: Path, passed_over: list[str], sidecars: Sidecars | None = None
) -> Iterator[tuple[Path, str]]:
    """(path, path within the folder) of every picture file below a folder. Raises UserError where there is no folder."""
    if not folder.is_dir():
        raise UserError(
            f"{folder} is no folder: --path takes the folder that holds the photographs"
        )
    seen: set[str] = set()
    linked: set[Path] = set()
    top = Path(os.path.realpath(folder))
    for parent, folders, names in os.walk(
        folder, followlinks=True, onerror=lambda error: passed_over.append(str(error))
    ):
        real = os.path.realpath(parent)
        if real in seen or SETTINGS_FILE in names:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if sidecars is not None:
            sidecars.read_tables(Path(parent), names)
        for name in sorted(names):
            path = Path(parent, name)
            if (
                name.startswith(".")
                or path.suffix.lower() not in IMAGE_SUFFIXES
                or not path.is_file()
            ):
                continue
            if path.is_symlink():
                original = Path(os.path.realpath(path))
                if original in linked or original.is_relative_to(top):
                    continue  # it comes by itself
                linked.add(original)
            yield path, path.relative_to(folder).as_posix()


def _input(path: Path, within: str, said: dict[str, str]) -> tuple[str, dict[str, Any]]:
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
    mark = fingerprint(size=stat.st_size, time=stat.st_mtime_ns, sidecar=said)
    row = {"file": str(path), "name": name.decode("utf-8", "replace"), "mark": mark, **said}
    return PREFIX + digest.hexdigest()[:16], row
