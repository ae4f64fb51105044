"""Reading sidecar files: their fields, and a record of what in these files is not used."""

from __future__ import annotations

import difflib
import json
import stat
from collections import Counter
from pathlib import Path

from authface_data.sources.image_files import path_text
from manifests.support.text import excerpt

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
MAX_JSON_BYTES = 16 << 20
MAX_LISTED_FIELDS = 12
MAX_FIELD_LENGTH = 40
SIMILARITY = 0.8
"""A field at least this similar to a known one is probably a mistake in writing."""


class UnusedFields:
    """Counts what was passed over in sidecar files, so that it can be named once."""

    def __init__(self) -> None:
        self._unknown: Counter[str] = Counter()
        self._files_with_unknown: list[Path] = []
        self._unusable: dict[tuple[str, str], list[Path]] = {}

    def add_unknown(self, path: Path, fields: list[str]) -> None:
        """Note fields that no column of the photos manifest is for.

        Args:
            path: The sidecar file.
            fields: Names of the fields.
        """
        if fields:
            self._unknown.update(fields)
            self._files_with_unknown.append(path)

    def add_unusable(self, path: Path, field: str, problem: str) -> None:
        """Note a known field whose value cannot be used.

        Args:
            path: The sidecar file.
            field: Name of the field.
            problem: Why its value cannot be used, such as "is not a text".
        """
        self._unusable.setdefault((field, problem), []).append(path)

    def problems(self) -> list[str]:
        """One line for each known field with unusable values, credit and consent included."""
        return [
            f"{field} {problem} in {len(paths)} sidecar files (first: {path_text(paths[0])}); "
            f"their photographs get no {field} from these files"
            for (field, problem), paths in self._unusable.items()
        ]

    def notes(self) -> list[str]:
        """One line about the fields that are not known, if there are any."""
        if not self._unknown:
            return []
        names = [_with_suggestion(name) for name, _ in self._unknown.most_common(MAX_LISTED_FIELDS)]
        num_more = len(self._unknown) - MAX_LISTED_FIELDS
        more = f" and {num_more} more" if num_more > 0 else ""
        num_files = len(self._files_with_unknown)
        return [
            f"{num_files} sidecar files have fields that are not used: {', '.join(names)}{more} "
            f"(first: {path_text(self._files_with_unknown[0])}); known fields: {FIELD_NAMES}"
        ]


def text_problem(value: object) -> str | None:
    """Why the value of a field is no text, or None if it is one."""
    if isinstance(value, str):
        return None
    kinds = {bool: "true or false", int: "a number", float: "a number", list: "a list"}
    return f"is {kinds.get(type(value), 'an object')} instead of a text"


def is_file(path: Path) -> bool:
    """Whether a path is a regular file, which can be read without waiting."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return False


def load_json(path: Path) -> object:
    """Load a small JSON file.

    Args:
        path: The file.

    Raises:
        OSError: If there is no such file, or if it cannot be read.
        ValueError: If it is no JSON, nested too deeply, no regular file or too large.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("it is no file")
    if status.st_size > MAX_JSON_BYTES:
        raise ValueError(f"it is larger than {MAX_JSON_BYTES >> 20} MB")
    try:
        return json.loads(path.read_bytes().decode("utf-8-sig"))
    except RecursionError:
        raise ValueError("its values are nested too deeply") from None


def _with_suggestion(name: str) -> str:
    shown = excerpt(name, MAX_FIELD_LENGTH)
    similar = difflib.get_close_matches(shown.lower(), COLUMN_OF_FIELD, n=1, cutoff=SIMILARITY)
    return f"{shown} (did you mean {similar[0]}?)" if similar else shown
