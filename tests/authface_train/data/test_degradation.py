"""Degradations: what is drawn, and every operation against a slow one written here with other tools."""

import colorsys
import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from skimage import data

from authface_train.data.blur import blur_and_resize, gaussian_kernel
from authface_train.data.degradation import PRESETS, DegradationParams, degrade, draw
from authface_train.data.sample_keys import numpy_generator


def picture() -> np.ndarray:
    """(128, 128, 3): the astronaut's face."""
    return np.ascontiguousarray(data.astronaut()[60:188, 160:288])


def drawn(**changes) -> DegradationParams:
    """A draw that does next to nothing, but for the changes."""
    plain = {
        "sigmas_px": (0.1, 0.1), "turn_rad": 0.0, "down": 1.0, "noise": 0.0, "noise_seed": 1, "jpeg": 100, "shift": None,
        "grey": False, "jitter": None, "jitter_order": (0, 1, 2, 3), "rounded": True,
    }  # fmt: skip
    return DegradationParams(**{**plain, **changes})


def decibels(one: np.ndarray, other: np.ndarray) -> float:
    return float(10 * np.log10(1 / max(np.mean((one.astype(float) - other) ** 2), 1e-12)))


def slow_kernel(sigmas_px, turn_rad) -> np.ndarray:
    """Each pixel from its distance along both turned axes."""
    kernel = np.empty((41, 41))
    for y in range(-20, 21):
        for x in range(-20, 21):
            along = x * np.cos(turn_rad) + y * np.sin(turn_rad)
            across = -x * np.sin(turn_rad) + y * np.cos(turn_rad)
            kernel[y + 20, x + 20] = np.exp(
                -0.5 * ((along / sigmas_px[0]) ** 2 + (across / sigmas_px[1]) ** 2)
            )
    return kernel / kernel.sum()


def slow_resize(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """Bilinear between pixel centres, one output at a time."""

    def line(rows: np.ndarray, count: int) -> np.ndarray:
        made = np.empty((count, *rows.shape[1:]))
        for number in range(count):
            place = min(max((number + 0.5) * len(rows) / count - 0.5, 0), len(rows) - 1)
            low = min(int(place), len(rows) - 2)
            made[number] = rows[low] + (place - low) * (rows[low + 1] - rows[low])
        return made

    return line(line(image, height).swapaxes(0, 1), width).swapaxes(0, 1)


def slow_shrunk(image: np.ndarray, one: DegradationParams) -> np.ndarray:
    kernel = slow_kernel(one.sigmas_px, one.turn_rad)
    blurred = np.stack(
        [ndimage.correlate(image[..., c], kernel, mode="mirror") for c in range(3)], -1
    )
    return slow_resize(blurred, int(image.shape[1] // one.down), int(image.shape[0] // one.down))


def slow_jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(np.rint(image * 255).astype(np.uint8)).save(
        file, "JPEG", quality=quality, subsampling=2
    )
    return np.asarray(Image.open(file), float) / 255


def luma(image: np.ndarray) -> np.ndarray:
    return image @ [0.299, 0.587, 0.114]


def slow_jitter(image: np.ndarray, amounts, order) -> np.ndarray:
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
            hsv = [colorsys.rgb_to_hsv(*pixel) for pixel in image.reshape(-1, 3)]
            image = np.array([colorsys.hsv_to_rgb((h + hue) % 1, s, v) for h, s, v in hsv]).reshape(
                image.shape
            )
        image = np.clip(image, 0, 1)
    return image


def slow(picture: np.ndarray, one: DegradationParams) -> np.ndarray:
    """The whole recipe."""
    image = slow_shrunk(picture / 255, one)
    noise = (
        np.random.default_rng(one.noise_seed).standard_normal(image.shape, np.float32)
        * one.noise
        / 255
    )
    image = slow_jpeg(np.clip(image + noise, 0, 1), one.jpeg)
    image = slow_resize(image, picture.shape[1], picture.shape[0])
    if one.shift:
        image = np.clip(image + one.shift, 0, 1)
    if one.grey:
        image = np.repeat(luma(image)[..., None], 3, axis=2)
    if one.jitter:
        image = slow_jitter(image, one.jitter, one.jitter_order)
    return np.rint(np.clip(image, 0, 1) * 255) / 255 if one.rounded else np.clip(image, 0, 1)


@pytest.mark.parametrize(
    ("sigmas_px", "turn_rad"),
    [((3.0, 1.0), 0.0), ((8.0, 2.0), 0.7), ((0.1, 0.1), 0.0), ((10.0, 0.5), -2.0)],
)
def test_the_kernel_is_a_turned_gaussian(sigmas_px, turn_rad):
    assert (
        np.abs(gaussian_kernel(sigmas_px, turn_rad) - slow_kernel(sigmas_px, turn_rad)).max() < 1e-6
    )


@pytest.mark.parametrize("name", PRESETS)
def test_blur_and_shrink_are_within_60_db_of_the_recipe(name):
    image = picture() / 255
    rng = np.random.default_rng(5)
    for _ in range(8):
        one = draw(PRESETS[name], rng)
        whole = slow_shrunk(image, one)
        kernel = gaussian_kernel(one.sigmas_px, one.turn_rad)
        made = blur_and_resize(image.astype(np.float32), kernel, *whole.shape[1::-1])
        assert made.shape == whole.shape
        assert decibels(made, whole) > 60, one


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
def test_every_operation_is_the_recipes(change):
    one = drawn(**change)
    made = degrade(picture(), one)
    assert made.shape == (128, 128, 3)
    assert made.dtype == np.float32
    # JPEG itself differs by a grey level here and there between OpenCV's and Pillow's libraries.
    assert decibels(made, slow(picture(), one)) > 40
    undone = degrade(picture(), drawn())
    assert decibels(made, undone) < decibels(made, slow(picture(), one))


@pytest.mark.parametrize("name", PRESETS)
def test_whole_draws_are_within_40_db_of_the_recipe(name):
    rng = np.random.default_rng(11)
    for _ in range(4):
        one = draw(PRESETS[name], rng)
        assert decibels(degrade(picture(), one), slow(picture(), one)) > 40, one


def test_rounding_is_to_8_bits_and_only_where_it_is_asked_for():
    one = drawn(noise=10.0, down=2.5)
    levels = degrade(picture(), one) * 255
    assert np.abs(levels - np.rint(levels)).max() < 1e-3
    free = degrade(picture(), replace(one, rounded=False)) * 255
    assert np.abs(free - np.rint(free)).max() > 0.1


def test_the_picture_given_is_left_as_it_is():
    given = picture()
    degrade(given, drawn(jitter=(0.7, 1.4, 0.3, 0.05), shift=(0.1, 0.1, 0.1)))
    assert np.array_equal(given, picture())


def test_one_draw_for_each_seed_epoch_and_face():
    def of(seed, epoch, face):
        return draw(PRESETS["gfpgan"], numpy_generator(seed, epoch, face, "degrade"))

    assert of(0, 1, "a") == of(0, 1, "a")
    assert len({of(0, 1, "a"), of(1, 1, "a"), of(0, 2, "a"), of(0, 1, "b")}) == 4


@pytest.mark.parametrize("name", PRESETS)
def test_presets_draw_within_their_ranges(name):
    ranges = PRESETS[name]
    draws = [draw(ranges, np.random.default_rng(seed)) for seed in range(400)]
    for key, bounds in (("down", ranges.down), ("noise", ranges.noise), ("jpeg", ranges.jpeg)):
        values = np.array([getattr(d, key) for d in draws])
        assert bounds[0] <= values.min()
        assert values.max() <= bounds[1]
        assert np.ptp(values) > 0.9 * (bounds[1] - bounds[0])
    assert all(isinstance(d.jpeg, int) for d in draws)
    round_share = np.mean([d.sigmas_px[0] == d.sigmas_px[1] for d in draws])
    assert 0.4 < round_share < 0.6
    for key, share in (("shift", ranges.p_shift), ("jitter", ranges.p_jitter)):
        assert np.mean([getattr(d, key) is not None for d in draws]) == pytest.approx(
            share, abs=0.08
        )


def test_the_same_draw_gives_the_same_picture_and_another_another():
    assert np.array_equal(
        degrade(picture(), drawn(noise=5.0)), degrade(picture(), drawn(noise=5.0))
    )
    for change in (
        {"noise_seed": 2},
        {"jpeg": 60},
        {"down": 3.0},
        {"sigmas_px": (4.0, 1.0)},
        {"grey": True},
        {"shift": (0.05, 0, 0)},
    ):
        assert not np.array_equal(
            degrade(picture(), drawn(noise=5.0)),
            degrade(picture(), drawn(**{"noise": 5.0, **change})),
        )
