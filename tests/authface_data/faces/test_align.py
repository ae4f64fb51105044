"""FFHQ's alignment: golden quads, and the published recipe written out again, slowly."""

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from authface_data.faces.align import align, ffhq_quad, to_crop
from authface_data.photo import Photo

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


def recipe(image: Image.Image, quad: np.ndarray, size: int) -> Image.Image:
    """The published steps, one by one, with Pillow and scipy."""
    quad = quad.copy()
    qsize = float(np.hypot(*(quad[3] - quad[0])))
    shrink = int(np.floor(qsize / size * 0.5))
    if shrink > 1:
        image = image.resize(
            (int(np.rint(image.width / shrink)), int(np.rint(image.height / shrink))), Image.Resampling.LANCZOS
        )
        quad, qsize = quad / shrink, qsize / shrink
    border = max(int(np.rint(qsize * 0.1)), 3)
    low, high = np.floor(quad.min(0)).astype(int), np.ceil(quad.max(0)).astype(int)
    crop = (
        max(low[0] - border, 0),
        max(low[1] - border, 0),
        min(high[0] + border, image.width),
        min(high[1] + border, image.height),
    )
    image, quad = image.crop(crop), quad - crop[:2]
    low, high = np.floor(quad.min(0)).astype(int), np.ceil(quad.max(0)).astype(int)
    pad = [
        max(-low[0] + border, 0),
        max(-low[1] + border, 0),
        max(high[0] - image.width + border, 0),
        max(high[1] - image.height + border, 0),
    ]
    if max(pad) > border - 4:
        pad = np.maximum(pad, int(np.rint(qsize * 0.3)))
        pixels = np.pad(np.float32(image), ((pad[1], pad[3]), (pad[0], pad[2]), (0, 0)), "reflect")
        h, w, _ = pixels.shape
        y, x, _ = np.ogrid[:h, :w, :1]
        mask = np.maximum(
            1.0 - np.minimum(np.float32(x) / pad[0], np.float32(w - 1 - x) / pad[2]),
            1.0 - np.minimum(np.float32(y) / pad[1], np.float32(h - 1 - y) / pad[3]),
        )
        blur = qsize * 0.02
        pixels += (ndimage.gaussian_filter(pixels, [blur, blur, 0]) - pixels) * np.clip(mask * 3.0 + 1.0, 0.0, 1.0)
        pixels += (np.median(pixels, axis=(0, 1)) - pixels) * np.clip(mask, 0.0, 1.0)
        image = Image.fromarray(np.uint8(np.clip(np.rint(pixels), 0, 255)), "RGB")
        quad = quad + pad[:2]
    big = image.transform((4096, 4096), Image.Transform.QUAD, (quad + 0.5).flatten(), Image.Resampling.BILINEAR)
    return big.resize((size, size), Image.Resampling.LANCZOS)


def psnr(a, b) -> float:
    return float(10 * np.log10(255**2 / np.mean((np.asarray(a, float) - np.asarray(b, float)) ** 2)))


@pytest.mark.parametrize(
    ("eye_left", "eye_right", "mouth_left", "mouth_right"),
    [
        ((640, 190), (790, 200), (660, 350), (775, 355)),
        ((300, 600), (1000, 560), (380, 1300), (960, 1270)),
        ((40, 100), (300, 60), (90, 380), (300, 350)),
    ],
    ids=["inside", "shrunk", "padded"],
)
def test_the_picture_is_that_of_the_published_recipe(photos, eye_left, eye_right, mouth_left, mouth_right):
    data = photos["obama3.jpg"].read_bytes()
    picture = Photo(lambda: data).pixels()
    quad = ffhq_quad(*np.array([eye_left, eye_right, mouth_left, mouth_right], float))
    ours = align(picture, quad, 512)
    assert psnr(ours.pixels, recipe(Image.fromarray(picture), quad.corners_px, 512)) >= 40


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
    half = ffhq_quad(*(np.array([(400, 400), (600, 400), (430, 620), (570, 620)], float) - [500.5, 0]))
    assert align(picture, half, 512).pad_fraction == pytest.approx(0.5, abs=0.002)


@pytest.mark.parametrize("size", [512, 1024])
def test_size_is_as_asked(size):
    quad = ffhq_quad(*np.array([(20, 20), (40, 20), (23, 42), (37, 42)], float))
    assert align(np.zeros((60, 60, 3), np.uint8), quad, size).pixels.shape == (size, size, 3)
