"""FFHQ alignment, against golden quads and a literal version of the published recipe."""

import io

import numpy as np
import pytest
from ffhq_recipe import align_by_recipe, psnr
from PIL import Image

from authface_data.faces.align import (
    align,
    align_photo,
    decode_shrink,
    ffhq_quad,
    head_pad_fraction,
    photo_to_crop,
)
from authface_data.images.open import Photo

# Eye centres and mouth corners, the corners of their quad, and its side.
GOLDEN_QUADS = [
    (
        [(400, 500), (600, 500), (430, 720), (570, 720)],
        [(100, 122), (100, 922), (900, 922), (900, 122)],
        800,
    ),
    (
        [(1500, 2000), (2300, 2150), (1480, 2900), (2120, 3010)],
        [(519.4541, 313.2422), (40.2422, 3533.5459), (3260.5459, 4012.7578), (3739.7578, 792.4541)],
        3255.764119,
    ),
    (
        [(200, 150), (260, 170), (190, 225), (240, 240)],
        [(133.6899, 4.3711), (65.6211, 262.0601), (323.3101, 330.1289), (391.3789, 72.4399)],
        266.527672,
    ),
]


@pytest.mark.parametrize(
    ("points", "corners", "size"), GOLDEN_QUADS, ids=["upright", "large", "small"]
)
def test_quad_equals_golden_values(points, corners, size):
    quad = ffhq_quad(*np.array(points, float))
    assert np.abs(quad.corners_px - corners).max() < 1e-3
    assert abs(quad.size_px - size) < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("eye_left", "eye_right", "mouth_left", "mouth_right"),
    [
        ((640, 190), (790, 200), (660, 350), (775, 355)),
        ((420, 500), (900, 470), (480, 980), (870, 960)),
        ((40, 100), (300, 60), (90, 380), (300, 350)),
    ],
    ids=["inside", "shrunk", "padded"],
)
def test_crop_agrees_with_published_recipe(photos, eye_left, eye_right, mouth_left, mouth_right):
    data = photos["obama3.jpg"].read_bytes()
    picture = Photo(lambda: data).pixels()
    quad = ffhq_quad(*np.array([eye_left, eye_right, mouth_left, mouth_right], float))
    crop = align(picture, quad, 512)
    reference = align_by_recipe(Image.fromarray(picture), quad.corners_px, 512)
    assert psnr(crop.pixels, reference) >= 40


def enlarged_jpeg(path, factor: int, grain: float, **options) -> bytes:
    """Enlarge a photograph by `factor`, add camera grain and encode it as a JPEG."""
    import cv2

    with Image.open(path) as opened:
        size = (opened.width * factor, opened.height * factor)
        image = opened.convert("RGB").resize(size, Image.Resampling.BICUBIC)
    rng = np.random.default_rng(0)
    noise = rng.normal(0, grain, (image.height, image.width, 1)).astype(np.float32)
    noise = cv2.GaussianBlur(noise, (0, 0), 0.7)[..., None]
    grainy = np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(grainy).save(buffer, "JPEG", quality=95, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_reduced_decode_agrees_with_published_recipe(photos, orientation):
    """A JPEG of any EXIF orientation is decoded at half the scale for a crop of 512 px."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = enlarged_jpeg(photos["obama2.jpg"], 3, 4.0, exif=exif)
    photo = Photo(lambda: data)
    middle = np.array(photo.size_px) / 2
    points = np.array([(-160, -100), (180, -70), (-130, 190), (120, 210)], float) + middle
    quad = ffhq_quad(*points)
    assert photo.region((0, 0, 64, 64), decode_shrink(quad, 512)).shrink == 2

    crop = align_photo(photo, quad, 512)

    assert crop.pad_fraction == 0
    whole = Image.fromarray(Photo(lambda: data).pixels())
    assert psnr(crop.pixels, align_by_recipe(whole, quad.corners_px, 512)) >= 40


@pytest.mark.slow
def test_reduced_decode_at_photo_edge_agrees_with_published_recipe(photos):
    data = enlarged_jpeg(photos["obama2.jpg"], 2, 4.0)
    photo = Photo(lambda: data)
    quad = ffhq_quad(*np.array([(100, 300), (430, 320), (140, 600), (400, 610)], float))

    crop = align_photo(photo, quad, 512)

    assert crop.pad_fraction > 0.1
    whole = Image.fromarray(Photo(lambda: data).pixels())
    assert psnr(crop.pixels, align_by_recipe(whole, quad.corners_px, 512)) >= 40


def test_photo_to_crop_agrees_with_the_pixels():
    """A bright dot of the photograph appears in the crop at the mapped position."""
    picture = np.zeros((900, 1000, 3), np.uint8)
    quad = ffhq_quad(*np.array([(400, 400), (560, 430), (410, 560), (530, 580)], float))
    point = np.array([470.0, 500.0])
    picture[498:503, 468:473] = 255

    crop = align(picture, quad, 1024).pixels[..., 0].astype(float)

    ys, xs = np.mgrid[: crop.shape[0], : crop.shape[1]]
    centre = np.array([(xs * crop).sum(), (ys * crop).sum()]) / crop.sum()
    assert np.abs(centre - photo_to_crop(point[None], quad, 1024)[0]).max() < 0.1


def test_crop_reports_padding_and_upscaling():
    picture = np.zeros((1000, 1000, 3), np.uint8)
    points = np.array([(400, 400), (600, 400), (430, 620), (570, 620)], float)
    centred = ffhq_quad(*points)
    crop = align(picture, centred, 512)
    assert crop.pad_fraction == 0
    assert not crop.upscaled
    assert align(picture, centred, 1024).upscaled

    half_outside = ffhq_quad(*(points - [500.5, 0]))
    assert align(picture, half_outside, 512).pad_fraction == pytest.approx(0.5, abs=0.002)


def test_head_padding_counts_face_and_hair_only():
    points = np.array([(400, 400), (600, 400), (430, 620), (570, 620)], float)
    quad = ffhq_quad(*points)
    north = quad.corners_px[0][1] + 0.5
    side = quad.size_px
    assert head_pad_fraction(quad, 2000, 2000) == 0

    # The photograph ends where the hair ends: the crop is padded, but nothing of the head is lost.
    above = ffhq_quad(*(points - [0, north + 0.05 * side]))
    assert align(np.zeros((2000, 2000, 3), np.uint8), above, 512).pad_fraction > 0.04
    assert head_pad_fraction(above, 2000, 2000) == 0

    # The photograph ends in the middle of the face, for a head of any rotation.
    turn = np.array([[0.8, -0.6], [0.6, 0.8]])
    for corners in (points, (points - points.mean(0)) @ turn.T + points.mean(0)):
        half = ffhq_quad(*corners)
        middle = half.corners_px.mean(0)
        half_lost = ffhq_quad(*(corners - [middle[0] + 0.5, 0]))
        assert head_pad_fraction(half_lost, 4000, 4000) == pytest.approx(0.5, abs=0.03)
    assert head_pad_fraction(ffhq_quad(*(points - 5000)), 2000, 2000) == 1


@pytest.mark.parametrize("size", [512, 1024])
def test_crop_has_requested_size(size):
    quad = ffhq_quad(*np.array([(20, 20), (40, 20), (23, 42), (37, 42)], float))
    assert align(np.zeros((60, 60, 3), np.uint8), quad, size).pixels.shape == (size, size, 3)
