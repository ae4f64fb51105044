"""What the report and the anatomy picture show of one face."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa
from PIL import Image

from authface_data.images.encode import data_uri
from authface_data.images.stored_picture import read_stored_picture
from authface_data.report.reasons import Reason, describe_verdict, format_score, wording_of
from manifests.captions import Captions, current_captions
from manifests.licence_policy import basis_label, photographer_label
from manifests.schema import FACES, PHOTOS, SCORES, VERDICTS
from manifests.store import RowFilter, Store
from manifests.verdicts import ALL_GATES
from manifests.workspace import Workspace

CROP_PX = 280
JPEG_QUALITY = 88
SHOWN_FACE_COLUMNS = tuple(
    field.name for field in FACES.schema if field.name not in ("landmarks5_px", "landmarks68_px")
)
"""Columns of `faces` that are shown. Landmarks of the photograph take half of the manifest."""


class ShownScore(NamedTuple):
    """A score in words and with its unit."""

    metric: str
    noun: str
    value: str


@dataclass(frozen=True)
class Card:
    """The texts and the picture of one face.

    Attributes:
        face_id: Id of the face.
        picture: The crop as a data URI, or "" for a card without a picture.
        title: Description or id of the photograph.
        credit: The photographer.
        basis: The licence basis.
        tags: The tags in use, semantic ones first.
        scores: The scores.
        reasons: Why gates dropped the face; empty if none did.
        notes: The size of the face, and whether it was upscaled.
    """

    face_id: str
    picture: str
    title: str
    credit: str
    basis: str
    tags: list[str]
    scores: list[ShownScore]
    reasons: list[Reason]
    notes: list[str]


@dataclass(frozen=True)
class ShownFace:
    """What the manifests hold about a face that is shown.

    Attributes:
        face: Row of `faces`, with `SHOWN_FACE_COLUMNS`.
        photo: Row of `photos`.
        card: The texts and the picture.
    """

    face: dict[str, Any]
    photo: dict[str, Any]
    card: Card


def read_shown_faces(
    workspace: Workspace,
    face_ids: Collection[str],
    pictured_ids: Collection[str] = (),
    *,
    captions: Captions | None = None,
    scores: pa.Table | None = None,
) -> dict[str, ShownFace]:
    """Read faces to show.

    Args:
        workspace: The workspace to read.
        face_ids: The faces. Their photographs have rows.
        pictured_ids: Faces whose cards have a picture.
        captions: The captions in use. Default: they are read.
        scores: Rows of `scores` of these faces, with face_id, metric and value. Default: they are
            read.

    Returns:
        The faces by face_id.
    """
    of_faces = RowFilter.is_in("face_id", face_ids)
    faces = Store(workspace, FACES).read(SHOWN_FACE_COLUMNS, of_faces).to_pylist()
    photo_ids = {face["photo_id"] for face in faces}
    rows = Store(workspace, PHOTOS).read(only=RowFilter.is_in("photo_id", photo_ids)).to_pylist()
    photos = {row["photo_id"]: row for row in rows}

    if scores is None:
        scores = Store(workspace, SCORES).read(["face_id", "metric", "value"], of_faces)
    shown_scores: dict[str, list[ShownScore]] = {}
    for row in scores.to_pylist():
        metric = row["metric"]
        score = ShownScore(metric, wording_of(metric).noun, format_score(metric, row["value"]))
        shown_scores.setdefault(row["face_id"], []).append(score)
    verdicts = Store(workspace, VERDICTS).read(only=RowFilter.is_in("id", face_ids)).to_pylist()
    reasons = drop_reasons(verdicts)
    if captions is None:
        captions = current_captions(workspace, face_ids)
    caption_rows = captions.find(pa.array([face["face_id"] for face in faces], pa.string()))

    shown = {}
    for face, caption_row in zip(faces, caption_rows.tolist(), strict=True):
        face_id = face["face_id"]
        photo = photos[face["photo_id"]]
        notes = [f"{face['qsize_px']:.0f} px"]
        if face["upscaled"]:
            notes.append("upscaled")
        picture = ""
        if face_id in pictured_ids:
            picture = thumbnail_uri(workspace, face["crop_path"], CROP_PX)
        tags: list[str] = []
        if caption_row >= 0:
            tags = [*captions.semantic[caption_row], *captions.photographic[caption_row]]
        card = Card(
            face_id=face_id,
            picture=picture,
            title=photo_title(photo),
            credit=photographer_label(photo["photographer_name"]),
            basis=basis_label(photo["licence_basis"]),
            tags=tags,
            scores=sorted(shown_scores.get(face_id, [])),
            reasons=reasons.get(face_id, []),
            notes=notes,
        )
        shown[face_id] = ShownFace(face, photo, card)
    return shown


def drop_reasons(verdicts: Sequence[dict[str, Any]]) -> dict[str, list[Reason]]:
    """Reasons of the verdicts that dropped or failed a face, by face_id."""
    reasons: dict[str, list[Reason]] = {}
    for row in verdicts:
        is_kept = row["verdict"] == "kept"
        if row["subject"] != "face" or is_kept or row["gate"] == ALL_GATES:
            continue
        reasons.setdefault(row["id"], []).append(describe_verdict(row))
    return reasons


def photo_title(photo: Mapping[str, Any] | None) -> str:
    """Description of a photograph, else its id. It is "" for a missing row."""
    return "" if photo is None else str(photo["description"] or photo["photo_id"])


def thumbnail_uri(workspace: Workspace, path: str, max_side_px: int) -> str:
    """Shrink a picture and encode it as a JPEG data URI.

    Args:
        workspace: The workspace that holds the picture.
        path: Path of the picture in the workspace.
        max_side_px: Length of the long side, if the picture is not smaller.
    """
    picture = read_stored_picture(workspace, path)
    picture.thumbnail((max_side_px, max_side_px), Image.Resampling.LANCZOS)
    return data_uri(picture, quality=JPEG_QUALITY)
