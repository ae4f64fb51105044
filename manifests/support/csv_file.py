"""Small CSV files that grow by one row at a time, such as the metrics of a run."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from manifests.support.files import atomic_path


def read_rows(path: Path) -> list[dict[str, str]]:
    """Read the rows of a CSV file.

    Args:
        path: A CSV file with a header. It may be missing.

    Returns:
        One dict per complete row, empty cells as "". A row cut off by a kill is left out; a missing
        file gives an empty list.
    """
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [row for row in rows if None not in row and None not in row.values()]


def write_rows(
    path: Path, rows: Iterable[Mapping[str, object]], columns: Sequence[str] | None = None
) -> None:
    """Write a whole CSV file atomically.

    Args:
        path: The file to write.
        rows: The rows; a missing or None value becomes an empty cell.
        columns: The header. Defaults to all keys of the rows, in order of first appearance. Keys
            that are not in the header are ignored.
    """
    rows = list(rows)
    header = list(columns) if columns else list(dict.fromkeys(key for row in rows for key in row))
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, header, restval="", extrasaction="ignore")
        if header:
            writer.writeheader()
        writer.writerows(rows)


class CsvLog:
    """Appends rows to a CSV file; a new column rewrites the file with an extended header.

    Args:
        path: The file. Rows that it already holds are kept.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._header: list[str] = []

    def append(self, row: Mapping[str, object]) -> None:
        """Append one row; None becomes an empty cell, floats are written in full precision."""
        header = self._header or self._read_header()
        if set(row) <= set(header):
            with self.path.open("a", newline="", encoding="utf-8") as file:
                csv.DictWriter(file, header, restval="").writerow(row)
            self._header = header
        else:
            write_rows(self.path, [*read_rows(self.path), row])
            self._header = []

    def _read_header(self) -> list[str]:
        if not self.path.is_file():
            return []
        with self.path.open(newline="", encoding="utf-8") as file:
            return next(csv.reader(file), [])
