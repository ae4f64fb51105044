"""The faces to review: which ones, in what order, and what a reviewer should know about each."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from authface_data.gates import GateResult, evaluate_gates
from authface_data.review.snapshot import EPOCH, Snapshot
from manifests.captions import FaceTags, current_tags
from manifests.decisions import face_decisions, newest_decision_time
from manifests.schema import DECISIONS, FACES, PHOTOS, VERDICTS
from manifests.settings import Gate
from manifests.store import Store
from manifests.verdicts import ALL_GATES, POSSIBLE_MINOR
from manifests.workspace import Workspace


@dataclass(frozen=True)
class ReviewFace:
    """A face as it is shown to reviewers."""

    face_id: str
    photo_id: str
    crop_path: str
    """Path in the workspace."""
    crop_size_px: int
    boxes_crop_px: Mapping[str, list[float]]
    """`left_eye`, `right_eye` and `mouth` -> box [x0, y0, x1, y1] in pixels of the crop."""
    photo_title: str
    credit: str
    """Name of the photographer, or ""."""
    is_kept: bool
    """Whether every gate keeps the face."""
    drop_reasons: str
    """Why gates drop the face, or ""."""
    flag: str
    """Why a person should check the face, or ""."""
    last_decision: str
    """For example "drop by anna", or ""."""
    semantic_tags: list[str]
    photographic_tags: list[str]
    scores: Mapping[str, float]
    """Metric -> value."""
    threshold_distance: float
    """Distance to the nearest threshold of a gate, in standard deviations of the measurement."""
    margin: float
    """Distance by which the face passes the threshold that it passes least, in standard deviations.
    Negative if a gate drops the face."""
    snapshot: Snapshot


def faces_to_review(
    workspace: Workspace, near_threshold: int | None = None, sample: int | None = None
) -> list[ReviewFace]:
    """Select and order faces for review.

    Args:
        workspace: The workspace; faces without verdicts of the gates are left out.
        near_threshold: Select this many faces that are nearest to a threshold.
        sample: Select this many faces by a hash of their ids, the same ones each time.

    Returns:
        Flagged faces first, then by ascending margin.
    """
    faces = _read_faces(workspace)
    if near_threshold is not None:
        faces = sorted(faces, key=lambda face: (face.threshold_distance, face.face_id))
        faces = faces[:near_threshold]
    if sample is not None:
        faces = sorted(faces, key=lambda face: hashlib.sha256(face.face_id.encode()).digest())
        faces = faces[:sample]
    return sorted(faces, key=lambda face: (not face.flag, face.margin, face.face_id))


def _read_faces(workspace: Workspace) -> list[ReviewFace]:
    """All faces that have been through the gates."""
    photos = {row["photo_id"]: row for row in Store(workspace, PHOTOS).read().to_pylist()}
    verdicts = Store(workspace, VERDICTS).read_pandas(["id", "gate", "verdict", "reason"])
    overall = verdicts[verdicts["gate"] == ALL_GATES].set_index("id")
    verdict_of = overall["verdict"].to_dict()
    reason_of = overall["reason"].dropna().to_dict()
    flags = verdicts[verdicts["gate"] == POSSIBLE_MINOR].set_index("id")["reason"].to_dict()

    result = evaluate_gates(workspace, workspace.settings.gates)
    distances, margins = threshold_margins(result, workspace.settings.gates)
    face_ids = result.measurements.face_ids.to_pylist()
    row_of = {face_id: row for row, face_id in enumerate(face_ids)}

    tags = current_tags(workspace)
    decisions = describe_decisions(workspace)
    # Not before the newest decision, so that a clock that runs behind cannot make a table outdated.
    exported_at = max(datetime.now(UTC), newest_decision_time(workspace) or EPOCH)
    faces = []
    for face in Store(workspace, FACES).read().to_pylist():
        face_id = face["face_id"]
        if face_id not in verdict_of or not face["crop_path"]:
            continue

        row = row_of[face_id]
        photo = photos.get(face["photo_id"], {})
        face_tags = tags.get(face_id, FaceTags([], []))
        faces.append(
            ReviewFace(
                face_id=face_id,
                photo_id=face["photo_id"],
                crop_path=face["crop_path"],
                crop_size_px=face["crop_size_px"],
                boxes_crop_px={
                    name: face[f"{name}_box_crop_px"] for name in ("left_eye", "right_eye", "mouth")
                },
                photo_title=str(photo.get("description") or face["photo_id"]),
                credit=str(photo.get("photographer_name") or ""),
                is_kept=verdict_of[face_id] == "kept",
                drop_reasons=reason_of.get(face_id, ""),
                flag=flags.get(face_id, ""),
                last_decision=decisions.get(face_id, ""),
                semantic_tags=face_tags.semantic,
                photographic_tags=face_tags.photographic,
                scores=_scores_of_row(result, row),
                threshold_distance=float(distances[row]),
                margin=float(margins[row]),
                snapshot=Snapshot.take(
                    face["crop_sha256"], face_tags.semantic, face_tags.photographic, exported_at
                ),
            )
        )
    return faces


def _scores_of_row(result: GateResult, row: int) -> dict[str, float]:
    """Metric -> value of one face, without unknown values."""
    measurements = result.measurements
    scores = {name: float(measurements.values_of(name)[row]) for name in measurements.metrics}
    return {name: score for name, score in scores.items() if np.isfinite(score)}


def threshold_margins(result: GateResult, gates: Sequence[Gate]) -> tuple[np.ndarray, np.ndarray]:
    """Distances of n faces to the thresholds of gates, in standard deviations of each measurement.

    Args:
        result: Supplies the measurements.
        gates: The gates; those without a threshold are ignored.

    Returns:
        threshold_distance and margin as in `ReviewFace`, each (n,) float64; infinite for a face
        whose measurements have no threshold.
    """
    distances, margins = np.full((2, len(result.measurements)), np.inf)
    for gate in gates:
        values = result.measurements.values_of(gate.metric)
        if gate.threshold is None or not np.isfinite(values).any():
            continue
        excess = (values - gate.threshold) / (float(np.nanstd(values)) or 1.0)
        distances = np.fmin(distances, np.abs(excess))
        margin = {"=": -np.abs(excess), ">": excess, "<": -excess}[gate.op[0]]
        margins = np.fmin(margins, margin)
    return distances, margins


def describe_decisions(workspace: Workspace) -> dict[str, str]:
    """face_id -> the decision in force and its reviewer, for example "drop by anna".

    A decision of `unsure` is given only if neither keep nor drop is in force.
    """
    rows = Store(workspace, DECISIONS).read_pandas(["id", "reviewer", "decision", "decided_at"])
    rows = rows[rows["decision"].notna()].sort_values("decided_at", kind="stable")
    rows = rows.drop_duplicates(["id", "reviewer"], keep="last")
    unsure = rows[rows["decision"] == "unsure"]
    descriptions = {row.id: f"unsure by {row.reviewer}" for row in unsure.itertuples()}
    for face_id, decision in face_decisions(workspace).items():
        descriptions[face_id] = str(decision)
    return descriptions
