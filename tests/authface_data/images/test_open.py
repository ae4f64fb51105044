"""Decoding of photographs as cameras and editors write them."""

import io

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageFile

from authface_data.images.open import DECODE_ERRORS, Photo, decode_image

# EXIF orientation -> the transposition that makes a stored picture of an upright one.
TO_STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def encoded_photo(image: Image.Image, image_format: str, **options) -> Photo:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return Photo(buffer.getvalue)


def exif_with_orientation(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def stored_with_orientation(upright: Image.Image, orientation: int) -> Image.Image:
    to_stored = TO_STORED.get(orientation)
    return upright if to_stored is None else upright.transpose(to_stored)


def make_picture(width=64, height=48) -> Image.Image:
    """Red in the left half, blue in the lower right quarter, green in the upper right quarter."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2, 0] = 255
    pixels[height // 2 :, width // 2 :, 2] = 255
    pixels[: height // 2, width // 2 :, 1] = 255
    return Image.fromarray(pixels)


@pytest.mark.parametrize("image_format", ["PNG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(orientation, image_format):
    upright = make_picture()
    stored = stored_with_orientation(upright, orientation)
    photo = encoded_photo(stored, image_format, exif=exif_with_orientation(orientation))
    assert photo.size_px == (64, 48)
    assert np.array_equal(photo.pixels(), np.asarray(upright))
    assert photo.pixels(32).shape == (24, 32, 3)


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "CMYK", "1"])
def test_every_mode_is_decoded_to_rgb(mode):
    image_format = "TIFF" if mode == "CMYK" else "PNG"
    photo = encoded_photo(make_picture().convert(mode), image_format)
    assert photo.pixels().shape == (48, 64, 3)
    assert photo.pixels().dtype == np.uint8


@pytest.mark.parametrize("image_format", ["JPEG", "WEBP", "TIFF", "HEIF"])
def test_every_format_is_decoded(image_format):
    photo = encoded_photo(make_picture(), image_format, quality=95)
    assert photo.format == image_format
    assert photo.size_px == (64, 48)
    assert np.abs(photo.pixels()[10, 10].astype(int) - [255, 0, 0]).max() < 12


def test_alpha_is_composited_over_white():
    image = Image.new("RGBA", (8, 8), (200, 0, 0, 0))
    assert (encoded_photo(image, "PNG").pixels() == 255).all()


def test_sixteen_bit_grey_is_scaled_to_eight_bits():
    values = np.linspace(0, 65535, 64 * 4, dtype=np.uint16).reshape(4, 64)
    photo = encoded_photo(Image.fromarray(values), "PNG")
    expected = np.rint(values / 257).astype(int)
    assert np.abs(photo.pixels()[..., 0].astype(int) - expected).max() <= 1


@pytest.mark.parametrize(
    "values",
    [np.linspace(0, 1, 64, dtype=np.float32), np.full(64, 2**30, np.int32)],
    ids=["float", "int"],
)
def test_32_bit_pictures_are_rejected(values):
    photo = encoded_photo(Image.fromarray(values.reshape(8, 8)), "TIFF")
    with pytest.raises(ValueError, match="32-bit"):
        photo.pixels()


def test_icc_profile_is_applied_and_a_broken_one_ignored():
    srgb = ImageCms.createProfile("sRGB")
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
    converted = ImageCms.profileToProfile(make_picture(), srgb, lab, outputMode="LAB")
    assert converted.mode == "LAB"  # this Pillow has colour management

    profile = ImageCms.ImageCmsProfile(srgb).tobytes()
    photo = encoded_photo(make_picture(), "JPEG", quality=95, icc_profile=profile)
    assert np.abs(photo.pixels()[10, 10].astype(int) - [255, 0, 0]).max() < 8
    broken = encoded_photo(make_picture(), "PNG", icc_profile=b"no profile")
    assert np.array_equal(broken.pixels(), np.asarray(make_picture()))


def test_reduced_decode_agrees_with_reducing_the_full_picture(photos):
    data = photos["obama3.jpg"].read_bytes()
    reduced = Photo(lambda: data).pixels(600)
    full = Image.fromarray(decode_image(data))
    size = (reduced.shape[1], reduced.shape[0])
    reference = np.asarray(full.resize(size, Image.Resampling.LANCZOS))
    error = np.mean((reduced.astype(float) - reference) ** 2)
    assert 10 * np.log10(255**2 / error) > 32


def test_each_scale_is_decoded_once():
    photo = encoded_photo(make_picture(), "PNG")
    first = photo.pixels(32)
    assert photo.pixels(32) is first
    assert photo.pixels(1000) is photo.pixels()


def test_header_of_a_png_is_read_without_its_pixels(monkeypatch):
    photo = encoded_photo(make_picture(), "PNG")
    loaded = []
    load = ImageFile.ImageFile.load
    monkeypatch.setattr(
        ImageFile.ImageFile, "load", lambda image: loaded.append(image) or load(image)
    )
    assert photo.size_px == (64, 48)
    assert photo.exif == {}
    assert not loaded


def test_exif_after_the_pixels_of_a_png_is_read():
    data = encoded_photo(make_picture(), "PNG", exif=exif_with_orientation(6)).data
    start = data.index(b"eXIf") - 4
    chunk = data[start : start + 12 + int.from_bytes(data[start : start + 4], "big")]
    end = data.index(b"IEND") - 4
    moved = data[:start] + data[start + len(chunk) : end] + chunk + data[end:]
    photo = Photo(lambda: moved)
    assert photo.size_px == (48, 64)
    assert photo.pixels().shape == (64, 48, 3)


def test_file_that_cannot_be_decoded_raises():
    assert OSError in DECODE_ERRORS
    with pytest.raises(ValueError, match="not a picture of a supported format"):
        Photo(lambda: b"not a picture").pixels()
    buffer = io.BytesIO()
    make_picture(400, 400).save(buffer, "JPEG")
    with pytest.raises(OSError):  # noqa: PT011
        Photo(lambda: buffer.getvalue()[:3000]).pixels()


@pytest.mark.parametrize("progressive", [False, True], ids=["baseline", "progressive"])
@pytest.mark.parametrize("subsampling", [0, 2])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_region_equals_that_part_of_the_photograph(photos, orientation, subsampling, progressive):
    """Decoding only the necessary rows gives the same pixels, in every orientation."""
    with Image.open(photos["obama.jpg"]) as opened:
        stored = opened.crop((0, 0, 607, 803))
    photo = encoded_photo(
        stored,
        "JPEG",
        quality=92,
        subsampling=subsampling,
        progressive=progressive,
        exif=exif_with_orientation(orientation),
    )
    whole = photo.pixels()
    width, height = photo.size_px
    for box in (
        (0, 0, width, height),
        (101, 57, 311, 290),
        (200, 300, 900, 410),
        (-20, -30, 64, 80),
    ):
        region = photo.region(box)
        x0, y0 = region.origin_px
        region_height, region_width = region.pixels.shape[:2]
        expected = whole[y0 : y0 + region_height, x0 : x0 + region_width]
        assert np.array_equal(region.pixels, expected)
        assert (x0, y0) == (max(box[0], 0), max(box[1], 0))
        assert region_height == min(box[3], height) - y0
        assert region_width == min(box[2], width) - x0


@pytest.mark.parametrize("shrink", [2, 4, 8])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_reduced_region_maps_points_to_the_photograph(orientation, shrink):
    """The centre of a bright square maps to its place, to a tenth of a decoded pixel."""
    is_transposed = orientation in (5, 6, 7, 8)
    upright = np.zeros((605, 403, 3) if is_transposed else (403, 605, 3), np.uint8)
    upright[160:224, 96:192] = 255
    stored = stored_with_orientation(Image.fromarray(upright), orientation)
    assert stored.size == (605, 403)
    exif = exif_with_orientation(orientation)
    photo = encoded_photo(stored, "JPEG", quality=100, subsampling=0, exif=exif)

    region = photo.region((40, 50, 300, 390), shrink)

    assert region.shrink == shrink
    light = region.pixels[..., 0].astype(float)
    ys, xs = np.mgrid[: light.shape[0], : light.shape[1]]
    centre = np.array([[(xs * light).sum(), (ys * light).sum()]]) / light.sum()
    assert np.abs(region.to_photo(centre)[0] - [143.5, 191.5]).max() < 0.1 * shrink
    assert np.allclose(region.from_photo(region.to_photo(centre)), centre)


def test_region_is_converted_to_srgb(photos):
    with Image.open(photos["obama.jpg"]) as opened:
        stored = opened.convert("RGB").crop((0, 0, 320, 400))
    # Swapping the red and green primaries of a profile swaps these colours visibly.
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = profile.replace(b"rXYZ", b"TMP1").replace(b"gXYZ", b"rXYZ").replace(b"TMP1", b"gXYZ")
    photo = encoded_photo(stored, "JPEG", quality=95, icc_profile=swapped)
    whole = photo.pixels()
    region = photo.region((40, 50, 200, 300))
    assert np.abs(whole.astype(int) - np.asarray(stored)).mean() > 10
    assert np.array_equal(region.pixels, whole[50:300, 40:200])


def test_orientation_of_the_exif_directory_is_ignored(photos):
    """Some editors also write an orientation into the Exif directory, which has no effect."""
    with Image.open(photos["obama.jpg"]) as opened:
        stored = opened.convert("RGB").crop((0, 0, 300, 400))
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x0112] = 6
    photo = encoded_photo(stored, "JPEG", quality=95, exif=exif)
    assert photo.size_px == (300, 400)
    assert np.array_equal(photo.region((20, 30, 200, 390)).pixels, photo.pixels()[30:390, 20:200])
