"""Values of the metrics, against other implementations of them."""

import json

import numpy as np
import pytest
import random_networks
import torch
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from authface_data.faces.descriptor import SAME_PERSON
from authface_data.faces.landmarks import eyes_and_mouth
from authface_train.evaluation.metrics import EQUAL_DB, METRICS, ImageMetrics, known
from manifests.support.errors import UserError


@pytest.fixture(scope="module")
def faces(photos):
    """Two people at 256 px, by name."""
    made = {}
    for name, box in (("obama", (150, 100, 750, 700)), ("biden", (150, 250, 850, 950))):
        with Image.open(photos[f"{name}.jpg"]) as image:
            made[name] = np.asarray(image.convert("RGB").crop(box).resize((256, 256)))
    return made


def noisy(picture, deviation):
    noise = np.random.default_rng(0).normal(0, deviation, picture.shape)
    return np.clip(np.rint(picture + noise), 0, 255).astype(np.uint8)


def test_psnr_and_ssim_are_scikit_images(faces):
    measures = ImageMetrics(["psnr", "ssim"], None, "cpu")
    for deviation in (2, 10, 40):
        clean, made = faces["obama"], noisy(faces["obama"], deviation)
        values = measures.of(made, clean)
        assert values["psnr"] == pytest.approx(peak_signal_noise_ratio(clean, made), abs=1e-4)
        assert values["ssim"] == pytest.approx(
            structural_similarity(clean, made, channel_axis=2), abs=1e-4
        )
    assert measures.of(clean, clean) == {"psnr": EQUAL_DB, "ssim": 1.0}


def test_what_has_no_reference_of_its_size_has_no_value(faces):
    measures = ImageMetrics(["psnr", "piqe"], None, "cpu")
    for reference in (None, faces["obama"][:128]):
        values = measures.of(faces["obama"], reference)
        assert values["psnr"] is None
        assert values["piqe"] > 0


@pytest.mark.usefixtures("weights")
def test_a_picture_too_small_for_a_metric_has_no_value_and_stops_nothing(faces):
    measures = ImageMetrics(["psnr", "niqe"], None, "cpu")
    small = faces["obama"][:64, :64]
    assert measures.of(small, small) == {"psnr": EQUAL_DB, "niqe": None}
    assert measures.of(faces["obama"], None)["niqe"] > 0


@pytest.mark.slow
@pytest.mark.usefixtures("weights")
def test_identity_and_landmarks(faces):
    measures = ImageMetrics(["identity", "landmarks"], None, "cpu")
    obama, biden = faces["obama"], faces["biden"]
    assert measures.of(obama, obama) == {"identity": 0, "landmarks": 0}
    assert (
        measures.of(biden, obama)["identity"]
        > SAME_PERSON
        > measures.of(noisy(obama, 12), obama)["identity"]
    )
    shifted = np.roll(obama, 8, axis=1)
    left, right, *_ = eyes_and_mouth(measures._descriptor.look(obama).landmarks_px)
    assert measures.of(shifted, obama)["landmarks"] == pytest.approx(
        100 * 8 / np.linalg.norm(right - left), rel=0.1
    )
    assert measures.of(np.zeros_like(obama), obama) == {"identity": None, "landmarks": None}


def test_names(faces):
    assert list(METRICS)[:7] == ["psnr", "ssim", "lpips", "maniqa", "musiq", "fid", "clipiqa"]
    assert (known("niqe").more, known("niqe").kind) == (False, "picture")
    assert (known("vsi").more, known("vsi").kind) == (True, "reference")
    with pytest.raises(UserError, match="no metric 'lpipz'"):
        known("lpipz")


@pytest.mark.slow
def test_lpips_and_fid_with_networks_of_known_weights(faces, tmp_path, authface, monkeypatch):
    """LPIPS written out plainly: pictures in [-1, 1], then ImageNet's statistics. FID of a set to itself is 0."""
    features, weights = random_networks.save_alexnet_lpips(tmp_path / "torch")
    random_networks.save_inception(tmp_path / "torch", monkeypatch)
    clean, made = tmp_path / "clean", tmp_path / "made"
    for folder in (clean, made):
        folder.mkdir()
    for name, face in faces.items():
        Image.fromarray(face).save(clean / f"{name}.png")
        Image.fromarray(noisy(face, 20)).save(made / f"{name}.png")
    words = ("evaluate", "--reference", clean, "--metrics", "lpips,fid", "--json", "--restored")
    done = authface(
        *words,
        f"noisy={made}",
        "--restored",
        f"same={clean}",
        env={"TORCH_HOME": str(tmp_path / "torch")},
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    expected = np.mean(
        [plain_lpips(features, weights, noisy(face, 20), face) for face in faces.values()]
    )
    assert said["methods"]["noisy"]["lpips"] == pytest.approx(expected, rel=1e-4)
    assert said["methods"]["same"]["lpips"] == pytest.approx(0, abs=1e-6)
    assert said["methods"]["same"]["fid"] == pytest.approx(0, abs=1e-3)
    assert said["methods"]["noisy"]["fid"] > said["methods"]["same"]["fid"]
    assert said["fid_reference"]["count"] == 2
    assert len(said["fid_reference"]["sha256"]) == 64


def plain_lpips(features, weights, one, other):
    """Zhang et al. 2018, Eq. 1."""
    total, ends = 0.0, (1, 4, 7, 9, 11)  # after each ReLU
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    layers = []
    for picture in (one, other):
        signed = torch.from_numpy(picture.copy()).float() / 127.5 - 1
        value = ((signed - shift) / scale).permute(2, 0, 1)[None]
        found = []
        with torch.no_grad():
            for place, layer in enumerate(features):
                value = layer(value)
                if place in ends:
                    found.append(value / (value.square().sum(1, keepdim=True).sqrt() + 1e-10))
        layers.append(found)
    for a, b, weight in zip(*layers, weights, strict=True):
        total += float(((a - b).square()[0] * weight[:, None, None]).sum(0).mean())
    return total
