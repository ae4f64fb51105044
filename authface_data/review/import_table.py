"""A reviewed table back in: all of it or nothing, with every mistake named by line and column."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from authface_data.review.state import State, split_tags, tags_mark
from authface_data.review.table import DECISION_WORDS, STATE, meant
from manifests.schema import DECISIONS, FACES
from manifests.store import Store
from manifests.support.errors import UserError
from manifests.training_view import used_captions
from manifests.workspace import Workspace

MOST_ERRORS = 20
RATINGS = ("1", "2", "3", "4", "5")
FAMILIES = ("semantic_tags", "photographic_tags")
NEEDED = ("id", "decision", STATE)


@dataclass(frozen=True)
class ReviewedFace:
    """What one row says that was not known. The tags are None where they were left as they are; table: which one it is of."""

    line: int
    id: str
    reviewer: str
    decision: str | None
    rating: int | None
    reason: str | None
    note: str | None
    semantic_tags: list[str] | None
    photographic_tags: list[str] | None
    before: str
    table: str


@dataclass(frozen=True)
class Reading:
    """said: rows with something new; known: rows that were imported before; silent: rows that say nothing."""

    said: list[ReviewedFace]
    known: int
    silent: int


def read_table(workspace: Workspace, data: bytes, reviewer: str) -> Reading:
    """Check a reviewed CSV against the workspace. reviewer: whose it is, where the column is empty.

    Raises UserError with every mistake of the file, by line and column.
    """
    text, is_lossy = _text(data)
    rows = _rows(text)
    faces = {
        row["face_id"]: row
        for row in Store(workspace, FACES).read(["face_id", "crop_sha256"]).to_pylist()
    }
    tags, latest = used_captions(workspace), _latest(workspace)
    said, mistakes, seen, known, silent = [], [], dict[tuple[str, str], int](), 0, 0
    for line, row in rows:
        face_id = row["id"]
        there = tags.get(face_id, ([], []))
        try:
            one = _said(line, row, reviewer, there, latest, is_lossy)
            if one is None:
                silent += 1
                continue
            if face_id not in faces:
                raise _Wrong("id", f"there is no face {face_id!r} here")
            if (face_id, one.reviewer) in seen:
                raise _Wrong("id", f"{face_id} is on line {seen[face_id, one.reviewer]} already")
            seen[face_id, one.reviewer] = line
            before = latest.get((face_id, one.reviewer))
            if before is not None and _same(before, one):
                known += 1
                continue
            _check_state(row, one, faces[face_id]["crop_sha256"], there, before)
        except _Wrong as wrong:
            mistakes.append(f"line {line}, column {wrong.column}: {wrong}")
            continue
        said.append(one)
    if mistakes:
        more = f" (and {len(mistakes) - MOST_ERRORS} others)" if len(mistakes) > MOST_ERRORS else ""
        raise UserError("nothing was imported; " + "; ".join(mistakes[:MOST_ERRORS]) + more)
    return Reading(said, known, silent)


def record(workspace: Workspace, said: list[ReviewedFace], now: datetime) -> None:
    """Append to `decisions`, as one commit."""
    places = {
        r["face_id"]: r
        for r in Store(workspace, FACES).read(["face_id", "photo_id", "box_px"]).to_pylist()
    }
    rows = [
        {
            "id": one.id,
            "reviewer": one.reviewer,
            "decision": one.decision,
            "rating": one.rating,
            "reason": one.reason,
            "semantic_tags": one.semantic_tags,
            "photographic_tags": one.photographic_tags,
            "note": one.note,
            "decided_at": now,
            "photo_id": places[one.id]["photo_id"],
            "box_px": places[one.id]["box_px"],
            "fingerprint": one.table,
        }
        for one in said
    ]
    Store(workspace, DECISIONS).append(rows)


def _check_state(
    row: dict[str, str],
    one: ReviewedFace,
    crop_sha256: str,
    tags: tuple[list[str], list[str]],
    before: dict[str, Any] | None,
) -> None:
    """Raises _Wrong where what the row rests on has changed since it was given out."""
    state = State.parse(row[STATE])
    if state is None:
        raise _Wrong(STATE, f"{row[STATE]!r} was written by no export: leave this column as it is")
    now = State.of(crop_sha256, *tags, state.shown_at)
    edits = one.semantic_tags is not None or one.photographic_tags is not None
    what = ""
    if state.crop != now.crop:
        what = "the picture of"
    elif before is not None and before["fingerprint"] == state.table:
        pass  # the same table once more: its reviewer may think again
    elif edits and state.tags != now.tags:
        what = "the tags of"
    elif before is not None and before["decided_at"] > state.shown_at:
        what = f"{one.reviewer}'s decision on"
    if what:
        raise _Wrong(
            STATE, f"{what} {row['id']} changed since this table was written: export again"
        )


class _Wrong(Exception):
    def __init__(self, column: str, words: str):
        super().__init__(words)
        self.column = column


def _rows(text: str) -> list[tuple[int, dict[str, str]]]:
    """(line, column -> cell) of a CSV with commas, semicolons or tabs."""
    lines = text.split("\n", 2)
    told = lines[0].startswith("sep=")  # a line of Excel's own
    delimiter = max(",;\t", key=lines[min(int(told), len(lines) - 1)].count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        if told:
            next(reader)
        header = [cell.strip().lower() for cell in next(reader, [])]
        if missing := [name for name in NEEDED if name not in header]:
            raise UserError(
                f"line 1: no column {', '.join(missing)}: is this a table of `authface review export`?"
            )
        rows = []
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) > len(header) and any(cell.strip() for cell in cells[len(header) :]):
                raise UserError(
                    f"line {reader.line_num}: {len(cells)} cells, and {len(header)} columns"
                )
            padded = [*cells, *[""] * (len(header) - len(cells))]
            rows.append(
                (
                    reader.line_num,
                    {name: meant(cell.strip()) for name, cell in zip(header, padded, strict=False)},
                )
            )
    except csv.Error as error:
        raise UserError(f"line {reader.line_num}: not a CSV: {error}") from error
    return rows


def _text(data: bytes) -> tuple[str, bool]:
    """The text of a file in the encodings that spreadsheets write, and whether characters may have been lost in it."""
    try:
        if data.startswith((b"\xff\xfe", b"\xfe\xff")):
            return data.decode("utf-16"), False
        return data.decode("utf-8-sig"), False
    except UnicodeDecodeError as error:
        if error.encoding.startswith("utf-16"):
            raise UserError("the file is cut off or damaged: its text cannot be read") from error
        return data.decode("cp1252", errors="replace"), True  # what Excel calls CSV


def _said(
    line: int,
    row: dict[str, str],
    reviewer: str,
    tags: tuple[list[str], list[str]],
    latest: dict[tuple[str, str], dict[str, Any]],
    is_lossy: bool,
) -> ReviewedFace | None:
    """What a row says, or None. Raises _Wrong."""
    decision = row["decision"].lower()
    if decision and decision not in DECISION_WORDS:
        raise _Wrong("decision", f"{row['decision']!r} is none of {', '.join(DECISION_WORDS)}")
    rating = row.get("rating", "")
    if rating and rating not in RATINGS:
        raise _Wrong("rating", f"{rating!r} is not 1 to 5")
    state = State.parse(row[STATE])
    who = row.get("reviewer") or " ".join(reviewer.split())
    before = latest.get((row["id"], who))
    again = before is not None and state is not None and before["fingerprint"] == state.table
    semantic, photographic = _edited(row, tags, is_lossy, again)
    note, reason = row.get("note") or None, row.get("reason") or None
    if not (
        decision or rating or note or reason or semantic is not None or photographic is not None
    ):
        return None
    if not who:
        raise _Wrong("reviewer", "whose decision is this? fill the column, or pass --reviewer NAME")
    return ReviewedFace(
        line=line,
        id=row["id"],
        reviewer=who,
        decision=decision or None,
        rating=int(rating) if rating else None,
        reason=reason,
        note=note,
        semantic_tags=semantic,
        photographic_tags=photographic,
        before=", ".join(filter(None, (row.get("gates"), row.get("decided")))),
        table="" if state is None else state.table,
    )


def _edited(
    row: dict[str, str], tags: tuple[list[str], list[str]], is_lossy: bool, again: bool
) -> tuple[list[str] | None, list[str] | None]:
    """The tags that a person changed; None for a family that is as it was given out, or as it is now.

    again: the reviewer imported this very table before, so tags as they were given out may be an edit taken back.
    """
    now = [split_tags(", ".join(there)) for there in tags]
    given = [
        split_tags(row[name]) if name in row else there
        for name, there in zip(FAMILIES, now, strict=True)
    ]
    state = State.parse(row[STATE])
    if state is not None and state.tags == tags_mark(*given) and not again:
        return None, None
    edited = [
        None if own == there or (is_lossy and own == _lossy(there)) else own
        for own, there in zip(given, now, strict=True)
    ]
    for name, own, there in zip(FAMILIES, edited, now, strict=True):
        if own is not None and is_lossy and not "".join([*own, *there]).isascii():
            raise _Wrong(
                name,
                "this file is not in UTF-8, which may have changed its letters: save it as CSV UTF-8",
            )
    return edited[0], edited[1]


def _lossy(tags: list[str]) -> list[str]:
    """Tags as Windows' encoding leaves them."""
    return [tag.encode("cp1252", "replace").decode("cp1252") for tag in tags]


def _latest(workspace: Workspace) -> dict[tuple[str, str], dict[str, Any]]:
    """(face_id, reviewer) -> the last thing said."""
    rows = sorted(Store(workspace, DECISIONS).read().to_pylist(), key=lambda row: row["decided_at"])
    return {(row["id"], row["reviewer"]): row for row in rows}


def _same(before: dict[str, Any], one: ReviewedFace) -> bool:
    """Whether a row was imported before: what it says is what its reviewer said last."""
    plain = all(
        before[name] == getattr(one, name) for name in ("decision", "rating", "reason", "note")
    )
    # Tags that were taken over are the face's own by now, and so no longer an edit.
    tags = all(
        getattr(one, name) in (None, before[name])
        for name in ("semantic_tags", "photographic_tags")
    )
    return plain and tags
