"""The order of a review: what is most likely wrong comes first."""

import pytest

from authface_data import gates
from authface_data.review.faces import faces_to_review
from manifests.schema import FACES, PHOTOS, SCORES
from manifests.settings import Gate
from manifests.store import Store

GATES = [
    Gate(name="size", metric="qsize_px", op=">=", threshold=224),
    Gate(name="sharp", metric="sharpness", op=">=", threshold=0.5),
    Gate(name="regions", metric="visible_regions", op=">=", threshold=2),
]
VISIBLE = {"left_eye_visible": True, "right_eye_visible": True, "mouth_visible": True}
FACES_OF_ORDER = {
    "clear_keep": {"qsize_px": 900.0, "sharpness": 0.95},
    "narrow_keep": {"qsize_px": 240.0, "sharpness": 0.95},
    "hidden_mouth": {"qsize_px": 900.0, "sharpness": 0.95, "mouth_visible": False},
    "no_face": {"qsize_px": 900.0, "sharpness": 0.95, "face_presence": 0.6},
    "painting": {"qsize_px": 900.0, "sharpness": 0.95, "photographic": 0.2},
    "narrow_drop": {"qsize_px": 200.0, "sharpness": 0.95},
    "dropped_twice": {"qsize_px": 210.0, "sharpness": 0.45},
    "clear_drop": {"qsize_px": 900.0, "sharpness": 0.0},
}


@pytest.fixture
def ordered(workspace):
    """The faces of `FACES_OF_ORDER`, by the names of their ids."""
    workspace.settings.gates[:] = GATES
    for name, values in FACES_OF_ORDER.items():
        face = {**VISIBLE, "face_presence": 1.0, "sharpness": 0.9, "photographic": 0.9, **values}
        scores = {metric: face.pop(metric) for metric in ("sharpness", "photographic")}
        face_id = f"fs_{name}"
        Store(workspace, PHOTOS).append(
            [{"photo_id": face_id, "licence_basis": "own", "fingerprint": "f"}]
        )
        boxes = ("left_eye_box_crop_px", "right_eye_box_crop_px", "mouth_box_crop_px")
        row = {"face_id": face_id, "photo_id": face_id, "crop_path": f"faces/{face_id}.png"}
        row |= {"crop_sha256": "0" * 64, "crop_size_px": 512, "fingerprint": "f"}
        Store(workspace, FACES).append([{**row, **face, **dict.fromkeys(boxes, [0.0] * 4)}])
        Store(workspace, SCORES).append(
            {"face_id": face_id, "metric": metric, "value": value, "fingerprint": "f"}
            for metric, value in scores.items()
        )
    gates.apply_gates(workspace, GATES)
    return workspace


def test_doubtful_keeps_then_narrow_drops_then_the_others(ordered):
    names = [face.face_id.removeprefix("fs_") for face in faces_to_review(ordered)]
    assert set(names[:4]) == {"narrow_keep", "hidden_mouth", "no_face", "painting"}
    assert names[4] == "narrow_drop"
    assert set(names[5:]) == {"clear_keep", "dropped_twice", "clear_drop"}


def test_counts_that_are_as_they_should_be_are_not_near_a_threshold(ordered):
    """All mouths and eyes are visible, and no face passes that narrowly."""
    margins = {face.face_id: face.margin for face in faces_to_review(ordered)}
    assert margins["fs_clear_keep"] > 1
    near = faces_to_review(ordered, near_threshold=2)
    assert {face.face_id for face in near} == {"fs_narrow_keep", "fs_dropped_twice"}
