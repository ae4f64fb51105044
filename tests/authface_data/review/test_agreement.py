"""Gates against people, and people among each other: figures that were worked out by hand."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from authface_data import gates
from authface_data.review.agreement import agreement, best_threshold, kappa
from manifests.schema import DECISIONS, FACES
from manifests.settings import Gate
from manifests.store import Store


@pytest.fixture
def decided(workspace):
    """Sizes 1 … 8, a gate that keeps from 4 on; anna drops 1 to 5, ben only 1 and 2 of the first six; 6 is disputed."""
    workspace.settings.gates[:] = [Gate(name="size", metric="qsize_px", op=">=", threshold=4)]
    Store(workspace, FACES).append(
        [
            {"face_id": f"f{n}", "photo_id": f"p{n}", "qsize_px": float(n), "fingerprint": "f"}
            for n in range(1, 9)
        ]
    )
    start, rows = datetime(2026, 1, 1, tzinfo=UTC), []

    def say(reviewer, number, word):
        at = start + timedelta(seconds=len(rows))
        rows.append(
            {
                "id": f"f{number}",
                "reviewer": reviewer,
                "decision": word,
                "decided_at": at,
                "fingerprint": "",
            }
        )

    say("anna", 1, "keep")  # and thinks better of it
    for number in range(1, 9):
        say("anna", number, "drop" if number <= 5 else "keep")
    for number, word in ((1, "drop"), (2, "drop"), (6, "drop"), (7, "keep"), (8, "unsure")):
        say("ben", number, word)
    Store(workspace, DECISIONS).append(rows)
    gates.decide(workspace, workspace.settings.gates)
    return workspace


def test_precision_recall_and_the_threshold_that_fits(decided):
    found = agreement(decided)
    assert (found.decided, found.disputed) == (8, ["f6"])
    whole, size = found.gates
    # Undisputed: 1 to 5 dropped by people, 7 and 8 kept; the gate drops 1 to 3.
    for one in (whole, size):
        assert (one.faces, one.dropped, one.both) == (7, 3, 3)
        assert (one.precision, one.recall) == (1.0, 3 / 5)
        assert one.agreement == pytest.approx(5 / 7)
    assert (size.best, size.best_agreement) == (6.0, 1.0)


def test_kappa_of_two_people(decided):
    (pair,) = agreement(decided).reviewers
    # Both said keep or drop of 1, 2, 6, 7: they agree on 1, 2 and 7. By chance: .5 * .75 + .5 * .25 = .5.
    assert (pair.one, pair.other, pair.faces, pair.agreement) == ("anna", "ben", 4, 0.75)
    assert pair.kappa == pytest.approx(0.5)


def test_kappa_golden():
    """Cohen's own kind of table: 20 both drop, 5 and 10 differ, 15 both keep; kappa .4."""
    a = np.array([True] * 25 + [False] * 25)
    b = np.array([True] * 20 + [False] * 5 + [True] * 10 + [False] * 15)
    assert kappa(a, b) == pytest.approx(0.4)
    assert kappa(a[:10], b[:10]) is None


@pytest.mark.parametrize(
    ("op", "dropped", "best"),
    [(">=", [1, 1, 0, 0], 25.0), ("<=", [0, 0, 1, 1], 25.0), (">", [1, 0, 0, 0], 15.0), ("==", [1, 0, 0, 0], None),
     (">=", [0, 0, 0, 0], None)],
)  # fmt: skip
def test_the_best_threshold(op, dropped, best):
    assert (
        best_threshold(np.array([10.0, 20.0, 30.0, 40.0]), np.array(dropped, bool), op)[0] == best
    )


def test_nothing_decided(workspace, authface):
    done = authface("review", "agreement", "-w", workspace.root)
    assert done.returncode == 2
    assert "nobody has decided anything yet" in done.stderr


def test_keeping_all_is_tried_below_zero_too():
    best, agrees = best_threshold(
        np.array([-5.0, -6.0, -7.0, -8.0]), np.array([False, True, False, False]), "<="
    )
    assert best > -5.0
    assert agrees == 0.75
