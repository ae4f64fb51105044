"""Agreement of gates with people, and of people with each other; the thresholds that fit best."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow.compute as pc

from authface_data.gates import check_gate_names, passes_threshold
from authface_data.measurements import Measurements, read_measurements
from manifests.schema import DECISIONS, VERDICTS
from manifests.settings import Gate
from manifests.store import Store
from manifests.verdicts import ALL_GATES
from manifests.workspace import Workspace


@dataclass(frozen=True)
class GateAgreement:
    """A gate compared with people. Printed as JSON, so field names are part of the interface."""

    gate: str
    metric: str
    op: str
    threshold: float | None
    """metric, op and threshold are "", "" and None for all gates together."""
    faces: int
    """Faces that people decided on without contradiction and that have the measurement."""
    dropped: int
    """Faces that the gate drops."""
    both: int
    """Faces that the gate and people drop."""
    precision: float | None
    """both / dropped, in [0, 1]; None if the gate drops nothing."""
    recall: float | None
    """Share of the faces that people drop which the gate drops too; None if people drop nothing."""
    agreement: float
    """Share of faces on which the gate and people agree, in [0, 1]."""
    best: float | None
    """Threshold that agrees with people most often; None if it cannot be determined."""
    best_agreement: float | None
    """Share of faces on which the best threshold and people agree."""


@dataclass(frozen=True)
class ReviewerAgreement:
    """Two reviewers compared. Printed as JSON, so field names are part of the interface."""

    one: str
    other: str
    faces: int
    """Faces that both decided on."""
    agreement: float
    """Share of these faces on which both agree, in [0, 1]."""
    kappa: float | None
    """Cohen's kappa; None if it is undefined."""


@dataclass(frozen=True)
class Agreement:
    """All comparisons. Printed as JSON, so field names are part of the interface."""

    decided: int
    """Faces with a decision of keep or drop."""
    disputed: list[str]
    """face_ids on which reviewers contradict each other; left out of the gates' figures."""
    gates: list[GateAgreement]
    reviewers: list[ReviewerAgreement]


def measure_agreement(workspace: Workspace) -> Agreement:
    """Compare the last decision of every reviewer with the verdicts and with other reviewers."""
    measurements = read_measurements(workspace)
    check_gate_names(workspace.settings.gates)
    face_ids = measurements.face_ids.to_pylist()
    decisions = _decisions_by_reviewer(workspace, face_ids)
    keeps = (decisions == "keep").sum(axis=1)
    drops = (decisions == "drop").sum(axis=1)
    disputed = decisions.index[(drops > 0) & (keeps > 0)].tolist()
    undisputed = decisions.drop(index=disputed)
    dropped = (undisputed == "drop").any(axis=1)

    gates: list[GateAgreement] = []
    if len(dropped):
        gates.append(_compare_all_gates(workspace, dropped))
        gates += _compare_gates(workspace.settings.gates, measurements, dropped)
    pairs = [
        _compare_reviewers(decisions, one, other)
        for one, other in itertools.combinations(decisions.columns, 2)
    ]
    return Agreement(
        decided=len(decisions),
        disputed=disputed,
        gates=gates,
        reviewers=[pair for pair in pairs if pair.faces],
    )


def _decisions_by_reviewer(workspace: Workspace, face_ids: Sequence[str]) -> pd.DataFrame:
    """Last decision, "keep" or "drop", per face (rows) and reviewer (columns)."""
    decisions = Store(workspace, DECISIONS).read_pandas(
        ["id", "reviewer", "decision", "decided_at"]
    )
    decisions = decisions.dropna(subset=["decision"]).sort_values("decided_at", kind="stable")
    decisions = decisions.drop_duplicates(["id", "reviewer"], keep="last")
    decisions = decisions[decisions["decision"] != "unsure"]
    table = decisions.pivot(index="id", columns="reviewer", values="decision")
    return table.reindex([face_id for face_id in face_ids if face_id in table.index])


def _compare_all_gates(workspace: Workspace, dropped: pd.Series) -> GateAgreement:
    """Compare the stored verdicts of all gates together; dropped: by face_id, bool."""
    verdicts = Store(workspace, VERDICTS).read(["id", "gate", "verdict"])
    verdicts = verdicts.filter(pc.equal(verdicts["gate"], ALL_GATES))
    ids = verdicts["id"].to_pylist()
    verdict_of = dict(zip(ids, verdicts["verdict"].to_pylist(), strict=True))
    gate_drops = np.array([verdict_of.get(face_id) != "kept" for face_id in dropped.index])
    # The gate's name has a space, so that it cannot be mistaken for a gate of authface.toml.
    return _agreement_of(
        ("all gates", "", "", None), gate_drops, dropped.to_numpy(bool), (None, None)
    )


def _compare_gates(
    gates: Sequence[Gate], measurements: Measurements, dropped: pd.Series
) -> list[GateAgreement]:
    """Compare every gate with a threshold; dropped: by face_id, bool."""
    row_of = pd.Series(np.arange(len(measurements)), index=measurements.face_ids.to_pylist())
    rows = row_of.reindex(dropped.index).to_numpy(int)
    agreements = []
    for gate in gates:
        if gate.threshold is None:
            continue
        values = measurements.values_of(gate.metric)[rows]
        known = np.isfinite(values)
        if not known.any():
            continue
        people_drop = dropped.to_numpy(bool)[known]
        gate_drops = ~passes_threshold(values[known], gate.op, float(gate.threshold))
        best = best_threshold(values[known], people_drop, gate.op)
        label = (gate.name, gate.metric, gate.op, gate.threshold)
        agreements.append(_agreement_of(label, gate_drops, people_drop, best))
    return agreements


def _agreement_of(
    label: tuple[str, str, str, float | None],
    gate_drops: np.ndarray,
    people_drop: np.ndarray,
    best: tuple[float | None, float | None],
) -> GateAgreement:
    """Figures of a gate.

    Args:
        label: The gate's name, metric, op and threshold.
        gate_drops: (n,) bool.
        people_drop: (n,) bool.
        best: As returned by `best_threshold`.
    """
    both = int((gate_drops & people_drop).sum())
    gate, metric, op, threshold = label
    return GateAgreement(
        gate=gate,
        metric=metric,
        op=op,
        threshold=threshold,
        faces=len(people_drop),
        dropped=int(gate_drops.sum()),
        both=both,
        precision=both / int(gate_drops.sum()) if gate_drops.any() else None,
        recall=both / int(people_drop.sum()) if people_drop.any() else None,
        agreement=float((gate_drops == people_drop).mean()),
        best=best[0],
        best_agreement=best[1],
    )


def best_threshold(
    values: np.ndarray, dropped: np.ndarray, op: str
) -> tuple[float | None, float | None]:
    """Find the threshold that agrees with people most often.

    Thresholds between neighbouring values and outside all values are tried. Of equally good ones
    the one that keeps most faces is chosen.

    Args:
        values: (n,) float, all finite.
        dropped: (n,) bool, whether people drop the face.
        op: The comparison of the gate.

    Returns:
        The threshold and the share of faces on which it agrees with people. (None, None) for `==`,
        or if people drop all faces or none.
    """
    if op == "==" or dropped.all() or not dropped.any():
        return None, None
    ordered = np.unique(values)
    below_all = ordered[0] - 1e-9 * (1 + abs(ordered[0]))
    above_all = ordered[-1] + 1e-9 * (1 + abs(ordered[-1]))
    candidates = [*((ordered[:-1] + ordered[1:]) / 2), below_all, above_all]
    candidates = sorted(candidates, reverse=op in ("<=", "<"))  # the one that keeps most first
    agreements = [
        float((passes_threshold(values, op, threshold) != dropped).mean())
        for threshold in candidates
    ]
    best = int(np.argmax(agreements))
    return float(candidates[best]), agreements[best]


def _compare_reviewers(decisions: pd.DataFrame, one: str, other: str) -> ReviewerAgreement:
    shared = decisions[[one, other]].dropna()
    one_drops = shared[one].to_numpy() == "drop"
    other_drops = shared[other].to_numpy() == "drop"
    agreement = float((one_drops == other_drops).mean()) if len(shared) else 0.0
    return ReviewerAgreement(
        one=one,
        other=other,
        faces=len(shared),
        agreement=agreement,
        kappa=cohens_kappa(one_drops, other_drops),
    )


def cohens_kappa(a: np.ndarray, b: np.ndarray) -> float | None:
    """Cohen's kappa: agreement of two raters beyond what chance would give.

    kappa = (p_o - p_e) / (1 - p_e), with the observed agreement p_o and the agreement p_e expected
    by chance (Cohen 1960, "A coefficient of agreement for nominal scales").

    Args:
        a: (n,) bool, the ratings of one rater.
        b: (n,) bool, the ratings of the other.

    Returns:
        A value in [-1, 1], or None if the arrays are empty or chance alone gives full
        agreement.
    """
    if not len(a):
        return None
    observed = float((a == b).mean())
    by_chance = float(a.mean() * b.mean() + (1 - a.mean()) * (1 - b.mean()))
    return None if by_chance == 1 else (observed - by_chance) / (1 - by_chance)
