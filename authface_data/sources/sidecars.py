"""Credit, licence and consent from sidecar files beside the photographs of a folder.

`portrait.jpg.json` or `portrait.json` describes one picture. Any CSV file with a column `file` (or
`filename`, `file_name`, `path`) describes the pictures that it lists by their path from its folder.
Values of a nearer CSV file override those of one in a parent folder, and JSON overrides CSV.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from manifests.support.errors import UserError
from manifests.support.text import to_utf8

COLUMN_OF_FIELD = {
    "photographer": "photographer_name",
    "photographer_url": "photographer_url",
    "source_url": "source_url",
    "licence": "licence",
    "license": "licence",
    "licence_basis": "licence_basis",
    "consent_ref": "consent_ref",
    "person": "person",
    "note": "note",
    "description": "description",
}
"""Field of a sidecar file -> column of the photos manifest."""

FIELD_NAMES = ", ".join(name for name in COLUMN_OF_FIELD if name != "license")
FILE_COLUMNS = ("file", "filename", "file_name", "path")


@dataclass
class SidecarTable:
    """One CSV file that describes pictures."""

    path: Path
    rows: dict[str, dict[str, str]] = field(default_factory=dict)
    """Path of a picture from the folder of the CSV file -> columns of the photos manifest."""
    matched: set[str] = field(default_factory=set)
    """Paths of the rows that describe an existing picture."""


class Sidecars:
    """The sidecar files below one folder, read while its subfolders are visited from the top."""

    def __init__(self) -> None:
        self.tables: list[SidecarTable] = []

    def columns_for(self, picture: Path) -> dict[str, str]:
        """Columns of the photos manifest for one picture.

        Raises:
            UserError: If a sidecar file of the picture is malformed.
        """
        columns: dict[str, str] = {}
        for table in self.tables:  # tables of parent folders come first
            try:
                relative_path = PurePosixPath(picture.relative_to(table.path.parent)).as_posix()
            except ValueError:
                continue
            if relative_path in table.rows:
                table.matched.add(relative_path)
                columns.update(table.rows[relative_path])

        same_stem = picture.with_suffix(".json")
        full_name = picture.with_name(f"{picture.name}.json")
        for path in (same_stem, full_name):
            if path.is_file() and path != picture:
                columns.update(_read_json(path, is_full_name=path == full_name))
        return columns

    def read_tables(self, folder: Path, names: list[str]) -> None:
        """Read the CSV files of a folder.

        Args:
            folder: The folder.
            names: Names of all its files.
        """
        for name in sorted(names):
            is_csv = name.lower().endswith(".csv") and not name.startswith(".")
            if is_csv and (folder / name).is_file():
                table = _read_csv(folder / name)
                if table is not None:
                    self.tables.append(table)

    def unmatched_rows(self) -> list[str]:
        """One message for each CSV file with rows that match no picture."""
        messages = []
        for table in self.tables:
            unmatched = sorted(set(table.rows) - table.matched)
            if unmatched:
                messages.append(
                    f"{table.path}: {len(unmatched)} rows match no picture (first: {unmatched[0]})"
                )
        return messages


def _read_json(path: Path, is_full_name: bool) -> dict[str, str]:
    """Columns of the photos manifest from a JSON file beside a picture.

    `portrait.jpg.json` must be a sidecar file. `portrait.json` may belong to another program and is
    ignored unless it has a known field.
    """
    try:
        content = json.loads(path.read_text("utf-8-sig"))
    except (ValueError, RecursionError, OSError) as error:
        if not is_full_name:
            return {}
        raise UserError(f"{path} cannot be read as JSON: {error}") from error

    is_sidecar = isinstance(content, dict) and bool(set(content) & set(COLUMN_OF_FIELD))
    if not is_full_name and not is_sidecar:
        return {}
    if not isinstance(content, dict):
        raise UserError(f"{path} must be a JSON object with some of the fields {FIELD_NAMES}")
    for name, value in content.items():
        if name not in COLUMN_OF_FIELD:
            raise UserError(f"{path}: unknown field {name!r}; known fields: {FIELD_NAMES}")
        if not isinstance(value, str | None):
            raise UserError(f"{path}: {name} must be a text")
    return _to_columns(content)


def _read_csv(path: Path) -> SidecarTable | None:
    """Read a CSV file. Returns None if it does not describe pictures."""
    text = _decode_csv(path.read_bytes())
    header, _, rest = text.partition("\n")
    if header.strip().lower().startswith("sep=") and rest:  # written by Excel
        text = rest
        header = rest.partition("\n")[0]

    separator = max(",;\t", key=header.count)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator)
    try:
        header_names = reader.fieldnames or []
    except csv.Error:
        return None
    column_names = {name.strip().lower(): name for name in header_names if name}
    file_column = next((column_names[name] for name in FILE_COLUMNS if name in column_names), None)
    if file_column is None or not set(column_names) & set(COLUMN_OF_FIELD):
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
        raise UserError(f"{path}, line {reader.line_num}: {error}") from error
    return table


def _decode_csv(data: bytes) -> str:
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")  # the default of Excel in western locales


def _to_columns(fields: Mapping[str, object]) -> dict[str, str]:
    """Rename fields to columns; empty and missing values are left out."""
    columns = {}
    for name, value in fields.items():
        text = to_utf8(value) if isinstance(value, str) else ""
        if text:
            columns[COLUMN_OF_FIELD[name]] = text
    return columns
