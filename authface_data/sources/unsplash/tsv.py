"""Tab-separated files read as a stream, row by row, whatever single rows look like."""

from __future__ import annotations

import csv
import io
from collections import deque
from collections.abc import Callable, Iterator
from typing import IO

MOST_LINES_OF_A_ROW = 64

Row = dict[str, str]


def read_rows(stream: IO[str], bad: Callable[[int, str], None]) -> Iterator[Row]:
    """Rows of one tab-separated file with a header. bad(line, why).

    A quoted field may hold tabs and line breaks. A quote that is never closed spoils its own line and no other.
    """
    lines = _Lines(stream)
    first = lines.next()
    if first is None:
        return
    header = [name.strip() for name in first.split("\t")]
    while (line := lines.next()) is not None:
        number = lines.number
        if not line:
            continue
        values = line.split("\t") if '"' not in line else _quoted(line, lines, len(header))
        if values is None or len(values) != len(header):
            bad(
                number,
                "its quotes do not close"
                if values is None
                else f"{len(values)} columns instead of {len(header)}",
            )
            continue
        yield dict(zip(header, values, strict=True))


class _Lines:
    """Lines one by one, with a way to put some back."""

    def __init__(self, stream: IO[str]):
        self._stream, self._back = stream, deque[str]()
        self.number = 0

    def next(self) -> str | None:
        line = self._back.popleft() if self._back else self._stream.readline()
        if not line:
            return None
        self.number += 1
        return line.rstrip("\r\n")

    def put_back(self, lines: list[str]) -> None:
        self._back.extendleft(f"{line}\n" for line in reversed(lines))
        self.number -= len(lines)


def _quoted(line: str, lines: _Lines, columns: int) -> list[str] | None:
    """The values of a row with quotes, which may go on over the next lines. None where they never close."""

    def parsed(text: str) -> list[str]:
        try:
            return next(csv.reader(io.StringIO(text, newline=""), delimiter="\t"), [])
        except csv.Error:  # a field longer than any
            return []

    if line.count('"') % 2 == 0:
        return parsed(line)
    plain = line.split("\t")
    is_whole = len(plain) == columns
    if is_whole and not plain[-1].startswith('"'):
        return plain  # a quote that encloses nothing, an inch mark, say: taken as it stands
    taken: list[str] = []
    while len(taken) < MOST_LINES_OF_A_ROW and (more := lines.next()) is not None:
        taken.append(more)
        if more.count('"') % 2:
            values = parsed("\n".join([line, *taken]))
            if len(values) == columns:
                return values
    lines.put_back(taken)
    return plain if is_whole else None
