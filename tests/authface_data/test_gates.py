"""Gates: verdicts from stored measurements."""

from datetime import UTC, datetime

import pandas as pd
import pytest

from authface_data import gates
from manifests.schema import CAPTIONS, DECISIONS, FACES, PHOTOS, SCORES, VERDICTS
from manifests.settings import Gate
from manifests.store import Store
from manifests.support.errors import UserError
from manifests.verdicts import kept_faces, verdict_row

SIZE = Gate(name="size", metric="qsize_px", op=">=", threshold=224)
CLEAN = Gate(name="clean", metric="pepper", op=">", threshold=0.5)


@pytest.fixture
def measured(workspace):
    """fs_1 is good, fs_2 small, fs_3 small and noisy, fs_4 has no score.

    fs_1 and fs_2 are in the same photograph.
    """
    faces = {
        "fs_1": ("fs_p", 500.0),
        "fs_2": ("fs_p", 100.0),
        "fs_3": ("fs_q", 100.0),
        "fs_4": ("fs_r", 500.0),
    }
    Store(workspace, FACES).append(
        [
            {
                "face_id": face_id,
                "photo_id": photo_id,
                "qsize_px": size,
                "upscaled": size < 224,
                "fingerprint": "f",
            }
            for face_id, (photo_id, size) in faces.items()
        ]
    )
    scores = {"fs_1": 0.9, "fs_2": 0.8, "fs_3": 0.1}
    Store(workspace, SCORES).append(
        [
            {"face_id": face_id, "metric": "pepper", "value": score, "fingerprint": "f"}
            for face_id, score in scores.items()
        ]
    )
    return workspace


def verdicts_of(workspace, gate):
    frame = Store(workspace, VERDICTS).read_pandas()
    return frame[frame["gate"] == gate].set_index("id")


def test_face_that_was_not_detected_passes_the_gate_of_the_detector(measured):
    """Sources of aligned faces with landmarks need no detector."""
    scores = {"fs_1": 0.99, "fs_2": 0.5, "fs_3": None}
    faces = Store(measured, FACES)
    rows = [row for row in faces.read().to_pylist() if row["face_id"] in scores]
    faces.append([{**row, "score": scores[row["face_id"]]} for row in rows])
    gates.apply_gates(measured, [Gate(name="detector", metric="score", op=">=", threshold=0.9)])
    detector = verdicts_of(measured, "detector")
    assert detector["verdict"].to_dict() == {
        "fs_1": "kept",
        "fs_2": "dropped",
        "fs_3": "kept",
        "fs_4": "kept",
    }
    assert detector.loc["fs_2", "reason"] == "score < 0.9"
    assert pd.isna(detector.loc["fs_3", "value"])


def test_every_face_has_a_verdict_of_every_gate(measured):
    gates.apply_gates(measured, [SIZE, CLEAN])
    assert verdicts_of(measured, "size")["verdict"].to_dict() == {
        "fs_1": "kept",
        "fs_2": "dropped",
        "fs_3": "dropped",
        "fs_4": "kept",
    }
    clean = verdicts_of(measured, "clean")
    assert clean["verdict"].to_dict() == {
        "fs_1": "kept",
        "fs_2": "kept",
        "fs_3": "dropped",
        "fs_4": "failed",
    }
    assert clean.loc["fs_3", ["reason", "value", "threshold"]].tolist() == [
        "pepper <= 0.5",
        0.1,
        0.5,
    ]
    assert clean.loc["fs_4", "reason"] == "no pepper"
    assert pd.isna(clean.loc["fs_1", "reason"])
    assert kept_faces(measured)["face_id"].tolist() == ["fs_1"]


def test_photo_verdict_follows_from_its_faces(measured):
    gates.apply_gates(measured, [SIZE, CLEAN])
    photos = verdicts_of(measured, "any_face")
    assert photos["verdict"].to_dict() == {"fs_p": "kept", "fs_q": "dropped", "fs_r": "dropped"}
    assert photos.loc["fs_q", "reason"] == "qsize_px < 224; pepper <= 0.5"
    assert set(photos["subject"]) == {"photo"}


def test_applying_gates_again_replaces_their_verdicts_but_not_those_of_stages(measured):
    Store(measured, VERDICTS).append(
        [
            verdict_row(
                "photo", "fs_z", "collect", "dropped", fingerprint="f", reason="undecodable"
            ),
            verdict_row("photo", "fs_y", "faces", "dropped", fingerprint="f", reason="no_face"),
            verdict_row("face", "fs_4", "scores:pepper", "failed", fingerprint="f", reason="boom"),
        ]
    )
    gates.apply_gates(measured, [SIZE, CLEAN])
    gates.apply_gates(measured, [SIZE])
    frame = Store(measured, VERDICTS).read_pandas()
    assert set(frame["gate"]) == {
        "collect",
        "faces",
        "scores:pepper",
        "size",
        "duplicates",
        "duplicate_faces",
        "all_gates",
        "any_face",
    }
    assert not frame.duplicated(["subject", "id", "gate"]).any()
    assert kept_faces(measured)["face_id"].tolist() == ["fs_1", "fs_4"]


def test_gate_on_a_boolean_column(measured):
    gates.apply_gates(measured, [Gate(name="native", metric="upscaled", op="==", threshold=0)])
    assert kept_faces(measured)["face_id"].tolist() == ["fs_1", "fs_4"]


@pytest.mark.parametrize("op", [">=", ">", "<=", "<", "=="])
def test_comparison_operators(measured, op):
    gates.apply_gates(measured, [Gate(name="g", metric="qsize_px", op=op, threshold=500)])
    kept = {">=": 2, ">": 0, "<=": 4, "<": 2, "==": 2}[op]
    assert len(kept_faces(measured)) == kept


def test_workspace_without_faces_gets_no_verdicts(workspace):
    gates.apply_gates(workspace, [SIZE])
    assert len(Store(workspace, VERDICTS).read()) == 0


@pytest.mark.parametrize(
    ("wrong_gates", "message"),
    [
        ([Gate(name="a", metric="noise", op=">", threshold=1)], "noise has not been measured; run"),
        (
            [Gate(name="a", metric="niqe", op=">", threshold=1)],
            "niqe has not been measured; add it",
        ),
        ([SIZE, SIZE], "used twice"),
        ([Gate(name="faces", metric="qsize_px", op=">", threshold=1)], "reserved"),
        ([Gate(name="a:b", metric="qsize_px", op=">", threshold=1)], "colon"),
    ],
)
def test_invalid_gates_are_rejected(wrong_gates, message):
    with pytest.raises(UserError, match=message):
        gates.check_gates(wrong_gates, ["pepper"])


def test_gates_on_rank_and_number_of_faces_in_a_photo(measured):
    """Gates can keep the largest face of each photo, or only photos with one face."""
    gates.apply_gates(
        measured, [Gate(name="largest", metric="rank_in_photo", op="<=", threshold=1)]
    )
    assert kept_faces(measured)["face_id"].tolist() == ["fs_1", "fs_3", "fs_4"]
    gates.apply_gates(measured, [Gate(name="alone", metric="faces_in_photo", op="==", threshold=1)])
    assert kept_faces(measured)["face_id"].tolist() == ["fs_3", "fs_4"]
    assert verdicts_of(measured, "alone").loc["fs_1", "reason"] == "faces_in_photo != 1"


@pytest.fixture
def many(workspace):
    """Ten faces in ten photographs with musiq 0 to 9, and an eleventh face without a score."""
    ids = [f"fs_{number:02d}" for number in range(11)]
    Store(workspace, FACES).append(
        [
            {
                "face_id": face_id,
                "photo_id": f"p{face_id}",
                "qsize_px": 500.0 - index,
                "fingerprint": "f",
            }
            for index, face_id in enumerate(ids)
        ]
    )
    Store(workspace, SCORES).append(
        [
            {"face_id": face_id, "metric": "musiq", "value": float(index), "fingerprint": "f"}
            for index, face_id in enumerate(ids[:10])
        ]
    )
    return workspace


BEST3 = Gate(name="best", metric="musiq", op=">=", best=3)


def test_best_n_among_the_faces_that_other_gates_keep(many):
    gates.apply_gates(many, [BEST3, Gate(name="low", metric="musiq", op="<=", threshold=7)])
    assert kept_faces(many)["face_id"].tolist() == ["fs_05", "fs_06", "fs_07"]
    best = verdicts_of(many, "best")
    # Faces that the other gate drops do not compete.
    assert set(best.index) == {f"fs_{number:02d}" for number in range(8)}
    assert best.loc["fs_04", ["verdict", "reason", "value", "threshold"]].tolist() == [
        "dropped", "not among the best 3 by musiq", 4.0, 5.0,
    ]  # fmt: skip
    gates.apply_gates(many, [Gate(name="best", metric="musiq", op="<=", best=2)])
    assert kept_faces(many)["face_id"].tolist() == ["fs_00", "fs_01"]
    assert verdicts_of(many, "best").loc["fs_10", ["verdict", "reason"]].tolist() == [
        "failed",
        "no musiq",
    ]


def test_decisions_count_among_the_best_n(many):
    """A face that a person dropped takes no place; a face that a person kept has one."""
    Store(many, DECISIONS).append(
        [
            {
                "id": face_id,
                "reviewer": "r",
                "decision": decision,
                "decided_at": datetime.now(UTC),
                "fingerprint": "",
            }
            for face_id, decision in (("fs_09", "drop"), ("fs_00", "keep"))
        ]
    )
    gates.apply_gates(many, [BEST3])
    assert kept_faces(many)["face_id"].tolist() == ["fs_00", "fs_07", "fs_08"]
    best = verdicts_of(many, "best")  # verdicts depend on the score alone
    assert best.loc[["fs_09", "fs_00"], "verdict"].tolist() == ["kept", "dropped"]
    assert best["threshold"].unique().tolist() == [7.0]


@pytest.mark.parametrize(
    "fields", [{}, {"threshold": 1, "best": 2}, {"best": 2, "op": "=="}, {"best": 0}]
)
def test_gate_needs_either_a_threshold_or_best(fields):
    with pytest.raises(ValueError, match=r"threshold|best|greater"):
        Gate.model_validate({"name": "g", "metric": "niqe", "op": ">=", **fields})


def test_possible_minors_are_flagged_but_not_dropped(many):
    Store(many, PHOTOS).append(
        [
            {"photo_id": "pfs_00", "description": "A boy at the lake", "fingerprint": "f"},
            {"photo_id": "pfs_01", "source_tags": ["portrait", "teenager"], "fingerprint": "f"},
            {
                "photo_id": "pfs_02",
                "description": "Kidney beans by Childs & Co, aged 41",
                "fingerprint": "f",
            },
            {"photo_id": "pfs_03", "description": "She is 9 years old", "fingerprint": "f"},
        ]
    )
    Store(many, CAPTIONS).append(
        [
            {
                "face_id": "fs_04",
                "captioner": "llava",
                "semantic_tags": ["young child"],
                "fingerprint": "f",
            }
        ]
    )
    gates.apply_gates(many, [])
    flags = verdicts_of(many, "possible_minor")
    assert flags["reason"].to_dict() == {
        "fs_00": "look: 'boy' in the photograph's description",
        "fs_01": "look: 'teenager' in the photograph's source tags",
        "fs_03": "look: '9 years old' in the photograph's description",
        "fs_04": "look: 'child' in the caption by llava",
    }
    assert set(flags["verdict"]) == {"kept"}
    assert len(kept_faces(many)) == 11
