"""The faces to review: which, in what order, and what a reviewer should know of each."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from authface_data.gates import Judgement, judge
from authface_data.review.state import State
from manifests.schema import DECISIONS, FACES, PHOTOS, VERDICTS
from manifests.settings import Gate
from manifests.store import Store
from manifests.training_view import used_captions
from manifests.verdicts import ALL_GATES, POSSIBLE_MINOR
from manifests.workspace import Workspace


@dataclass(frozen=True)
class ReviewFace:
    """kept: by the gates; why: reasons of those that drop it; flag: why people should look; state: see state.py.

    near: the distance to the nearest threshold; margin: how far above the one that it is worst at, below 0 where that drops it;
    both in standard deviations.
    """

    id: str
    photo_id: str
    crop_path: str
    boxes_crop_px: Mapping[str, list[float]]
    crop_size_px: int
    photo: str
    credit: str
    kept: bool
    why: str
    flag: str
    decided: str
    semantic_tags: list[str]
    photographic_tags: list[str]
    scores: Mapping[str, float]
    near: float
    margin: float
    state: str


def faces_to_review(
    workspace: Workspace, near_threshold: int | None = None, sample: int | None = None
) -> list[ReviewFace]:
    """All faces, or the N nearest to a threshold, or N drawn by a hash of their ids (the same ones each time).

    Order: flagged ones first, then the worst first, by the margin.
    """
    every = _all(workspace)
    if near_threshold is not None:
        every = sorted(every, key=lambda face: (face.near, face.id))[:near_threshold]
    if sample is not None:
        every = sorted(every, key=lambda face: hashlib.sha256(face.id.encode()).digest())[:sample]
    return sorted(every, key=lambda face: (not face.flag, face.margin, face.id))


def _all(workspace: Workspace) -> list[ReviewFace]:
    faces = Store(workspace, FACES).read().to_pylist()
    photos = {row["photo_id"]: row for row in Store(workspace, PHOTOS).read().to_pylist()}
    verdicts = Store(workspace, VERDICTS).read_pandas(["id", "gate", "verdict", "reason"])
    judged = verdicts[verdicts["gate"] == ALL_GATES].set_index("id")
    flags = verdicts[verdicts["gate"] == POSSIBLE_MINOR].set_index("id")["reason"].to_dict()
    kept, why = judged["verdict"].to_dict(), judged["reason"].dropna().to_dict()
    judgement = judge(workspace, workspace.settings.gates)
    near, margin = margins(judgement, workspace.settings.gates)
    row_of = {face_id: row for row, face_id in enumerate(judgement.measured.face_ids.to_pylist())}
    metrics = {name: judgement.measured.of(name) for name in judgement.measured.metrics}
    tags, decided, now = used_captions(workspace), decisions_in_words(workspace), datetime.now(UTC)
    found = []
    for face in faces:
        face_id, photo = face["face_id"], photos.get(face["photo_id"], {})
        if not face["crop_path"] or face_id not in kept or not workspace.exists(face["crop_path"]):
            continue
        semantic, photographic = tags.get(face_id, ([], []))
        row = row_of[face_id]
        found.append(
            ReviewFace(
                id=face_id,
                photo_id=face["photo_id"],
                crop_path=face["crop_path"],
                boxes_crop_px={
                    name: face[f"{name}_box_crop_px"] for name in ("left_eye", "right_eye", "mouth")
                },
                crop_size_px=face["crop_size_px"],
                photo=str(photo.get("description") or face["photo_id"]),
                credit=str(photo.get("photographer_name") or ""),
                kept=kept[face_id] == "kept",
                why=why.get(face_id, ""),
                flag=flags.get(face_id, ""),
                decided=decided.get(face_id, ""),
                semantic_tags=semantic,
                photographic_tags=photographic,
                scores={
                    name: float(values[row])
                    for name, values in metrics.items()
                    if np.isfinite(values[row])
                },
                near=float(near[row]),
                margin=float(margin[row]),
                state=str(State.of(face["crop_sha256"], semantic, photographic, now)),
            )
        )
    return found


def margins(judgement: Judgement, gates: list[Gate]) -> tuple[np.ndarray, np.ndarray]:
    """near and margin of every face, each (n,); infinite where there is no threshold."""
    nearest, margin = np.full((2, len(judgement.measured)), np.inf)
    for gate in gates:
        values = judgement.measured.of(gate.metric)
        if gate.threshold is not None and np.isfinite(values).any():
            above = (values - gate.threshold) / (float(np.nanstd(values)) or 1.0)
            nearest = np.fmin(nearest, np.abs(above))
            inside = {"=": -np.abs(above), ">": above, "<": -above}[gate.op[0]]
            margin = np.fmin(margin, inside)
    return nearest, margin


def decisions_in_words(workspace: Workspace) -> dict[str, str]:
    """face_id -> what was decided last, and by whom."""
    frame = Store(workspace, DECISIONS).read_pandas(["id", "reviewer", "decision", "decided_at"])
    frame = frame.dropna(subset=["decision"]).sort_values("decided_at", kind="stable")
    frame = frame.drop_duplicates(["id", "reviewer"], keep="last")
    frame = frame.assign(decides=frame["decision"] != "unsure").sort_values(
        "decides", kind="stable"
    )
    frame = frame.drop_duplicates("id", keep="last")
    return {row.id: f"{row.decision} by {row.reviewer}" for row in frame.itertuples()}
