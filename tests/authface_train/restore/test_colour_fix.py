"""Colour fixes on a real face."""

import cv2
import numpy as np
import pytest
from PIL import Image

from authface_train.restore.colour_fix import adain_fix, wavelet_fix


@pytest.fixture(scope="module")
def face(photos):
    with Image.open(photos["obama.jpg"]) as image:
        return np.asarray(image.convert("RGB").crop((150, 100, 750, 700)).resize((256, 256)))


def detail(picture):
    """Mean difference between horizontal neighbours."""
    return np.abs(np.diff(picture.astype(float), axis=1)).mean()


def test_wavelet_fix_keeps_detail_of_restored_and_colour_of_degraded(face):
    tinted = np.clip(face.astype(int) + (30, 0, -30), 0, 255).astype(np.uint8)
    degraded = cv2.GaussianBlur(face, (0, 0), 3.0)
    fixed = wavelet_fix(tinted, degraded)
    assert np.abs(fixed.mean((0, 1)) - face.mean((0, 1))).max() < 2
    assert np.abs(tinted.mean((0, 1)) - face.mean((0, 1))).max() > 20
    assert detail(fixed) > 0.9 * detail(face) > 1.5 * detail(degraded)
    assert np.array_equal(wavelet_fix(face, face), face)


def test_adain_fix_takes_mean_and_deviation_of_degraded():
    rng = np.random.default_rng(0)
    size = (64, 64, 3)
    restored = rng.normal((100, 120, 140), (10, 20, 15), size).clip(0, 255).astype(np.uint8)
    degraded = rng.normal((140, 110, 90), (15, 10, 20), size).clip(0, 255).astype(np.uint8)
    fixed = adain_fix(restored, degraded).reshape(-1, 3)
    assert fixed.mean(0) == pytest.approx(degraded.reshape(-1, 3).mean(0), abs=0.3)
    assert fixed.std(0) == pytest.approx(degraded.reshape(-1, 3).std(0), abs=0.3)
