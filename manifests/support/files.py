"""Atomic file writes: a reader sees the old file or the whole new one, never a part."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from manifests.support.errors import UserError
from manifests.support.fingerprint import short_hash

WRITE_ADVICE = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space, or raise the quota",
    errno.EFBIG: "use a disk that holds files of this size",
    errno.EROFS: "make the disk writable",
}
"""Errors that only writing raises, and what to do about them."""


@contextmanager
def explain_write_errors(path: object) -> Iterator[None]:
    """Turn the error of a full or read-only disk into a UserError that names the file.

    Args:
        path: The file that the block writes.

    Raises:
        UserError: If the disk is full or cannot be written.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in WRITE_ADVICE:
            raise
        # The file is named here because `write` does not know it, and a temporary name is no help.
        raise UserError(
            f"cannot write {path}: {os.strerror(error.errno)}; {WRITE_ADVICE[error.errno]} and "
            "run the command again"
        ) from error


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder that replaces `path` when the block succeeds.

    The folder is created if necessary. The temporary file keeps the suffix of `path`, so libraries
    that choose a format by suffix can write to it. It is removed if the block raises.

    Args:
        path: The file to write.

    Yields:
        The temporary path to write to.

    Raises:
        UserError: If the disk is full or cannot be written.
    """
    # The name of the file may be as long as the file system allows, so it is hashed.
    temporary = path.with_name(
        f".writing-{os.getpid()}-{short_hash(ascii(path.name))}{path.suffix}"
    )
    with explain_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write a whole file atomically.

    Args:
        path: The file to write.
        content: The content; text is encoded as UTF-8.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder whose content moves into `folder` when the block succeeds.

    If the block raises, nothing of it is left, and a folder that did not exist does not exist then
    either.

    Args:
        folder: The folder to fill. It must be empty or missing.

    Yields:
        A folder inside `folder` to write to.

    Raises:
        UserError: If `folder` is not an empty folder, or if the disk is full.
    """
    # The remains of a command that was killed do not count.
    unfinished = folder / ".unfinished"
    is_usable = not folder.exists() or (
        folder.is_dir() and all(path == unfinished for path in folder.iterdir())
    )
    if not is_usable:
        raise UserError(f"{folder} is not an empty folder; choose another --output")

    existed = folder.exists()
    try:
        with explain_write_errors(folder):
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir(parents=True)
            yield unfinished
            for path in sorted(unfinished.iterdir()):
                os.replace(path, folder / path.name)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
        if not existed and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def write_json(path: Path, value: object) -> None:
    """Write a JSON value atomically, indented by one space.

    Args:
        path: The file to write.
        value: The JSON value.
    """
    write_atomic(path, json.dumps(value, indent=1))
