"""Measurements that follow from those of several columns, faces or photographs."""

import numpy as np
import pytest

from authface_data import gates
from authface_data.measurements import read_measurements
from manifests.schema import FACES, SCORES
from manifests.settings import Gate, load_settings, preset_names, preset_text
from manifests.store import Store

FACES_OF_PHOTOS = {
    # face_id: photo, yaw, left eye, right eye and mouth visible, sharpness
    "fs_a": ("fs_1", -70.0, (True, True, True), 0.9),
    "fs_b": ("fs_1", 10.0, (True, False, True), 0.36),
    "fs_c": ("fs_2", 5.0, (False, False, False), 0.3),
    "fs_d": ("fs_3", None, (None, True, True), None),
}


@pytest.fixture
def measured(workspace):
    rows, scores = [], []
    for face_id, (photo_id, yaw_deg, visible, sharpness) in FACES_OF_PHOTOS.items():
        left_eye, right_eye, mouth = visible
        rows.append(
            {
                "face_id": face_id,
                "photo_id": photo_id,
                "yaw_deg": yaw_deg,
                "left_eye_visible": left_eye,
                "right_eye_visible": right_eye,
                "mouth_visible": mouth,
                "fingerprint": "f",
            }
        )
        if sharpness is not None:
            score = {"face_id": face_id, "metric": "sharpness", "value": sharpness}
            scores.append({**score, "fingerprint": "f"})
    Store(workspace, FACES).append(rows)
    Store(workspace, SCORES).append(scores)
    return workspace


def test_derived_measurements(measured):
    found = read_measurements(measured)
    assert found.face_ids.to_pylist() == list(FACES_OF_PHOTOS)

    def values(name):
        return found.values_of(name).tolist()

    assert values("abs_yaw_deg") == pytest.approx([70, 10, 5, np.nan], nan_ok=True)
    assert values("visible_regions") == pytest.approx([3, 2, 0, np.nan], nan_ok=True)
    # Relative to the sharpest face of the same photograph.
    assert values("relative_sharpness") == pytest.approx([1, 0.4, 1, np.nan], nan_ok=True)


def test_gates_use_derived_measurements(measured):
    chosen = [
        Gate(name="regions", metric="visible_regions", op="==", threshold=3),
        Gate(name="profile", metric="abs_yaw_deg", op="<=", threshold=60),
    ]
    result = gates.evaluate_gates(measured, chosen)
    assert result.in_set.tolist() == [False, False, False, False]
    reasons = result.join_reasons().to_pylist()
    assert reasons[:2] == ["abs_yaw_deg > 60", "visible_regions != 3"]
    assert result.count("face", "regions", "failed") == 1


@pytest.mark.parametrize("preset", preset_names())
def test_presets_require_a_whole_frontal_face_in_focus(preset):
    names = {gate.name for gate in load_settings(preset_text(preset).encode(), preset).gates}
    assert {"presence", "regions", "profile", "tilt", "focus", "padding", "face_size"} <= names
