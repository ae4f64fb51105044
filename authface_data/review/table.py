"""The review as a CSV: one row per face, what a person says first, then what they should know. Safe in any spreadsheet."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence

from authface_data.review.faces import ReviewFace

# What a person fills in. `state` is read back: it tells whether the face has changed since.
SAID = (
    "id",
    "decision",
    "reason",
    "semantic_tags",
    "photographic_tags",
    "note",
    "reviewer",
    "rating",
)
STATE = "state"
DECISION_WORDS = ("keep", "drop", "unsure")
CONTEXT = ("gates", "why", "flag", "decided", "photo", "credit", "crop")
# A spreadsheet takes a cell that begins so for a formula (or eats the apostrophe that says it is none). Where it takes other
# separators than ours, a cell may begin in the middle of one. The page's script has the same expression.
FORMULA = re.compile(r"(^|[;\t\r\n])([ \t\r\n]*)(?=[=+\-@'＝＋－＠])")
MEANT = re.compile(r"(^|[;\t\r\n])([ \t\r\n]*)'(?=[=+\-@'＝＋－＠])")
TAG_SEPARATOR = ", "


def columns(metrics: Sequence[str]) -> list[str]:
    """The table's columns, in order."""
    return [*SAID, STATE, *CONTEXT, *metrics]


def cells(face: ReviewFace, metrics: Sequence[str]) -> list[str]:
    """One face's row, nothing decided yet."""
    said = [
        face.id,
        "",
        "",
        TAG_SEPARATOR.join(face.semantic_tags),
        TAG_SEPARATOR.join(face.photographic_tags),
        "",
        "",
        "",
    ]
    context = [
        "kept" if face.kept else "dropped",
        face.why,
        face.flag,
        face.decided,
        face.photo,
        face.credit,
        face.crop_path,
    ]
    return [
        *said,
        face.state,
        *context,
        *(f"{face.scores[name]:.4g}" if name in face.scores else "" for name in metrics),
    ]


def metrics_of(faces: Iterable[ReviewFace]) -> list[str]:
    """The metrics that any of the faces was measured by, in order."""
    return sorted({name for face in faces for name in face.scores})


def to_csv(faces: Sequence[ReviewFace]) -> bytes:
    """UTF-8 with a byte-order mark, which spreadsheets need to read it as such; CRLF; formulas made harmless."""
    metrics, out = metrics_of(faces), io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(columns(metrics))
    for face in faces:
        # Numbers that we wrote ourselves stay numbers, negative ones too.
        own = cells(face, metrics)
        text = len(columns([]))
        writer.writerow([*(harmless(cell) for cell in own[:text]), *own[text:]])
    return out.getvalue().encode("utf-8-sig")


def harmless(cell: str) -> str:
    """The cell with an apostrophe before what a spreadsheet would run."""
    return FORMULA.sub(r"\1\2'", cell)


def meant(cell: str) -> str:
    """The way back."""
    return MEANT.sub(r"\1\2", cell)
