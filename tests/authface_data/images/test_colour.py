"""Conversion to sRGB and to luma."""

import io

import numpy as np
import pytest
from PIL import Image, ImageCms

from authface_data.images.colour import luma, to_srgb


def profile_bytes(name: str) -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile(name)).tobytes()


def reopened(image: Image.Image, image_format: str, **options) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return Image.open(buffer)


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "CMYK", "1"])
def test_every_mode_becomes_rgb(mode):
    image = to_srgb(Image.new("RGB", (8, 6), (200, 30, 30)).convert(mode))
    assert image.mode == "RGB"
    assert image.size == (8, 6)


def test_profile_that_cannot_be_applied_is_ignored():
    image = reopened(Image.new("RGB", (8, 6), (200, 30, 30)), "PNG", icc_profile=b"no profile")
    assert np.array_equal(np.asarray(to_srgb(image))[0, 0], [200, 30, 30])


def test_srgb_profile_keeps_the_colours():
    image = reopened(
        Image.new("RGB", (8, 6), (200, 30, 30)), "PNG", icc_profile=profile_bytes("sRGB")
    )
    assert np.abs(np.asarray(to_srgb(image)).astype(int) - [200, 30, 30]).max() <= 1


def test_luma_has_rec_601_weights():
    pixels = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8)
    assert np.allclose(luma(pixels), [[76.245, 149.685, 29.07]], atol=1e-3)
