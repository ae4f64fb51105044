"""The artefact measures on real faces, from photographs that they were not tuned on."""

import functools
import itertools
from importlib import import_module

import cv2
import numpy as np
import pytest
from degradations import DEGRADATIONS, auc, darken, downscale, flatten_light
from PIL import Image
from public_faces import crops, held_out_crops, photographs

from authface_data.faces.align import align_photo, ffhq_quad
from authface_data.images.encode import encode_image
from authface_data.images.open import Photo
from authface_data.quality import ARTEFACTS, jpeg
from manifests.settings import load_settings, preset_text

# This photograph has film grain, so it has reason to score low.
GRAINY = "tongue.jpg:0"
CASES = [
    (name, degrade, strengths)
    for name, degradations in DEGRADATIONS.items()
    for degrade, strengths in degradations
]


def score_function(name):
    return import_module(ARTEFACTS[name]).score


@pytest.fixture(scope="module")
def held_out(photos, weights):
    crops = held_out_crops()
    assert len(crops) == 19
    return crops


@pytest.fixture(scope="module")
def clean_crops(held_out):
    """Return the clean crops for a measure.

    `detail` needs crops with detail down to the last pixel, so it gets smaller ones.
    """
    small = [downscale(crop, 256) for crop in held_out.values()]
    return lambda name: small if name == "detail" else list(held_out.values())


@pytest.fixture(scope="module")
def reference_scores(clean_crops):
    """Return the scores of the clean crops and of the hard negatives for a measure."""

    @functools.cache
    def compute(name):
        score = score_function(name)
        clean = clean_crops(name)
        hard_negatives = [
            score(change(crop)) for crop in clean for change in (darken, flatten_light)
        ]
        return [score(crop) for crop in clean], hard_negatives

    return compute


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "degrade", "strengths"),
    CASES,
    ids=[f"{name}-{degrade.__name__}" for name, degrade, _ in CASES],
)
def test_score_falls_with_strength_and_separates_from_clean(
    clean_crops, reference_scores, name, degrade, strengths
):
    """The score falls on average and for almost every face, and separates from hard negatives."""
    score = score_function(name)
    clean = clean_crops(name)
    clean_scores, hard_negatives = reference_scores(name)
    scores = [clean_scores]
    for strength in strengths:
        scores.append([score(degrade(crop, strength)) for crop in clean])

    falls = [
        all(weaker > stronger for weaker, stronger in itertools.pairwise(face_scores))
        for face_scores in zip(*scores, strict=True)
    ]
    assert np.mean(falls) >= 0.85
    assert (np.diff(np.mean(scores, axis=1)) < 0).all()

    for degraded in scores[1:]:
        assert min(degraded) >= 0
        assert auc(degraded, [*scores[0], *hard_negatives]) >= 0.95
    assert auc(scores[-1], scores[0]) >= 0.97


@pytest.mark.slow
@pytest.mark.parametrize("name", ARTEFACTS)
def test_clean_faces_pass_the_gates_of_the_preset(held_out, reference_scores, name):
    settings = load_settings(preset_text("paper").encode(), "paper")
    gate = next(gate for gate in settings.gates if gate.metric == name)
    clean_scores, hard_negatives = reference_scores(name)

    scores = np.array(clean_scores)
    without_grainy = np.delete(scores, list(held_out).index(GRAINY))
    assert (without_grainy >= gate.threshold).mean() >= 0.85

    assert (np.array(hard_negatives) >= gate.threshold).mean() >= 0.9


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in ARTEFACTS if name != "detail"])
def test_score_does_not_depend_on_the_size_of_the_crop(held_out, name):
    """A face enlarged from 512 to 1024 and 2048 px keeps its score, clean and degraded."""
    degrade, strengths = DEGRADATIONS[name][0]
    score = score_function(name)
    # Both crops cover the same part of the photograph.
    quad_px = np.array([[0, 0], [0, 512], [512, 512], [512, 0]]) - 0.5
    arguments = [quad_px] if name == "jpeg" else []

    differences = []
    for crop in list(held_out.values())[::4]:
        for picture in (crop, degrade(crop, strengths[1])):
            for size in (1024, 2048):
                larger = cv2.resize(picture, (size, size), interpolation=cv2.INTER_CUBIC)
                differences.append(abs(score(larger, *arguments) - score(picture, *arguments)))
    assert np.mean(differences) < 0.1
    assert max(differences) < 0.3


@pytest.mark.slow
def test_detail_measures_the_pixels_of_the_crop_itself(held_out):
    """A face with detail to the last pixel scores high at 256 and 512 px, and low when enlarged."""
    score = score_function("detail")
    sharp = crops({"tongue.jpg": photographs()["tongue.jpg"]}, 512)["tongue.jpg:0"]
    assert score(sharp) > 0.9
    assert score(downscale(sharp, 256)) > 0.9
    assert score(cv2.resize(sharp, (2048, 2048), interpolation=cv2.INTER_CUBIC)) < 0.2


def test_jpeg_finds_blocks_that_alignment_has_rotated(photos):
    """The photograph was compressed before alignment; the quad locates the grid in the crop."""
    with Image.open(photographs()["sample6.jpg"]) as opened:
        picture = opened.convert("RGB")
    quad = ffhq_quad(*np.array([(640, 470), (790, 460), (680, 640), (780, 630)], float))
    scores = {}
    for quality in (95, 25, 15):
        data = encode_image(picture, "JPEG", quality)
        crop = align_photo(Photo(lambda data=data: data), quad, 512).pixels
        scores[quality] = jpeg.score(crop, quad.corners_px)

    assert scores[95] > 0.85
    assert scores[15] < scores[25] < 0.55
    # Without the quad the grid is searched in the wrong place and missed.
    assert jpeg.score(crop) > scores[15] + 0.3


def test_every_measure_has_a_version_and_documents_its_failures():
    for module_name in ARTEFACTS.values():
        module = import_module(module_name)
        assert module.VERSION
        assert "Fails on" in module.__doc__


@pytest.mark.parametrize("name", ARTEFACTS)
@pytest.mark.parametrize("level", [0, 128, 255])
def test_flat_picture_has_a_valid_score(name, level):
    assert 0 <= score_function(name)(np.full((512, 512, 3), level, np.uint8)) <= 1
