"""Review tables as Excel workbooks (.xlsx), written and read by the optional openpyxl."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterator, Sequence
from datetime import date, datetime, time
from typing import TYPE_CHECKING
from xml.parsers import expat

from authface_data.review.faces import ReviewFace
from authface_data.review.table import (
    DECISION_VALUES,
    collect_metrics,
    escape_formulas,
    table_cells,
    table_columns,
)
from manifests.support.errors import MissingResourceError, UserError
from manifests.support.extras import describe_missing

if TYPE_CHECKING:
    from openpyxl.worksheet._read_only import ReadOnlyWorksheet

# A workbook is a zip of XML files, and a small one can unpack to a huge one. The limits are far
# above those of a table of a million faces.
MAX_UNPACKED_BYTES = 256_000_000
MAX_DEPTH = 64
"""Largest number of nested XML elements."""
MAX_ELEMENTS = 200_000
"""Largest number of XML elements in a part, apart from rows and shared strings."""
MAX_ROW_ELEMENTS = 20_000
MAX_ROWS = 2_000_000
"""Largest number of rows in a sheet, and of shared strings."""
MAX_CELL_CHARACTERS = 32_767
"""Excel's limit. openpyxl would cut longer texts without a message."""

_CELL_PLACE = re.compile(r"[A-Z]{1,2}[0-9]{1,7}")
_ROW_NUMBER = re.compile(r"[0-9]{1,7}")
_WIDTHS = {"id": 22, "reason": 30, "semantic_tags": 50, "photographic_tags": 50, "note": 30}
"""Widths of columns in characters; others have Excel's default."""


def write_workbook(faces: Sequence[ReviewFace]) -> bytes:
    """Write faces as a workbook, with the columns of `to_csv`.

    Text cells are texts, so that no spreadsheet changes ids or runs formulas, and they are escaped
    in case the table is saved as CSV. The cells for decisions and ratings have lists of choices.

    Args:
        faces: The faces, one row each.

    Returns:
        The content of an .xlsx file.

    Raises:
        MissingResourceError: If openpyxl is not installed.
        UserError: If a text is too long for a cell.
    """
    _check_openpyxl("writing")
    from openpyxl import Workbook
    from openpyxl.cell import WriteOnlyCell
    from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE
    from openpyxl.utils import get_column_letter
    from openpyxl.worksheet.datavalidation import DataValidation

    metrics = collect_metrics(faces)
    columns = table_columns(metrics)
    text_columns = len(table_columns([]))
    workbook = Workbook(write_only=True)
    sheet = workbook.create_sheet("review")
    sheet.freeze_panes = "B2"
    letters = {name: get_column_letter(number) for number, name in enumerate(columns, 1)}
    for name, width in _WIDTHS.items():
        sheet.column_dimensions[letters[name]].width = width
    for name, choices in (("decision", DECISION_VALUES), ("rating", ("1", "2", "3", "4", "5"))):
        validation = DataValidation("list", formula1=f'"{",".join(choices)}"', allow_blank=True)
        validation.add(f"{letters[name]}2:{letters[name]}{len(faces) + 1}")
        sheet.data_validations.append(validation)

    def text_cell(text: str) -> WriteOnlyCell:
        if len(text) > MAX_CELL_CHARACTERS:
            raise UserError(
                f"a text of {len(text):,} characters does not fit into a cell of Excel; "
                "export to a .csv file"
            )
        cell = WriteOnlyCell(sheet, ILLEGAL_CHARACTERS_RE.sub("", text))
        cell.data_type = "s"  # also for texts such as "=1" and "#N/A"
        return cell

    sheet.append([text_cell(name) for name in columns])
    for face in faces:
        cells = table_cells(face, metrics)
        texts = [text_cell(escape_formulas(cell)) for cell in cells[:text_columns]]
        scores = [float(cell) if cell else None for cell in cells[text_columns:]]
        sheet.append([*texts, *scores])
    buffer = io.BytesIO()
    workbook.save(buffer)
    return buffer.getvalue()


def read_workbook(data: bytes) -> list[tuple[int, list[str]]]:
    """Read the first sheet of a workbook.

    Args:
        data: The content of a file that is a zip archive.

    Returns:
        (row number, cells as text) of each row. Of formulas, the values that were saved are read.

    Raises:
        MissingResourceError: If openpyxl is not installed.
        UserError: If the file is damaged, is not a workbook of Excel or is too large.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            _check_format(archive)
            _check_openpyxl("reading")
            _check_parts(archive)
        return list(_read_first_sheet(data))
    except (UserError, MissingResourceError):
        raise
    except Exception as error:  # zipfile, expat and openpyxl raise many kinds for damaged files
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"the workbook is damaged ({reason}); open it in a spreadsheet and save it again"
        ) from error


def _check_openpyxl(action: str) -> None:
    try:
        import openpyxl  # noqa: F401
    except ImportError as error:
        raise MissingResourceError(
            f"{describe_missing(['xlsx'], f'{action} .xlsx')}, or use a CSV file"
        ) from error


def _check_format(archive: zipfile.ZipFile) -> None:
    """Raise UserError if a zip archive is not an .xlsx workbook."""
    names = set(archive.namelist())
    if "xl/workbook.xml" in names:
        return
    kind = "a zip archive without a table"
    if "xl/workbook.bin" in names:
        kind = "a binary Excel workbook (.xlsb)"
    elif "content.xml" in names:
        kind = "an OpenDocument table (.ods)"
    elif any(name.startswith(("Index/", "Index.zip")) for name in names):
        kind = "a table of Apple Numbers"
    raise UserError(f"the file is {kind}; save the table as .xlsx or as CSV UTF-8")


def _check_parts(archive: zipfile.ZipFile) -> None:
    """Raise UserError if reading the parts of a workbook could exhaust the machine.

    zipfile never unpacks more bytes of a part than the archive states.
    """
    unpacked = sum(part.file_size for part in archive.infolist())
    if unpacked > MAX_UNPACKED_BYTES:
        raise UserError(
            f"the workbook unpacks to {unpacked / 1e6:,.0f} MB, more than the limit of "
            f"{MAX_UNPACKED_BYTES / 1e6:.0f} MB; export fewer faces"
        )
    for part in archive.infolist():
        if part.filename.endswith((".xml", ".rels")):
            with archive.open(part) as file:
                _XmlGuard(part.filename).check(file.read())


class _XmlGuard:
    """Checks the structure of one XML part before it is parsed into a tree.

    Args:
        name: Name of the part, for messages.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._depth = 0
        self._outside = 0
        self._blocks = 0
        self._in_block = 0
        self._block_depth = 0
        self._place = ""
        self._cell_type = ""
        self._needs_value = False

    def check(self, data: bytes) -> None:
        """Raise UserError if a limit is exceeded, or if a formula has no saved value."""
        parser = self._parser = expat.ParserCreate()
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.StartDoctypeDeclHandler = self._refuse_doctype
        parser.Parse(data, True)

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        name = tag.rpartition(":")[2]
        self._depth += 1
        if name in ("row", "si") and not self._block_depth:
            self._block_depth = self._depth
            self._blocks += 1
            self._in_block = 0
        if self._block_depth:
            self._in_block += 1
        else:
            self._outside += 1
        is_too_large = (
            self._depth > MAX_DEPTH
            or self._outside > MAX_ELEMENTS
            or self._blocks > MAX_ROWS
            or self._in_block > MAX_ROW_ELEMENTS
        )
        has_bad_place = "r" in attributes and (
            (name == "row" and not _ROW_NUMBER.fullmatch(attributes["r"]))
            or (name == "c" and not _CELL_PLACE.fullmatch(attributes["r"]))
        )
        if is_too_large or has_bad_place:
            raise UserError(
                f"the workbook's part {self._name} is too large or too deeply nested for a table; "
                "use a table written by `authface review export`"
            )
        if name == "c":
            self._place = attributes.get("r", "")
            self._cell_type = attributes.get("t", "n")
            self._needs_value = False
        elif name == "f":
            # The value of a formula may be an empty text, which has the type `str`.
            self._needs_value = self._cell_type != "str"
        elif name == "v" and self._needs_value:
            self._parser.CharacterDataHandler = self._note_value

    def _end(self, tag: str) -> None:
        if self._depth == self._block_depth:
            self._block_depth = 0
        self._depth -= 1
        name = tag.rpartition(":")[2]
        if name == "v":
            self._parser.CharacterDataHandler = None
        if name == "c" and self._needs_value:
            raise UserError(
                f"cell {self._place} of {self._name} has a formula without a saved value; open the "
                "workbook in a spreadsheet and save it, or replace formulas by values"
            )

    def _note_value(self, _: str) -> None:
        self._needs_value = False

    def _refuse_doctype(self, *_: object) -> None:
        raise UserError(
            f"the workbook's part {self._name} has a document type declaration, which spreadsheets "
            "never write; use a table written by `authface review export`"
        )


def _read_first_sheet(data: bytes) -> Iterator[tuple[int, list[str]]]:
    import warnings

    from openpyxl import load_workbook

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about extensions that openpyxl does not keep
        workbook = load_workbook(io.BytesIO(data), read_only=True, data_only=True, keep_links=False)
        sheet: ReadOnlyWorksheet = workbook.worksheets[0]
        # The stated size may be wrong; without it, rows end with their last cell.
        sheet.reset_dimensions()
        for number, cells in enumerate(sheet.iter_rows(values_only=True), 1):
            yield number, [_to_text(cell) for cell in cells]


def _to_text(value: object) -> str:
    """The text of a cell as a person would type it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, float):
        return f"{value:.15g}"
    if isinstance(value, datetime):
        is_date = value.time() == time()
        return value.date().isoformat() if is_date else value.isoformat(sep=" ")
    if isinstance(value, date | time):
        return value.isoformat()
    return str(value)
