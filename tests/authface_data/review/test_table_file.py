"""Files of reviewed tables, as spreadsheets of all languages and other programs save them."""

import csv
import functools
import io
import zipfile
from datetime import date, datetime

import openpyxl
import pytest
from review_workspace import fill_review_workspace, open_in_spreadsheet, save_in_spreadsheet
from typer.testing import CliRunner

import cli
from authface_data.review import table_file, workbook
from authface_data.review.faces import ReviewFace, faces_to_review
from authface_data.review.import_table import read_review_table
from authface_data.review.table import to_csv
from authface_data.review.table_file import parse_table, read_limited
from authface_data.review.workbook import write_workbook
from manifests.settings import preset_text
from manifests.support.errors import MissingResourceError, UserError
from manifests.workspace import Workspace


@pytest.fixture(scope="module")
def reviewed(tmp_path_factory):
    """A workspace that no test changes."""
    root = tmp_path_factory.mktemp("reviewed") / "ws"
    return fill_review_workspace(Workspace.create(root, preset_text("embedded")))


@functools.cache
def faces_of(workspace) -> list[ReviewFace]:
    """The faces of the workspace, worst first."""
    return faces_to_review(workspace)


def decisions(workspace, data: bytes) -> dict[str, tuple]:
    """face_id -> (decision, rating, note) of what an import would record."""
    table = read_review_table(workspace, data, "anna")
    return {face.face_id: (face.decision, face.rating, face.note) for face in table.new}


def answer(rows: list[list[str]], face_id: str, **answers: str) -> None:
    """Fill in cells of a face."""
    (row,) = [row for row in rows if row[0] == face_id]
    for column, text in answers.items():
        row[rows[0].index(column)] = text


# Tables that opened in columns


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252"])
@pytest.mark.parametrize("line_end", ["\r\n", "\n", "\r"])
def test_every_separator_encoding_and_line_end(reviewed, separator, encoding, line_end):
    rows = open_in_spreadsheet(to_csv(faces_of(reviewed), separator), separator)
    answer(rows, "fs_0_a", decision="drop", rating="4", note='zu "glatt"; schön, na ja')
    data = save_in_spreadsheet(rows, separator, line_end=line_end).encode(encoding)
    (row,) = [row for _, row in parse_table(data).rows if row["id"] == "fs_0_a"]
    assert (row["decision"], row["rating"]) == ("drop", "4")
    assert row["note"] == 'zu "glatt"; schön, na ja'
    assert row["photographic_tags"] == "front view, soft light"


@pytest.mark.parametrize("rating", ["4", "4.0", "4,0", " 4 ", "4.00", "\u00a04"])
def test_whole_numbers_are_ratings_as_spreadsheets_show_them(reviewed, rating):
    rows = open_in_spreadsheet(to_csv(faces_of(reviewed)), ",")
    answer(rows, "fs_0_a", rating=rating)
    assert decisions(reviewed, save_in_spreadsheet(rows, ",").encode()) == {
        "fs_0_a": (None, 4, None)
    }


@pytest.mark.parametrize("marks", ["\ufeff\ufeff", "\ufeffsep=,\r\n\ufeff"])
def test_stray_byte_order_marks(reviewed, marks):
    rows = open_in_spreadsheet(to_csv(faces_of(reviewed)), ",")
    answer(rows, "fs_1_a", decision="drop")
    data = (marks + save_in_spreadsheet(rows, ",")).encode()
    assert decisions(reviewed, data) == {"fs_1_a": ("drop", None, None)}


def test_blank_lines_and_trailing_separators_do_not_matter(reviewed):
    rows = open_in_spreadsheet(to_csv(faces_of(reviewed)), ",")
    answer(rows, "fs_1_a", decision="drop")
    data = ("\r\n,,\r\n" + save_in_spreadsheet([row + ["", ""] for row in rows], ",")).encode()
    assert decisions(reviewed, data) == {"fs_1_a": ("drop", None, None)}


# Tables that opened in one column


@pytest.mark.parametrize("pad", [True, False], ids=["padded", "not-padded"])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL], ids=["minimal", "all"])
@pytest.mark.parametrize(
    ("exported", "opened"),
    [(",", ";"), (",", "\t"), (";", ","), (";", "\t"), ("\t", ";"), ("\t", ",")],
)
@pytest.mark.parametrize("face_id", ["fs_0_a", "fs_3_a"])
def test_decision_beside_a_table_in_one_column_is_an_error_with_cause_and_cure(
    reviewed, face_id, exported, opened, quoting, pad
):
    rows = open_in_spreadsheet(to_csv(faces_of(reviewed), exported), opened)
    assert rows[0][1:] == []
    (row,) = [row for row in rows if row[0].startswith(face_id)]
    row.append("drop")
    data = save_in_spreadsheet(rows, opened, quoting=quoting, pad=pad).encode()
    with pytest.raises(UserError) as caught:
        decisions(reviewed, data)
    message = str(caught.value)
    assert message.startswith(f"line {rows.index(row) + 1}: 'drop' stands beside the table")
    assert "opened in one column; nothing was imported. Export again" in message
    name = "tab" if opened == "\t" else f'"{opened}"'
    assert f"--separator {name} or to a .xlsx file" in message


def test_decision_in_quotes_of_the_same_separator(reviewed):
    """LibreOffice shows one column if only another separator was ticked, and saves with commas."""
    rows = open_in_spreadsheet(to_csv(faces_of(reviewed)), "\x1f")
    rows[2].append("keep")
    data = save_in_spreadsheet(rows, ",").encode()
    with pytest.raises(UserError, match=r"line 3: 'keep' stands beside the table"):
        decisions(reviewed, data)


def test_decision_appended_to_a_line(reviewed):
    lines = to_csv(faces_of(reviewed)).decode("utf-8-sig").splitlines()
    lines[2] += ";drop"
    with pytest.raises(UserError, match=r"line 3: 'drop' stands beside the table"):
        decisions(reviewed, "\n".join(lines).encode())


def test_decision_beside_a_table_in_one_column_of_a_workbook(reviewed):
    book = openpyxl.Workbook()
    for cells in open_in_spreadsheet(to_csv(faces_of(reviewed)), ";"):
        book.active.append(cells)
    book.active.cell(4, 5).value = "drop"
    with pytest.raises(UserError, match=r"line 4: 'drop' stands beside .* Export again to a .xlsx"):
        decisions(reviewed, save(book))


@pytest.mark.parametrize("opened", [";", "\t"])
def test_decision_inside_of_the_one_column_is_imported(reviewed, opened):
    rows = open_in_spreadsheet(to_csv(faces_of(reviewed)[:-1]), opened)
    for row in rows:
        row[0] = row[0].replace("fs_0_a,,", "fs_0_a,drop,")
    data = save_in_spreadsheet(rows, opened).encode()
    assert decisions(reviewed, data) == {"fs_0_a": ("drop", None, None)}


def test_decision_beside_a_table_in_columns(reviewed):
    rows = open_in_spreadsheet(to_csv(faces_of(reviewed)), ",")
    rows[3].append("drop")
    data = save_in_spreadsheet(rows, ",").encode()
    with pytest.raises(UserError, match="line 4: 'drop' is in a column without a name; move it"):
        decisions(reviewed, data)


# Headers


def test_two_columns_of_one_name_are_refused(reviewed):
    rows = open_in_spreadsheet(to_csv(faces_of(reviewed)), ",")
    rows[0][rows[0].index("note")] = "Decision "
    with pytest.raises(UserError, match='two columns are named "decision"; remove or rename one'):
        decisions(reviewed, save_in_spreadsheet(rows, ",").encode())


@pytest.mark.parametrize(
    ("column", "typed", "message"),
    [
        ("decision", "decison", 'missing column decision (rename "decison" if that is it)'),
        ("rating", "ratng", 'unknown column "ratng"; did you mean rating?'),
        ("note", "notes", 'unknown column "notes"; did you mean note?'),
    ],
)
def test_misspelt_columns_are_named(reviewed, column, typed, message):
    rows = open_in_spreadsheet(to_csv(faces_of(reviewed)), ",")
    rows[0][rows[0].index(column)] = typed
    with pytest.raises(UserError) as caught:
        decisions(reviewed, save_in_spreadsheet(rows, ",").encode())
    assert message in str(caught.value)


def test_columns_of_the_reviewer_are_ignored(reviewed):
    rows = open_in_spreadsheet(to_csv(faces_of(reviewed)), ",")
    answer(rows, "fs_0_a", decision="drop")
    rows = [[*row, "notes" if row is rows[0] else "a; b"] for row in rows]
    assert list(decisions(reviewed, save_in_spreadsheet(rows, ",").encode())) == ["fs_0_a"]


@pytest.mark.parametrize("text", ["#NAME?", "#WERT!", "#N/A", "#REF!", "#DIV/0!"])
def test_errors_of_a_spreadsheet_are_not_stored(reviewed, text):
    rows = open_in_spreadsheet(to_csv(faces_of(reviewed)), ",")
    answer(rows, "fs_3_a", note=text)
    with pytest.raises(UserError, match=r"line 5, column note: .* is an error of the spreadsheet"):
        decisions(reviewed, save_in_spreadsheet(rows, ",").encode())


def test_nearest_decision_is_named(reviewed):
    rows = open_in_spreadsheet(to_csv(faces_of(reviewed)), ",")
    answer(rows, "fs_3_a", decision="droop")
    with pytest.raises(UserError, match="unknown decision 'droop'; did you mean drop"):
        decisions(reviewed, save_in_spreadsheet(rows, ",").encode())


# Damaged files


HEADER = b"id,decision,state\r\n"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (HEADER + b"fs_0_a,dr\0op,c\r\n", "line 2 contains a NUL character"),
        (bytes(100), "contains a NUL character"),
        (bytes(101), "not valid UTF-16"),
        (HEADER + b'fs_0_a,"' + b"x" * 200_000 + b'",c\r\n', "longer than 131,072 characters"),
        (HEADER + b'fs_0_a,"drop\r\n' + b"fs_1_a,,c\r\n" * 20_000, "131,072 characters; a quot"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(500), "old Excel workbook"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF", "contains a NUL character"),
        (b"," * 20_000 + b"id,decision,state", "the table has 20,003 columns"),
        (b"x" * 100_000, "missing column id, decision, state"),
        (b"\r" * 10_000, "missing column id, decision, state"),
        ("id,decision,state".encode("utf-16")[:-1], "not valid UTF-16"),
    ],
)
def test_damaged_files_are_one_line(reviewed, data, message):
    with pytest.raises(UserError) as caught:
        decisions(reviewed, data)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 300
    assert "\n" not in str(caught.value)


def test_huge_files_are_not_read(tmp_path):
    file = tmp_path / "review.csv"
    with file.open("wb") as out:
        out.write(HEADER)
        out.truncate(200_000_000)  # sparse
    with pytest.raises(UserError, match="is larger than 100 MB"):
        read_limited(file)


def test_very_many_rows_are_refused(monkeypatch):
    monkeypatch.setattr(table_file, "MAX_ROWS", 100)
    parse_table(HEADER + b"\n" * 99)
    with pytest.raises(UserError, match="the table has more than 100 rows"):
        parse_table(HEADER + b"\n" * 200)


# Workbooks


def save(book: openpyxl.Workbook) -> bytes:
    buffer = io.BytesIO()
    book.save(buffer)
    return buffer.getvalue()


def load(data: bytes) -> openpyxl.Workbook:
    return openpyxl.load_workbook(io.BytesIO(data))


def row_of(sheet, face_id: str) -> int:
    return [cell.value for cell in sheet["A"]].index(face_id) + 1


def column_of(sheet, name: str) -> int:
    return [cell.value for cell in sheet[1]].index(name) + 1


def test_workbook_has_the_cells_of_the_csv(reviewed):
    faces = faces_of(reviewed)
    table = parse_table(to_csv(faces)).rows
    assert parse_table(write_workbook(faces)).rows == table
    sheet = load(write_workbook(faces)).active
    assert sheet.freeze_panes == "B2"
    assert {cell.data_type for cell in sheet[2] if cell.value} == {"s", "n"}
    ranges = [str(item.sqref) for item in sheet.data_validations.dataValidation]
    assert ranges == ["B2:B5", "H2:H5"]


def test_workbook_runs_no_formula(reviewed):
    (face, *_) = faces_of(reviewed)
    hostile = type(face)(**{**vars(face), "photo_title": "=cmd|' /C calc'!A0", "credit": "#N/A"})
    sheet = load(write_workbook([hostile])).active
    assert sheet.cell(2, column_of(sheet, "photo")).value == "'=cmd|' /C calc'!A0"
    assert {cell.data_type for cell in sheet[2] if cell.value} == {"s", "n"}


def test_answers_in_a_workbook_are_imported(reviewed):
    book = load(write_workbook(faces_of(reviewed)))
    sheet = book.active
    answers = {
        "fs_0_a": {"decision": "drop", "rating": 4.0, "note": date(2026, 3, 4)},
        "fs_1_a": {"decision": " Keep ", "rating": "4,0", "note": datetime(2026, 3, 4, 5, 6)},
        "fs_2_a": {"note": 0.1 + 0.2},
        "fs_3_a": {"note": True},
    }
    for face_id, cells in answers.items():
        for name, value in cells.items():
            sheet.cell(row_of(sheet, face_id), column_of(sheet, name)).value = value
    book.create_sheet("later")["A1"] = "not read"
    assert decisions(reviewed, save(book)) == {
        "fs_0_a": ("drop", 4, "2026-03-04"),
        "fs_1_a": ("keep", 4, "2026-03-04 05:06:00"),
        "fs_2_a": (None, None, "0.3"),
        "fs_3_a": (None, None, "TRUE"),
    }


def replace_part(data: bytes, name: str, change) -> bytes:
    """A workbook in which one part is changed by a function."""
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(data)) as old,
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for part in old.namelist():
            content = old.read(part)
            new.writestr(part, change(content) if part == name else content)
    return buffer.getvalue()


SHEET = "xl/worksheets/sheet1.xml"


def test_formulas_give_their_saved_values(reviewed):
    book = load(write_workbook(faces_of(reviewed)))
    sheet = book.active
    sheet.cell(2, column_of(sheet, "decision")).value = '=IF(TRUE,"drop","")'
    formula = save(book)
    with pytest.raises(UserError, match=r"cell B2 of .*sheet1.xml has a formula without a saved"):
        decisions(reviewed, formula)
    saved = replace_part(
        formula,
        SHEET,
        lambda xml: xml.replace(b'<c r="B2">', b'<c r="B2" t="str">').replace(
            b"</f><v />", b"</f><v>drop</v>"
        ),
    )
    assert decisions(reviewed, saved) == {"fs_1_a": ("drop", None, None)}


def test_other_formats_are_refused_with_advice(reviewed):
    for name, kind in (
        ("content.xml", "an OpenDocument table"),
        ("Index/Document.iwa", "a table of Apple Numbers"),
        ("xl/workbook.bin", "a binary Excel workbook"),
        ("photo.jpg", "a zip archive without a table"),
    ):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr(name, "")
        with pytest.raises(UserError, match=f"the file is {kind}.*; save the table as .xlsx"):
            decisions(reviewed, buffer.getvalue())


def test_missing_openpyxl_names_the_extra(reviewed, monkeypatch):
    data = write_workbook(faces_of(reviewed))
    monkeypatch.setitem(__import__("sys").modules, "openpyxl", None)
    for action in (
        lambda: decisions(reviewed, data),
        lambda: write_workbook(faces_of(reviewed)),
    ):
        with pytest.raises(MissingResourceError, match=r"needs authface\[xlsx\]: pip install"):
            action()


ID_CELL = b'<c r="A1" t="inlineStr"><is><t>id</t></is>'
DOCTYPE = b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><x>&e;</x>'
LAUGHS = (
    b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]><x>&b;</x>'
)


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        (SHEET, lambda xml: DOCTYPE, "document type declaration"),
        ("xl/styles.xml", lambda xml: LAUGHS, "document type declaration"),
        (SHEET, lambda xml: b"<a>" * 2_000_000, "too deeply nested"),
        ("[Content_Types].xml", lambda xml: b"<a>" * 100_000, "too deeply nested"),
        ("xl/workbook.xml", lambda xml: b"<a>" + b"<b/>" * 3_000_000, "too large"),
        (SHEET, lambda xml: b"<row>" + b"<c/>" * 3_000_000, "too large"),
        (SHEET, lambda xml: xml.replace(b'<row r="2"', b'<row r="99999999999"'), "too large"),
        (SHEET, lambda xml: xml.replace(b'r="A2"', b'r="XFD2"'), "too large"),
        (SHEET, lambda xml: xml[:-20], "the workbook is damaged"),
        (SHEET, lambda xml: b"", "the workbook is damaged"),
        (SHEET, lambda xml: xml.replace(b't="inlineStr"', b't="s"'), "missing column"),
        (SHEET, lambda xml: xml.replace(ID_CELL, b'<c t="s"><v>7</v>'), "the workbook is damaged"),
        ("xl/workbook.xml", lambda xml: b"<x/>", "the workbook is damaged"),
    ],
)
def test_hostile_workbooks_are_refused(reviewed, part, change, message):
    book = load(write_workbook(faces_of(reviewed)))
    with pytest.raises(UserError) as caught:
        decisions(reviewed, replace_part(save(book), part, change))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_zip_bomb_is_not_unpacked(reviewed, monkeypatch):
    monkeypatch.setattr(workbook, "MAX_UNPACKED_BYTES", 2_000_000)
    data = write_workbook(faces_of(reviewed))
    with zipfile.ZipFile(buffer := io.BytesIO(data), "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/media/bomb.png", bytes(3_000_000))
    with pytest.raises(UserError, match="unpacks to 3 MB, more than the limit of 2 MB"):
        decisions(reviewed, buffer.getvalue())


def test_broken_zip_is_one_line(reviewed):
    data = write_workbook(faces_of(reviewed))
    for damaged in (data[:500], data[:-100], data[:60] + bytes(60) + data[120:]):
        with pytest.raises(UserError, match="the workbook is damaged"):
            decisions(reviewed, damaged)


# The command


def test_export_writes_the_format_of_the_name(reviewed, tmp_path):
    def run(*command: object):
        return CliRunner().invoke(cli.app, ["review", *map(str, command), "-w", reviewed.root])

    assert run("export", "--csv", tmp_path / "a.csv", "--separator", ";").exit_code == 0
    assert (tmp_path / "a.csv").read_text("utf-8-sig").startswith("id;decision;reason;")
    assert run("export", "--csv", tmp_path / "a.tsv", "--separator", "tab").exit_code == 0
    assert (tmp_path / "a.tsv").read_text("utf-8-sig").startswith("id\tdecision\treason\t")
    assert run("export", "--csv", tmp_path / "a.XLSX").exit_code == 0
    imported = run("import", tmp_path / "a.XLSX")
    assert "0 rows with changes; 0 already imported, 4 empty" in imported.stdout
    for name, options, message in (
        ("b.ods", [], "cannot write a table as .ods; use a name that ends in .csv or .xlsx"),
        ("b.xlsx", ["--separator", ";"], "--separator is only valid for a CSV file"),
        ("b.csv", ["--separator", "|"], "--separator"),
    ):
        result = run("export", "--csv", tmp_path / name, *options)
        assert result.exit_code == 2
        assert message in result.stderr
        assert not (tmp_path / name).exists()
