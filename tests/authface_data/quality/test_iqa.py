"""IQA scores belong to the face alone."""

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from authface_data.quality import iqa
from manifests.support.errors import MissingResourceError, UserError


@pytest.fixture(scope="module")
def crops(filled):
    faces = pd.read_parquet(filled / "manifests/faces")
    return [
        np.asarray(Image.open(filled / path))
        for path in faces.loc[~(faces["pad_fraction"] > 0), "crop_path"]
    ]


@pytest.mark.parametrize("metric", ["piqe", "niqe"])
def test_iqa_worsens_with_blur_and_repeats_to_the_bit(crops, weights, metric):
    scorer = iqa.Iqa(metric, "cpu", None)
    crop = crops[0]
    first = scorer.score(crop)
    assert scorer.score(cv2.GaussianBlur(crop, (0, 0), 4)) > first  # both: lower is better
    np.random.seed(5)
    assert scorer.score(crop) == first


def test_iqa_leaves_the_global_generators_alone(crops, weights):
    import torch

    scorer = iqa.Iqa("piqe", "cpu", None)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    scorer.score(crops[0])
    assert torch.equal(torch.get_rng_state(), before)


def test_missing_weights_name_the_file_and_its_place(monkeypatch, tmp_path):
    """Offline, a metric whose weights are not there says which file it wanted and where to put it."""
    import urllib.error

    import pyiqa.utils.download_util as download

    def offline(*args, **kwargs):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(download, "download_url_to_file", offline)
    monkeypatch.setattr(download, "DEFAULT_CACHE_DIR", str(tmp_path))
    with pytest.raises(MissingResourceError) as caught:
        iqa.Iqa("brisque", "cpu", None)
    assert "brisque" in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_an_unknown_metric_is_the_users_mistake():
    with pytest.raises(UserError, match="no metric 'msuiq'"):
        iqa.Iqa("msuiq", "cpu", None)


def test_luma_is_rec_601():
    from authface_data.quality.luma import luma

    pixels = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8)
    assert np.allclose(luma(pixels), [[76.245, 149.685, 29.07]], atol=1e-3)
