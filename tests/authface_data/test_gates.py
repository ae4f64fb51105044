"""Decisions from stored measurements."""

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
    """fs_1: both good; fs_2: small; fs_3: noisy and small; fs_4: never scored. fs_1 and fs_2 are of one photo."""
    sizes = {
        "fs_1": ("fs_p", 500.0),
        "fs_2": ("fs_p", 100.0),
        "fs_3": ("fs_q", 100.0),
        "fs_4": ("fs_r", 500.0),
    }
    Store(workspace, FACES).append(
        [
            {"face_id": f, "photo_id": p, "qsize_px": q, "upscaled": q < 224, "fingerprint": "f"}
            for f, (p, q) in sizes.items()
        ]
    )
    pepper = {"fs_1": 0.9, "fs_2": 0.8, "fs_3": 0.1}
    Store(workspace, SCORES).append(
        [
            {"face_id": f, "metric": "pepper", "value": v, "fingerprint": "f"}
            for f, v in pepper.items()
        ]
    )
    return workspace


def told(workspace, gate):
    frame = Store(workspace, VERDICTS).read_pandas()
    return frame[frame["gate"] == gate].set_index("id")


def test_every_face_has_a_verdict_at_every_gate(measured):
    gates.decide(measured, [SIZE, CLEAN])
    assert told(measured, "size")["verdict"].to_dict() == {
        "fs_1": "kept",
        "fs_2": "dropped",
        "fs_3": "dropped",
        "fs_4": "kept",
    }
    clean = told(measured, "clean")
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


def test_a_photo_is_judged_by_its_faces(measured):
    gates.decide(measured, [SIZE, CLEAN])
    photos = told(measured, "any_face")
    assert photos["verdict"].to_dict() == {"fs_p": "kept", "fs_q": "dropped", "fs_r": "dropped"}
    assert photos.loc["fs_q", "reason"] == "qsize_px < 224; pepper <= 0.5"
    assert set(photos["subject"]) == {"photo"}


def test_deciding_again_replaces_and_leaves_stages_verdicts(measured):
    Store(measured, VERDICTS).append(
        [
            verdict_row("photo", "fs_z", "collect", "dropped", "f", "undecodable"),
            verdict_row("photo", "fs_y", "faces", "dropped", "f", "no_face"),
            verdict_row("face", "fs_4", "scores:pepper", "failed", "f", "boom"),
        ]
    )
    gates.decide(measured, [SIZE, CLEAN])
    gates.decide(measured, [SIZE])
    frame = Store(measured, VERDICTS).read_pandas()
    assert set(frame["gate"]) == {
        "collect",
        "faces",
        "scores:pepper",
        "size",
        "duplicates",
        "all_gates",
        "any_face",
    }
    assert not frame.duplicated(["subject", "id", "gate"]).any()
    assert kept_faces(measured)["face_id"].tolist() == ["fs_1", "fs_4"]


def test_a_flag_can_be_gated(measured):
    gates.decide(measured, [Gate(name="native", metric="upscaled", op="==", threshold=0)])
    assert kept_faces(measured)["face_id"].tolist() == ["fs_1", "fs_4"]


@pytest.mark.parametrize("op", [">=", ">", "<=", "<", "=="])
def test_operators(measured, op):
    gates.decide(measured, [Gate(name="g", metric="qsize_px", op=op, threshold=500)])
    kept = {">=": 2, ">": 0, "<=": 4, "<": 2, "==": 2}[op]
    assert len(kept_faces(measured)) == kept


def test_no_faces_is_no_error(workspace):
    gates.decide(workspace, [SIZE])
    assert len(Store(workspace, VERDICTS).read()) == 0


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ([Gate(name="a", metric="msuiq", op=">", threshold=1)], "'msuiq', which is not measured"),
        ([SIZE, SIZE], "used twice"),
        ([Gate(name="faces", metric="qsize_px", op=">", threshold=1)], "reserved"),
        ([Gate(name="a:b", metric="qsize_px", op=">", threshold=1)], "colon"),
    ],
)
def test_gates_that_cannot_work_are_refused(wrong, words):
    with pytest.raises(UserError, match=words):
        gates.check(wrong, ["pepper"])


def test_gates_on_a_faces_place_in_its_photo(measured):
    """All faces, the largest of each photo, or only photos of one person: the gate chooses."""
    gates.decide(measured, [Gate(name="largest", metric="rank_in_photo", op="<=", threshold=1)])
    assert kept_faces(measured)["face_id"].tolist() == ["fs_1", "fs_3", "fs_4"]
    gates.decide(measured, [Gate(name="alone", metric="faces_in_photo", op="==", threshold=1)])
    assert kept_faces(measured)["face_id"].tolist() == ["fs_3", "fs_4"]
    assert told(measured, "alone").loc["fs_1", "reason"] == "faces_in_photo != 1"


@pytest.fixture
def many(workspace):
    """Ten faces, each of its photo, with musiq 0 … 9, and one that was never scored."""
    ids = [f"fs_{number:02d}" for number in range(11)]
    Store(workspace, FACES).append(
        [
            {"face_id": i, "photo_id": f"p{i}", "qsize_px": 500.0 - n, "fingerprint": "f"}
            for n, i in enumerate(ids)
        ]
    )
    Store(workspace, SCORES).append(
        [
            {"face_id": i, "metric": "musiq", "value": float(n), "fingerprint": "f"}
            for n, i in enumerate(ids[:10])
        ]
    )
    return workspace


BEST3 = Gate(name="best", metric="musiq", op=">=", best=3)


def test_the_best_n_of_those_kept(many):
    gates.decide(many, [BEST3, Gate(name="low", metric="musiq", op="<=", threshold=7)])
    assert kept_faces(many)["face_id"].tolist() == ["fs_05", "fs_06", "fs_07"]
    best = told(many, "best")
    assert set(best.index) == {
        f"fs_{n:02d}" for n in range(8)
    }  # those that the other gate drops do not compete
    assert best.loc["fs_04", ["verdict", "reason", "value", "threshold"]].tolist() == [
        "dropped", "not among the best 3 by musiq", 4.0, 5.0,
    ]  # fmt: skip
    gates.decide(many, [Gate(name="best", metric="musiq", op="<=", best=2)])
    assert kept_faces(many)["face_id"].tolist() == ["fs_00", "fs_01"]
    assert told(many, "best").loc["fs_10", ["verdict", "reason"]].tolist() == ["failed", "no musiq"]


def test_people_come_before_the_best(many):
    """Who was dropped by a person takes no place among the best N; who was kept by one has one."""
    Store(many, DECISIONS).append(
        [
            {
                "id": face,
                "reviewer": "r",
                "decision": word,
                "decided_at": datetime.now(UTC),
                "fingerprint": "",
            }
            for face, word in (("fs_09", "drop"), ("fs_00", "keep"))
        ]
    )
    gates.decide(many, [BEST3])
    assert kept_faces(many)["face_id"].tolist() == ["fs_00", "fs_07", "fs_08"]
    best = told(many, "best")  # by merit: the verdict is the gate's own, whatever people said
    assert best.loc[["fs_09", "fs_00"], "verdict"].tolist() == ["kept", "dropped"]
    assert best["threshold"].unique().tolist() == [7.0]


@pytest.mark.parametrize(
    "wrong", [{}, {"threshold": 1, "best": 2}, {"best": 2, "op": "=="}, {"best": 0}]
)
def test_a_gate_is_a_threshold_or_the_best(wrong):
    with pytest.raises(ValueError, match=r"threshold|best|greater"):
        Gate.model_validate({"name": "g", "metric": "m", "op": ">=", **wrong})


def test_possible_minors_are_flagged_and_not_decided(many):
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
    gates.decide(many, [])
    flags = told(many, "possible_minor")
    assert flags["reason"].to_dict() == {
        "fs_00": "look: 'boy' in the photograph's description",
        "fs_01": "look: 'teenager' in the photograph's source tags",
        "fs_03": "look: '9 years old' in the photograph's description",
        "fs_04": "look: 'child' in the caption by llava",
    }
    assert set(flags["verdict"]) == {"kept"}
    assert len(kept_faces(many)) == 11
