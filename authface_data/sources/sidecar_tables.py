"""CSV files that describe the pictures of a folder."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from authface_data.sources.image_files import path_text
from authface_data.sources.sidecar_fields import COLUMN_OF_FIELD
from manifests.support.text import count_of, excerpt, nearest_name, normal_name, to_utf8

FILE_COLUMNS = ("file", "filename", "file_name", "path")
MAX_CSV_BYTES = 256 << 20
MAX_COLUMNS = 1_000
"""Largest number of columns of a table that describes pictures."""


@dataclass
class SidecarTable:
    """One CSV file that describes pictures."""

    path: Path
    rows: dict[str, dict[str, str]] = field(default_factory=dict)
    """Path of a picture from the folder of the CSV file -> columns of the photos manifest."""
    matched: set[str] = field(default_factory=set)
    """Paths of the rows that describe an existing picture."""
    _similar: dict[str, str] = field(default_factory=dict)
    """Normal form of a path -> the path."""

    def row_for(self, picture: Path) -> dict[str, str] | None:
        """Columns for a picture, or None if the table does not list it."""
        file = picture.relative_to(self.path.parent).as_posix()
        if file not in self.rows:
            if not self._similar:
                self._similar = {normal_name(path): path for path in self.rows}
            similar = self._similar.get(normal_name(file))
            if similar is None or os.path.exists(self.path.parent / similar):
                return None
            file = similar
        self.matched.add(file)
        return self.rows[file]

    def unmatched_message(self, pictures: Iterable[Path]) -> str | None:
        """A message about the rows that match no picture, or None if all match.

        Args:
            pictures: Pictures that no table lists; the nearest name among them is suggested.
        """
        unmatched = sorted(set(self.rows) - self.matched)
        if not unmatched:
            return None
        first = unmatched[0]
        nearest = self._nearest(first, pictures)
        suggestion = "" if nearest is None else f"; did you mean {excerpt(nearest)}?"
        return (
            f"{path_text(self.path)}: {count_of(len(unmatched), 'row')} without a picture (first: "
            f"{excerpt(first)}{suggestion})"
        )

    def _nearest(self, file: str, pictures: Iterable[Path]) -> str | None:
        """The picture with the most similar path, regardless of suffixes, or None."""
        folder = self.path.parent
        files = [
            picture.relative_to(folder).as_posix()
            for picture in pictures
            if picture.is_relative_to(folder)
        ]
        file_of_stem = {os.path.splitext(path)[0]: path for path in files}
        nearest = nearest_name(os.path.splitext(file)[0], file_of_stem)
        return None if nearest is None else file_of_stem[nearest]


def read_table(path: Path, problems: list[str]) -> SidecarTable | None:
    """Read a CSV file.

    Args:
        path: The file.
        problems: Receives a message if the file, or a part of it, cannot be used.

    Returns:
        The table, or None if the file does not describe pictures.
    """
    try:
        if path.stat().st_size > MAX_CSV_BYTES:
            problems.append(
                f"{path_text(path)} is larger than {MAX_CSV_BYTES >> 20} MB; it is not used"
            )
            return None
        text = _decode(path.read_bytes())
    except OSError as error:
        problems.append(f"{path_text(path)} cannot be read: {error.strerror}")
        return None

    header, _, rest = text.partition("\n")
    if header.strip().lower().startswith("sep=") and rest:  # written by Excel
        text = rest
        header = rest.partition("\n")[0]
    separator = max(",;\t", key=header.count)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator)
    try:
        column_names = _column_names(reader.fieldnames or [], path, problems)
    except csv.Error:
        return None
    file_column = next((column_names[name] for name in FILE_COLUMNS if name in column_names), None)
    if file_column is None or not set(column_names) & set(COLUMN_OF_FIELD):
        return None
    if len(reader.fieldnames or []) > MAX_COLUMNS:
        problems.append(f"{path_text(path)} has more than {MAX_COLUMNS:,} columns; it is not used")
        return None

    table = SidecarTable(path)
    field_columns = {
        name: column for name, column in column_names.items() if name in COLUMN_OF_FIELD
    }
    try:
        for row in reader:
            file = (row.get(file_column) or "").strip().replace("\\", "/").removeprefix("./")
            if not file:
                continue
            # Of two rows about one picture, the non-empty values of the later one win.
            columns = table.rows.setdefault(file, {})
            columns |= _to_columns(
                {name: row.get(column) for name, column in field_columns.items()}
            )
    except csv.Error as error:
        problems.append(
            f"{path_text(path)}, line {reader.line_num}: {error}; the rows from here on are not "
            "used"
        )
    return table


def _column_names(header: Iterable[str], path: Path, problems: list[str]) -> dict[str, str]:
    """Name of a column in lower case -> its name in the file; names that occur twice are left out.

    Which of two values is meant cannot be known.
    """
    names: dict[str, str] = {}
    repeated = set()
    for name in header:
        if not name:
            continue
        key = name.strip().lower()
        if key in names and key in (*COLUMN_OF_FIELD, *FILE_COLUMNS):
            repeated.add(key)
        names[key] = name
    for key in sorted(repeated):
        problems.append(f"{path_text(path)}: the column {key} occurs twice; it is not used")
    return {key: name for key, name in names.items() if key not in repeated}


def _decode(data: bytes) -> str:
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", "replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")  # the default of Excel in western locales


def _to_columns(fields: Mapping[str, str | None]) -> dict[str, str]:
    """Rename fields to columns; empty and missing values are left out."""
    columns = {}
    for name, value in fields.items():
        text = to_utf8(value or "")
        if text:
            columns[COLUMN_OF_FIELD[name]] = text
    return columns
