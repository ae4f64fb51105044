"""Small CSV files that grow by one row at a time, such as the metrics of a run."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from manifests.support.files import atomic_path, explain_write_errors


def read_rows(path: Path) -> list[dict[str, str]]:
    """Read the rows of a CSV file that this module has written.

    Args:
        path: A CSV file with a header. It may be missing.

    Returns:
        One dict per row, empty cells as "". A last row that was cut off by a kill is left out; a
        missing file gives an empty list.
    """
    if not path.is_file():
        return []
    content = path.read_bytes()
    complete = content[: _complete_length(content)].decode("utf-8")
    rows = list(csv.DictReader(io.StringIO(complete, newline="")))
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
        path: The file. Rows that it already holds are kept, except a last one cut off by a kill.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._header: list[str] = []

    def append(self, row: Mapping[str, object]) -> None:
        """Append one row; None becomes an empty cell, floats are written in full precision."""
        header = self._header or self._open_existing()
        if set(row) <= set(header):
            with (
                explain_write_errors(self.path),
                self.path.open("a", newline="", encoding="utf-8") as file,
            ):
                csv.DictWriter(file, header, restval="").writerow(row)
            self._header = header
        else:
            write_rows(self.path, [*read_rows(self.path), row])
            self._header = []

    def _open_existing(self) -> list[str]:
        """Remove a cut-off last row and read the header; [] if the file is missing or empty."""
        if not self.path.is_file():
            return []
        content = self.path.read_bytes()
        os.truncate(self.path, _complete_length(content))
        with self.path.open(newline="", encoding="utf-8") as file:
            return next(csv.reader(file), [])


def _complete_length(content: bytes) -> int:
    """Number of bytes up to the end of the last complete line."""
    return content.rfind(b"\n") + 1
