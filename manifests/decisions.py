"""Decisions of people: which of them are in force for faces and for tags, and how to record them.

A decision about a face holds for the picture: also for the faces that `same_faces` links to it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from manifests.same_faces import Link, Relation, link_faces
from manifests.schema import DECISIONS, FACES, PHOTOS
from manifests.store import Store
from manifests.workspace import Workspace

logger = logging.getLogger(__name__)

TAG_ID_PREFIX = "tag:"
"""Prefix of the id of a decision about a tag in all captions. Other ids are face ids."""

LOCATION_COLUMNS = ("photo_id", "box_px", "pixel_hash", "crop_phash")
"""Columns by which the picture of a decided face is found again under another id."""


@dataclass(frozen=True)
class TagDecision:
    """A person's decision to rename or remove a tag in all captions.

    Attributes:
        tag: The tag in lower case.
        renamed_to: The new tag, or None if the tag is removed.
        decided_at: When the decision was made. It does not apply to tags edited later.
    """

    tag: str
    renamed_to: str | None
    decided_at: datetime


@dataclass(frozen=True)
class DecisionSource:
    """Where a decision comes from. Printed as JSON, so field names are part of the interface.

    Attributes:
        face_id: The face that was decided.
        photo_id: Its photograph, if known.
        reviewer: Who decided.
        decided_at: When the decision was made.
        relation: Why the decision holds for the face, see `same_faces.Relation`.
        bits: Number of differing bits of the perceptual hashes, for near-duplicates.
    """

    face_id: str
    photo_id: str | None
    reviewer: str
    decided_at: datetime
    relation: Relation
    bits: int

    def describe_relation(self) -> str:
        """Why the decision holds: "equal pixels", or "" for a decision about the face itself."""
        return {
            "own": "",
            "equal_pixels": "equal pixels",
            "crop": f"near-duplicate of the crop, {self.bits} bits",
            "mirrored_crop": f"near-duplicate of the mirrored crop, {self.bits} bits",
            "photo": f"near-duplicate of the photograph, {self.bits} bits",
        }[self.relation]


@dataclass(frozen=True)
class FaceDecision:
    """The decision in force for a face. Printed as JSON.

    Attributes:
        decision: "keep" or "drop".
        source: Where the decision comes from.
        overrules_gates: Whether the decision counts more than the gates. It does not if it is the
            keep of another face that is in the workspace: that face is in the set already, and
            this one is a copy of it.
    """

    decision: Literal["keep", "drop"]
    source: DecisionSource
    overrules_gates: bool

    def __str__(self) -> str:
        """For example "drop by anna (equal pixels: fs_0123_4567)"."""
        text = f"{self.decision} by {self.source.reviewer}"
        relation = self.source.describe_relation()
        return f"{text} ({relation}: {self.source.face_id})" if relation else text


def face_decisions(workspace: Workspace) -> dict[str, FaceDecision]:
    """Read the decision in force for each face, in this order:

    1. A drop: of the face itself, or of a face that shows the same picture.
    2. A keep of the face itself.
    3. A keep of a face that shows the same picture.

    For one face the newest `keep` or `drop` counts. `unsure` decides nothing, but it withdraws the
    earlier decision of the same reviewer. Decisions about a face that has left the workspace count
    as decisions about the faces that show its picture, so that a later decision can correct them.
    The keep of such a face moves to one face only, the nearest.

    Returns:
        face_id -> the decision. Faces without a decision are left out.
    """
    rows = linked_decisions(workspace)
    rows = rows[rows["decision"].notna()]
    own = _last_decisions(rows[rows["is_own"]])
    direct = _last_decisions(rows[rows["relation"] == "own"])

    twins = rows[~rows["is_own"] & rows["decided_id"].isin(direct.index)]
    twins = twins.drop_duplicates(["face_id", "decided_id"])
    decided = direct.loc[twins["decided_id"], ["decision", "reviewer", "decided_at", "photo_id"]]
    twins = twins.assign(**{name: decided[name].to_numpy() for name in decided})

    candidates = pd.concat([twins, own])
    candidates["is_drop"] = candidates["decision"] == "drop"
    candidates = candidates.sort_values(["is_drop", "is_own", "decided_at"], kind="stable")
    candidates = candidates.drop_duplicates("face_id", keep="last")
    return {
        row.face_id: FaceDecision(
            decision=row.decision,
            source=source_of(row._asdict()),
            overrules_gates=bool(row.is_drop or row.is_own),
        )
        for row in candidates.itertuples()
    }


def linked_decisions(workspace: Workspace) -> pd.DataFrame:
    """Read every decision about a face once for each face that it holds for.

    Returns:
        Rows of `decisions`, oldest first, with `decided_id` in the place of `id` and the additional
        columns of `same_faces.Link` and `is_own`: whether the decision counts as one about face_id
        itself, because it is one or because the decided face has left the workspace.
    """
    rows = Store(workspace, DECISIONS).read_pandas()
    rows = rows[~rows["id"].str.startswith(TAG_ID_PREFIX)]
    rows = rows.sort_values("decided_at", kind="stable").rename(columns={"id": "decided_id"})
    links = link_faces(workspace, rows.rename(columns={"decided_id": "id"}))
    linked = pd.DataFrame(links, columns=list(Link._fields))
    linked["is_own"] = (linked["relation"] == "own") | linked["has_left"].astype(bool)
    return rows.merge(linked, on="decided_id", how="inner")


def _last_decisions(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of the decisions in force, indexed by face_id.

    Args:
        rows: Rows of `linked_decisions` that count as decisions about face_id, oldest first.
    """
    rows = rows.drop_duplicates(["face_id", "reviewer"], keep="last")
    rows = rows[rows["decision"].isin(["keep", "drop"])]
    rows = rows.drop_duplicates("face_id", keep="last")

    # A face that has left may have several copies; keeping all would put duplicates into the set.
    is_moved_keep = (rows["relation"] != "own") & (rows["decision"] == "keep")
    nearest = rows[is_moved_keep].sort_values(["bits", "face_id"]).drop_duplicates("decided_id")
    rows = rows[~is_moved_keep | rows["face_id"].isin(nearest["face_id"])]
    return rows.set_index("face_id", drop=False).rename_axis(None)


def source_of(row: Mapping[str, object]) -> DecisionSource:
    """The source of a row of `linked_decisions`."""
    photo_id = row["photo_id"]
    return DecisionSource(
        face_id=str(row["decided_id"]),
        photo_id=photo_id if isinstance(photo_id, str) else None,
        reviewer=str(row["reviewer"]),
        decided_at=row["decided_at"],  # type: ignore[arg-type]
        relation=row["relation"],  # type: ignore[arg-type]
        bits=int(row["bits"]),  # type: ignore[call-overload]
    )


def tag_decisions(workspace: Workspace) -> list[TagDecision]:
    """Read the decisions in force for tags.

    Returns:
        The last decision of each tag, oldest first. A tag whose last decision is `keep` is left
        out: it withdraws an earlier one.
    """
    decisions = Store(workspace, DECISIONS).read_pandas(
        ["id", "decision", "renamed_to", "decided_at"]
    )
    decisions = decisions[decisions["id"].str.startswith(TAG_ID_PREFIX)]
    decisions = decisions.sort_values("decided_at", kind="stable")
    decisions = decisions.drop_duplicates("id", keep="last")
    decisions = decisions[decisions["decision"] == "drop"]
    return [
        TagDecision(
            tag=row.id.removeprefix(TAG_ID_PREFIX),
            renamed_to=row.renamed_to if isinstance(row.renamed_to, str) else None,
            decided_at=row.decided_at,
        )
        for row in decisions.itertuples()
    ]


def newest_decision_time(workspace: Workspace) -> datetime | None:
    """When the newest decision was recorded, or None without decisions."""
    times = Store(workspace, DECISIONS).read_pandas(["decided_at"])["decided_at"]
    return None if times.empty else times.max().to_pydatetime()


def record_decisions(
    workspace: Workspace, rows: Iterable[Mapping[str, object]], now: datetime | None = None
) -> None:
    """Append decisions in one commit. They are newer than all others, whatever the clock says.

    Args:
        workspace: The workspace; its lock must be held.
        rows: Rows of `decisions` without `decided_at` and `LOCATION_COLUMNS`. The location of faces
            is added from `faces` and `photos`.
        now: The time of the decisions, in UTC. Default: the present time.
    """
    rows = list(rows)
    if not rows:
        return
    decided_at = now or datetime.now(UTC)
    newest = newest_decision_time(workspace)
    if newest is not None and decided_at <= newest:
        if decided_at < newest:
            logger.warning(
                "the clock shows %s, but the newest decision is of %s; these decisions are recorded"
                " right after it, so that they are in force. Check the clock of this computer",
                f"{decided_at:%d %B %Y, %H:%M:%S}",
                f"{newest:%d %B %Y, %H:%M:%S} UTC",
            )
        decided_at = newest + timedelta(microseconds=1)

    locations = _locate_faces(workspace, [str(row["id"]) for row in rows])
    Store(workspace, DECISIONS).append(
        {**row, **locations.get(str(row["id"]), {}), "decided_at": decided_at} for row in rows
    )


def _locate_faces(workspace: Workspace, face_ids: Iterable[str]) -> dict[str, dict[str, object]]:
    """face_id -> its `LOCATION_COLUMNS`, of faces of the workspace."""
    faces = Store(workspace, FACES).read(["face_id", "photo_id", "box_px", "crop_phash"])
    faces = faces.filter(pc.is_in(faces["face_id"], pa.array(list(face_ids), pa.string())))
    photos = Store(workspace, PHOTOS).read(["photo_id", "pixel_hash"])
    photos = photos.filter(pc.is_in(photos["photo_id"], faces["photo_id"].combine_chunks()))
    photo_ids = photos["photo_id"].to_pylist()
    pixel_hash = dict(zip(photo_ids, photos["pixel_hash"].to_pylist(), strict=True))
    return {
        face.pop("face_id"): {**face, "pixel_hash": pixel_hash.get(face["photo_id"])}
        for face in faces.to_pylist()
    }
