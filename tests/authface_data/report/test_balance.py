"""The composition of the data set, and its under-represented groups."""

import numpy as np
import pytest

from authface_data import gates
from authface_data.quality import light, lightness, skin_tone
from authface_data.report.balance import list_underrepresented, measure_balance
from manifests.schema import CAPTIONS, FACES, SCORES
from manifests.settings import Gate
from manifests.store import Store

NUM_FACES = 40


@pytest.fixture
def gated(workspace):
    """Twenty light frontal faces, all kept, and twenty dark profiles, of which one is kept."""
    faces = []
    scores = []
    for number in range(NUM_FACES):
        face_id = f"f{number:02d}"
        is_frontal = number < 20
        is_large = number <= 20
        faces.append(
            {
                "face_id": face_id,
                "photo_id": f"p{number}",
                "qsize_px": 500.0 if is_large else 100.0,
                "yaw_deg": 0.0 if is_frontal else -75.0,
                "pitch_deg": 0.0,
                "fingerprint": "f",
            }
        )
        scores.append(
            {
                "face_id": face_id,
                "metric": "skin_tone",
                "value": 50.0 if is_frontal else -40.0,
                "fingerprint": "f",
            }
        )
    captions = [
        {
            "face_id": face_id,
            "captioner": "measured",
            "photographic_tags": ["front view"],
            "fingerprint": "f",
        }
        for face_id in ("f01", "f25")
    ]
    Store(workspace, FACES).append(faces)
    Store(workspace, SCORES).append(scores)
    Store(workspace, CAPTIONS).append(captions)
    gates.apply_gates(workspace, [Gate(name="size", metric="qsize_px", op=">=", threshold=300)])
    return workspace


def test_groups_are_counted_before_and_after_the_gates(gated):
    facets = {facet.name: facet for facet in measure_balance(gated)}
    tone = facets["Skin tone"]
    assert tone.found == 40
    assert tone.kept == 21
    assert {share.label: (share.found, share.kept) for share in tone.shares} == {
        "dark": (20, 1),
        "brown": (0, 0),
        "tan": (0, 0),
        "intermediate": (0, 0),
        "light": (20, 20),
        "very light": (0, 0),
    }
    kept_by_view = {share.label: share.kept for share in facets["View"].shares}
    assert kept_by_view["profile left"] == 1


def test_tags_are_counted_and_unmeasured_facets_left_out(gated):
    facets = {facet.name: facet for facet in measure_balance(gated)}
    (share,) = facets["Tags: view"].shares
    assert share.label == "front view"
    assert share.found == 2
    assert share.kept == 1
    assert "Light from" not in facets
    assert "Tags: hair" not in facets


def test_underrepresented_groups_are_measured_ones_with_few_kept_faces(gated):
    groups = [str(group) for group in list_underrepresented(measure_balance(gated))]
    assert "skin tone: dark (1 of 21 kept faces)" in groups
    assert "view: profile right (0 of 21 kept faces)" in groups
    for text in ("light (20", "front (", "tags"):
        assert not any(text in group for group in groups)


@pytest.mark.parametrize(
    ("colour", "angle_deg"),
    [((222, 188, 166), 61.31), ((141, 96, 71), -13.22), ((74, 48, 36), -65.48)],
)
def test_skin_tone_of_flat_colours(colour, angle_deg):
    """ITA = atan2(L* - 50, b*), computed independently from sRGB through CIELAB (D65)."""
    crop = np.full((512, 512, 3), colour, np.uint8)
    assert skin_tone.score(crop) == pytest.approx(angle_deg, abs=0.5)


def test_light_is_the_log_ratio_of_the_cheeks():
    crop = np.full((1024, 1024, 3), 100, np.uint8)
    assert light.score(crop) == pytest.approx(0, abs=1e-6)
    crop[:, 512:] = 200
    assert light.score(crop) == pytest.approx(np.log(201 / 101), abs=0.01)
    mirrored = np.ascontiguousarray(crop[:, ::-1])
    assert light.score(mirrored) == pytest.approx(-light.score(crop), abs=0.02)


def test_lightness_is_the_median_brightness():
    crop = np.full((512, 512, 3), 51, np.uint8)
    assert lightness.score(crop) == pytest.approx(0.2, abs=0.01)
