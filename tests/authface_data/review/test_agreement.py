"""Agreement of gates with people and of people with each other, with values computed by hand."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from authface_data import gates
from authface_data.review.agreement import best_threshold, cohens_kappa, measure_agreement
from manifests.schema import DECISIONS, FACES
from manifests.settings import Gate
from manifests.store import Store


@pytest.fixture
def decided(workspace):
    """Faces of sizes 1 to 8 and a gate that keeps sizes from 4.

    anna drops 1 to 5 and keeps the rest. ben drops 1, 2 and 6, keeps 7 and is unsure about 8.
    Only 6 is disputed.
    """
    workspace.settings.gates[:] = [Gate(name="size", metric="qsize_px", op=">=", threshold=4)]
    Store(workspace, FACES).append(
        [
            {
                "face_id": f"f{number}",
                "photo_id": f"p{number}",
                "qsize_px": float(number),
                "fingerprint": "f",
            }
            for number in range(1, 9)
        ]
    )
    start = datetime(2026, 1, 1, tzinfo=UTC)
    rows = []

    def add_decision(reviewer, number, decision):
        decided_at = start + timedelta(seconds=len(rows))
        rows.append(
            {
                "id": f"f{number}",
                "reviewer": reviewer,
                "decision": decision,
                "decided_at": decided_at,
                "fingerprint": "",
            }
        )

    add_decision("anna", 1, "keep")  # replaced by the next decision
    for number in range(1, 9):
        add_decision("anna", number, "drop" if number <= 5 else "keep")
    for number, decision in ((1, "drop"), (2, "drop"), (6, "drop"), (7, "keep"), (8, "unsure")):
        add_decision("ben", number, decision)
    Store(workspace, DECISIONS).append(rows)
    gates.apply_gates(workspace, workspace.settings.gates)
    return workspace


def test_precision_recall_and_best_threshold(decided):
    result = measure_agreement(decided)
    assert (result.decided, result.disputed) == (8, ["f6"])
    all_gates, size = result.gates
    # Of the undisputed faces, people drop 1 to 5 and keep 7 and 8; the gate drops 1 to 3.
    for gate in (all_gates, size):
        assert (gate.faces, gate.dropped, gate.both) == (7, 3, 3)
        assert (gate.precision, gate.recall) == (1.0, 3 / 5)
        assert gate.agreement == pytest.approx(5 / 7)
    assert (size.best, size.best_agreement) == (6.0, 1.0)


def test_kappa_of_two_reviewers(decided):
    (pair,) = measure_agreement(decided).reviewers
    # Both decided on 1, 2, 6 and 7 and agree on 1, 2 and 7.
    # Agreement expected by chance: .5 * .75 + .5 * .25 = .5.
    assert (pair.one, pair.other, pair.faces, pair.agreement) == ("anna", "ben", 4, 0.75)
    assert pair.kappa == pytest.approx(0.5)


def test_kappa_of_a_known_table():
    """20 dropped by both, 5 by the first only, 10 by the second only, 15 by neither: kappa 0.4."""
    a = np.array([True] * 25 + [False] * 25)
    b = np.array([True] * 20 + [False] * 5 + [True] * 10 + [False] * 15)
    assert cohens_kappa(a, b) == pytest.approx(0.4)
    assert cohens_kappa(a[:10], b[:10]) is None


@pytest.mark.parametrize(
    ("op", "dropped", "best"),
    [
        (">=", [1, 1, 0, 0], 25.0),
        ("<=", [0, 0, 1, 1], 25.0),
        (">", [1, 0, 0, 0], 15.0),
        ("==", [1, 0, 0, 0], None),
        (">=", [0, 0, 0, 0], None),
    ],
)
def test_best_threshold(op, dropped, best):
    values = np.array([10.0, 20.0, 30.0, 40.0])
    assert best_threshold(values, np.array(dropped, bool), op)[0] == best


def test_command_needs_decisions(workspace, authface):
    done = authface("review", "agreement", "-w", workspace.root)
    assert done.returncode == 2
    assert "no face has been decided yet" in done.stderr


def test_best_threshold_of_negative_values_may_keep_all():
    best, agreement = best_threshold(
        np.array([-5.0, -6.0, -7.0, -8.0]), np.array([False, True, False, False]), "<="
    )
    assert best > -5.0
    assert agreement == 0.75
