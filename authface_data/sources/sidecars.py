"""Credit, licence and consent from sidecar files beside the photographs of a folder.

`portrait.jpg.json` or `portrait.json` describes one picture, and so do the JSON files of Google
Takeout. Any CSV file with a column `file` (or `filename`, `file_name`, `path`) describes the
pictures that it lists by their path from its folder. Values of a nearer CSV file override those of
one in a parent folder, and JSON overrides CSV. Names match in any Unicode form and case, unless
another picture has exactly that name.

Sidecar files may come from other programs: what is unknown or malformed in them is passed over.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from authface_data.sources import takeout
from authface_data.sources.image_files import has_image_suffix, path_text
from authface_data.sources.sidecar_fields import (
    COLUMN_OF_FIELD,
    UnusedFields,
    is_file,
    load_json,
    text_problem,
)
from authface_data.sources.sidecar_tables import SidecarTable, read_table
from manifests.support.text import excerpt, normal_name, to_utf8

MAX_SUGGESTIONS = 2000
"""Number of picture names that are compared with the rows of a table that match none."""


class Sidecars:
    """The sidecar files below one folder, read while its subfolders are visited from the top.

    Args:
        store_place: Read the place of a picture too.
    """

    def __init__(self, store_place: bool = False) -> None:
        self.store_place = store_place
        self.problems: list[str] = []
        """Messages about files that cannot be used."""
        self.unused = UnusedFields()
        self._tables: dict[Path, list[SidecarTable]] = {}
        """Folder -> its tables."""
        self._undescribed: list[Path] = []
        """Pictures without a row in a table."""
        self._names = _FolderNames(Path(), [])

    def columns_for(self, picture: Path) -> dict[str, object]:
        """Columns of the photos manifest for one picture.

        Args:
            picture: The picture. Pictures of the same folder should follow each other.
        """
        columns: dict[str, object] = {}
        is_in_table = False
        for folder in reversed(picture.parents):  # tables of parent folders come first
            for table in self._tables.get(folder, []):
                row = table.row_for(picture)
                if row is not None:
                    is_in_table = True
                    columns.update(row)
        if not is_in_table and len(self._undescribed) < MAX_SUGGESTIONS:
            self._undescribed.append(picture)

        for path, belongs_to_picture in self._json_files(picture):
            columns.update(self._read_json(path, belongs_to_picture))
        return columns

    def read_tables(self, folder: Path, names: list[str]) -> None:
        """Read the CSV files of a folder.

        Args:
            folder: The folder.
            names: Names of all its files.
        """
        for name in sorted(names):
            path = folder / name
            if name.lower().endswith(".csv") and not name.startswith(".") and is_file(path):
                table = read_table(path, self.problems)
                if table is not None:
                    self._tables.setdefault(folder, []).append(table)

    def messages(self) -> list[str]:
        """What is wrong with sidecar files: one line for each file or field."""
        unmatched = (
            table.unmatched_message(self._undescribed)
            for tables in self._tables.values()
            for table in tables
        )
        messages = [message for message in unmatched if message is not None]
        return [*self.problems, *self.unused.problems(), *messages]

    def notes(self) -> list[str]:
        """What sidecar files hold that is not used: one line, or none."""
        return self.unused.notes()

    def _json_files(self, picture: Path) -> Iterator[tuple[Path, bool]]:
        """JSON files beside a picture, those that take precedence last.

        Yields:
            The path, and whether the name shows that the file belongs to the picture.
            `portrait.json` may belong to another program.
        """
        folder = picture.parent
        if self._names.folder != folder:
            self._names = _FolderNames(folder, _list_names(folder))
        if not self._names.has_json:
            return
        same_stem = self._names.find(f"{picture.stem}.json", picture)
        if same_stem is not None:
            yield folder / same_stem, False
        from_takeout = self._names.find_takeout(picture)
        if from_takeout is not None:
            yield folder / from_takeout, True
        full_name = self._names.find(f"{picture.name}.json", picture)
        if full_name is not None:
            yield folder / full_name, True

    def _read_json(self, path: Path, belongs_to_picture: bool) -> dict[str, object]:
        """Columns of the photos manifest from a JSON file; problems are noted."""
        try:
            content = load_json(path)
            if belongs_to_picture and not isinstance(content, dict):
                raise ValueError("it is no JSON object")
        except (ValueError, OSError) as error:
            if belongs_to_picture:
                self.problems.append(
                    f"{path_text(path)} is not used as a sidecar file: {excerpt(str(error))}"
                )
            return {}
        if not isinstance(content, dict):
            return {}
        is_takeout = takeout.is_takeout(content)
        is_sidecar = is_takeout or any(name in COLUMN_OF_FIELD for name in content)
        if not belongs_to_picture and not is_sidecar:
            return {}

        columns = self._known_fields(path, content, is_takeout)
        if is_takeout:
            date = takeout.taken_at(content)
            if date is None:
                self.unused.add_unusable(path, takeout.DATE_KEY, "is no date")
            else:
                columns["taken_at"] = date
            if self.store_place:
                columns |= takeout.position(content)
        return columns

    def _known_fields(
        self, path: Path, content: Mapping[str, object], is_takeout: bool
    ) -> dict[str, object]:
        """Columns from the known fields of a JSON object; empty values are left out."""
        columns: dict[str, object] = {}
        unknown = []
        for name, value in content.items():
            column = COLUMN_OF_FIELD.get(name)
            problem = text_problem(value)
            if column is None:
                unknown.append(name)
            elif problem is None:
                if text := to_utf8(str(value)):
                    columns[column] = text
            elif value is not None:
                self.unused.add_unusable(path, name, problem)
        used_keys = [takeout.DATE_KEY] if is_takeout else []
        if is_takeout and self.store_place:
            used_keys.append(takeout.PLACE_KEY)
        self.unused.add_unknown(path, [name for name in unknown if name not in used_keys])
        return columns


class _FolderNames:
    """The file names of one folder, which are found in any Unicode form and case."""

    def __init__(self, folder: Path, names: list[str]) -> None:
        self.folder = folder
        self.has_json = False
        self._names = set(names)
        self._json_names: dict[str, list[str]] = {}
        """Normal name of a JSON file -> its exact names."""
        self._pictures: dict[str, set[str]] = {}
        """Normal stem of pictures -> their exact names."""
        for name in names:
            if name.lower().endswith(".json"):
                self.has_json = True
                self._json_names.setdefault(normal_name(name), []).append(name)
            elif has_image_suffix(name):
                self._pictures.setdefault(normal_name(Path(name).stem), set()).add(name)

    def find(self, name: str, picture: Path) -> str | None:
        """The JSON file of a name, or of a similar name that can only mean this picture."""
        if name in self._names:
            return name
        similar = self._json_names.get(normal_name(name), [])
        if len(similar) != 1 or not self._is_unique(picture):
            return None
        return similar[0]

    def find_takeout(self, picture: Path) -> str | None:
        """The JSON file that Google Takeout has written for a picture."""
        for name in takeout.sidecar_names(picture.name):
            found = self.find(name, picture)
            if found is not None and self._is_unambiguous(name, picture):
                return found
        return None

    def _is_unique(self, picture: Path) -> bool:
        """Whether no other picture has a name that differs only by case or Unicode form."""
        return self._pictures.get(normal_name(picture.stem)) == {picture.name}

    def _is_unambiguous(self, json_name: str, picture: Path) -> bool:
        """Whether a cut name can only mean this picture."""
        stem = takeout.COPY_NUMBER.sub("", json_name.removesuffix(".json"))
        if stem.startswith(takeout.COPY_NUMBER.sub("", picture.stem) + picture.suffix):
            return True
        return not any(
            name.startswith(stem) and name != picture.name
            for names in self._pictures.values()
            for name in names
        )


def _list_names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []
