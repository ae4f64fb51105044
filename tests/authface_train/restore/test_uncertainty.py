"""Measuring the uncertainty of a restored face, on a real face."""

import cv2
import numpy as np
import pytest
from PIL import Image

from authface_data.faces.descriptor import SAME_PERSON_DISTANCE, FaceDescriptor
from authface_train.restore.uncertainty import (
    consistency_db,
    draw_uncertainty,
    measure_uncertainty,
)


@pytest.fixture(scope="module")
def face(photos):
    with Image.open(photos["obama.jpg"]) as image:
        return np.asarray(image.convert("RGB").crop((150, 100, 750, 700)).resize((256, 256)))


@pytest.fixture(scope="module")
def descriptor(weights):
    descriptor = FaceDescriptor()
    descriptor.setup(None)
    return descriptor


def test_disagreement_is_zero_except_where_seeds_differ(face, descriptor):
    different = face.copy()
    different[150:200, 80:180] = 255 - different[150:200, 80:180]
    certain = measure_uncertainty(face, [face, face], descriptor)
    assert certain.disagreement.max() == 0
    assert certain.identity_drift == certain.identity_spread == 0

    uncertain = measure_uncertainty(face, [face, different], descriptor)
    assert uncertain.disagreement.shape == (256, 256)
    inside = np.zeros((256, 256), bool)
    inside[150:200, 80:180] = True
    assert uncertain.disagreement[~inside].max() == 0
    luma = face.astype(float) @ [0.299, 0.587, 0.114]
    expected = np.abs(255 - 2 * luma[inside]) / 2
    assert uncertain.disagreement[inside] == pytest.approx(expected, abs=1e-3)
    assert uncertain.as_row()["disagreement"] == pytest.approx(uncertain.disagreement.mean())
    assert draw_uncertainty(face, different, uncertain.disagreement).size == (768, 256)


def test_another_person_is_identity_drift(face, descriptor, photos):
    with Image.open(photos["biden.jpg"]) as image:
        another = np.asarray(image.convert("RGB").crop((150, 250, 850, 950)).resize((256, 256)))
    uncertainty = measure_uncertainty(face, [another, face], descriptor)
    assert uncertainty.identity_drift > SAME_PERSON_DISTANCE
    assert uncertainty.identity_spread > SAME_PERSON_DISTANCE
    without_face = np.full_like(face, 128)
    assert measure_uncertainty(without_face, [face, face], descriptor).identity_drift is None


def test_consistency_uses_blur_that_explains_degraded_face(face):
    # Sigma 2 at 256 px is sigma 4 at 512 px, one of the candidates.
    blurred = cv2.GaussianBlur(face, (0, 0), 2.0)
    assert consistency_db(face, blurred) > 45
    assert consistency_db(face, face) > 80
    assert consistency_db(np.roll(face, 12, axis=1), blurred) < 30
