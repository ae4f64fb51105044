"""The review table: a CSV file with one row per face, safe to open in any spreadsheet.

The columns that a person fills in come first, then the snapshot of the face, then its context.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from authface_data.review.faces import FaceBatch, ReviewFace, ReviewFaces
from manifests.captions import TAG_SEPARATOR

ANSWER_COLUMNS = (
    "id",
    "decision",
    "reason",
    "semantic_tags",
    "photographic_tags",
    "note",
    "reviewer",
    "rating",
)
"""The face, and what a reviewer fills in or edits."""
LINE_END = "\r\n"
STATE = "state"
"""Column of the face's `Snapshot`; an import refuses a row whose face has changed."""
CONTEXT_COLUMNS = ("gates", "why", "flag", "decided", "photo", "credit", "crop")
"""What a reviewer should know. The metrics follow. An import ignores all of them."""
SEPARATORS = (",", ";", "\t")
"""Characters that separate the columns of a CSV file, by the language of the spreadsheet."""
DECISION_VALUES = ("keep", "drop", "unsure")
"""Accepted values of the column `decision`."""

# A spreadsheet takes a cell that begins with one of these characters for a formula, and it removes
# a leading apostrophe. Where it separates columns by semicolons or tabs, a cell of ours may also be
# split, so positions after those are escaped too. sheet.js has the same expression.
_FORMULA = re.compile(r"(^|[;\t\r\n])([ \t\r\n]*)(?=[=+\-@'＝＋－＠])")
_ANY_FORMULA = r"(^|[;\t\r\n])([ \t\r\n]*)([=+\-@'＝＋－＠])"
"""`_FORMULA` without lookahead, which Arrow's regular expressions do not have."""
_ESCAPED_FORMULA = re.compile(r"(^|[;\t\r\n])([ \t\r\n]*)'(?=[=+\-@'＝＋－＠])")


def table_columns(metrics: Sequence[str]) -> list[str]:
    """The header of a table with these metrics."""
    return [*ANSWER_COLUMNS, STATE, *CONTEXT_COLUMNS, *metrics]


def table_cells(face: ReviewFace, metrics: Sequence[str]) -> list[str]:
    """The row of a face before review.

    Args:
        face: The face.
        metrics: The metrics that get a column.

    Returns:
        One cell per column of `table_columns`, not escaped for spreadsheets.
    """
    cells = {
        "id": face.face_id,
        "semantic_tags": TAG_SEPARATOR.join(face.semantic_tags),
        "photographic_tags": TAG_SEPARATOR.join(face.photographic_tags),
        STATE: str(face.snapshot),
        "gates": "kept" if face.is_kept else "dropped",
        "why": face.drop_reasons,
        "flag": face.flag,
        "decided": face.last_decision,
        "photo": face.photo_title,
        "credit": face.credit,
        "crop": face.crop_path,
    }
    scores = [f"{face.scores[name]:.4g}" if name in face.scores else "" for name in metrics]
    return [*(cells.get(column, "") for column in table_columns([])), *scores]


def collect_metrics(faces: Iterable[ReviewFace]) -> list[str]:
    """The metrics that at least one of the faces has, sorted."""
    if isinstance(faces, ReviewFaces):
        return faces.metrics
    return sorted({name for face in faces for name in face.scores})


def to_csv(faces: ReviewFaces, separator: str = ",") -> bytes:
    """The whole content of the CSV file that `csv_pieces` writes.

    Args:
        faces: The faces, one row each.
        separator: One of `SEPARATORS`.
    """
    return b"".join(csv_pieces(faces, separator))


def csv_pieces(faces: ReviewFaces, separator: str = ",") -> Iterator[bytes]:
    """Write faces as a CSV file.

    The text is UTF-8 with a byte-order mark, without which spreadsheets assume another encoding.
    Lines end with CRLF. Text cells are escaped; scores are numbers and stay as they are. There is
    no first line `sep=;`: Excel would then ignore the byte-order mark, and other programs would
    take the line for the header.

    Args:
        faces: The faces, one row each.
        separator: One of `SEPARATORS`.

    Yields:
        The content of the file, piece by piece.
    """
    metrics = faces.metrics
    header = io.StringIO()
    csv.writer(header, delimiter=separator).writerow(table_columns(metrics))
    yield codecs.BOM_UTF8 + header.getvalue().encode()
    for batch in faces.batches():
        cells = [_quote_cells(column, separator) for column in _cells_of_batch(batch, metrics)]
        rows = pc.binary_join_element_wise(*cells, separator).combine_chunks()
        lines = pa.ListArray.from_arrays(pa.array([0, len(rows)], pa.int32()), rows)
        yield f"{pc.binary_join(lines, LINE_END)[0].as_py()}{LINE_END}".encode()


def _quote_cells(cells: pa.ChunkedArray, separator: str) -> pa.ChunkedArray:
    """Quote the cells that need it, as the module csv does."""
    needs_quotes = pc.match_substring_regex(cells, f'["\r\n{separator}]')
    if not pc.any(needs_quotes).as_py():
        return cells
    doubled = pc.replace_substring(cells, '"', '""')
    return pc.if_else(needs_quotes, pc.binary_join_element_wise('"', doubled, '"', ""), cells)


def _cells_of_batch(batch: FaceBatch, metrics: Sequence[str]) -> list[pa.ChunkedArray]:
    """The columns of some faces, escaped for spreadsheets; cells as `table_cells` gives them."""
    columns = batch.columns
    texts = {
        "id": columns["face_id"],
        "semantic_tags": batch.semantic_tags,
        "photographic_tags": batch.photographic_tags,
        STATE: batch.snapshots,
        "gates": pc.if_else(batch.is_kept, "kept", "dropped"),
        "why": columns["drop_reasons"],
        "flag": columns["flag"],
        "decided": columns["last_decision"],
        "photo": columns["photo_title"],
        "credit": columns["credit"],
        "crop": columns["crop_path"],
    }
    empty = pa.chunked_array([pa.repeat("", len(batch.is_kept))])
    cells = [_escape_column(texts.get(name, empty)) for name in table_columns([])]
    cells += [_format_scores(batch.scores[name]) for name in metrics]
    return cells


def _format_scores(values: np.ndarray) -> pa.ChunkedArray:
    """Scores as texts of four digits; "" for an unknown one."""
    # One format of all values is faster than one format of each.
    joined = " ".join(["%.4g"] * len(values)) % tuple(values.tolist())
    texts = pa.chunked_array([joined.split()], pa.string())
    return pc.if_else(pa.array(np.isfinite(values)), texts, "")


def _escape_column(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """`escape_formulas` of every text. Most columns have no text that needs it."""
    if not pc.any(pc.match_substring_regex(texts, _ANY_FORMULA)).as_py():
        return texts
    return pc.replace_substring_regex(texts, _ANY_FORMULA, r"\1\2'\3")


def escape_formulas(cell: str) -> str:
    """Put an apostrophe before text that a spreadsheet would run as a formula."""
    return _FORMULA.sub(r"\1\2'", cell)


def unescape_formulas(cell: str) -> str:
    """Undo `escape_formulas`."""
    return _ESCAPED_FORMULA.sub(r"\1\2", cell)
