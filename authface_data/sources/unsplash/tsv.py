"""Tab-separated files read as a stream, tolerant of malformed rows."""

from __future__ import annotations

import csv
import io
from collections import deque
from collections.abc import Callable, Iterator
from typing import IO

MAX_LINES_PER_ROW = 64
MAX_ROW_LENGTH = 131_072
"""Characters of a row, as many as the module csv accepts in a field. Longer rows are malformed."""
MAX_ATTEMPTS = 4
"""Lines with a quote that are tried as the end of a row."""

Row = dict[str, str]
BadRowHandler = Callable[[int, str], None]
"""Called with the line number and the reason."""


def read_rows(stream: IO[str], on_bad_row: BadRowHandler) -> Iterator[Row]:
    """Read the rows of a tab-separated file with a header.

    A quoted field may contain tabs and line breaks. A quote that is never closed spoils one line
    only.

    Args:
        stream: The file.
        on_bad_row: Called for each row that cannot be parsed.

    Yields:
        The values of a row by column name.
    """
    lines = _LineReader(stream)
    header_line = lines.next_line()
    if header_line is None:
        return
    header = [name.strip() for name in header_line.split("\t")]

    while (line := lines.next_line()) is not None:
        line_number = lines.number
        if not line:
            continue
        if len(line) > MAX_ROW_LENGTH:
            on_bad_row(line_number, f"it is longer than {MAX_ROW_LENGTH:,} characters")
            continue
        values: list[str] | None = line.split("\t")
        if '"' in line:
            values = _parse_quoted(line, lines, len(header))
        if values is None:
            on_bad_row(line_number, "its quotes do not close")
        elif len(values) != len(header):
            on_bad_row(line_number, f"{len(values)} columns instead of {len(header)}")
        else:
            yield dict(zip(header, values, strict=True))


class _LineReader:
    """Reads lines one by one and can put lines back."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._returned: deque[str] = deque()
        self.number = 0

    def next_line(self) -> str | None:
        """The next line without its line break, or its beginning if it is too long for a row."""
        line = self._returned.popleft() if self._returned else self._read_line()
        if not line:
            return None
        self.number += 1
        return line.rstrip("\r\n")

    def _read_line(self) -> str:
        line = rest = self._stream.readline(MAX_ROW_LENGTH + 2)
        while rest and not rest.endswith("\n"):
            rest = self._stream.readline(MAX_ROW_LENGTH)
        return line

    def put_back(self, lines: list[str]) -> None:
        self._returned.extendleft(f"{line}\n" for line in reversed(lines))
        self.number -= len(lines)


def _parse_quoted(line: str, lines: _LineReader, num_columns: int) -> list[str] | None:
    """The values of a row with quotes, which may span lines; None if a quote is never closed."""
    if line.count('"') % 2 == 0:
        return _parse_row(line)

    unquoted = line.split("\t")
    has_all_columns = len(unquoted) == num_columns
    if has_all_columns and not unquoted[-1].startswith('"'):
        return unquoted  # a quote that encloses nothing, such as an inch mark

    continuation: list[str] = []
    length = len(line)
    num_attempts = 0
    while len(continuation) < MAX_LINES_PER_ROW and (following := lines.next_line()) is not None:
        continuation.append(following)
        length += len(following)
        if length > MAX_ROW_LENGTH or num_attempts == MAX_ATTEMPTS:
            break
        if following.count('"') % 2:
            num_attempts += 1
            values = _parse_row("\n".join([line, *continuation]))
            if len(values) == num_columns:
                return values
    lines.put_back(continuation)
    return unquoted if has_all_columns else None


def _parse_row(text: str) -> list[str]:
    try:
        return next(csv.reader(io.StringIO(text, newline=""), delimiter="\t"), [])
    except csv.Error:
        return []
