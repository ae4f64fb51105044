"""Import of a reviewed table: all rows or none, and every mistake is listed by line and column."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypedDict

from authface_data.review.snapshot import Snapshot, hash_tags, split_tags
from authface_data.review.table import ANSWER_COLUMNS, DECISION_VALUES, STATE
from authface_data.review.table_file import parse_table
from manifests.captions import TAG_FAMILIES, TAG_SEPARATOR, FaceTags, current_tags
from manifests.decisions import record_decisions
from manifests.schema import DECISIONS, FACES
from manifests.store import Store
from manifests.support.errors import UserError
from manifests.support.text import did_you_mean
from manifests.workspace import Workspace

MAX_ERRORS = 20
"""Largest number of mistakes in an error message."""
RATING = re.compile(r"([1-5])([.,]0*)?")
"""1 to 5, also as spreadsheets show whole numbers: 4.0 or 4,0."""
ERROR_VALUE = re.compile(r"#([\w/]+[!?]|N/?[AV])")
"""What a spreadsheet shows instead of a text that it took for a formula, in any language."""


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
        data: A file as a spreadsheet or the review page saved it, see `parse_table`.
        reviewer: The reviewer of rows whose column `reviewer` is empty; "" if not known.

    Raises:
        UserError: If the file is not such a table, or if any row has a mistake. The message lists
            the mistakes by line and column.
    """
    table = parse_table(data)
    reader = _RowReader(workspace, " ".join(reviewer.split()), table.is_lossy)
    new: list[ReviewedFace] = []
    mistakes: list[str] = []
    already_imported = 0
    empty = 0

    for line, row in table.rows:
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
        now: The time of the decisions, in UTC; made later if there is a newer decision.
    """
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
            "fingerprint": face.table_id,
        }
        for face in faces
    ]
    record_decisions(workspace, rows, now)


def last_answers(workspace: Workspace, reviewer: str) -> dict[str, dict[str, str]]:
    """The stored answers of a reviewer as texts of a review table.

    Args:
        workspace: The workspace.
        reviewer: Name of the reviewer.

    Returns:
        face_id -> decision, rating, reason and note; "" for a field without an answer. The decision
        is the last one, which later rows without a decision leave in force.
    """
    rows = sorted(Store(workspace, DECISIONS).read().to_pylist(), key=lambda row: row["decided_at"])
    answers: dict[str, dict[str, str]] = {}
    for row in rows:
        if row["reviewer"] != reviewer:
            continue
        before = answers.get(row["id"], {})
        answers[row["id"]] = {
            "decision": row["decision"] or before.get("decision", ""),
            "rating": str(row["rating"] or ""),
            "reason": row["reason"] or "",
            "note": row["note"] or "",
        }
    return answers


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
        _check_error_values(row)
        decision = row["decision"].lower()
        if decision and decision not in DECISION_VALUES:
            raise _CellError(
                "decision",
                f"unknown decision {row['decision']!r}"
                f"{did_you_mean(decision, DECISION_VALUES)}; "
                f"choose from: {', '.join(DECISION_VALUES)}",
            )
        rating = row.get("rating", "")
        rating_match = RATING.fullmatch(rating)
        if rating and rating_match is None:
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
            rating=None if rating_match is None else int(rating_match[1]),
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


def _check_error_values(row: Mapping[str, str]) -> None:
    """Raise _CellError if a spreadsheet replaced an answer by an error such as #NAME?."""
    for column in ANSWER_COLUMNS:
        if ERROR_VALUE.fullmatch(row.get(column, "")):
            raise _CellError(
                column,
                f"{row[column]} is an error of the spreadsheet, which took the text for a formula; "
                "type it again with an apostrophe before it",
            )


def _to_cp1252(tags: list[str]) -> list[str]:
    """Tags after a round trip through the Windows encoding, which replaces unknown characters."""
    return [tag.encode("cp1252", "replace").decode("cp1252") for tag in tags]


def _last_reviews(workspace: Workspace) -> dict[tuple[str, str], StoredReview]:
    """(face_id, reviewer) -> the last stored review."""
    rows = sorted(Store(workspace, DECISIONS).read().to_pylist(), key=lambda row: row["decided_at"])
    return {(row["id"], row["reviewer"]): row for row in rows}
