"""Atomic file writes: a reader sees the old file or the whole new one, never a part."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from manifests.support.errors import AuthfaceError, UserError
from manifests.support.fingerprint import short_hash

WRITE_ADVICE = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space, or raise the quota",
    errno.EFBIG: "use a disk that holds files of this size",
    errno.EROFS: "make the disk writable",
}
"""Errors that only writing raises, and what to do about them."""
RUST_ERROR = re.compile(r"\(os error (\d+)\)")
"""How libraries written in Rust, such as safetensors and tokenizers, report a system error."""
NO_HARD_LINKS = (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK)
"""Errors of a file system that has no hard links."""


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
    except AuthfaceError:
        raise
    except Exception as error:
        number = _write_error_number(error)
        if number is None:
            raise
        # The file is named here because `write` does not know it, and a temporary name is no help.
        raise UserError(
            f"cannot write {path}: {os.strerror(number)}; {WRITE_ADVICE[number]} and "
            "run the command again"
        ) from error


def _write_error_number(error: BaseException | None) -> int | None:
    """The number of the write error that led to an error, or None if it has another cause.

    Libraries raise errors of their own: safetensors has the number in the text, and torch hides the
    OSError behind a second error of its archive.
    """
    while error is not None:
        number = error.errno if isinstance(error, OSError) else None
        match = RUST_ERROR.search(str(error))
        if number is None and match:
            number = int(match[1])
        if number in WRITE_ADVICE:
            return number
        error = error.__cause__ or error.__context__
    return None


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


def link_new(temporary: Path, target: Path) -> bool:
    """Give a complete file a second name, unless a file has that name already.

    Args:
        temporary: The complete file.
        target: The new name, in the same file system.

    Returns:
        Whether this call made `target`.
    """
    try:
        os.link(temporary, target)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in NO_HARD_LINKS:
            raise
        try:
            with target.open("xb") as file:
                file.write(temporary.read_bytes())
        except FileExistsError:
            return False
    return True


def append_line(path: Path, line: str) -> None:
    """Append a line to a text file. Several processes of a host may do so at once.

    Args:
        path: The file; it is created if it is missing.
        line: The line, without a line break.
    """
    handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        size = os.fstat(handle).st_size
        # A crash may have cut the last line off.
        is_cut = size > 0 and os.pread(handle, 1, size - 1) != b"\n"
        # One write with O_APPEND is never mixed with that of another process.
        os.write(handle, f"\n{line}\n".encode() if is_cut else f"{line}\n".encode())
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def exclusive_access(folder: str | Path) -> Iterator[None]:
    """Lock a folder against other processes of this host, for a moment."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        # Some network file systems have no locks. Without one the block still works; only two
        # processes that take over the same stale lock at once could disturb each other.
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def sync_folder(folder: str | Path) -> None:
    """Flush a folder to the disk, so that a rename in it survives a crash."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def apply_umask(path: Path) -> None:
    """Give a file, or all files in a folder, the permissions of a newly created file.

    safetensors writes files that only their owner can read. The permissions are taken from a file
    that is created for this purpose, since they depend on the umask and on the folder's ACL.

    Args:
        path: A file or a folder.
    """
    folder = path if path.is_dir() else path.parent
    probe = folder / f".writing-{os.getpid()}-mode"
    probe.touch()
    mode = stat.S_IMODE(probe.stat().st_mode)
    probe.unlink()
    for file in [path] if path.is_file() else path.rglob("*"):
        if file.is_file() and not file.is_symlink():
            file.chmod(mode)


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
