"""What a map of invention shows, and the colour fixes, on a real face."""

import cv2
import numpy as np
import pytest
from PIL import Image

from authface_data.faces.descriptor import SAME_PERSON, Descriptor
from authface_train.restore.colour_fix import adain, wavelet
from authface_train.restore.uncertainty import certainty, consistency_db, drawn


@pytest.fixture(scope="module")
def face(photos):
    with Image.open(photos["obama.jpg"]) as image:
        return np.asarray(image.convert("RGB").crop((150, 100, 750, 700)).resize((256, 256)))


@pytest.fixture(scope="module")
def descriptor(weights):
    made = Descriptor()
    made.setup(None)
    return made


def test_seeds_that_agree_and_a_patch_where_they_do_not(face, descriptor):
    other = face.copy()
    other[150:200, 80:180] = 255 - other[150:200, 80:180]
    sure = certainty(face, [face, face], descriptor)
    assert sure.disagreement.max() == 0
    assert sure.identity_drift == sure.identity_spread == 0
    found = certainty(face, [face, other], descriptor)
    assert found.disagreement.shape == (256, 256)
    inside = np.zeros((256, 256), bool)
    inside[150:200, 80:180] = True
    assert found.disagreement[~inside].max() == 0
    luma = face.astype(float) @ [0.299, 0.587, 0.114]
    assert found.disagreement[inside] == pytest.approx(np.abs(255 - 2 * luma[inside]) / 2, abs=1e-3)
    assert found.row()["disagreement"] == pytest.approx(found.disagreement.mean())
    assert drawn(face, other, found.disagreement).size == (768, 256)


def test_another_person_is_a_drift_of_identity(face, descriptor, photos):
    with Image.open(photos["biden.jpg"]) as image:
        someone = np.asarray(image.convert("RGB").crop((150, 250, 850, 950)).resize((256, 256)))
    found = certainty(face, [someone, face], descriptor)
    assert found.identity_drift > SAME_PERSON
    assert found.identity_spread > SAME_PERSON
    nobody = np.full_like(face, 128)
    assert certainty(nobody, [face, face], descriptor).identity_drift is None


def test_consistency_asks_for_the_blur_that_explains_the_degraded_face(face):
    blurred = cv2.GaussianBlur(face, (0, 0), 2.0)
    assert consistency_db(face, blurred) > 45  # a sigma of 4 px at 512
    assert consistency_db(face, face) > 80
    assert consistency_db(np.roll(face, 12, axis=1), blurred) < 30


def test_wavelet_keeps_the_detail_of_one_and_the_colour_of_the_other(face):
    tinted = np.clip(face.astype(int) + (30, 0, -30), 0, 255).astype(np.uint8)
    degraded = cv2.GaussianBlur(face, (0, 0), 3.0)
    fixed = wavelet(tinted, degraded)
    assert np.abs(fixed.mean((0, 1)) - face.mean((0, 1))).max() < 2
    assert np.abs(tinted.mean((0, 1)) - face.mean((0, 1))).max() > 20
    detail = [
        np.abs(np.diff(picture.astype(float), axis=1)).mean() for picture in (fixed, face, degraded)
    ]
    assert detail[0] > 0.9 * detail[1] > 1.5 * detail[2]
    assert np.array_equal(wavelet(face, face), face)


def test_adain_gives_each_channel_the_others_mean_and_deviation():
    rng = np.random.default_rng(0)
    one = rng.normal((100, 120, 140), (10, 20, 15), (64, 64, 3)).clip(0, 255).astype(np.uint8)
    other = rng.normal((140, 110, 90), (15, 10, 20), (64, 64, 3)).clip(0, 255).astype(np.uint8)
    made = adain(one, other).reshape(-1, 3)
    assert made.mean(0) == pytest.approx(other.reshape(-1, 3).mean(0), abs=0.3)
    assert made.std(0) == pytest.approx(other.reshape(-1, 3).std(0), abs=0.3)
