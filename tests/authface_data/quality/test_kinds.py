"""What resembles a defect must pass, and the defect on top of it must not.

The textures are generated, so that a kind of false alarm cannot come back.
"""

import cv2
import numpy as np
import pytest
from degradations import (
    add_gaussian_noise,
    add_pepper_noise,
    add_pepper_to_photo,
    blur_gaussian,
    compress_jpeg,
    draw_box,
    posterise,
    print_halftone,
    print_stripes,
    smooth_skin,
)
from PIL import Image
from public_faces import crops, photographs

from authface_data.faces.align import ArraySource, align_photo, ffhq_quad
from authface_data.quality import banding, exposure, pepper, photographic, skin

SKIN = (224, 172, 145)


def make_portrait(size=1024, hair_levels=(90, 230), seed=0):
    """A shaded oval of textured skin before a soft background, with grey hair and a grey beard."""
    rng = np.random.default_rng(seed)
    rows, columns = (np.mgrid[:size, :size] + 0.5) / size
    background = 150 + 40 * columns
    shading = 1 - 0.5 * (columns - 0.4) ** 2 - 0.3 * (rows - 0.5) ** 2
    is_face = ((columns - 0.5) / 0.25) ** 2 + ((rows - 0.55) / 0.36) ** 2 <= 1
    picture = np.where(is_face[..., None], shading[..., None] * SKIN, background[..., None])
    pores = cv2.GaussianBlur(rng.normal(0, 1, (size, size)), (0, 0), size / 700)
    picture += (6 * pores / pores.std() * np.where(is_face, 1, 0.3))[..., None]

    picture = np.clip(picture, 0, 255).astype(np.uint8)
    for top, bottom, count in ((0.1, 0.3, 2500), (0.76, 0.95, 2500)):
        x = rng.uniform(0.25, 0.75, count) * size
        y = rng.uniform(top, bottom, count) * size
        angles = rng.normal(np.pi / 2, 0.4, count)
        for start_x, start_y, angle in zip(x, y, angles, strict=True):
            end = (
                int(start_x + 0.05 * size * np.cos(angle)),
                int(start_y + 0.05 * size * np.sin(angle)),
            )
            level = int(rng.uniform(*hair_levels))
            cv2.line(picture, (int(start_x), int(start_y)), end, (level,) * 3, 1, cv2.LINE_AA)
    return cv2.resize(picture, (512, 512), interpolation=cv2.INTER_AREA)


@pytest.fixture(scope="module")
def portrait():
    return make_portrait()


@pytest.fixture(scope="module")
def face(photos):
    """The aligned crop of a sharp portrait, without detection."""
    return next(iter(crops({"tongue.jpg": photographs()["tongue.jpg"]}).values()))


# Pepper noise.


def test_grey_hair_and_beard_are_no_pepper_noise(portrait):
    assert pepper.score(portrait) > 0.9


def test_strands_of_hair_over_skin_are_no_pepper_noise(portrait):
    crossed = portrait.copy()
    rng = np.random.default_rng(1)
    for start, end in rng.integers(100, 412, (60, 2, 2)).tolist():
        cv2.line(crossed, start, end, (40, 30, 25), 1, cv2.LINE_AA)
    assert pepper.score(crossed) > 0.9


def test_gaussian_noise_is_no_pepper_noise(portrait):
    assert pepper.score(add_gaussian_noise(portrait, 12)) > 0.9


def test_dark_dots_alone_are_no_pepper_noise(portrait):
    """Stubble, freckles and dust are dark only."""
    noisy = add_pepper_noise(portrait, 0.01)
    assert pepper.score(np.minimum(noisy, portrait)) > 0.8
    assert pepper.score(noisy) < 0.05


def test_dots_in_a_corner_are_no_pepper_noise(portrait):
    """Glitter and a patterned cloth cover a part of the crop."""
    glittering = portrait.copy()
    glittering[384:, :] = add_pepper_noise(portrait, 0.02)[384:, :]
    assert pepper.score(glittering) > 0.9


@pytest.mark.parametrize("size", [256, 400, 512, 1024])
@pytest.mark.parametrize("quality", [100, 90])
def test_pepper_noise_of_the_sensor_is_found_at_every_scale(portrait, size, quality):
    noisy = compress_jpeg(add_pepper_to_photo(portrait, 0.01, size), quality)
    assert pepper.score(noisy) < 0.5


def test_pepper_noise_of_a_large_face_is_found_in_a_crop_of_1024_px(portrait):
    """Reduced to 512 px, three of four dots are averaged away."""
    large = cv2.resize(portrait, (2400, 2400), interpolation=cv2.INTER_CUBIC)
    size_px = (1024, 1024)
    clean = cv2.resize(large, size_px, interpolation=cv2.INTER_AREA)
    noisy = cv2.resize(add_pepper_noise(large, 0.01), size_px, interpolation=cv2.INTER_AREA)
    assert pepper.score(clean) > 0.9
    assert pepper.score(noisy) < 0.5


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
def test_pepper_noise_is_found_through_alignment(photos, scale):
    with Image.open(photographs()["sample6.jpg"]) as opened:
        picture = np.asarray(opened.convert("RGB"))
    picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    eyes_and_mouth = scale * np.array([(640, 470), (790, 460), (680, 640), (780, 630)], float)
    quad = ffhq_quad(*eyes_and_mouth)
    clean = align_photo(ArraySource(picture), quad, 512).pixels
    noisy = align_photo(ArraySource(add_pepper_noise(picture, 0.01)), quad, 512).pixels
    assert pepper.score(clean) > 0.9
    assert pepper.score(noisy) < 0.5


# Exposure.


def test_one_saturated_channel_is_not_clipped(portrait):
    reddened = portrait.copy()
    reddened[..., 0] = 255
    assert exposure.score(reddened) == 1


def test_two_saturated_channels_are_clipped(portrait):
    yellowed = portrait.copy()
    yellowed[200:400, 180:330, :2] = 255
    assert exposure.score(yellowed) < 0.3


def test_catch_lights_and_strands_are_not_clipped(portrait):
    speckled = portrait.copy()
    speckled[::8, ::8] = 255
    speckled[::9] = 0
    assert exposure.score(speckled) == 1


def test_white_wall_beside_a_face_is_not_clipped(portrait):
    before_wall = portrait.copy()
    before_wall[:, :160] = 255
    before_wall[:, 352:] = 255
    assert exposure.score(before_wall) == 1


# Banding.


def test_uneven_texture_with_all_levels_is_not_banded():
    """Large differences beside small ones look like stairs, but all levels occur."""
    rng = np.random.default_rng(0)
    steps = rng.laplace(0, 1, (512, 512)) ** 3
    texture = cv2.GaussianBlur(steps, (0, 0), 1.2)
    slope = 110 + 60 * np.linspace(0, 1, 512)[:, None] + np.clip(texture, -12, 12)
    picture = np.repeat(np.rint(slope).astype(np.uint8)[..., None], 3, axis=2)
    assert banding.score(picture) > 0.9


def test_smooth_slope_in_few_levels_is_banded():
    rows, columns = np.mgrid[:512, :512] / 512
    slope = np.repeat((90 + 90 * rows + 50 * columns)[..., None], 3, axis=2)
    assert banding.score(np.rint(slope).astype(np.uint8)) > 0.9
    assert banding.score(posterise(slope, 24)) < 0.3


# Skin.


def test_beauty_filter_on_the_skin_is_found_and_defocus_is_not(face):
    clean = skin.score(face)
    assert clean > 0.9
    assert skin.score(blur_gaussian(face, 1.5)) > 0.8
    assert skin.score(compress_jpeg(face, 75)) > 0.8
    assert skin.score(smooth_skin(face, 5)) < 0.5


def test_white_wall_beside_a_profile_is_no_smooth_skin(face):
    before_wall = face.copy()
    before_wall[:, :200] = 254
    assert skin.score(before_wall) > 0.9


# Not a photograph.


def test_drawn_box_is_found_in_a_rotated_crop(face):
    """The box is upright in the photograph and rotated in the crop; the quad has the angle."""
    boxed = draw_box(face, 2)
    rotation = cv2.getRotationMatrix2D((255.5, 255.5), 12, 1)
    rotated = cv2.warpAffine(boxed, rotation, (512, 512), borderMode=cv2.BORDER_REFLECT)
    angle = np.radians(12)
    across = np.array([np.cos(angle), np.sin(angle)]) * 512
    down = np.array([-np.sin(angle), np.cos(angle)]) * 512
    corners_px = np.stack([0 * across, down, across + down, across])

    assert photographic.score(face) > 0.9
    assert photographic.score(boxed) < 0.1
    assert photographic.score(rotated, corners_px) < 0.5
    assert photographic.score(rotated) > 0.9


def test_pole_or_edge_of_a_scan_is_a_photograph(face):
    beside_pole = face.copy()
    beside_pole[:, 60:64] = 30
    beside_pole[:, 450:] = 0
    assert photographic.score(beside_pole) > 0.9


def test_thumbnail_in_a_screenshot_is_no_photograph(face):
    screenshot = np.full_like(face, 30)
    screenshot[110:480, 90:420] = face[110:480, 90:420]
    assert photographic.score(screenshot) < 0.1


def test_thumbnail_in_a_compressed_screenshot_is_no_photograph(face):
    """Compression changes the colour of the area around the thumbnail a little."""
    screenshot = np.full_like(face, 30)
    screenshot[110:480, 90:420] = face[110:480, 90:420]
    assert photographic.score(compress_jpeg(screenshot, 80)) < 0.1


def test_striped_scan_is_no_photograph(face):
    for period, angle_deg in ((5, 88), (7, 1), (9, 30)):
        assert photographic.score(print_stripes(face, 6, period, angle_deg)) < 0.5


def test_print_with_fine_dots_is_no_photograph(face):
    assert photographic.score(print_halftone(face, 0.4, period=4)) < 0.1
    assert photographic.score(compress_jpeg(face, 30)) > 0.9
