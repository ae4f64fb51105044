"""Photographs as cameras and editors write them."""

import io

import numpy as np
import pytest
from PIL import Image, ImageCms

from authface_data.images.open import Photo


def saved(image: Image.Image, kind: str, **options) -> Photo:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return Photo(out.getvalue)


def picture(width=64, height=48) -> Image.Image:
    """Red in the left half, blue in the lower right quarter, green in the upper right."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2, 0] = 255
    pixels[height // 2 :, width // 2 :, 2] = 255
    pixels[: height // 2, width // 2 :, 1] = 255
    return Image.fromarray(pixels)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(orientation, kind):
    upright = picture()
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }.get(orientation)  # fmt: skip
    stored = upright.transpose(undo) if undo is not None else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo = saved(stored, kind, exif=exif)
    assert photo.size_px == (64, 48)
    assert np.array_equal(photo.pixels(), np.asarray(upright))
    assert photo.pixels(32).shape == (24, 32, 3)


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "CMYK", "1"])
def test_every_mode_becomes_rgb(mode):
    kind = "TIFF" if mode == "CMYK" else "PNG"
    photo = saved(picture().convert(mode), kind)
    assert photo.pixels().shape == (48, 64, 3)
    assert photo.pixels().dtype == np.uint8


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "TIFF", "HEIF"])
def test_every_format_is_read(kind):
    photo = saved(picture(), kind, quality=95)
    assert photo.format == kind
    assert photo.size_px == (64, 48)
    assert np.abs(photo.pixels()[10, 10].astype(int) - [255, 0, 0]).max() < 12


def test_alpha_is_laid_over_white():
    image = Image.new("RGBA", (8, 8), (200, 0, 0, 0))
    assert (saved(image, "PNG").pixels() == 255).all()


def test_sixteen_bit_grey_is_scaled_down():
    values = np.linspace(0, 65535, 64 * 4, dtype=np.uint16).reshape(4, 64)
    photo = saved(Image.fromarray(values), "PNG")
    assert np.abs(photo.pixels()[..., 0].astype(int) - np.rint(values / 257).astype(int)).max() <= 1


@pytest.mark.parametrize(
    "values",
    [np.linspace(0, 1, 64, dtype=np.float32), np.full(64, 2**30, np.int32)],
    ids=["float", "int"],
)
def test_thirty_two_bit_pictures_are_refused(values):
    photo = saved(Image.fromarray(values.reshape(8, 8)), "TIFF")
    with pytest.raises(ValueError, match="32-bit"):
        photo.pixels()


def test_an_icc_profile_is_applied():
    """A profile whose red and blue are swapped turns blue pixels red."""
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
    grey = ImageCms.profileToProfile(
        picture(), ImageCms.createProfile("sRGB"), lab, outputMode="LAB"
    )
    assert grey.mode == "LAB"  # profiles work here at all
    photo = saved(
        picture(),
        "JPEG",
        quality=95,
        icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
    )
    assert np.abs(photo.pixels()[10, 10].astype(int) - [255, 0, 0]).max() < 8
    broken = saved(picture(), "PNG", icc_profile=b"no profile")
    assert np.array_equal(broken.pixels(), np.asarray(picture()))


def test_reduced_decoding_agrees_with_reducing_the_full_picture(photos):
    data = photos["obama3.jpg"].read_bytes()
    small = Photo(lambda: data).pixels(600)
    full = Image.fromarray(Photo(lambda: data).pixels())
    reference = np.asarray(full.resize((small.shape[1], small.shape[0]), Image.Resampling.LANCZOS))
    error = np.mean((small.astype(float) - reference) ** 2)
    assert 10 * np.log10(255**2 / error) > 32


def test_each_scale_is_decoded_once(monkeypatch):
    photo = saved(picture(), "PNG")
    first = photo.pixels(32)
    assert photo.pixels(32) is first
    assert photo.pixels(1000) is photo.pixels()


def test_what_cannot_be_decoded_raises():
    with pytest.raises(OSError):  # noqa: PT011 - Pillow's own words
        Photo(lambda: b"not a picture").pixels()
    whole = io.BytesIO()
    picture(400, 400).save(whole, "JPEG")
    with pytest.raises(OSError):  # noqa: PT011
        Photo(lambda: whole.getvalue()[:3000]).pixels()


@pytest.mark.parametrize("progressive", [False, True], ids=["baseline", "progressive"])
@pytest.mark.parametrize("subsampling", [0, 2])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_region_is_that_part_of_the_photograph(photos, orientation, subsampling, progressive):
    """Every way a file can lie, odd sizes, and only as many rows as it takes: the same pixels."""
    with Image.open(photos["obama.jpg"]) as opened:
        stored = opened.crop((0, 0, 607, 803))
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo = saved(
        stored, "JPEG", quality=92, subsampling=subsampling, progressive=progressive, exif=exif
    )
    whole = photo.pixels()
    width, height = photo.size_px
    for box in (
        (0, 0, width, height),
        (101, 57, 311, 290),
        (200, 300, 900, 410),
        (-20, -30, 64, 80),
    ):
        piece = photo.region(box)
        x0, y0 = piece.origin_px
        there = whole[y0 : y0 + piece.pixels.shape[0], x0 : x0 + piece.pixels.shape[1]]
        assert np.array_equal(piece.pixels, there)
        assert (x0, y0) == (max(box[0], 0), max(box[1], 0))
        assert piece.pixels.shape[:2] == (min(box[3], height) - y0, min(box[2], width) - x0)


@pytest.mark.parametrize("shrink", [2, 4, 8])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_reduced_region_lies_where_it_says(photos, orientation, shrink):
    """A bright square is found where the piece's mapping puts it, to a tenth of a decoded pixel."""
    pixels = np.zeros((403, 605, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = np.zeros((605, 403, 3) if orientation in (5, 6, 7, 8) else (403, 605, 3), np.uint8)
    upright[160:224, 96:192] = 255
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }.get(orientation)  # fmt: skip
    image = Image.fromarray(upright)
    stored = image.transpose(undo) if undo is not None else image
    assert stored.size == pixels.shape[1::-1]
    piece = saved(stored, "JPEG", quality=100, subsampling=0, exif=exif).region(
        (40, 50, 300, 390), shrink
    )
    assert piece.shrink == shrink
    light = piece.pixels[..., 0].astype(float)
    ys, xs = np.mgrid[: light.shape[0], : light.shape[1]]
    centre = np.array([[(xs * light).sum(), (ys * light).sum()]]) / light.sum()
    assert np.abs(piece.to_photo(centre)[0] - [143.5, 191.5]).max() < 0.1 * shrink
    assert np.allclose(piece.from_photo(piece.to_photo(centre)), centre)


def test_a_region_is_in_srgb_too(photos):
    """The colour profile is applied to the piece as to the whole."""
    with Image.open(photos["obama.jpg"]) as opened:
        stored = opened.convert("RGB").crop((0, 0, 320, 400))
    # A profile with the primaries swapped round: red and green change places, which nobody can overlook.
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = lab.replace(b"rXYZ", b"TMP1").replace(b"gXYZ", b"rXYZ").replace(b"TMP1", b"gXYZ")
    photo = saved(stored, "JPEG", quality=95, icc_profile=swapped)
    whole, piece = photo.pixels(), photo.region((40, 50, 200, 300))
    assert np.abs(whole.astype(int) - np.asarray(stored)).mean() > 10
    assert np.array_equal(piece.pixels, whole[50:300, 40:200])


def test_only_the_main_directorys_orientation_counts(photos):
    """Some editors write one into the Exif directory too: it turns nothing."""
    with Image.open(photos["obama.jpg"]) as opened:
        stored = opened.convert("RGB").crop((0, 0, 300, 400))
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x0112] = 6
    photo = saved(stored, "JPEG", quality=95, exif=exif)
    assert photo.size_px == (300, 400)
    assert np.array_equal(photo.region((20, 30, 200, 390)).pixels, photo.pixels()[30:390, 20:200])
