"""What the set is made of, before and after gating, and what to ask for."""

import numpy as np
import pytest

from authface_data import gates
from authface_data.quality import light, lightness, skin_tone
from authface_data.report.balance import list_underrepresented, measure_balance
from manifests.schema import CAPTIONS, FACES, SCORES
from manifests.settings import Gate
from manifests.store import Store


@pytest.fixture
def judged(workspace):
    """Forty faces: 20 to the front and light, of which all are kept; 20 in profile and dark, of which one is."""
    rows, scores = [], []
    for number in range(40):
        front = number < 20
        size = 500.0 if front or number == 20 else 100.0
        face = f"f{number:02d}"
        rows.append({"face_id": face, "photo_id": f"p{number}", "qsize_px": size, "yaw_deg": 0.0 if front else -75.0,
                     "pitch_deg": 0.0, "fingerprint": "f"})  # fmt: skip
        scores.append(
            {
                "face_id": face,
                "metric": "skin_tone",
                "value": 50.0 if front else -40.0,
                "fingerprint": "f",
            }
        )
    Store(workspace, FACES).append(rows)
    Store(workspace, SCORES).append(scores)
    Store(workspace, CAPTIONS).append(
        [
            {
                "face_id": f"f{n:02d}",
                "captioner": "measured",
                "photographic_tags": ["front view"],
                "fingerprint": "f",
            }
            for n in (1, 25)
        ]
    )
    gates.apply_gates(workspace, [Gate(name="size", metric="qsize_px", op=">=", threshold=300)])
    return workspace


def test_shares_before_and_after(judged):
    facets = {facet.name: facet for facet in measure_balance(judged)}
    tone = facets["Skin tone"]
    assert (tone.found, tone.kept) == (40, 21)
    shares = {share.label: (share.found, share.kept) for share in tone.shares}
    assert shares == {"dark": (20, 1), "brown": (0, 0), "tan": (0, 0), "intermediate": (0, 0), "light": (20, 20),
                      "very light": (0, 0)}  # fmt: skip
    assert {s.label: s.kept for s in facets["View"].shares}["profile left"] == 1
    assert "Light from" not in facets  # nothing is measured of it
    (tag,) = facets["Tags: view"].shares
    assert (tag.label, tag.found, tag.kept) == ("front view", 2, 1)
    assert "Tags: hair" not in facets


def test_what_to_ask_for(judged):
    asked = [str(group) for group in list_underrepresented(measure_balance(judged))]
    assert "skin tone: dark (1 of 21 kept faces)" in asked
    assert "view: profile right (0 of 21 kept faces)" in asked
    assert not any("light (20" in line or "front (" in line or "tags" in line for line in asked)


def test_ita_golden():
    """ITA of flat colours, by the formula in its own words: sRGB to CIELAB (D65), atan2(L* - 50, b*)."""
    for colour, angle in (
        ((222, 188, 166), 61.31),
        ((141, 96, 71), -13.22),
        ((74, 48, 36), -65.48),
    ):
        crop = np.full((512, 512, 3), colour, np.uint8)
        assert skin_tone.score(crop) == pytest.approx(angle, abs=0.5)


def test_light_and_lightness():
    crop = np.full((1024, 1024, 3), 100, np.uint8)
    assert light.score(crop) == pytest.approx(0, abs=1e-6)
    crop[:, 512:] = 200
    assert light.score(crop) == pytest.approx(np.log(201 / 101), abs=0.01)
    assert light.score(np.ascontiguousarray(crop[:, ::-1])) == pytest.approx(
        -light.score(crop), abs=0.02
    )
    assert lightness.score(np.full((512, 512, 3), 51, np.uint8)) == pytest.approx(0.2, abs=0.01)
