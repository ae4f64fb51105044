"""Degradations: the drawn parameters, and every operation against a slow reference version."""

import colorsys
import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from skimage import data

from authface_train.data import blur
from authface_train.data.blur import blur_and_resize, gaussian_kernel
from authface_train.data.degradation import (
    PRESETS,
    DegradationParams,
    degrade,
    draw_params,
    get_preset,
)
from authface_train.data.sample_keys import numpy_generator
from manifests.support.errors import UserError


def load_face() -> np.ndarray:
    """(128, 128, 3) uint8: the astronaut's face."""
    return np.ascontiguousarray(data.astronaut()[60:188, 160:288])


MILD = DegradationParams(
    sigmas_px=(0.1, 0.1),
    turn_rad=0.0,
    down=1.0,
    noise=0.0,
    noise_seed=1,
    jpeg=100,
    shift=None,
    grey=False,
    jitter=None,
    jitter_order=(0, 1, 2, 3),
    rounded=True,
)
"""A degradation that changes almost nothing."""


def psnr(image: np.ndarray, reference: np.ndarray) -> float:
    squared_error = np.mean((image.astype(float) - reference) ** 2)
    return float(10 * np.log10(1 / max(squared_error, 1e-12)))


def reference_kernel(sigmas_px, turn_rad) -> np.ndarray:
    """Each value from its distance along both rotated axes."""
    kernel = np.empty((41, 41))
    for y in range(-20, 21):
        for x in range(-20, 21):
            along = x * np.cos(turn_rad) + y * np.sin(turn_rad)
            across = -x * np.sin(turn_rad) + y * np.cos(turn_rad)
            exponent = (along / sigmas_px[0]) ** 2 + (across / sigmas_px[1]) ** 2
            kernel[y + 20, x + 20] = np.exp(-0.5 * exponent)
    return kernel / kernel.sum()


def reference_resize(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """Bilinear interpolation between pixel centres, one output row or column at a time."""

    def resize_rows(rows: np.ndarray, count: int) -> np.ndarray:
        resized = np.empty((count, *rows.shape[1:]))
        for index in range(count):
            position = min(max((index + 0.5) * len(rows) / count - 0.5, 0), len(rows) - 1)
            lower = min(int(position), len(rows) - 2)
            fraction = position - lower
            resized[index] = rows[lower] + fraction * (rows[lower + 1] - rows[lower])
        return resized

    return resize_rows(resize_rows(image, height).swapaxes(0, 1), width).swapaxes(0, 1)


def reference_blur_and_resize(image: np.ndarray, params: DegradationParams) -> np.ndarray:
    kernel = reference_kernel(params.sigmas_px, params.turn_rad)
    channels = [
        ndimage.correlate(image[..., channel], kernel, mode="mirror") for channel in range(3)
    ]
    height, width = image.shape[:2]
    return reference_resize(
        np.stack(channels, -1), int(width // params.down), int(height // params.down)
    )


def reference_jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    pixels = np.rint(image * 255).astype(np.uint8)
    Image.fromarray(pixels).save(file, "JPEG", quality=quality, subsampling=2)
    return np.asarray(Image.open(file), float) / 255


def luma(image: np.ndarray) -> np.ndarray:
    return image @ [0.299, 0.587, 0.114]


def reference_hue_shift(image: np.ndarray, turns: float) -> np.ndarray:
    hsv = [colorsys.rgb_to_hsv(*pixel) for pixel in image.reshape(-1, 3)]
    rgb = [colorsys.hsv_to_rgb((h + turns) % 1, s, v) for h, s, v in hsv]
    return np.array(rgb).reshape(image.shape)


def reference_jitter(image: np.ndarray, amounts, order) -> np.ndarray:
    brightness, contrast, saturation, hue = amounts
    for operation in order:
        if operation == 0:
            image = image * brightness
        elif operation == 1:
            mean = luma(image).mean()
            image = mean + (image - mean) * contrast
        elif operation == 2:
            grey = luma(image)[..., None]
            image = grey + (image - grey) * saturation
        else:
            image = reference_hue_shift(image, hue)
        image = np.clip(image, 0, 1)
    return image


def reference_degrade(image: np.ndarray, params: DegradationParams) -> np.ndarray:
    """The whole degradation, float64 in [0, 1]."""
    degraded = reference_blur_and_resize(image / 255, params)
    generator = np.random.default_rng(params.noise_seed)
    noise = generator.standard_normal(degraded.shape, np.float32) * params.noise / 255
    degraded = reference_jpeg(np.clip(degraded + noise, 0, 1), params.jpeg)
    degraded = reference_resize(degraded, image.shape[1], image.shape[0])
    if params.shift:
        degraded = np.clip(degraded + params.shift, 0, 1)
    if params.grey:
        degraded = np.repeat(luma(degraded)[..., None], 3, axis=2)
    if params.jitter:
        degraded = reference_jitter(degraded, params.jitter, params.jitter_order)
    degraded = np.clip(degraded, 0, 1)
    return np.rint(degraded * 255) / 255 if params.rounded else degraded


@pytest.mark.parametrize(
    ("sigmas_px", "turn_rad"),
    [((3.0, 1.0), 0.0), ((8.0, 2.0), 0.7), ((0.1, 0.1), 0.0), ((10.0, 0.5), -2.0)],
)
def test_kernel_is_a_rotated_gaussian(sigmas_px, turn_rad):
    difference = gaussian_kernel(sigmas_px, turn_rad) - reference_kernel(sigmas_px, turn_rad)
    assert np.abs(difference).max() < 1e-6


@pytest.mark.parametrize("name", PRESETS)
def test_blur_and_resize_is_within_60_db_of_the_reference(name, monkeypatch):
    """With matrices and with Fourier transforms."""
    image = load_face() / 255
    rng = np.random.default_rng(5)
    for _ in range(4):
        params = draw_params(PRESETS[name], rng)
        expected = reference_blur_and_resize(image, params)
        height, width = expected.shape[:2]
        kernel = gaussian_kernel(params.sigmas_px, params.turn_rad)
        for max_intermediate in (10**9, 0):
            monkeypatch.setattr(blur, "MAX_INTERMEDIATE", max_intermediate)
            resized = blur_and_resize(image.astype(np.float32), kernel, width, height)
            assert resized.shape == expected.shape
            assert psnr(resized, expected) > 60, params


def test_levels_are_blurred_like_fractions():
    kernel = gaussian_kernel((3.0, 1.0), 0.4)
    levels = blur_and_resize(load_face(), kernel, 50, 40)
    fractions = blur_and_resize(load_face().astype(np.float32) / 255, kernel, 50, 40)
    assert np.abs(levels / 255 - fractions).max() < 1e-5


@pytest.mark.parametrize(
    "change",
    [
        {"down": 2.0},
        {"down": 3.7, "sigmas_px": (4.0, 1.0), "turn_rad": 0.6},
        {"down": 0.8},
        {"noise": 15.0},
        {"jpeg": 35},
        {"shift": (0.05, -0.07, 0.02)},
        {"grey": True},
        {"jitter": (1.3, 1.0, 1.0, 0.0)},
        {"jitter": (1.0, 0.6, 1.0, 0.0)},
        {"jitter": (1.0, 1.0, 1.4, 0.0)},
        {"jitter": (1.0, 1.0, 1.0, 0.08)},
        {"jitter": (1.0, 1.0, 1.0, -0.08)},
        {"jitter": (0.7, 1.4, 0.3, 0.05), "jitter_order": (3, 1, 0, 2)},
    ],
    ids=str,
)
def test_each_operation_matches_the_reference(change):
    params = replace(MILD, **change)
    degraded = degrade(load_face(), params)
    assert degraded.shape == (128, 128, 3)
    assert degraded.dtype == np.float32
    # The JPEG libraries of OpenCV and Pillow differ by single grey levels.
    expected = reference_degrade(load_face(), params)
    assert psnr(degraded, expected) > 40
    without_change = degrade(load_face(), MILD)
    assert psnr(degraded, without_change) < psnr(degraded, expected)


@pytest.mark.parametrize("name", PRESETS)
def test_drawn_degradations_are_within_40_db_of_the_reference(name):
    rng = np.random.default_rng(11)
    for _ in range(4):
        params = draw_params(PRESETS[name], rng)
        degraded = degrade(load_face(), params)
        assert psnr(degraded, reference_degrade(load_face(), params)) > 40, params


def test_result_is_rounded_to_8_bits_only_if_set():
    params = replace(MILD, noise=10.0, down=2.5)
    levels = degrade(load_face(), params) * 255
    assert np.abs(levels - np.rint(levels)).max() < 1e-3
    levels = degrade(load_face(), replace(params, rounded=False)) * 255
    assert np.abs(levels - np.rint(levels)).max() > 0.1


def test_input_image_is_not_changed():
    image = load_face()
    degrade(image, replace(MILD, jitter=(0.7, 1.4, 0.3, 0.05), shift=(0.1, 0.1, 0.1)))
    assert np.array_equal(image, load_face())


def test_parameters_follow_from_seed_epoch_and_face():
    def draw(seed, epoch, face_id):
        generator = numpy_generator(seed, epoch, face_id, "degrade")
        return draw_params(PRESETS["gfpgan"], generator)

    assert draw(0, 1, "a") == draw(0, 1, "a")
    assert len({draw(0, 1, "a"), draw(1, 1, "a"), draw(0, 2, "a"), draw(0, 1, "b")}) == 4


@pytest.mark.parametrize("name", PRESETS)
def test_drawn_parameters_cover_the_ranges_of_the_preset(name):
    ranges = PRESETS[name]
    drawn = [draw_params(ranges, np.random.default_rng(seed)) for seed in range(400)]
    for key, (low, high) in (
        ("down", ranges.down),
        ("noise", ranges.noise),
        ("jpeg", ranges.jpeg),
    ):
        values = np.array([getattr(params, key) for params in drawn])
        assert low <= values.min()
        assert values.max() <= high
        assert np.ptp(values) > 0.9 * (high - low)
    assert all(isinstance(params.jpeg, int) for params in drawn)
    isotropic = np.mean([params.sigmas_px[0] == params.sigmas_px[1] for params in drawn])
    assert 0.4 < isotropic < 0.6
    for key, probability in (("shift", ranges.p_shift), ("jitter", ranges.p_jitter)):
        frequency = np.mean([getattr(params, key) is not None for params in drawn])
        assert frequency == pytest.approx(probability, abs=0.08)


def test_equal_parameters_give_equal_pictures():
    params = replace(MILD, noise=5.0)
    degraded = degrade(load_face(), params)
    assert np.array_equal(degraded, degrade(load_face(), params))
    for change in (
        {"noise_seed": 2},
        {"jpeg": 60},
        {"down": 3.0},
        {"sigmas_px": (4.0, 1.0)},
        {"grey": True},
        {"shift": (0.05, 0, 0)},
    ):
        assert not np.array_equal(degraded, degrade(load_face(), replace(params, **change)))


def test_unknown_preset_lists_the_presets():
    with pytest.raises(UserError, match='unknown degradation preset "gfpgna"; choose from: gfpgan'):
        get_preset("gfpgna")
