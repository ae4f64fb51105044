"""The tables of the Unsplash data set, Lite or Full, read as a stream.

The tables are in a folder or in the zip as downloaded, each in one file or in shards such as
`photos.tsv000`. Source: https://github.com/unsplash/datasets
"""

from __future__ import annotations

import io
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from authface_data.sources.unsplash.tsv import Row, read_rows
from manifests.support.errors import UserError
from manifests.support.text import excerpt

LITE = "unsplash-lite-1.4.0"
FULL = "unsplash-full-1.4.0"

MAX_PACKING_RATIO = 200
"""Text packs to a tenth. A file that unpacks to more than this is a zip bomb."""
MAX_BAD_ROWS = 10_000
"""A file with this many malformed rows in a row is not a table of the data set."""
READ_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    OSError,
    ValueError,
    KeyError,
    NotImplementedError,
    RuntimeError,
)
"""What zipfile raises for a damaged zip."""

BadRowHandler = Callable[[str, int, str], None]
"""Called with the file, the line number and the reason."""


class Dataset:
    """The tables of the data set.

    Args:
        path: The folder or the zip.

    Raises:
        UserError: If it is neither, or has no table of photographs.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.is_dir():
            files = (file for file in path.rglob("*") if file.is_file())
            self._names = sorted(str(file.relative_to(path)) for file in files)
        elif path.is_file() and zipfile.is_zipfile(path):
            with _open_zip(path) as archive:
                self._names = sorted(set(archive.namelist()))
        else:
            raise UserError(
                f"{path} is neither a folder nor a zip; --path takes the Unsplash data set or its "
                "zip"
            )
        if not self.tables("photos"):
            raise UserError(
                f"no photos.tsv… in {path}; --path takes the Unsplash data set or its zip"
            )

    def tables(self, name: str) -> list[str]:
        """The files of a table, in order."""
        pattern = re.compile(rf"(?:.*/)?{name}\.(?:tsv|csv)\d*", re.DOTALL)
        return [file for file in self._names if pattern.fullmatch(file)]

    @property
    def licence_basis(self) -> str | None:
        """The data set's licence by the name of the folder or zip; None if the name has neither."""
        name_parts = re.split(r"[^a-z]+", self.path.resolve().name.lower())
        if "full" in name_parts:
            return FULL
        return LITE if "lite" in name_parts else None

    def rows(self, name: str, on_bad_row: BadRowHandler) -> Iterator[Row]:
        """Read the rows of a table, all shards in turn.

        Args:
            name: Name of the table, such as `photos`.
            on_bad_row: Called for each row that cannot be parsed.

        Yields:
            The values of a row, as texts, by column name.

        Raises:
            UserError: If a table cannot be read, or thousands of its rows in a row are malformed.
        """
        for file in self.tables(name):
            num_bad_rows = 0

            def count_bad_row(line: int, reason: str, file: str = file) -> None:
                nonlocal num_bad_rows
                num_bad_rows += 1
                if num_bad_rows > MAX_BAD_ROWS:
                    raise UserError(
                        f"{excerpt(file)} in {self.path} is no table of the data set: more than "
                        f"{MAX_BAD_ROWS:,} lines up to line {line:,} are malformed; download it "
                        "again"
                    )
                on_bad_row(file, line, reason)

            with self._open(file) as stream:
                for row in read_rows(stream, count_bad_row):
                    num_bad_rows = 0
                    yield row

    @contextmanager
    def _open(self, file: str) -> Iterator[IO[str]]:
        if self.path.is_dir():
            path = self.path / file
            try:
                with path.open(encoding="utf-8-sig", errors="replace", newline="\n") as stream:
                    yield stream
            except OSError as error:
                raise UserError(
                    f"{path} cannot be read ({error.strerror or error}); check its permissions and "
                    "its disk"
                ) from error
            return

        with _open_zip(self.path) as archive:
            self._check_member(archive, file)
            try:
                with archive.open(file) as raw:
                    yield io.TextIOWrapper(
                        raw, encoding="utf-8-sig", errors="replace", newline="\n"
                    )
            except READ_ERRORS as error:
                raise UserError(
                    f"{excerpt(file)} in {self.path} cannot be unpacked "
                    f"({excerpt(str(error)) or type(error).__name__}); download it again"
                ) from error

    def _check_member(self, archive: zipfile.ZipFile, file: str) -> None:
        """Raise UserError for a file of the zip that cannot or should not be unpacked."""
        member = archive.getinfo(file)
        reason = ""
        if member.flag_bits & 0x1:
            reason = "is encrypted"
        elif member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            reason = f"has the compression type {member.compress_type}, which is not supported"
        elif member.file_size > MAX_PACKING_RATIO * max(member.compress_size, 1):
            reason = f"would unpack to {member.file_size / 1e9:.1f} GB, which no table does"
        if reason:
            raise UserError(
                f"{excerpt(file)} in {self.path} {reason}; unpack the zip and use --path with the "
                "folder"
            )


@contextmanager
def _open_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open a zip. Raises UserError if its directory is damaged."""
    try:
        archive = zipfile.ZipFile(path)
    except READ_ERRORS as error:
        raise UserError(
            f"{path} is not a complete zip ({excerpt(str(error))}); download it again"
        ) from error
    with archive:
        yield archive
