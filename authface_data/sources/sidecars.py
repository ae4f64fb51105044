"""Credit, licence and consent that a folder's owner wrote beside the pictures.

`portrait.jpg.json` or `portrait.json` speaks of one picture; any CSV with a column `file` (or `filename`, `file_name`, `path`)
speaks of the pictures that it names, by their path from where it lies. Nearer stands over farther, JSON over CSV.
"""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from manifests.support.errors import UserError
from manifests.support.text import to_utf8

# What a sidecar may say -> the column of `photos`.
FIELDS = {
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
KNOWN = ", ".join(name for name in FIELDS if name != "license")
FILE_COLUMNS = ("file", "filename", "file_name", "path")


@dataclass
class Table:
    """One CSV. said: path from the CSV's folder -> columns of `photos`. used: the paths that were asked for and found."""

    path: Path
    said: dict[str, dict[str, str]]
    used: set[str] = field(default_factory=set)


class Sidecars:
    """What lies beside the pictures below one folder, read as the folders are walked."""

    def __init__(self) -> None:
        self.tables: list[Table] = []
        self._read: set[Path] = set()

    def of(self, picture: Path) -> dict[str, str]:
        """Columns of `photos` for one picture. Raises UserError for a sidecar that cannot be used."""
        said: dict[str, str] = {}
        for table in self.tables:  # outermost first: folders are walked from the top
            try:
                within = PurePosixPath(picture.relative_to(table.path.parent)).as_posix()
            except ValueError:
                continue
            if within in table.said:
                table.used.add(within)
                said.update(table.said[within])
        for beside in (picture.with_suffix(".json"), picture.with_name(f"{picture.name}.json")):
            if beside.is_file() and beside != picture:
                said.update(_from_json(beside, named_for_it=beside.name == f"{picture.name}.json"))
        return said

    def read_tables(self, folder: Path, names: list[str]) -> None:
        """Take in the CSVs of a folder that is being walked."""
        for name in sorted(names):
            if (
                name.lower().endswith(".csv")
                and not name.startswith(".")
                and (folder / name).is_file()
            ):
                table = _from_csv(folder / name)
                if table is not None:
                    self.tables.append(table)

    def unused(self) -> list[str]:
        """In words: the rows of CSVs that name no picture."""
        words = []
        for table in self.tables:
            left = sorted(set(table.said) - table.used)
            if left:
                words.append(
                    f"{table.path}: {len(left)} rows name no picture here (first: {left[0]})"
                )
        return words


def _from_json(beside: Path, named_for_it: bool) -> dict[str, str]:
    """A JSON file that is named for its picture must be one of ours; one that only shares its stem may be something else's."""
    try:
        said = json.loads(beside.read_text("utf-8-sig"))
    except (ValueError, RecursionError, OSError) as error:
        if not named_for_it:
            return {}
        raise UserError(f"{beside} cannot be read as JSON: {error}") from error
    if not named_for_it and not (isinstance(said, dict) and set(said) & set(FIELDS)):
        return {}
    if not isinstance(said, dict):
        raise UserError(f"{beside} should be a JSON object, with any of {KNOWN}")
    for name, value in said.items():
        if name not in FIELDS or not isinstance(value, str | None):
            raise UserError(f"{beside}: {name}: it may say {KNOWN}, each a text")
    return _columns(said)


def _from_csv(path: Path) -> Table | None:
    """None for a CSV that is not about pictures. Raises UserError for one that cannot be read."""
    data = path.read_bytes()
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        text = data.decode("cp1252", "replace")  # what Excel writes where it is not told otherwise
    head, _, rest = text.partition("\n")
    if head.strip().lower().startswith("sep=") and rest:  # Excel's own first line
        text, head = rest, rest.partition("\n")[0]
    separator = max(",;\t", key=head.count)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator)
    try:
        reader.fieldnames  # noqa: B018  reads the header
    except csv.Error:
        return None
    names = {name.strip().lower(): name for name in reader.fieldnames or [] if name}
    file_column = next((names[name] for name in FILE_COLUMNS if name in names), None)
    if file_column is None or not set(names) & set(FIELDS):
        return None
    table = Table(path, {})
    try:
        for row in reader:
            file = (row.get(file_column) or "").strip().replace("\\", "/").removeprefix("./")
            if file:
                said = table.said.setdefault(
                    file, {}
                )  # of two rows the later stands over, where it says something
                said |= _columns(
                    {short: row.get(name) for short, name in names.items() if short in FIELDS}
                )
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: {error}") from error
    return table


def _columns(said: dict[str, Any]) -> dict[str, str]:
    return {
        FIELDS[name]: to_utf8(value)
        for name, value in said.items()
        if isinstance(value, str) and to_utf8(value)
    }
