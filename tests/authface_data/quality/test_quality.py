"""Artefact measures fall as a real crop is degraded; IQA scores belong to the face alone."""

import itertools

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from authface_data.quality import ARTEFACTS, exposure, iqa, pepper, sharpness
from manifests.errors import Missing, UserMistake


@pytest.fixture(scope="module")
def crops(filled):
    faces = pd.read_parquet(filled / "manifests/faces")
    return [np.asarray(Image.open(filled / path)) for path in faces.loc[~(faces["pad_fraction"] > 0), "crop_path"]]


def peppered(crop, share):
    rng = np.random.default_rng(1)
    made = crop.copy()
    hit = rng.uniform(size=crop.shape[:2]) < share
    made[hit] = np.where(rng.uniform(size=(hit.sum(), 1)) < 0.5, 0, 255)
    return made


def brightened(crop, gain):
    return np.clip(crop.astype(float) * gain, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("measure", "steps"),
    [
        (pepper.score, [lambda c: c, lambda c: peppered(c, 0.001), lambda c: peppered(c, 0.003), lambda c: peppered(c, 0.02)]),
        (sharpness.score, [lambda c: c, *(lambda c, s=s: cv2.GaussianBlur(c, (0, 0), s) for s in (1.5, 3, 6))]),
        (exposure.score, [lambda c: c, *(lambda c, g=g: brightened(c, g) for g in (1.1, 1.2, 1.3))]),
    ],
    ids=["pepper", "sharpness", "exposure"],
)
def test_the_score_falls_with_every_step(crops, measure, steps):
    for crop in crops:
        values = [measure(step(crop)) for step in steps]
        assert all(0 <= value <= 1 for value in values)
        assert all(a > b for a, b in itertools.pairwise(values)), values
        assert values[0] - values[-1] > 0.15


def test_clean_portraits_score_well(crops):
    for crop in crops:
        assert pepper.score(crop) > 0.9
        assert exposure.score(crop) > 0.8


def test_every_artefact_has_a_version_and_says_where_it_fails():
    from importlib import import_module

    for name in ARTEFACTS.values():
        module = import_module(name)
        assert module.VERSION
        assert "Fails on" in module.__doc__


@pytest.mark.parametrize("flat", [0, 128, 255])
def test_a_flat_picture_is_no_error(flat):
    crop = np.full((64, 64, 3), flat, np.uint8)
    for measure in (pepper.score, sharpness.score, exposure.score):
        assert 0 <= measure(crop) <= 1


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
    with pytest.raises(Missing) as caught:
        iqa.Iqa("brisque", "cpu", None)
    assert "brisque" in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_an_unknown_metric_is_the_users_mistake():
    with pytest.raises(UserMistake, match="no metric 'msuiq'"):
        iqa.Iqa("msuiq", "cpu", None)


def test_luma_is_rec_601():
    from authface_data.quality.luma import luma

    pixels = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8)
    assert np.allclose(luma(pixels), [[76.245, 149.685, 29.07]], atol=1e-3)
