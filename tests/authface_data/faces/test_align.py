"""FFHQ's alignment: golden quads, and the published recipe written out again, slowly."""

import io

import numpy as np
import pytest
from ffhq_recipe import psnr, recipe
from PIL import Image

from authface_data.faces.align import align, align_photo, ffhq_quad, shrink_of, to_crop
from authface_data.images.open import Photo

GOLDEN = [
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


@pytest.mark.parametrize(("features", "corners", "size"), GOLDEN, ids="ABC")
def test_golden_quads(features, corners, size):
    quad = ffhq_quad(*np.array(features, float))
    assert np.abs(quad.corners_px - corners).max() < 1e-3
    assert abs(quad.size_px - size) < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("eye_left", "eye_right", "mouth_left", "mouth_right"),
    [
        ((640, 190), (790, 200), (660, 350), (775, 355)),
        pytest.param((420, 500), (900, 470), (480, 980), (870, 960), marks=pytest.mark.slow),
        ((40, 100), (300, 60), (90, 380), (300, 350)),
    ],
    ids=["inside", "shrunk", "padded"],
)
def test_the_picture_is_that_of_the_published_recipe(
    photos, eye_left, eye_right, mouth_left, mouth_right
):
    data = photos["obama3.jpg"].read_bytes()
    picture = Photo(lambda: data).pixels()
    quad = ffhq_quad(*np.array([eye_left, eye_right, mouth_left, mouth_right], float))
    ours = align(picture, quad, 512)
    assert psnr(ours.pixels, recipe(Image.fromarray(picture), quad.corners_px, 512)) >= 40


def enlarged(path, factor: int, grain: float, **options) -> bytes:
    """A photograph made `factor` times larger, with a camera's grain, as a JPEG."""
    import cv2

    with Image.open(path) as opened:
        image = opened.convert("RGB").resize(
            (opened.width * factor, opened.height * factor), Image.Resampling.BICUBIC
        )
    noise = (
        np.random.default_rng(0).normal(0, grain, (image.height, image.width, 1)).astype(np.float32)
    )
    noise = cv2.GaussianBlur(noise, (0, 0), 0.7)[..., None]
    out = io.BytesIO()
    Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8)).save(
        out, "JPEG", quality=95, **options
    )
    return out.getvalue()


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_a_reduced_decode_gives_the_same_picture(photos, orientation):
    """Half the scale for crops of 512 px, of files that lie on all sides."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = enlarged(photos["obama2.jpg"], 3, 4.0, exif=exif)
    photo = Photo(lambda: data)
    middle = np.array(photo.size_px) / 2
    quad = ffhq_quad(*np.array([(-160, -100), (180, -70), (-130, 190), (120, 210)], float) + middle)
    assert photo.region((0, 0, 64, 64), shrink_of(quad, 512)).shrink == 2
    ours = align_photo(photo, quad, 512)
    assert ours.pad_fraction == 0
    assert (
        psnr(
            ours.pixels, recipe(Image.fromarray(Photo(lambda: data).pixels()), quad.corners_px, 512)
        )
        >= 40
    )


@pytest.mark.slow
def test_a_face_at_the_edge_of_a_reduced_decode(photos):
    data = enlarged(photos["obama2.jpg"], 2, 4.0)
    photo = Photo(lambda: data)
    quad = ffhq_quad(*np.array([(100, 300), (430, 320), (140, 600), (400, 610)], float))
    ours = align_photo(photo, quad, 512)
    assert ours.pad_fraction > 0.1
    assert (
        psnr(
            ours.pixels, recipe(Image.fromarray(Photo(lambda: data).pixels()), quad.corners_px, 512)
        )
        >= 40
    )


def test_landmarks_follow_the_pixels():
    """A bright dot in the photograph is found where to_crop says it is."""
    picture = np.zeros((900, 1000, 3), np.uint8)
    quad = ffhq_quad(*np.array([(400, 400), (560, 430), (410, 560), (530, 580)], float))
    point = np.array([470.0, 500.0])
    picture[498:503, 468:473] = 255
    crop = align(picture, quad, 1024).pixels[..., 0].astype(float)
    ys, xs = np.mgrid[: crop.shape[0], : crop.shape[1]]
    centre = np.array([(xs * crop).sum(), (ys * crop).sum()]) / crop.sum()
    assert np.abs(centre - to_crop(point[None], quad, 1024)[0]).max() < 0.1


def test_padding_and_upscaling_are_measured():
    picture = np.zeros((1000, 1000, 3), np.uint8)
    centred = ffhq_quad(*np.array([(400, 400), (600, 400), (430, 620), (570, 620)], float))
    crop = align(picture, centred, 512)
    assert crop.pad_fraction == 0
    assert not crop.upscaled
    assert align(picture, centred, 1024).upscaled
    half = ffhq_quad(
        *(np.array([(400, 400), (600, 400), (430, 620), (570, 620)], float) - [500.5, 0])
    )
    assert align(picture, half, 512).pad_fraction == pytest.approx(0.5, abs=0.002)


@pytest.mark.parametrize("size", [512, 1024])
def test_size_is_as_asked(size):
    quad = ffhq_quad(*np.array([(20, 20), (40, 20), (23, 42), (37, 42)], float))
    assert align(np.zeros((60, 60, 3), np.uint8), quad, size).pixels.shape == (size, size, 3)
