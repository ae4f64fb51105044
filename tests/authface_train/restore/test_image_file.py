"""A photograph's file changed in one place: everything else about it stays."""

import struct

import numpy as np
import pytest
from PIL import Image, ImageCms

from authface_data.images.open import Photo
from authface_train.restore.image_file import ImageFile

BOX = (200, 150, 360, 320)


@pytest.fixture(scope="module")
def picture(photos):
    with Image.open(photos["obama.jpg"]) as image:
        return image.convert("RGB").crop((0, 0, 605, 701))


def file(tmp_path, image, name, turn=1, **options):
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = turn, "A maker"
    path = tmp_path / name
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image.save(
        path, exif=exif, icc_profile=None if image.mode in ("L", "LA") else profile, **options
    )
    return path


def changed(path, tmp_path):
    """The file written again with a box made red; both as they were read."""
    before = ImageFile(path)
    pixels = before.pixels.copy()
    left, top, right, bottom = BOX
    pixels[top:bottom, left:right] = before.own_colours(
        np.full((bottom - top, right - left, 3), (200, 30, 30), np.uint8)
    )
    target = tmp_path / "out" / path.name
    target.parent.mkdir(exist_ok=True)
    before.write(pixels, [BOX], target)
    return before, ImageFile(target)


def outside(one, other, margin):
    """Whether two pictures are equal but for the box and a margin."""
    equal = (one == other).all(axis=2)
    left, top, right, bottom = BOX
    equal[max(top - margin, 0) : bottom + margin, max(left - margin, 0) : right + margin] = True
    return equal.all()


LOSSLESS = [
    ("a.png", {}),
    ("a.tif", {"compression": "tiff_lzw"}),
    ("a.webp", {"lossless": True}),
    ("a.webp", {"quality": 70}),
]
SAMPLINGS = [("a.jpg", {"quality": 90, "subsampling": sampling}) for sampling in (0, 1, 2)]
PROGRESSIVE = [("a.jpg", {"quality": 75, "progressive": True})]


@pytest.mark.parametrize("turn", [1, 3, 5, 6, 8])
@pytest.mark.parametrize(("name", "options"), LOSSLESS + SAMPLINGS + PROGRESSIVE)
def test_what_is_not_touched_stays_to_the_bit(tmp_path, picture, name, options, turn):
    path = file(tmp_path, picture, name, turn, **options)
    before, after = changed(path, tmp_path)
    assert after.image.format == before.image.format
    # A JPEG's blocks are 8 or 16 pixels wide, and its chroma is interpolated between neighbours.
    assert outside(before.pixels, after.pixels, 17 if name == "a.jpg" else 0)
    left, top, right, bottom = BOX
    middle = after.pixels[(top + bottom) // 2, (left + right) // 2].astype(int)
    assert np.abs(middle - (200, 30, 30)).max() < 12
    assert after.image.getexif()[0x010F] == "A maker"
    assert after.image.getexif().get(0x0112, 1) == (
        1 if name == "a.tif" else turn
    )  # Pillow has turned a TIFF
    assert after.image.info["icc_profile"] == before.image.info["icc_profile"]


@pytest.mark.parametrize("mode", ["RGBA", "L", "LA", "P"])
def test_alpha_grey_and_palettes(tmp_path, picture, mode):
    image = picture.convert(mode)
    if mode.endswith("A"):
        image.putalpha(
            Image.fromarray(
                np.tile(np.linspace(0, 255, image.width).astype(np.uint8), (image.height, 1))
            )
        )
    before, after = changed(file(tmp_path, image, "a.png"), tmp_path)
    assert outside(before.pixels, after.pixels, 0)
    assert not np.array_equal(before.pixels, after.pixels)
    if mode.endswith("A"):
        assert np.array_equal(before.alpha, after.alpha)
    if mode[0] == "L":
        assert after.image.mode == mode


@pytest.mark.parametrize("mode", ["RGB", "P"])
def test_what_is_pasted_is_painted_in_the_files_profile(tmp_path, picture, mode):
    """In a profile whose red and blue primaries have changed places, red is stored as blue; crops are read through the same."""
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = srgb.replace(b"rXYZ", b"????").replace(b"bXYZ", b"rXYZ").replace(b"????", b"bXYZ")
    path = tmp_path / "swapped.png"
    picture.convert(mode).save(path, icc_profile=swapped)
    face = np.full((4, 4, 3), (188, 100, 40), np.uint8)
    original = ImageFile(path)
    assert np.abs(original.own_colours(face).astype(int) - face[..., ::-1]).max() <= 2
    shown = Photo(path.read_bytes).pixels()
    assert np.abs(original.own_colours(shown).astype(int) - original.pixels).mean() < 2


def test_a_broken_profile_is_as_none(tmp_path, picture):
    picture.save(tmp_path / "broken.png", icc_profile=b"no profile")
    face = np.full((4, 4, 3), (188, 100, 40), np.uint8)
    assert np.array_equal(ImageFile(tmp_path / "broken.png").own_colours(face), face)


def test_what_could_not_be_written_again_is_refused_in_words(tmp_path, picture):
    Image.fromarray(np.zeros((8, 8), np.uint16)).save(tmp_path / "deep.png")
    picture.convert("CMYK").save(tmp_path / "print.jpg")
    picture.save(tmp_path / "moving.webp", save_all=True, append_images=[picture.rotate(9)])
    for name, words in (
        ("deep.png", "16 bits"),
        ("print.jpg", "CMYK"),
        ("moving.webp", "several frames"),
    ):
        with pytest.raises(ValueError, match=words):
            ImageFile(tmp_path / name)


def test_a_jpeg_of_unusual_layout_is_refused_rather_than_changed(tmp_path, picture):
    picture.save(tmp_path / "rgb.jpg", keep_rgb=True)
    with pytest.raises(ValueError, match="unusual layout"):
        changed(tmp_path / "rgb.jpg", tmp_path)


def test_a_phones_second_picture_is_left_out_with_its_index(tmp_path, picture):
    picture.save(tmp_path / "phone.jpg", "MPO", save_all=True, append_images=[picture.rotate(180)])
    with Image.open(tmp_path / "phone.jpg") as image:
        assert image.n_frames == 2
    before, after = changed(tmp_path / "phone.jpg", tmp_path)
    assert outside(before.pixels, after.pixels, 17)
    assert (after.image.format, getattr(after.image, "n_frames", 1)) == ("JPEG", 1)


def test_a_grey_profile_is_painted_in(tmp_path, picture):
    """Grey that is stored with a gamma of 1: a middle grey has another number there."""
    path = tmp_path / "linear.png"
    picture.convert("L").save(path, icc_profile=grey_profile())
    original = ImageFile(path)
    shown = Photo(path.read_bytes).pixels()
    assert np.abs(shown.astype(int) - original.pixels).mean() > 10
    assert np.abs(original.own_colours(shown).astype(int) - original.pixels).mean() < 2


def grey_profile():
    """A minimal ICC profile of version 2: a white point, and a tone curve of gamma 1."""
    white_point = struct.pack(">3i", *(round(value * 65536) for value in (0.9642, 1.0, 0.8249)))
    tables, body = b"", b""
    for name, data in ((b"wtpt", b"XYZ " + bytes(4) + white_point), (b"kTRC", b"curv" + bytes(8))):
        tables += name + struct.pack(">II", 128 + 4 + 2 * 12 + len(body), len(data))
        body += data
    kinds = struct.pack(">4s4s4s", b"mntr", b"GRAY", b"XYZ ")
    header = (
        bytes(8)
        + struct.pack(">I", 0x02400000)
        + kinds
        + bytes(12)
        + b"acsp"
        + bytes(28)
        + white_point
    )
    profile = header.ljust(128, b"\0") + struct.pack(">I", 2) + tables + body
    return struct.pack(">I", len(profile)) + profile[4:]
