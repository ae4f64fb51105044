"""Import of a reviewed table: all rows or none, and every mistake is listed by line and column."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypedDict

from authface_data.review.snapshot import Snapshot, hash_tags, split_tags
from authface_data.review.table import DECISION_VALUES, STATE, unescape_formulas
from manifests.captions import TAG_FAMILIES, TAG_SEPARATOR, FaceTags, current_tags
from manifests.schema import DECISIONS, FACES
from manifests.store import Store
from manifests.support.errors import UserError
from manifests.workspace import Workspace

MAX_ERRORS = 20
"""Largest number of mistakes in an error message."""
RATINGS = ("1", "2", "3", "4", "5")
REQUIRED_COLUMNS = ("id", "decision", STATE)


class StoredReview(TypedDict):
    """The columns of a row of `decisions` that an import compares with."""

    decision: str | None
    rating: int | None
    reason: str | None
    note: str | None
    semantic_tags: list[str] | None
    photographic_tags: list[str] | None
    decided_at: datetime
    fingerprint: str


@dataclass(frozen=True)
class ReviewedFace:
    """What one row of a reviewed table adds. None means that the row does not change the value."""

    line: int
    """Line number in the file."""
    face_id: str
    reviewer: str
    decision: str | None
    rating: int | None
    """1 to 5."""
    reason: str | None
    note: str | None
    semantic_tags: list[str] | None
    photographic_tags: list[str] | None
    previous: str
    """The gates' verdict and the last decision when the table was written."""
    table_id: str
    """`Snapshot.table_id` of the table; "" if the row has no valid snapshot."""

    @property
    def has_edited_tags(self) -> bool:
        """Whether the row changes tags of either family."""
        return self.semantic_tags is not None or self.photographic_tags is not None


@dataclass(frozen=True)
class ReviewTable:
    """A reviewed table after all checks."""

    new: list[ReviewedFace]
    """Rows that add something."""
    already_imported: int
    """Number of rows whose content is stored already."""
    empty: int
    """Number of rows that were not filled in."""


def read_review_table(workspace: Workspace, data: bytes, reviewer: str) -> ReviewTable:
    """Read a reviewed table and check it against the workspace.

    Args:
        workspace: The workspace.
        data: A CSV file as a spreadsheet or the review page saved it.
        reviewer: The reviewer of rows whose column `reviewer` is empty; "" if not known.

    Raises:
        UserError: If the file is not such a table, or if any row has a mistake. The message lists
            the mistakes by line and column.
    """
    text, is_lossy = _decode(data)
    rows = _parse_csv(text)
    reader = _RowReader(workspace, " ".join(reviewer.split()), is_lossy)
    new: list[ReviewedFace] = []
    mistakes: list[str] = []
    already_imported = 0
    empty = 0

    for line, row in rows:
        try:
            face = reader.read(line, row)
            if face is None:
                empty += 1
            elif reader.is_stored(face):
                already_imported += 1
            else:
                reader.check_snapshot(row, face)
                new.append(face)
        except _CellError as error:
            mistakes.append(f"line {line}, column {error.column}: {error}")

    if mistakes:
        more = len(mistakes) - MAX_ERRORS
        suffix = f" (and {more} others)" if more > 0 else ""
        raise UserError("nothing was imported; " + "; ".join(mistakes[:MAX_ERRORS]) + suffix)
    return ReviewTable(new, already_imported, empty)


def record_reviews(workspace: Workspace, faces: Sequence[ReviewedFace], now: datetime) -> None:
    """Append reviews to `decisions` in one commit.

    Args:
        workspace: The workspace; its lock must be held.
        faces: The reviews, as checked by `read_review_table`.
        now: The time of the decisions, in UTC.
    """
    stored_faces = Store(workspace, FACES).read(["face_id", "photo_id", "box_px"]).to_pylist()
    face_of_id = {row["face_id"]: row for row in stored_faces}
    rows = [
        {
            "id": face.face_id,
            "reviewer": face.reviewer,
            "decision": face.decision,
            "rating": face.rating,
            "reason": face.reason,
            "semantic_tags": face.semantic_tags,
            "photographic_tags": face.photographic_tags,
            "note": face.note,
            "decided_at": now,
            "photo_id": face_of_id[face.face_id]["photo_id"],
            "box_px": face_of_id[face.face_id]["box_px"],
            "fingerprint": face.table_id,
        }
        for face in faces
    ]
    Store(workspace, DECISIONS).append(rows)


class _CellError(Exception):
    """A mistake in one cell."""

    def __init__(self, column: str, message: str) -> None:
        super().__init__(message)
        self.column = column


class _RowReader:
    """Reads rows of one table and compares them with the workspace.

    Args:
        workspace: The workspace.
        reviewer: The reviewer of rows whose column `reviewer` is empty.
        is_lossy: Whether the file's encoding may have replaced characters.
    """

    def __init__(self, workspace: Workspace, reviewer: str, is_lossy: bool) -> None:
        faces = Store(workspace, FACES).read(["face_id", "crop_sha256"]).to_pylist()
        self._crop_hashes = {row["face_id"]: row["crop_sha256"] for row in faces}
        self._tags = current_tags(workspace)
        self._stored = _last_reviews(workspace)
        self._line_of: dict[tuple[str, str], int] = {}
        self._reviewer = reviewer
        self._is_lossy = is_lossy

    def read(self, line: int, row: Mapping[str, str]) -> ReviewedFace | None:
        """Read a row. Returns None if it was not filled in. Raises _CellError."""
        decision = row["decision"].lower()
        if decision and decision not in DECISION_VALUES:
            raise _CellError(
                "decision",
                f"unknown decision {row['decision']!r}; choose from: {', '.join(DECISION_VALUES)}",
            )
        rating = row.get("rating", "")
        if rating and rating not in RATINGS:
            raise _CellError("rating", f"{rating!r} is not a rating; use 1 to 5")

        snapshot = Snapshot.parse(row[STATE])
        reviewer = row.get("reviewer") or self._reviewer
        stored = self._stored.get((row["id"], reviewer))
        was_imported = (
            stored is not None
            and snapshot is not None
            and stored["fingerprint"] == snapshot.table_id
        )
        semantic, photographic = self._edited_tags(row, snapshot, was_imported)

        note = row.get("note") or None
        reason = row.get("reason") or None
        has_edited_tags = semantic is not None or photographic is not None
        if not (decision or rating or note or reason or has_edited_tags):
            return None
        if not reviewer:
            raise _CellError(
                "reviewer", "the reviewer is missing; fill in the column or use --reviewer NAME"
            )
        face = ReviewedFace(
            line=line,
            face_id=row["id"],
            reviewer=reviewer,
            decision=decision or None,
            rating=int(rating) if rating else None,
            reason=reason,
            note=note,
            semantic_tags=semantic,
            photographic_tags=photographic,
            previous=", ".join(filter(None, (row.get("gates"), row.get("decided")))),
            table_id="" if snapshot is None else snapshot.table_id,
        )
        self._check_id(face)
        return face

    def is_stored(self, face: ReviewedFace) -> bool:
        """Whether the row was imported before: it equals the last review by its reviewer."""
        stored = self._stored.get((face.face_id, face.reviewer))
        if stored is None:
            return False
        is_same = (
            stored["decision"] == face.decision
            and stored["rating"] == face.rating
            and stored["reason"] == face.reason
            and stored["note"] == face.note
        )
        # After an import, the edited tags are the face's tags, so the row does not edit them.
        return (
            is_same
            and face.semantic_tags in (None, stored["semantic_tags"])
            and face.photographic_tags in (None, stored["photographic_tags"])
        )

    def check_snapshot(self, row: Mapping[str, str], face: ReviewedFace) -> None:
        """Raise _CellError if what the reviewer saw has changed since the table was written."""
        snapshot = Snapshot.parse(row[STATE])
        if snapshot is None:
            raise _CellError(
                STATE,
                f"{row[STATE]!r} was not written by `authface review`; leave this column unchanged",
            )
        tags = self._tags_of(face.face_id)
        current = Snapshot.take(
            self._crop_hashes[face.face_id], tags.semantic, tags.photographic, snapshot.exported_at
        )
        stored = self._stored.get((face.face_id, face.reviewer))

        changed = None
        if snapshot.crop_hash != current.crop_hash:
            changed = f"the picture of {face.face_id}"
        elif stored is not None and stored["fingerprint"] == snapshot.table_id:
            pass  # the reviewer corrects a table that was imported before
        elif face.has_edited_tags and snapshot.tags_hash != current.tags_hash:
            changed = f"the tags of {face.face_id}"
        elif stored is not None and stored["decided_at"] > snapshot.exported_at:
            changed = f"{face.reviewer}'s decision on {face.face_id}"
        if changed is not None:
            raise _CellError(
                STATE, f"{changed} changed after this table was written; export a new table"
            )

    def _check_id(self, face: ReviewedFace) -> None:
        """Raise _CellError for an unknown face, and for a second row of a face and a reviewer."""
        if face.face_id not in self._crop_hashes:
            raise _CellError("id", f"unknown face {face.face_id!r}")
        key = (face.face_id, face.reviewer)
        if key in self._line_of:
            raise _CellError("id", f"{face.face_id} is already on line {self._line_of[key]}")
        self._line_of[key] = face.line

    def _tags_of(self, face_id: str) -> FaceTags:
        return self._tags.get(face_id, FaceTags([], []))

    def _edited_tags(
        self, row: Mapping[str, str], snapshot: Snapshot | None, was_imported: bool
    ) -> tuple[list[str] | None, list[str] | None]:
        """The tags that the reviewer changed, per family.

        None for a family that is as it was exported, or as it is now. If the same table was
        imported before, tags as they were exported may take an earlier edit back, so they count as
        changed.
        """
        current = [split_tags(TAG_SEPARATOR.join(tags)) for tags in self._tags_of(row["id"])]
        in_row = [
            split_tags(row[family]) if family in row else tags
            for family, tags in zip(TAG_FAMILIES, current, strict=True)
        ]
        is_as_exported = snapshot is not None and snapshot.tags_hash == hash_tags(*in_row)
        if is_as_exported and not was_imported:
            return None, None
        edited = [
            self._edited_family(family, tags, tags_now)
            for family, tags, tags_now in zip(TAG_FAMILIES, in_row, current, strict=True)
        ]
        return edited[0], edited[1]

    def _edited_family(self, family: str, tags: list[str], current: list[str]) -> list[str] | None:
        """The tags of a row's family, or None if they are the current ones."""
        if tags == current:
            return None
        if self._is_lossy:
            if tags == _to_cp1252(current):
                return None
            if not "".join([*tags, *current]).isascii():
                raise _CellError(
                    family,
                    "the file is not in UTF-8, which may have changed letters; "
                    "save it as CSV UTF-8",
                )
        return tags


def _decode(data: bytes) -> tuple[str, bool]:
    """The text of a file as spreadsheets encode it, and whether characters may have been lost."""
    is_utf16 = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        return data.decode("utf-16" if is_utf16 else "utf-8-sig"), False
    except UnicodeDecodeError as error:
        if is_utf16:
            raise UserError(
                "the file is truncated or damaged: it is not valid UTF-16; save it again"
            ) from error
        return data.decode("cp1252", errors="replace"), True  # Excel's format "CSV"


def _parse_csv(text: str) -> list[tuple[int, dict[str, str]]]:
    """(line number, column -> cell) of the rows of a CSV with commas, semicolons or tabs."""
    lines = text.split("\n", 2)
    has_separator_line = lines[0].startswith("sep=")  # written by Excel
    header_line = lines[min(int(has_separator_line), len(lines) - 1)]
    delimiter = max(",;\t", key=header_line.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        if has_separator_line:
            next(reader)
        header = [cell.strip().lower() for cell in next(reader, [])]
        missing = [name for name in REQUIRED_COLUMNS if name not in header]
        if missing:
            raise UserError(
                f"line 1: missing column {', '.join(missing)}; "
                "use a table written by `authface review export`"
            )
        return [
            (reader.line_num, _parse_cells(header, cells, reader.line_num))
            for cells in reader
            if any(cell.strip() for cell in cells)
        ]
    except csv.Error as error:
        raise UserError(f"line {reader.line_num}: not valid CSV: {error}") from error


def _parse_cells(header: list[str], cells: list[str], line: int) -> dict[str, str]:
    """Column -> cell of a row; missing cells are empty."""
    if any(cell.strip() for cell in cells[len(header) :]):
        raise UserError(f"line {line}: {len(cells)} cells in a table of {len(header)} columns")
    padded = [*cells, *[""] * (len(header) - len(cells))]
    return {
        name: unescape_formulas(cell.strip()) for name, cell in zip(header, padded, strict=False)
    }


def _to_cp1252(tags: list[str]) -> list[str]:
    """Tags after a round trip through the Windows encoding, which replaces unknown characters."""
    return [tag.encode("cp1252", "replace").decode("cp1252") for tag in tags]


def _last_reviews(workspace: Workspace) -> dict[tuple[str, str], StoredReview]:
    """(face_id, reviewer) -> the last stored review."""
    rows = sorted(Store(workspace, DECISIONS).read().to_pylist(), key=lambda row: row["decided_at"])
    return {(row["id"], row["reviewer"]): row for row in rows}
