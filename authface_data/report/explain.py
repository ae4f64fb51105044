"""Everything that a workspace knows about a face, or about a photograph and its faces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.types as pt

from authface_data.gates import passes_threshold
from authface_data.report.reasons import WORDINGS, wording_of
from manifests.captions import TAG_FAMILIES, tag_edits
from manifests.decisions import DecisionSource, FaceDecision, face_decisions, source_of
from manifests.run_folder import list_runs
from manifests.run_register import find_trained_runs
from manifests.schema import CAPTIONS, DECISIONS, FACES, PHOTOS, SCORES, VERDICTS, Manifest
from manifests.settings import Gate
from manifests.store import Store
from manifests.support.errors import UserError
from manifests.tombstones import Tombstones
from manifests.verdicts import ALL_GATES
from manifests.workspace import Workspace

Row = dict[str, Any]
"""A row of a manifest."""

FLAGS = frozenset(name for name, kind in FACES.columns if pt.is_boolean(kind))
"""Columns of `faces` that are true or false."""


@dataclass(frozen=True)
class FaceExplanation:
    """What the manifests hold about one face. The fields are keys of the JSON output.

    Attributes:
        face: Row of `faces`.
        scores: Rows of `scores`.
        verdicts: Rows of `verdicts` about the face.
        captions: Rows of `captions`.
        decisions: Rows of `decisions` about the face itself, oldest first.
        decision: The decision in force and where it comes from, or None.
        edited_tags: Family of tags -> where the edit in force comes from.
        kept: Whether the face is kept, or None if it has not been gated.
    """

    face: Row
    scores: list[Row]
    verdicts: list[Row]
    captions: list[Row]
    decisions: list[Row]
    decision: FaceDecision | None
    edited_tags: dict[str, DecisionSource]
    kept: bool | None


@dataclass(frozen=True)
class Explanation:
    """What a workspace holds about a photograph. The fields are keys of the JSON output.

    Attributes:
        photo: Row of `photos`, or None if the photograph was never collected.
        verdicts: Rows of `verdicts` about the photograph.
        faces: Its faces, or only the requested face.
        runs: Names of the training runs that have learned from the photograph; the folder of a run
            outside the workspace.
        unreadable_runs: Folders of runs that have moved or are gone, which may have learned from
            the photograph.
    """

    photo: Row | None
    verdicts: list[Row]
    faces: list[FaceExplanation]
    runs: list[str]
    unreadable_runs: list[str]


def explain(workspace: Workspace, face_or_photo_id: str) -> Explanation:
    """Collect everything about a face or a photograph.

    Args:
        workspace: The workspace to read.
        face_or_photo_id: A face_id or a photo_id.

    Raises:
        UserError: If the id is unknown.
    """
    faces = _read_rows(workspace, FACES, "face_id", [face_or_photo_id])
    if not faces:
        faces = _read_rows(workspace, FACES, "photo_id", [face_or_photo_id])
    photo_id = faces[0]["photo_id"] if faces else face_or_photo_id
    photos = _read_rows(workspace, PHOTOS, "photo_id", [photo_id])
    face_ids = [face["face_id"] for face in faces]
    verdicts = _read_rows(workspace, VERDICTS, "id", [photo_id, *face_ids])
    if not (faces or photos or verdicts):
        raise UserError(_describe_unknown(workspace, face_or_photo_id))

    runs = [run.name for run in list_runs(workspace) if photo_id in run.lineage_photo_ids()]
    registered = find_trained_runs(workspace, [photo_id])
    return Explanation(
        photo=photos[0] if photos else None,
        verdicts=[row for row in verdicts if row["id"] == photo_id],
        faces=_explain_faces(workspace, faces, verdicts),
        runs=runs + registered.outside,
        unreadable_runs=registered.unreadable,
    )


def _explain_faces(
    workspace: Workspace, faces: list[Row], verdicts: list[Row]
) -> list[FaceExplanation]:
    face_ids = [face["face_id"] for face in faces]
    scores = _read_rows(workspace, SCORES, "face_id", face_ids)
    captions = _read_rows(workspace, CAPTIONS, "face_id", face_ids)
    decisions = _read_rows(workspace, DECISIONS, "id", face_ids)
    decisions.sort(key=lambda row: row["decided_at"])
    decisions_in_force = face_decisions(workspace)
    edits = tag_edits(workspace)

    explanations = []
    for face in faces:
        face_id = face["face_id"]
        face_verdicts = [row for row in verdicts if row["id"] == face_id]
        explanations.append(
            FaceExplanation(
                face=face,
                scores=[row for row in scores if row["face_id"] == face_id],
                verdicts=face_verdicts,
                captions=[row for row in captions if row["face_id"] == face_id],
                decisions=[row for row in decisions if row["id"] == face_id],
                decision=decisions_in_force.get(face_id),
                edited_tags={
                    family: source_of(edits[family].loc[face_id])
                    for family in TAG_FAMILIES
                    if face_id in edits[family].index
                },
                kept=_is_kept(face_verdicts, decisions_in_force.get(face_id)),
            )
        )
    return explanations


@dataclass(frozen=True)
class ShownMeasurement:
    """A measurement of a face in words.

    Attributes:
        noun: What was measured.
        value: Its value, rounded and with its unit.
        needed: What the gate needs, such as ">= 224 px", or "" without a gate.
        gate: Name of the gate, or "".
        verdict: The gate's verdict, or None without one.
    """

    noun: str
    value: str
    needed: str
    gate: str
    verdict: str | None


def list_measurements(
    explanation: FaceExplanation, gates: Sequence[Gate]
) -> list[ShownMeasurement]:
    """Describe the measurements of a face.

    Args:
        explanation: The face.
        gates: The gates of authface.toml.

    Returns:
        The measurements that gates dropped the face for, those that it passes, and the others.
    """
    verdicts = {row["gate"]: row for row in explanation.verdicts}
    gated = []
    for gate in gates:
        row = verdicts.get(gate.name)
        if row is None or row["value"] is None:
            continue
        value = format_measurement(gate.metric, row["value"])
        noun = wording_of(gate.metric).noun
        gated.append(ShownMeasurement(noun, value, _format_needed(gate), gate.name, row["verdict"]))
    gated.sort(key=lambda row: row.verdict == "kept")

    gated_metrics = {gate.metric for gate in gates}
    scores = {row["metric"]: row["value"] for row in explanation.scores}
    others = [
        ShownMeasurement(wording_of(metric).noun, format_measurement(metric, value), "", "", None)
        for metric, value in sorted(scores.items())
        if value is not None and metric not in gated_metrics
    ]
    return gated + others


def format_measurement(metric: str, value: float) -> str:
    """A rounded value with its unit, such as "174 px"; yes or no for a flag.

    Args:
        metric: The measurement.
        value: Its value in the unit that is stored.
    """
    if metric in FLAGS:
        return "yes" if value else "no"
    if metric not in WORDINGS:
        return f"{value:.3g}"
    wording = WORDINGS[metric]
    # Adding zero turns -0.0 into 0.0.
    return f"{round(value * wording.scale, wording.digits) + 0.0:.{wording.digits}f}{wording.unit}"


def _format_needed(gate: Gate) -> str:
    if gate.best is not None:
        return f"among the best {gate.best}"
    threshold = float(gate.threshold or 0)
    if gate.metric in FLAGS:
        return "yes" if passes_threshold(np.ones(1), gate.op, threshold)[0] else "no"
    wording = wording_of(gate.metric)
    return f"{gate.op} {threshold * wording.scale:g}{wording.unit}"


def _is_kept(verdicts: list[Row], decision: FaceDecision | None) -> bool | None:
    """The decision of a person, else the verdict of all gates, else None."""
    if decision is not None and decision.overrules_gates:
        return decision.decision == "keep"
    for row in verdicts:
        if row["gate"] == ALL_GATES:
            return row["verdict"] == "kept"
    return None


def _read_rows(workspace: Workspace, manifest: Manifest, column: str, ids: list[str]) -> list[Row]:
    """Rows of a manifest whose column is one of the ids."""
    if not ids:
        return []
    table = Store(workspace, manifest).read()
    return table.filter(pc.is_in(table[column], pc.cast(ids, table[column].type))).to_pylist()


def _describe_unknown(workspace: Workspace, unknown_id: str) -> str:
    tombstones = Tombstones(workspace)
    # A face_id is the photo_id, an underscore and a number.
    photo_id = unknown_id.rpartition("_")[0]
    if tombstones.contains(unknown_id) or tombstones.contains(photo_id):
        return f"{unknown_id} was forgotten here; no data about it is left"
    face_ids = Store(workspace, FACES).read(["face_id"])["face_id"].to_pylist()
    for face_id in face_ids:
        if face_id.startswith(unknown_id):
            return f"no photograph or face {unknown_id!r}; did you mean {face_id}?"
    return (
        f"no photograph or face {unknown_id!r}; see the ids in the manifests `photos` and `faces`"
    )
