"""A photograph's file changed in one place: everything else about it stays."""

import numpy as np
import pytest
from PIL import Image, ImageCms

from authface_train.original import Original

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
    image.save(path, exif=exif, icc_profile=None if image.mode in ("L", "LA") else profile, **options)
    return path


def changed(path, tmp_path):
    """The file written again with a box made red; both as they were read."""
    before = Original(path)
    pixels = before.pixels.copy()
    left, top, right, bottom = BOX
    pixels[top:bottom, left:right] = before.own_colours(np.full((bottom - top, right - left, 3), (200, 30, 30), np.uint8))
    target = tmp_path / "out" / path.name
    target.parent.mkdir(exist_ok=True)
    before.write(pixels, [BOX], target)
    return before, Original(target)


def outside(one, other, margin):
    """Whether two pictures are equal but for the box and a margin."""
    equal = (one == other).all(axis=2)
    left, top, right, bottom = BOX
    equal[max(top - margin, 0) : bottom + margin, max(left - margin, 0) : right + margin] = True
    return equal.all()


LOSSLESS = [("a.png", {}), ("a.tif", {"compression": "tiff_lzw"}), ("a.webp", {"lossless": True})]
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
    assert after.image.getexif().get(0x0112, 1) == (1 if name == "a.tif" else turn)  # Pillow has turned a TIFF
    assert after.image.info["icc_profile"] == before.image.info["icc_profile"]


@pytest.mark.parametrize("mode", ["RGBA", "L", "LA", "P"])
def test_alpha_grey_and_palettes(tmp_path, picture, mode):
    image = picture.convert(mode)
    if mode.endswith("A"):
        image.putalpha(Image.fromarray(np.tile(np.linspace(0, 255, image.width).astype(np.uint8), (image.height, 1))))
    before, after = changed(file(tmp_path, image, "a.png"), tmp_path)
    assert outside(before.pixels, after.pixels, 0)
    assert not np.array_equal(before.pixels, after.pixels)
    if mode.endswith("A"):
        assert np.array_equal(before.alpha, after.alpha)
    if mode[0] == "L":
        assert after.image.mode == mode


def test_srgb_is_brought_to_the_files_own_colours(tmp_path, picture):
    """In a profile whose red and blue primaries have changed places, red is stored as blue."""
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = srgb.replace(b"rXYZ", b"????").replace(b"bXYZ", b"rXYZ").replace(b"????", b"bXYZ")
    picture.save(tmp_path / "swapped.png", icc_profile=swapped)
    picture.save(tmp_path / "broken.png", icc_profile=b"no profile")
    face = np.full((4, 4, 3), (188, 100, 40), np.uint8)
    assert np.abs(Original(tmp_path / "swapped.png").own_colours(face).astype(int) - face[..., ::-1]).max() <= 2
    assert np.array_equal(Original(tmp_path / "broken.png").own_colours(face), face)


def test_what_could_not_be_written_again_is_refused_in_words(tmp_path, picture):
    Image.fromarray(np.zeros((8, 8), np.uint16)).save(tmp_path / "deep.png")
    picture.convert("CMYK").save(tmp_path / "print.jpg")
    picture.save(tmp_path / "moving.webp", save_all=True, append_images=[picture.rotate(9)])
    for name, words in (("deep.png", "16 bits"), ("print.jpg", "CMYK"), ("moving.webp", "several frames")):
        with pytest.raises(ValueError, match=words):
            Original(tmp_path / name)
