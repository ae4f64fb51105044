"""What-if: which faces another threshold would keep or drop, and what each gate costs.

Nothing is stored; for another threshold a contact sheet is written.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from authface_data.face_duplicates import choose_radius
from authface_data.gates import (
    DUPLICATE_FACES,
    DUPLICATES,
    EXCLUSION,
    GateResult,
    GateVerdicts,
    check_gates,
    check_measured,
    evaluate_gates,
)
from authface_data.images.encode import encode_image
from authface_data.report.contact_sheet import Section, draw_contact_sheet
from manifests.names import check_measurement
from manifests.schema import FACES
from manifests.settings import Gate
from manifests.store import Store
from manifests.support.errors import UserError
from manifests.verdicts import ALL_GATES, POSSIBLE_MINOR
from manifests.workspace import Workspace

CONDITION = re.compile(
    r"\s*([\w.-]+?)\s*(>=|<=|==|>|<)\s*([-+]?[\d.]+(?:e[-+]?\d+)?)\s*", re.IGNORECASE
)
"""A measurement, a comparison and a number."""
PICTURE = "reports/what-if.jpg"
MAX_SHOWN = 16
"""Largest number of faces in a section of the contact sheet."""


@dataclass(frozen=True)
class Change:
    """How the set would change. Printed as JSON, so field names are part of the interface."""

    asked: str
    """The condition that was tried, for example "musiq >= 65"."""
    replaced: list[str]
    """Names of the gates whose threshold was replaced; empty if a gate was added."""
    kept_now: int
    """Number of faces in the set."""
    kept_then: int
    """Number of faces in the set with the condition."""
    gained: list[str]
    """face_ids that would be kept again, nearest to the threshold first."""
    lost: list[str]
    """face_ids that would be dropped, nearest to the threshold first."""
    picture: str | None
    """Path of the contact sheet in the workspace; None if nothing would change."""


def what_if(workspace: Workspace, condition: str, metrics: Sequence[str]) -> Change:
    """Compare the set with what it would be under another gate.

    The condition replaces the threshold of gates on the same measurement with a comparison in the
    same direction. If there is no such gate, it is added as a new gate.

    Args:
        workspace: The workspace.
        condition: A measurement, a comparison and a number, as in "musiq >= 65".
        metrics: The metrics that the workspace has scores of.

    Returns:
        The change. Its contact sheet has been written to the workspace.

    Raises:
        UserError: If the condition cannot be parsed or names an unknown measurement.
    """
    gates = workspace.settings.gates
    tried = parse_condition(condition)
    replaced = [
        gate
        for gate in gates
        if gate.metric == tried.metric and gate.op[0] == tried.op[0] and gate.best is None
    ]
    if replaced:
        update = {"op": tried.op, "threshold": tried.threshold}
        new_gates = [gate.model_copy(update=update) if gate in replaced else gate for gate in gates]
    else:
        new_gates = [*gates, tried]
    check_measured("--what-if", tried.metric, metrics)
    check_gates(new_gates, metrics)

    before = evaluate_gates(workspace, gates)
    after = evaluate_gates(workspace, new_gates)
    gained = _nearest_to_threshold(after, tried, after.in_set & ~before.in_set)
    lost = _nearest_to_threshold(after, tried, before.in_set & ~after.in_set)
    picture = None
    if gained or lost:
        picture = _write_contact_sheet(workspace, after, tried, gained, lost)

    return Change(
        asked=_format(tried),
        replaced=[gate.name for gate in replaced],
        kept_now=int(before.in_set.sum()),
        kept_then=int(after.in_set.sum()),
        gained=gained,
        lost=lost,
        picture=picture,
    )


@dataclass(frozen=True)
class GateCost:
    """What one gate costs. Printed as JSON, so field names are part of the interface."""

    gate: str
    rule: str
    """What a face needs, for example "qsize_px >= 224"."""
    dropped: int
    """Number of faces that the gate drops."""
    only: int
    """Number of faces that only this gate drops: without it, they would be kept."""


@dataclass(frozen=True)
class GateCosts:
    """What all gates cost. Printed as JSON, so field names are part of the interface."""

    faces: int
    kept: int
    """Number of faces in the set."""
    decided: int
    """Number of faces that a person decided. No gate counts them."""
    gates: list[GateCost]
    """In the order in which the gates run."""


def gate_costs(workspace: Workspace) -> GateCosts:
    """Count what every gate drops, in all and alone.

    Args:
        workspace: The workspace.

    Returns:
        The counts of the gates of authface.toml and of duplicates and exclusions.

    Raises:
        UserError: If a gate has an unusable name.
    """
    settings = workspace.settings
    result = evaluate_gates(workspace, settings.gates)
    face_radius = choose_radius(settings.filter.duplicate_face_radius, len(result.kept))
    rules = {gate.name: _format_rule(gate) for gate in settings.gates} | {
        EXCLUSION: "not on the list of --exclude-hashes",
        DUPLICATES: f"no better copy of the photograph within {settings.filter.duplicate_radius} "
        "bits",
        DUPLICATE_FACES: f"no better copy of the face within {face_radius} bits",
    }
    undecided = result.decisions == 0
    by_gate = {
        verdicts.gate: _dropped_faces(result, verdicts) & undecided
        for verdicts in result.verdicts
        if verdicts.subject == "face" and verdicts.gate not in (ALL_GATES, POSSIBLE_MINOR)
    }
    num_gates = np.zeros(len(result.kept), np.uint16)
    for dropped in by_gate.values():
        num_gates += dropped
    return GateCosts(
        faces=len(result.kept),
        kept=int(result.in_set.sum()),
        decided=int((~undecided).sum()),
        gates=[
            GateCost(
                gate=name,
                rule=rules[name],
                dropped=int(dropped.sum()),
                only=int((dropped & (num_gates == 1)).sum()),
            )
            for name, dropped in by_gate.items()
        ],
    )


def _dropped_faces(result: GateResult, verdicts: GateVerdicts) -> np.ndarray:
    """(n,) bool: the faces that a gate does not keep."""
    dropped = np.zeros(len(result.kept), bool)
    if len(verdicts.ids) == len(dropped):
        dropped[:] = verdicts.is_dropped
        return dropped
    ids = verdicts.ids.filter(pa.array(verdicts.is_dropped))
    dropped[pc.index_in(ids, result.measurements.face_ids).to_numpy(zero_copy_only=False)] = True
    return dropped


def _format_rule(gate: Gate) -> str:
    if gate.best is not None:
        return f"the best {gate.best} by {gate.metric}"
    return _format(gate)


def parse_condition(text: str) -> Gate:
    """Parse a condition such as "musiq >= 65" into a gate.

    Raises:
        UserError: If the text is not a measurement, a comparison and a number, or if there is no
            such measurement.
    """
    match = CONDITION.fullmatch(text)
    if match is not None:
        try:
            check_measurement(match[1])
        except ValueError as error:
            raise UserError(f"--what-if: {error}") from error
    try:
        if match is None:
            raise ValueError
        return Gate.model_validate(
            {"name": "--what-if", "metric": match[1], "op": match[2], "threshold": float(match[3])}
        )
    except ValueError as error:
        raise UserError(
            f"cannot parse --what-if {text!r}; use a measurement, a comparison and a number, "
            'as in "musiq>=65"'
        ) from error


def _format(gate: Gate) -> str:
    return f"{gate.metric} {gate.op} {gate.threshold:g}"


def _nearest_to_threshold(result: GateResult, gate: Gate, selected: np.ndarray) -> list[str]:
    """face_ids of the selected faces, (n,) bool, nearest to the gate's threshold first."""
    rows = np.flatnonzero(selected)
    values = result.measurements.values_of(gate.metric)[rows]
    distances = np.nan_to_num(np.abs(values - float(gate.threshold or 0)), nan=np.inf)
    order = rows[np.argsort(distances, kind="stable")]
    return result.measurements.face_ids.take(pa.array(order)).to_pylist()


def _write_contact_sheet(
    workspace: Workspace, result: GateResult, gate: Gate, gained: list[str], lost: list[str]
) -> str:
    """Write the contact sheet of the faces that change. Returns its path in the workspace."""
    faces = Store(workspace, FACES).read(["face_id", "crop_path"])
    crop_paths = dict(
        zip(faces["face_id"].to_pylist(), faces["crop_path"].to_pylist(), strict=True)
    )
    face_ids = result.measurements.face_ids.to_pylist()
    values = dict(zip(face_ids, result.measurements.values_of(gate.metric), strict=True))

    def section(title: str, face_ids: list[str]) -> Section:
        captions = {face_id: f"{gate.metric} {values[face_id]:.4g}" for face_id in face_ids}
        return _section(workspace, title, captions, crop_paths)

    sheet = draw_contact_sheet(
        workspace,
        [
            section(f"{_format(gate)} would drop", lost),
            section(f"{_format(gate)} would keep again", gained),
        ],
    )
    workspace.write_bytes(PICTURE, encode_image(sheet, quality=90))
    return PICTURE


def _section(
    workspace: Workspace, title: str, captions: Mapping[str, str], crop_paths: Mapping[str, str]
) -> Section:
    """A section with the first `MAX_SHOWN` faces whose crop exists; captions: face_id -> text."""
    shown = [
        (crop_paths[face_id], caption)
        for face_id, caption in list(captions.items())[:MAX_SHOWN]
        if workspace.exists(crop_paths[face_id])
    ]
    note = ""
    if len(captions) > MAX_SHOWN:
        note = f" (showing the {MAX_SHOWN} nearest to the threshold)"
    return Section(f"{title}: {len(captions)}{note}", shown)
