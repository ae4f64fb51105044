"""How far gates and people agree, and people among each other: which thresholds to trust, and what they should be."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow.compute as pc

from authface_data.gates import ALL_GATES
from authface_data.measurements import measurements
from manifests.schema import DECISIONS, VERDICTS
from manifests.settings import Gate
from manifests.store import Store
from manifests.workspace import Workspace


@dataclass(frozen=True)
class GateAgreement:
    """Of the faces that people decided on: how many the gate drops, and how many of those people dropped too.

    precision: of what the gate drops, the share that people dropped; recall: of what people dropped, the share that the gate
    drops; None where there is nothing to divide by. best: the threshold that agrees with people most often; best_agreement: how
    often it does, agreement: how often the present one does.
    """

    gate: str
    metric: str
    op: str
    threshold: float | None
    faces: int
    dropped: int
    both: int
    precision: float | None
    recall: float | None
    agreement: float
    best: float | None
    best_agreement: float | None


@dataclass(frozen=True)
class ReviewerAgreement:
    """Two people on the faces that both decided on: how often they agree, and Cohen's kappa, None where it is not defined."""

    one: str
    other: str
    faces: int
    agreement: float
    kappa: float | None


@dataclass(frozen=True)
class Agreement:
    """decided: faces on which someone said keep or drop; disputed: those on which people differ, left out of gates' figures."""

    decided: int
    disputed: list[str]
    gates: list[GateAgreement]
    reviewers: list[ReviewerAgreement]


def agreement(workspace: Workspace) -> Agreement:
    """Compare the last keep or drop of every reviewer with the verdicts, and with each other's."""
    frame = Store(workspace, DECISIONS).read_pandas(["id", "reviewer", "decision", "decided_at"])
    frame = frame.dropna(subset=["decision"]).sort_values("decided_at", kind="stable")
    frame = frame.drop_duplicates(["id", "reviewer"], keep="last")
    frame = frame[frame["decision"] != "unsure"]
    measured = measurements(workspace)
    said = frame.pivot(index="id", columns="reviewer", values="decision")
    said = said.reindex([one for one in measured.face_ids.to_pylist() if one in said.index])
    drops = (said == "drop").sum(axis=1)
    disputed = said.index[(drops > 0) & ((said == "keep").sum(axis=1) > 0)].tolist()
    agreed = said.drop(index=disputed)
    dropped = (agreed == "drop").any(axis=1)
    gates = [_all_gates(workspace, dropped)] if len(dropped) else []
    rows = (
        pd.Series(np.arange(len(measured)), index=measured.face_ids.to_pylist())
        .reindex(dropped.index)
        .to_numpy(int)
    )
    for gate in workspace.settings.gates:
        if gate.threshold is not None and len(dropped):
            values = measured.of(gate.metric)[rows]
            known = np.isfinite(values)
            if known.any():
                gates.append(_of_gate(gate, values[known], dropped.to_numpy(bool)[known]))
    pairs = [
        _of_reviewers(said, one, other) for one, other in itertools.combinations(said.columns, 2)
    ]
    return Agreement(len(said), disputed, gates, [pair for pair in pairs if pair.faces])


def _all_gates(workspace: Workspace, dropped: pd.Series) -> GateAgreement:
    table = Store(workspace, VERDICTS).read(["id", "gate", "verdict"])
    table = table.filter(pc.equal(table["gate"], ALL_GATES))
    verdict = dict(zip(table["id"].to_pylist(), table["verdict"].to_pylist(), strict=True))
    falls = np.array([verdict.get(one) != "kept" for one in dropped.index])
    return _figures(("all gates", "", "", None), falls, dropped.to_numpy(bool), None, None)


def _of_gate(gate: Gate, values: np.ndarray, dropped: np.ndarray) -> GateAgreement:
    best, agrees = best_threshold(values, dropped, gate.op)
    falls = ~passes(values, gate.op, float(gate.threshold or 0))
    return _figures((gate.name, gate.metric, gate.op, gate.threshold), falls, dropped, best, agrees)


def _figures(
    named: tuple[str, str, str, float | None],
    falls: np.ndarray,
    dropped: np.ndarray,
    best: float | None,
    best_agreement: float | None,
) -> GateAgreement:
    both = int((falls & dropped).sum())
    return GateAgreement(
        *named,
        faces=len(dropped),
        dropped=int(falls.sum()),
        both=both,
        precision=both / int(falls.sum()) if falls.any() else None,
        recall=both / int(dropped.sum()) if dropped.any() else None,
        agreement=float((falls == dropped).mean()),
        best=best,
        best_agreement=best_agreement,
    )


def passes(values: np.ndarray, op: str, threshold: float) -> np.ndarray:
    """(n,) bool: whether the values are kept."""
    compare = {
        ">=": np.greater_equal,
        ">": np.greater,
        "<=": np.less_equal,
        "<": np.less,
        "==": np.equal,
    }
    return compare[op](values, threshold)


def best_threshold(
    values: np.ndarray, dropped: np.ndarray, op: str
) -> tuple[float | None, float | None]:
    """The threshold between two measured values that agrees with people most often, and how often; the laxest of equals.

    (None, None) for a comparison by `==`, or where people dropped all or nothing: no threshold can be learnt from that.
    """
    if op == "==" or dropped.all() or not dropped.any():
        return None, None
    ordered = np.unique(values)
    between = [
        *((ordered[:-1] + ordered[1:]) / 2),
        ordered[0] - 1e-9 * (1 + abs(ordered[0])),
        ordered[-1] + 1e-9 * (1 + abs(ordered[-1])),
    ]
    laxest_first = sorted(between, reverse=op in ("<=", "<"))
    agrees = [
        float((passes(values, op, threshold) != dropped).mean()) for threshold in laxest_first
    ]
    at = int(np.argmax(agrees))
    return float(laxest_first[at]), agrees[at]


def _of_reviewers(said: pd.DataFrame, one: str, other: str) -> ReviewerAgreement:
    both = said[[one, other]].dropna()
    a, b = (both[name].to_numpy() == "drop" for name in (one, other))
    return ReviewerAgreement(
        one, other, len(both), float((a == b).mean()) if len(both) else 0.0, kappa(a, b)
    )


def kappa(a: np.ndarray, b: np.ndarray) -> float | None:
    """Cohen's kappa of two bool arrays (n,): agreement beyond what chance would give; None where chance already gives all."""
    if not len(a):
        return None
    observed = float((a == b).mean())
    by_chance = float(a.mean() * b.mean() + (1 - a.mean()) * (1 - b.mean()))
    return None if by_chance == 1 else (observed - by_chance) / (1 - by_chance)
