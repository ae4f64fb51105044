"""Degradation with tensors: the CPU's parameters, and its pictures up to a tolerance."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from skimage import data

from authface_train.data.degradation import (
    PRESETS,
    REFERENCE_PX,
    DegradationParams,
    degrade,
    draw_params,
    resize_degraded,
)
from authface_train.data.degradation_torch import degrade_batch
from authface_train.data.jpeg_torch import compress_jpeg
from authface_train.data.pairs import to_planes


def psnr(image: np.ndarray, reference: np.ndarray) -> float:
    squared_error = np.mean((image.astype(float) - reference) ** 2)
    return float(10 * np.log10(1 / max(squared_error, 1e-12)))


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    """(512, 512, 3) uint8: a portrait of the astronaut Eileen Collins."""
    return data.astronaut()


def cpu_noise(params: DegradationParams) -> torch.Tensor:
    """The noise that `degrade` adds."""
    side = max(int(REFERENCE_PX // params.down), 1)
    noise = np.random.default_rng(params.noise_seed).standard_normal((side, side, 3), np.float32)
    return to_planes(noise)


def to_image(planes: torch.Tensor) -> np.ndarray:
    return planes.permute(1, 2, 0).numpy()


@pytest.mark.parametrize("quality", [1, 30, 60, 90, 100])
@pytest.mark.parametrize("size", [(64, 96), (101, 77), (17, 17)], ids=str)
def test_jpeg_differs_from_libjpeg_by_single_levels(photo, quality, size):
    height, width = size
    image = np.ascontiguousarray(photo[80 : 80 + height, 180 : 180 + width])
    bgr = np.ascontiguousarray(image[..., ::-1])
    _, encoded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    expected = cv2.imdecode(encoded, cv2.IMREAD_COLOR)[..., ::-1].astype(float)
    compressed = to_image(compress_jpeg(to_planes(image).float(), quality))
    difference = np.abs(compressed - expected)
    assert difference.mean() < 0.25
    assert (difference > 0).mean() < 0.2
    assert np.abs(compressed - image).mean() > difference.mean()


@pytest.mark.parametrize("name", PRESETS)
def test_pictures_with_equal_noise_are_within_35_db_of_the_cpu(photo, name):
    """Half of them are within 42 dB."""
    rng = np.random.default_rng(2)
    params = [draw_params(PRESETS[name], rng) for _ in range(5)]
    # Every operation occurs.
    params[0] = replace(params[0], shift=(0.05, -0.07, 0.02), jitter=(0.7, 1.4, 0.3, 0.05))
    params[1] = replace(params[1], grey=True)
    images = to_planes(photo).expand(5, -1, -1, -1)
    noise = [cpu_noise(sample) for sample in params]
    degraded = degrade_batch(images, params, REFERENCE_PX, noise)
    assert degraded.dtype == torch.float32
    similarity = [
        psnr(to_image(planes), degrade(photo, sample))
        for planes, sample in zip(degraded, params, strict=True)
    ]
    assert min(similarity) > 35
    assert np.median(similarity) > 42


@pytest.mark.parametrize("size_px", [64, 320, 768])
def test_result_is_resized_like_on_the_cpu(photo, size_px):
    params = [draw_params(PRESETS["gfpgan"], np.random.default_rng(4))]
    degraded = degrade_batch(to_planes(photo)[None], params, size_px, [cpu_noise(params[0])])
    full = degrade_batch(to_planes(photo)[None], params, REFERENCE_PX, [cpu_noise(params[0])])
    expected = resize_degraded(np.ascontiguousarray(to_image(full[0])), size_px)
    assert np.abs(to_image(degraded[0]) - expected).max() < 1e-4


def test_noise_follows_from_the_seed_of_the_sample(photo):
    rng = np.random.default_rng(3)
    params = [draw_params(PRESETS["gfpgan"], rng) for _ in range(2)]
    images = to_planes(photo).expand(2, -1, -1, -1)
    torch.manual_seed(0)
    both = degrade_batch(images, params, 64)
    torch.manual_seed(1)
    alone = degrade_batch(images[:1], params[1:], 64)
    assert torch.equal(both[1], alone[0])
    other_seed = [replace(sample, noise_seed=sample.noise_seed + 1) for sample in params]
    assert not torch.equal(degrade_batch(images, other_seed, 64), both)
    # The strength is that of the CPU.
    flat = torch.full((1, 3, 512, 512), 128, dtype=torch.uint8)
    noisy = replace(params[0], noise=15.0, down=1.0, jpeg=100, shift=None, jitter=None, grey=False)
    expected = degrade(np.full((512, 512, 3), 128, np.uint8), noisy).std()
    assert degrade_batch(flat, [noisy], 512).std() == pytest.approx(expected, rel=0.02)
