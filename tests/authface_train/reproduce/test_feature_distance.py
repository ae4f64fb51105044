"""The distance of deep features: zero for equal pictures, larger for stronger damage."""

import cv2
import numpy as np
import pytest
from skimage.data import astronaut

from authface_train.reproduce.feature_distance import FeatureDistance


@pytest.fixture(scope="module")
def face():
    """NASA's portrait of Eileen Collins, 64 px."""
    return cv2.resize(astronaut()[20:240, 120:340], (64, 64), interpolation=cv2.INTER_AREA)


def test_distance_grows_with_blur_and_with_noise(weights, face):
    distance = FeatureDistance()
    assert distance.measure(face, face) == 0
    blurred = [
        distance.measure(cv2.GaussianBlur(face, (0, 0), sigma), face) for sigma in (0.6, 1, 2)
    ]
    assert 0.02 < blurred[0] < blurred[1] < blurred[2]

    rng = np.random.default_rng(0)
    noisy = [
        distance.measure(
            np.clip(face + rng.normal(0, sigma, face.shape), 0, 255).astype("u1"), face
        )
        for sigma in (2, 10)
    ]
    assert 0 < noisy[0] < noisy[1]
