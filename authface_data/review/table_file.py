"""Reads the file of a reviewed table: CSV as any spreadsheet saves it, or a workbook.

A spreadsheet whose language separates columns by another character than the file opens the table in
one column. What a person then types beside it is text next to a table that has one column. Such a
file is refused with the cause, because the rows themselves are unchanged.
"""

from __future__ import annotations

import codecs
import csv
import difflib
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from authface_data.review.table import (
    ANSWER_COLUMNS,
    CONTEXT_COLUMNS,
    DECISION_VALUES,
    SEPARATORS,
    STATE,
    unescape_formulas,
)
from authface_data.review.workbook import read_workbook
from manifests.support.errors import UserError
from manifests.support.text import nearest_name

REQUIRED_COLUMNS = ("id", "decision", STATE)
MAX_FILE_BYTES = 100_000_000
MAX_COLUMNS = 1_000
MAX_ROWS = 1_000_000
MAX_HEADER_CHARACTERS = 100_000
MAX_NAME_CHARACTERS = 100

_ZIP = b"PK\x03\x04"
_OLE = bytes.fromhex("d0cf11e0a1b11ae1")
"""First bytes of Microsoft's old container, which also holds encrypted workbooks."""
_TYPED_BESIDE = re.compile(r"(?:[-+\d.eE]*|faces/\S*?)([,;\t])[,;\t\s]*[^,;\t\s]")
"""A last cell, a number or the path of a crop, to which an editor appended a separator and text."""

Row = tuple[int, list[str]]
"""Line number and cells of a row."""


@dataclass(frozen=True)
class TableFile:
    """The rows of a table."""

    rows: list[tuple[int, dict[str, str]]]
    """(line number, column in lower case -> cell) of the rows that are not blank."""
    is_lossy: bool
    """Whether the file's encoding may have replaced characters."""


def read_limited(path: Path) -> bytes:
    """Read a file of at most `MAX_FILE_BYTES`.

    Raises:
        UserError: If the file cannot be read or is larger.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    if len(data) > MAX_FILE_BYTES:
        raise UserError(
            f"{path} is larger than {MAX_FILE_BYTES / 1e6:.0f} MB, the limit of a table; "
            "export fewer faces with --near-threshold or --sample"
        )
    return data


def parse_table(data: bytes) -> TableFile:
    """Parse the content of a table's file.

    Args:
        data: A CSV file with commas, semicolons or tabs in the encodings of spreadsheets, or an
            .xlsx workbook, whose first sheet is read.

    Raises:
        UserError: If the file is not such a table, or if text stands outside of its columns.
        MissingResourceError: If it is a workbook and openpyxl is not installed.
    """
    if data.startswith(_OLE):
        raise UserError(
            "the file is an old Excel workbook (.xls) or has a password; save it as .xlsx without "
            "a password, or as CSV UTF-8"
        )
    if data.startswith(_ZIP):
        rows = read_workbook(data)
        if _inner_separator(rows) is not None:
            rows = _unwrap(rows, None)
        return TableFile(_name_cells(rows), is_lossy=False)
    text, is_lossy = _decode(data)
    return TableFile(_name_cells(_parse_text(text)), is_lossy)


def _decode(data: bytes) -> tuple[str, bool]:
    """The text of a file as spreadsheets encode it, and whether characters may have been lost."""
    encoding = "utf-8"
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    elif data[1:8:2] == bytes(4):
        encoding = "utf-16-le"
    elif data[0:8:2] == bytes(4):
        encoding = "utf-16-be"

    is_lossy = False
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding != "utf-8":
            raise UserError(
                "the file is truncated or damaged: it is not valid UTF-16; save it again"
            ) from error
        text = data.decode("cp1252", errors="replace")  # Excel's format "CSV"
        is_lossy = True

    position = text.find("\0")
    if position >= 0:
        line = text.count("\n", 0, position) + 1
        raise UserError(
            f"line {line} contains a NUL character: the file is damaged or is not a table; "
            "save the table again as CSV UTF-8"
        )
    return text.lstrip("\ufeff"), is_lossy


def _parse_text(text: str) -> list[Row]:
    """The rows of a CSV text, with the header."""
    header_line = next((line for line in _first_lines(text) if line.strip()), "")
    separator = max(SEPARATORS, key=header_line.count)
    failure: UserError | None = None
    rows: list[Row] = []
    try:
        rows = _csv_rows(text, separator)
    except UserError as error:
        failure = error
    if failure is None and not _looks_wrapped(rows, separator):
        return rows

    one_column: list[tuple[str, list[Row]]] = []
    for outer in SEPARATORS:
        try:
            outer_rows = _csv_rows(text, outer)
        except UserError:
            continue
        if _inner_separator(outer_rows) is not None:
            one_column.append((outer, outer_rows))
    if one_column:
        outer, outer_rows = max(one_column, key=lambda item: _one_column_evidence(item[1]))
        return _unwrap(outer_rows, outer)
    if failure is not None:
        raise failure
    return rows


def _first_lines(text: str) -> list[str]:
    """The first lines of a text, without the line `sep=;` that Excel understands."""
    lines = re.split(r"\r\n|\r|\n", text[:MAX_HEADER_CHARACTERS])
    return lines[1:] if lines[0].startswith("sep=") else lines


def _csv_rows(text: str, separator: str) -> list[Row]:
    """The rows of a CSV text. Raises UserError if it is not valid CSV."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    rows = []
    try:
        for cells in reader:
            rows.append((reader.line_num, cells))
            if len(rows) > MAX_ROWS:
                raise UserError(
                    f"the table has more than {MAX_ROWS:,} rows; export fewer faces with "
                    "--near-threshold or --sample"
                )
    except csv.Error as error:
        reason = str(error)
        if "field limit" in reason:
            reason = (
                f"a cell is longer than {csv.field_size_limit():,} characters; "
                "a quotation mark may be missing before it"
            )
        raise UserError(f"line {reader.line_num}: not valid CSV: {reason}") from error
    if text.startswith("sep="):
        rows = rows[1:]
    return rows


def _split_line(line: str, separator: str) -> list[str]:
    """The cells of one line; [] if it is not valid CSV."""
    try:
        return next(csv.reader([line], delimiter=separator, strict=True), [])
    except csv.Error:
        return []


def _clean_name(cell: str) -> str:
    return cell.strip("\ufeff \t\r\n").lower()


def _header(rows: Sequence[Row]) -> list[str]:
    """The cells of the first row that is not blank."""
    return next((cells for _, cells in rows if any(cell.strip() for cell in cells)), [])


def _has_required(cells: Sequence[str]) -> bool:
    return {*REQUIRED_COLUMNS} <= {_clean_name(cell) for cell in cells}


def _inner_separator(rows: Sequence[Row]) -> str | None:
    """The separator inside the cells of a table that is in one column; None if it is not."""
    header = _header(rows)
    if not header or _has_required(header) or any(cell.strip() for cell in header[1:]):
        return None
    for separator in SEPARATORS:
        if _has_required(_split_line(header[0], separator)):
            return separator
    return None


def _looks_wrapped(rows: Sequence[Row], separator: str) -> bool:
    """Whether a table may have been saved by a spreadsheet that showed it in one column."""
    header = _header(rows)
    if not _has_required(header):
        return True
    others = tuple(item for item in SEPARATORS if item != separator)
    if header[-1].endswith(others):
        return True
    is_own_last_column = _clean_name(header[-1]) not in ANSWER_COLUMNS
    for _, cells in rows:
        if cells and separator in cells[0]:
            inner = _split_line(cells[0], separator)
            if len(inner) >= len(header):
                return True
        if is_own_last_column and len(cells) >= len(header):
            match = _TYPED_BESIDE.match(cells[len(header) - 1])
            if match and match[1] in others:
                return True
    return False


def _one_column_evidence(rows: Sequence[Row]) -> tuple[bool, bool]:
    """How probable it is that a spreadsheet saved these rows: larger is more probable."""
    is_padded = len(_header(rows)) > 1
    return is_padded, any(text.lower() in DECISION_VALUES for _, text in _texts_beside(rows))


def _texts_beside(rows: Sequence[Row]) -> list[tuple[int, str]]:
    """(line number, last text) of the rows that have text in another cell than the first."""
    beside = []
    for line, cells in rows:
        texts = [cell.strip() for cell in cells[1:] if cell.strip()]
        if texts:
            beside.append((line, texts[-1]))
    return beside


def _unwrap(rows: Sequence[Row], outer: str | None) -> list[Row]:
    """The rows of a table that is in one column.

    Args:
        rows: The rows as the spreadsheet saved them, with a whole line in their first cell.
        outer: The separator of the file; None for a workbook.

    Raises:
        UserError: If a row has text in another cell: it was typed beside the table, or the
            spreadsheet has split a text there.
    """
    beside = _texts_beside(rows)
    inner = _inner_separator(rows) or ","
    if beside:
        typed = [item for item in beside if item[1].lower() in DECISION_VALUES]
        line, text = (typed or beside)[0]
        option = ""
        if outer is not None and outer != inner:
            name = "tab" if outer == "\t" else f'"{outer}"'
            option = f"with --separator {name} or "
        raise UserError(
            f"line {line}: {text[:MAX_NAME_CHARACTERS]!r} stands beside the table, which the "
            "spreadsheet has opened in one column; nothing was imported. Export again "
            f"{option}to a .xlsx file, and enter the decisions there"
        )
    return _csv_rows("\n".join(cells[0] if cells else "" for _, cells in rows), inner)


def _name_cells(rows: Sequence[Row]) -> list[tuple[int, dict[str, str]]]:
    """(line number, column -> cell) of the rows below the header that are not blank."""
    header = [_clean_name(cell) for cell in _header(rows)]
    _check_header(header)
    named = []
    is_below_header = False
    for line, cells in rows:
        if not any(cell.strip() for cell in cells):
            continue
        if is_below_header:
            named.append((line, _name_row(header, cells, line)))
        is_below_header = True
    return named


def _check_header(header: Sequence[str]) -> None:
    """Raise UserError if a column is missing, misspelt or there twice."""
    if len(header) > MAX_COLUMNS:
        raise UserError(
            f"the table has {len(header):,} columns; use one written by `authface review export`"
        )
    names = [name for name in header if name]
    for name in names:
        if names.count(name) > 1:
            raise UserError(
                f'two columns are named "{name[:MAX_NAME_CHARACTERS]}"; remove or rename one'
            )
    known = {*ANSWER_COLUMNS, STATE, *CONTEXT_COLUMNS}
    others = [name for name in names if name not in known and len(name) <= MAX_NAME_CHARACTERS]
    missing = [name for name in REQUIRED_COLUMNS if name not in names]
    if missing:
        nearest = nearest_name(missing[0], others)
        hint = f' (rename "{nearest}" if that is it)' if nearest else ""
        raise UserError(
            f"missing column {', '.join(missing)}{hint}; "
            "use a table written by `authface review export`"
        )
    for column in ANSWER_COLUMNS:
        if column in names:
            continue
        # Names of metrics are never this similar to a column.
        for similar in difflib.get_close_matches(column, others, n=1, cutoff=0.8):
            raise UserError(f'unknown column "{similar}"; did you mean {column}?')


def _name_row(header: Sequence[str], cells: Sequence[str], line: int) -> dict[str, str]:
    """Column -> cell of a row; missing cells are empty."""
    row = dict.fromkeys((name for name in header if name), "")
    for position, cell in enumerate(cells):
        text = cell.strip()
        name = header[position] if position < len(header) else ""
        if name:
            row[name] = unescape_formulas(text)
        elif text:
            raise UserError(
                f"line {line}: {text[:MAX_NAME_CHARACTERS]!r} is in a column without a name; move "
                "it to the column that it belongs to"
            )
    row["id"] = row["id"].strip("\ufeff")
    return row
