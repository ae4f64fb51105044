"""IQA scores depend on the crop alone."""

import urllib.error

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from authface_data.quality import iqa
from manifests.support.errors import MissingResourceError


@pytest.fixture(scope="module")
def crops(filled):
    faces = pd.read_parquet(filled / "manifests/faces")
    unpadded = ~(faces["pad_fraction"] > 0)
    return [np.asarray(Image.open(filled / path)) for path in faces.loc[unpadded, "crop_path"]]


@pytest.mark.parametrize("metric", ["piqe", "niqe"])
def test_metric_worsens_with_blur_and_repeats_exactly(crops, weights, metric):
    model = iqa.IqaMetric(metric, None)
    model.load("cpu")
    crop = crops[0]
    first_score, blurred_score = model.predict([crop, cv2.GaussianBlur(crop, (0, 0), 4)])
    assert blurred_score > first_score  # Lower is better in both metrics.
    np.random.seed(5)
    assert model.predict([crop]) == [first_score]


def test_metric_preserves_the_global_generator(crops, weights):
    model = iqa.IqaMetric("piqe", None)
    model.load("cpu")
    torch.manual_seed(3)
    state = torch.get_rng_state()
    model.predict([crops[0]])
    assert torch.equal(torch.get_rng_state(), state)


def test_error_for_missing_weights_names_the_file_and_its_place(monkeypatch, tmp_path):
    import pyiqa.utils.download_util as download

    def offline(*args, **kwargs):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(download, "download_url_to_file", offline)
    monkeypatch.setattr(download, "DEFAULT_CACHE_DIR", str(tmp_path))
    with pytest.raises(MissingResourceError) as caught:
        iqa.IqaMetric("brisque", None).load("cpu")
    assert "brisque" in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_filter_in_float64_is_that_of_pyiqa():
    from pyiqa.matlab_utils import fspecial
    from pyiqa.matlab_utils.functions import imfilter

    picture = torch.rand(2, 1, 40, 33, dtype=torch.float64) * 255
    kernel = fspecial(7, 7 / 6, 1).to(picture)
    for padding in ("same", "replicate"):
        expected = imfilter(picture, kernel, padding=padding)
        assert torch.allclose(iqa._filter(picture, kernel, padding=padding), expected, atol=1e-10)
