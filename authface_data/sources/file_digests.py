"""Digests of source files, remembered in the workspace so that a file is read in full only once."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from authface_data.images.strip_location import strip_location
from manifests.workspace import Workspace

DIGESTS_FILE = "cache/file-digests.parquet"
SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("size", pa.int64()),
        ("mtime_ns", pa.int64()),
        ("inode", pa.uint64()),
        ("sha256", pa.string()),
        ("blanked_sha256", pa.string()),
        ("photo_id", pa.string()),
    ]
)
SETTLED_NS = 2_000_000_000
"""Coarsest step of a file system's clock: a younger file may change while its time stays."""
DAMAGE_ERRORS = (pa.ArrowException, OSError, ValueError, TypeError, LookupError)
"""Exceptions that a damaged Parquet file can raise."""


@dataclass(slots=True)
class FileDigest:
    """What is known about one file as long as size, time and inode do not change."""

    path: str
    """Absolute path. Bytes that are not UTF-8 are written as escapes."""
    size: int
    mtime_ns: int
    inode: int
    sha256: str
    """SHA-256 of the content."""
    blanked_sha256: str | None = None
    """SHA-256 of the content without its place, if it was needed."""
    photo_id: str | None = None
    """Id of its photograph, so that `authface forget` finds the row."""


class FileDigests:
    """The remembered digests of a workspace. A damaged or missing file of them costs only time.

    Args:
        workspace: The workspace.
    """

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self._stored = _read(workspace)
        self._current: dict[str, FileDigest] = {}
        """Entries of files that exist with these properties."""
        self._unsettled: set[str] = set()
        """Paths of files that were so young that their digests must not be remembered."""

    def digest(self, path: Path) -> FileDigest:
        """The digest of a file, which is read only if it has changed or is new.

        Args:
            path: The file.

        Raises:
            OSError: If the file cannot be read.
        """
        status = path.stat()
        name = _path_name(path)
        known = self._current.get(name) or self._stored.get(name)
        properties = (status.st_size, status.st_mtime_ns, status.st_ino)
        if known is None or (known.size, known.mtime_ns, known.inode) != properties:
            with path.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            known = FileDigest(name, *properties, sha256)
            if status.st_mtime_ns > time.time_ns() - SETTLED_NS:
                self._unsettled.add(name)
        self._current[name] = known
        return known

    def blanked_sha256(self, path: Path) -> str:
        """SHA-256 of a file after its place was blanked, as the workspace stores copies.

        Args:
            path: The file.

        Raises:
            OSError: If the file cannot be read.
        """
        known = self.digest(path)
        if known.blanked_sha256 is None:
            data = strip_location(path.read_bytes())
            known.blanked_sha256 = hashlib.sha256(data).hexdigest()
        return known.blanked_sha256

    def set_photo_id(self, path: Path, photo_id: str) -> None:
        """Note the id of a file's photograph, if the file could be read.

        Args:
            path: The file.
            photo_id: Id of its photograph.
        """
        known = self._current.get(_path_name(path))
        if known is not None:
            known.photo_id = photo_id

    def save(self, is_forgotten: Callable[[str], bool], folder: Path | None = None) -> None:
        """Store the digests in the workspace.

        Args:
            is_forgotten: Whether the photograph with an id or a hash was forgotten; its file is
                left out.
            folder: A folder of which every file was looked up; entries of its other files are
                dropped.
        """
        entries = {**self._stored, **self._current}
        if folder is not None:
            prefix = f"{_path_name(folder).rstrip('/')}/"
            entries = {
                name: entry
                for name, entry in entries.items()
                if name in self._current or not name.startswith(prefix)
            }
        rows = [
            asdict(entry)
            for name, entry in entries.items()
            if name not in self._unsettled
            and not is_forgotten(entry.sha256)
            and not is_forgotten(entry.photo_id or "")
        ]
        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist(rows, SCHEMA), sink, compression="zstd")
        self.workspace.write_bytes(DIGESTS_FILE, sink.getvalue().to_pybytes())


def _path_name(path: Path) -> str:
    """The absolute path as valid UTF-8."""
    return os.path.abspath(path).encode("utf-8", "backslashreplace").decode()


def _read(workspace: Workspace) -> dict[str, FileDigest]:
    """The stored digests by path; empty if the file is missing or damaged."""
    try:
        data = workspace.read_bytes(DIGESTS_FILE)
        table = pq.read_table(pa.BufferReader(data), columns=SCHEMA.names).cast(SCHEMA)
    except DAMAGE_ERRORS:
        return {}
    return {row["path"]: FileDigest(**row) for row in table.to_pylist()}
