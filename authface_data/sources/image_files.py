"""The search for image files below a folder."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

from authface_data.images.open import IMAGE_SUFFIXES
from authface_data.sources.skipped_files import counted_suffix
from manifests.settings import SETTINGS_FILE
from manifests.support.errors import UserError
from manifests.support.text import excerpt

MAX_PATH_LENGTH = 300
"""Number of characters of a path in a message."""


class ImageFile(NamedTuple):
    """An image file below a folder."""

    path: Path
    relative_path: str
    """Path within the folder, with forward slashes."""


class TableReader(Protocol):
    """Reads the tables that describe the pictures of a folder."""

    def read_tables(self, folder: Path, names: list[str]) -> None:
        """Read the tables of a folder.

        Args:
            folder: The folder.
            names: Names of all its files.
        """
        ...


def find_image_files(
    folder: Path,
    skipped: list[str],
    *,
    tables: TableReader | None = None,
    ignored: Counter[str] | None = None,
    exclude: Path | None = None,
) -> Iterator[ImageFile]:
    """Find the image files below a folder, in order of path.

    Links are followed, but no file or folder is visited twice. Hidden files and folders that are
    workspaces are left out.

    Args:
        folder: The folder to search.
        skipped: Receives a message for each folder that cannot be read, and for each entry with
            the name of an image file that is no file.
        tables: Reads the tables of each folder before its images are yielded.
        ignored: Receives the number of other files by suffix.
        exclude: A folder that is left out, also if a link leads to it.

    Yields:
        The image files.

    Raises:
        UserError: If there is no such folder.
    """
    if not os.path.isdir(folder):
        raise UserError(
            f"{path_text(folder)} is no folder; --path takes the folder that holds the photographs"
        )

    visited_folders: set[str] = set()
    linked_files: set[Path] = set()
    real_top = Path(os.path.realpath(folder))
    real_exclude = None if exclude is None else Path(os.path.realpath(exclude))
    tree = os.walk(folder, onerror=lambda error: skipped.append(_explain(error)), followlinks=True)
    for parent, subfolders, names in tree:
        real_parent = os.path.realpath(parent)
        is_excluded = real_exclude is not None and Path(real_parent).is_relative_to(real_exclude)
        if real_parent in visited_folders or SETTINGS_FILE in names or is_excluded:
            subfolders.clear()
            continue
        visited_folders.add(real_parent)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        if tables is not None:
            tables.read_tables(Path(parent), names)

        for name in sorted(names):
            path = Path(parent, name)
            if not has_image_suffix(name):
                suffix = counted_suffix(name)
                if ignored is not None and suffix is not None:
                    ignored[suffix] += 1
                continue
            problem = _entry_problem(path)
            if problem is not None:
                skipped.append(problem)
                continue
            if path.is_symlink():
                target = Path(os.path.realpath(path))
                # A target below the folder is found under its own name.
                is_found_otherwise = target in linked_files or target.is_relative_to(real_top)
                if is_found_otherwise or (real_exclude and target.is_relative_to(real_exclude)):
                    continue
                linked_files.add(target)
            yield ImageFile(path, path.relative_to(folder).as_posix())


def path_text(path: object) -> str:
    """A path in one line of a message: control characters are visible, a long path is cut."""
    return excerpt(str(path), MAX_PATH_LENGTH)


def has_image_suffix(name: str) -> bool:
    """Whether a file has the name of an image file, and is not hidden."""
    return not name.startswith(".") and Path(name).suffix.lower() in IMAGE_SUFFIXES


def _entry_problem(path: Path) -> str | None:
    """Why an entry of a folder is no file that can be read, or None if it is one."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        is_link = os.path.islink(path)
        return f"{path_text(path)}: {'the target of the link' if is_link else 'the file'} is gone"
    except OSError as error:
        return _explain(error)
    return None if stat.S_ISREG(mode) else f"{path_text(path)} is a pipe, device or socket"


def _explain(error: OSError) -> str:
    return f"{path_text(error.filename)}: {error.strerror}"
