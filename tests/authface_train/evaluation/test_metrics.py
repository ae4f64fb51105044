"""Values of the metrics, compared with other implementations."""

import json
import shutil

import numpy as np
import pytest
import random_networks
import torch
from PIL import Image
from pyiqa.archs import fid_arch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from authface_data.faces.descriptor import SAME_PERSON_DISTANCE
from authface_data.faces.landmarks import alignment_points
from authface_train.evaluation.fid import frechet_distance
from authface_train.evaluation.metrics import (
    EQUAL_DB,
    METRICS,
    ImageMetrics,
    get_metric,
    select_metrics,
)
from manifests.support.errors import UserError


@pytest.fixture(scope="module")
def faces(photos):
    """Faces of two people at 256 px, by name."""
    boxes = {"obama": (150, 100, 750, 700), "biden": (150, 250, 850, 950)}
    pictures = {}
    for name, box in boxes.items():
        with Image.open(photos[f"{name}.jpg"]) as image:
            pictures[name] = np.asarray(image.convert("RGB").crop(box).resize((256, 256)))
    return pictures


def add_noise(picture, deviation):
    noise = np.random.default_rng(0).normal(0, deviation, picture.shape)
    return np.clip(np.rint(picture + noise), 0, 255).astype(np.uint8)


def test_psnr_and_ssim_equal_scikit_image(faces):
    metrics = ImageMetrics(["psnr", "ssim"], None, "cpu")
    clean = faces["obama"]
    for deviation in (2, 10, 40):
        noisy = add_noise(clean, deviation)
        values = metrics.measure(noisy, clean)
        expected_ssim = structural_similarity(clean, noisy, channel_axis=2)
        assert values["psnr"] == pytest.approx(peak_signal_noise_ratio(clean, noisy), abs=1e-4)
        assert values["ssim"] == pytest.approx(expected_ssim, abs=1e-4)
    assert metrics.measure(clean, clean) == {"psnr": EQUAL_DB, "ssim": 1.0}


def test_reference_metric_has_no_value_without_reference_of_same_size(faces):
    metrics = ImageMetrics(["psnr", "piqe"], None, "cpu")
    for reference in (None, faces["obama"][:128]):
        values = metrics.measure(faces["obama"], reference)
        assert values["psnr"] is None
        assert values["piqe"] > 0


@pytest.mark.usefixtures("weights")
def test_too_small_picture_has_no_value(faces):
    metrics = ImageMetrics(["psnr", "niqe"], None, "cpu")
    small = faces["obama"][:64, :64]
    assert metrics.measure(small, small) == {"psnr": EQUAL_DB, "niqe": None}
    assert metrics.measure(faces["obama"], None)["niqe"] > 0


@pytest.mark.slow
@pytest.mark.usefixtures("weights")
def test_identity_and_landmarks_measure_person_and_shift(faces):
    metrics = ImageMetrics(["identity", "landmarks"], None, "cpu")
    obama = faces["obama"]
    biden = faces["biden"]
    assert metrics.measure(obama, obama) == {"identity": 0, "landmarks": 0}
    other_person = metrics.measure(biden, obama)["identity"]
    same_person = metrics.measure(add_noise(obama, 12), obama)["identity"]
    assert other_person > SAME_PERSON_DISTANCE > same_person

    shifted = np.roll(obama, 8, axis=1)
    face = metrics._descriptor.locate_and_describe(obama)
    left_eye, right_eye, *_ = alignment_points(face.landmarks68_px)
    expected = 100 * 8 / np.linalg.norm(right_eye - left_eye)
    assert metrics.measure(shifted, obama)["landmarks"] == pytest.approx(expected, rel=0.1)

    without_face = np.zeros_like(obama)
    assert metrics.measure(without_face, obama) == {"identity": None, "landmarks": None}


def test_metrics_are_found_in_table_1_and_in_pyiqa():
    assert list(METRICS)[:7] == ["psnr", "ssim", "lpips", "maniqa", "musiq", "fid", "clipiqa"]
    niqe = get_metric("niqe")
    vsi = get_metric("vsi")
    assert (niqe.higher_is_better, niqe.kind) == (False, "picture")
    assert (vsi.higher_is_better, vsi.kind) == (True, "reference")
    with pytest.raises(UserError, match="unknown metric 'lpipz'"):
        get_metric("lpipz")


def test_default_metrics_depend_on_given_references():
    everything = select_metrics(None, has_reference=True, has_fid_reference=True)
    assert everything == list(METRICS)
    without_any = select_metrics(None, has_reference=False, has_fid_reference=False)
    assert without_any == ["maniqa", "musiq", "clipiqa"]
    with pytest.raises(UserError, match="psnr needs clean pictures; add --reference DIR"):
        select_metrics(["piqe", "psnr"], has_reference=False, has_fid_reference=True)
    with pytest.raises(UserError, match="add --fid-reference DIR"):
        select_metrics(["fid"], has_reference=False, has_fid_reference=False)


@pytest.mark.slow
def test_lpips_and_fid_with_networks_of_known_weights(faces, tmp_path, authface_here, monkeypatch):
    """LPIPS equals a plain implementation; FID between equal sets is 0."""
    features, weights = random_networks.save_alexnet_lpips(tmp_path / "torch")
    random_networks.save_inception(tmp_path / "torch", monkeypatch)
    random_networks.use_torch_home(tmp_path / "torch", monkeypatch)
    clean_folder = tmp_path / "clean"
    noisy_folder = tmp_path / "noisy"
    single_folder = tmp_path / "single"
    for folder in (clean_folder, noisy_folder, single_folder):
        folder.mkdir()
    for name, face in faces.items():
        Image.fromarray(face).save(clean_folder / f"{name}.png")
        Image.fromarray(add_noise(face, 20)).save(noisy_folder / f"{name}.png")
    shutil.copy(clean_folder / "obama.png", single_folder)
    completed = authface_here(
        "evaluate",
        "--restored",
        f"noisy={noisy_folder}",
        "--restored",
        f"same={clean_folder}",
        "--restored",
        single_folder,
        "--reference",
        clean_folder,
        "--metrics",
        "lpips,fid",
        "--json",
    )
    assert completed.returncode == 0, completed.stderr
    summary = json.loads(completed.stdout)
    noisy = summary["methods"]["noisy"]
    same = summary["methods"]["same"]
    distances = [
        plain_lpips(features, weights, add_noise(face, 20), face) for face in faces.values()
    ]
    assert noisy["lpips"] == pytest.approx(np.mean(distances), rel=1e-4)
    assert same["lpips"] == pytest.approx(0, abs=1e-6)
    assert same["fid"] == pytest.approx(0, abs=1e-3)
    assert noisy["fid"] > same["fid"]
    assert summary["fid_reference"]["count"] == 2
    assert len(summary["fid_reference"]["sha256"]) == 64
    assert "fid" not in summary["methods"]["single"]
    assert "single: no FID of one picture; it needs two" in summary["notes"]


@pytest.mark.parametrize(("count", "reference_count"), [(300, 200), (40, 200), (40, 30)])
def test_frechet_distance_equals_that_of_the_covariances(count, reference_count):
    """Also with fewer pictures than features, when the covariance is singular."""
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(64, 64))
    features = rng.normal(size=(count, 64)) @ mixing + 0.5
    reference = 1.1 * rng.normal(size=(reference_count, 64)) @ mixing
    expected = fid_arch.frechet_distance(
        features.mean(0),
        np.cov(features, rowvar=False),
        reference.mean(0),
        np.cov(reference, rowvar=False),
    )
    assert frechet_distance(features, reference) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(features, features) == pytest.approx(0, abs=1e-8)


def plain_lpips(features, weights, first, second):
    """Zhang et al. 2018, Eq. 1, of two (height, width, 3) uint8 pictures.

    Pictures are scaled to [-1, 1] and normalised with ImageNet's statistics. Layers are compared
    after each ReLU of AlexNet.
    """
    relu_indices = (1, 4, 7, 9, 11)
    shift = torch.tensor([-0.030, -0.088, -0.188])
    scale = torch.tensor([0.458, 0.448, 0.450])
    activations = []
    for picture in (first, second):
        signed = torch.from_numpy(picture.copy()).float() / 127.5 - 1
        value = ((signed - shift) / scale).permute(2, 0, 1)[None]
        normalised = []
        with torch.no_grad():
            for index, layer in enumerate(features):
                value = layer(value)
                if index in relu_indices:
                    norm = value.square().sum(1, keepdim=True).sqrt()
                    normalised.append(value / (norm + 1e-10))
        activations.append(normalised)
    total = 0.0
    for a, b, weight in zip(*activations, weights, strict=True):
        total += float(((a - b).square()[0] * weight[:, None, None]).sum(0).mean())
    return total
