"""The tables of the Unsplash data set, Lite or Full, read as a stream.

The tables are in a folder or in the zip as downloaded, each in one file or in shards such as
`photos.tsv000`. Source: https://github.com/unsplash/datasets
"""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO

from authface_data.sources.unsplash.tsv import Row, read_rows
from manifests.support.errors import UserError

LITE = "unsplash-lite-1.4.0"
FULL = "unsplash-full-1.4.0"

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
            with zipfile.ZipFile(path) as archive:
                self._names = sorted(archive.namelist())
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
        """
        for file in self.tables(name):
            with self._open(file) as stream:
                yield from read_rows(stream, partial(on_bad_row, file))

    @contextmanager
    def _open(self, file: str) -> Iterator[IO[str]]:
        if self.path.is_dir():
            path = self.path / file
            with path.open(encoding="utf-8-sig", errors="replace", newline="\n") as stream:
                yield stream
            return

        message = f"{file} in {self.path} cannot be unpacked"
        with zipfile.ZipFile(self.path) as archive:
            try:
                raw = archive.open(file)
            except RuntimeError as error:  # encrypted, or an unsupported compression
                raise UserError(
                    f"{message} ({error}); unpack the zip and use --path with the folder"
                ) from error
            try:
                with raw:
                    yield io.TextIOWrapper(
                        raw, encoding="utf-8-sig", errors="replace", newline="\n"
                    )
            except (zipfile.BadZipFile, zlib.error, EOFError) as error:
                raise UserError(f"{message} ({error}); download it again") from error
