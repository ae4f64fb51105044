"""Rewriting the file of a photograph keeps everything except the changed pixels."""

import struct

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from authface_data.images.open import Photo
from authface_train.restore.converted_file import ConvertedFile
from authface_train.restore.image_file import ImageFile, UnsupportedImageError

BOX_PX = (200, 150, 360, 320)
RED = (200, 30, 30)
ORIENTATION = 0x0112
MAKER = 0x010F


@pytest.fixture(scope="module")
def picture(photos):
    with Image.open(photos["obama.jpg"]) as image:
        return image.convert("RGB").crop((0, 0, 605, 701))


def save(tmp_path, image, name, orientation=1, **options):
    """Save a picture with EXIF data and, unless it is grey, an sRGB profile."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    exif[MAKER] = "A maker"
    profile = None
    if image.mode not in ("L", "LA"):
        profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    path = tmp_path / name
    image.save(path, exif=exif, icc_profile=profile, **options)
    return path


def rewrite_with_red_box(path, tmp_path):
    """Write the file again with a red box; returns the original and the written file."""
    original = ImageFile(path)
    pixels = original.pixels.copy()
    left, top, right, bottom = BOX_PX
    red = np.full((bottom - top, right - left, 3), RED, np.uint8)
    pixels[top:bottom, left:right] = original.to_file_colours(red)
    target = tmp_path / "out" / path.name
    target.parent.mkdir(exist_ok=True)
    original.write(pixels, [BOX_PX], target)
    return original, ImageFile(target)


def equal_outside_box(first, second, margin_px):
    """Whether two pictures are equal outside the box and a margin around it."""
    equal = (first == second).all(axis=2)
    left, top, right, bottom = BOX_PX
    rows = slice(max(top - margin_px, 0), bottom + margin_px)
    columns = slice(max(left - margin_px, 0), right + margin_px)
    equal[rows, columns] = True
    return equal.all()


LOSSLESS = [
    ("a.png", {}),
    ("a.tif", {"compression": "tiff_lzw"}),
    ("a.webp", {"lossless": True}),
    ("a.webp", {"quality": 70}),
]
JPEG = [("a.jpg", {"quality": 90, "subsampling": sampling}) for sampling in (0, 1, 2)]
PROGRESSIVE_JPEG = [("a.jpg", {"quality": 75, "progressive": True})]


@pytest.mark.parametrize("orientation", [1, 3, 5, 6, 8])
@pytest.mark.parametrize(("name", "options"), LOSSLESS + JPEG + PROGRESSIVE_JPEG)
def test_pixels_outside_box_and_metadata_are_kept(tmp_path, picture, name, options, orientation):
    path = save(tmp_path, picture, name, orientation, **options)
    before, after = rewrite_with_red_box(path, tmp_path)
    assert after.image.format == before.image.format

    # Blocks of a JPEG are 8 or 16 pixels wide, and chroma is interpolated across their borders.
    margin_px = 17 if name == "a.jpg" else 0
    assert equal_outside_box(before.pixels, after.pixels, margin_px)
    left, top, right, bottom = BOX_PX
    centre = after.pixels[(top + bottom) // 2, (left + right) // 2].astype(int)
    assert np.abs(centre - RED).max() < 12

    # Pillow rotates the pixels of a TIFF when it reads them.
    expected_orientation = 1 if name == "a.tif" else orientation
    assert after.image.getexif().get(ORIENTATION, 1) == expected_orientation
    assert after.image.getexif()[MAKER] == "A maker"
    assert after.image.info["icc_profile"] == before.image.info["icc_profile"]


XMP = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><credit>Änn</credit></x:xmpmeta>'.encode()
ARTIST = "Änn"
ARTIST_TAG, COPYRIGHT_TAG, XMP_TAG, IPTC_TAG, EXIF_TAG = 315, 33432, 700, 33723, 34665
TAKEN_AT_TAG = 36867
TAKEN_AT = "2020:01:01 00:00:00"
IPTC = b"\x1c\x02P\0\x03Ann"


def jpeg_segment(marker, content):
    return bytes([0xFF, marker]) + (len(content) + 2).to_bytes(2, "big") + content


def save_with_credits(folder):
    """Save a small picture with credits in each format; returns the files."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8))
    exif = Image.Exif()
    exif[ARTIST_TAG] = ARTIST.encode()
    exif.get_ifd(EXIF_TAG)[TAKEN_AT_TAG] = TAKEN_AT

    iptc = jpeg_segment(0xED, b"Photoshop 3.0\x008BIM\x04\x04\0\0\0\0\0\x08" + IPTC)
    comment = jpeg_segment(0xFE, ARTIST.encode())
    image.save(folder / "a.jpg", exif=exif, xmp=XMP, extra=iptc + comment)
    image.save(folder / "a.webp", exif=exif, xmp=XMP, lossless=True)

    tags = ImageFileDirectory_v2()
    tags[ARTIST_TAG] = ARTIST.encode()
    tags[XMP_TAG], tags.tagtype[XMP_TAG] = XMP, 1
    tags[IPTC_TAG], tags.tagtype[IPTC_TAG] = IPTC, 7
    tags[EXIF_TAG] = {TAKEN_AT_TAG: TAKEN_AT}
    image.save(folder / "a.tif", tiffinfo=tags)
    image.save(folder / "plain.tif", compression="tiff_lzw", tiffinfo={COPYRIGHT_TAG: "Ann"})

    text = PngImagePlugin.PngInfo()
    text.add_text("Author", "Ann")
    text.add_text("Licence", "CC0 " * 100, zip=True)
    text.add_itxt("Title", ARTIST, "de", "Titel")
    text.add_itxt("XML:com.adobe.xmp", XMP.decode())
    text.add(b"gAMA", (45455).to_bytes(4, "big"))
    text.add(b"crDt", b"a private chunk")
    text.add(b"tEXt", b"Source\0at the end", after_idat=True)
    image.save(folder / "a.png", exif=exif, pnginfo=text, dpi=(300, 300))


def read_credits(path):
    """Artist, time and XMP of a picture, and its texts, segments and directory."""
    with Image.open(path) as image:
        image.load()
        exif = image.getexif()
        artist = exif.get(ARTIST_TAG, "").encode("latin-1").decode()
        taken_at = exif.get_ifd(EXIF_TAG).get(TAKEN_AT_TAG)
        return image, (artist, taken_at, image.info.get("xmp"))


@pytest.mark.parametrize("scale", [1, 2])
def test_credits_survive(tmp_path, scale):
    """Of the same size, a JPEG is written block by block; enlarged, it is encoded anew."""
    save_with_credits(tmp_path)
    images = {}
    for name in ("a.jpg", "a.webp", "a.tif", "a.png", "plain.tif"):
        original = ImageFile(tmp_path / name)
        pixels = original.pixels.repeat(scale, axis=0).repeat(scale, axis=1)
        pixels[:8, :8] = 9
        original.write(pixels, [(0, 0, 8, 8)], tmp_path / f"out-{name}")
        images[name], credits_ = read_credits(tmp_path / f"out-{name}")
        if name != "plain.tif":
            assert credits_ == (ARTIST, TAKEN_AT, XMP), name

    segments = images["a.jpg"].applist
    assert sum(content.endswith(IPTC) for name, content in segments if name == "APP13") == 1
    assert [content for name, content in segments if name == "COM"] == [ARTIST.encode()]
    assert images["a.tif"].tag_v2[IPTC_TAG] == IPTC
    assert images["plain.tif"].tag_v2[COPYRIGHT_TAG] == "Ann"
    assert images["plain.tif"].info["compression"] == "tiff_lzw"
    texts = images["a.png"].text
    assert (texts["Author"], texts["Title"]) == ("Ann", ARTIST)
    assert texts["Licence"] == "CC0 " * 100
    assert texts["Source"] == "at the end"
    assert images["a.png"].info["dpi"] == pytest.approx((300, 300), abs=0.01)
    assert images["a.png"].info["gamma"] == pytest.approx(0.45455)
    assert b"crDta private chunk" in (tmp_path / "out-a.png").read_bytes()


@pytest.mark.parametrize("name", ["a.jpg", "a.webp", "a.tif", "a.png"])
def test_credits_survive_a_conversion(tmp_path, name):
    save_with_credits(tmp_path)
    for image_format in ("JPEG", "PNG", "TIFF", "WEBP"):
        photo = ConvertedFile(tmp_path / name, image_format)
        photo.write(photo.pixels, [], tmp_path / "converted")
        image, credits_ = read_credits(tmp_path / "converted")
        assert image.format == image_format
        assert credits_ == (ARTIST, TAKEN_AT, XMP), image_format


def test_converted_photograph_is_upright(tmp_path, picture):
    path = save(tmp_path, picture, "a.jpg", orientation=6, quality=95, subsampling=0)
    photo = ConvertedFile(path, "PNG")
    photo.write(photo.pixels, [], tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert image.size == (picture.height, picture.width)
        assert image.getexif().get(ORIENTATION, 1) == 1
        assert image.getexif()[MAKER] == "A maker"


@pytest.mark.parametrize("mode", ["RGBA", "L", "LA", "P"])
def test_alpha_grey_and_palette_are_kept(tmp_path, picture, mode):
    image = picture.convert(mode)
    if mode.endswith("A"):
        ramp = np.linspace(0, 255, image.width).astype(np.uint8)
        image.putalpha(Image.fromarray(np.tile(ramp, (image.height, 1))))
    before, after = rewrite_with_red_box(save(tmp_path, image, "a.png"), tmp_path)
    assert equal_outside_box(before.pixels, after.pixels, 0)
    assert not np.array_equal(before.pixels, after.pixels)
    if mode.endswith("A"):
        assert np.array_equal(before.alpha, after.alpha)
    if mode[0] == "L":
        assert after.image.mode == mode


@pytest.mark.parametrize("mode", ["RGB", "P"])
def test_colours_are_converted_to_profile_of_file(tmp_path, picture, mode):
    """With red and blue primaries swapped in the profile, red is stored as blue."""
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = srgb.replace(b"rXYZ", b"????").replace(b"bXYZ", b"rXYZ").replace(b"????", b"bXYZ")
    path = tmp_path / "swapped.png"
    picture.convert(mode).save(path, icc_profile=swapped)
    face = np.full((4, 4, 3), (188, 100, 40), np.uint8)
    original = ImageFile(path)
    assert np.abs(original.to_file_colours(face).astype(int) - face[..., ::-1]).max() <= 2

    srgb_pixels = Photo(path.read_bytes).pixels()
    file_pixels = original.to_file_colours(srgb_pixels).astype(int)
    assert np.abs(file_pixels - original.pixels).mean() < 2


def test_broken_profile_is_ignored(tmp_path, picture):
    picture.save(tmp_path / "broken.png", icc_profile=b"no profile")
    face = np.full((4, 4, 3), (188, 100, 40), np.uint8)
    assert np.array_equal(ImageFile(tmp_path / "broken.png").to_file_colours(face), face)


def test_unsupported_files_are_refused(tmp_path, picture):
    Image.fromarray(np.zeros((8, 8), np.uint16)).save(tmp_path / "deep.png")
    picture.convert("CMYK").save(tmp_path / "print.jpg")
    picture.save(tmp_path / "a.gif")
    picture.resize((32, 32)).save(tmp_path / "a.avif")
    picture.save(tmp_path / "moving.webp", save_all=True, append_images=[picture.rotate(9)])
    for name, message in (
        ("deep.png", "16 bits"),
        ("print.jpg", "CMYK"),
        ("moving.webp", "several frames"),
        ("a.gif", "is GIF"),
        ("a.avif", "is AVIF"),
    ):
        with pytest.raises(UnsupportedImageError, match=message):
            ImageFile(tmp_path / name)


def test_jpeg_of_unusual_layout_is_refused(tmp_path, picture):
    picture.save(tmp_path / "rgb.jpg", keep_rgb=True)
    with pytest.raises(UnsupportedImageError, match="unusual layout"):
        rewrite_with_red_box(tmp_path / "rgb.jpg", tmp_path)


def test_second_picture_of_mpo_is_dropped_with_its_index(tmp_path, picture):
    picture.save(tmp_path / "phone.jpg", "MPO", save_all=True, append_images=[picture.rotate(180)])
    with Image.open(tmp_path / "phone.jpg") as image:
        assert image.n_frames == 2
    before, after = rewrite_with_red_box(tmp_path / "phone.jpg", tmp_path)
    assert equal_outside_box(before.pixels, after.pixels, 17)
    assert (after.image.format, getattr(after.image, "n_frames", 1)) == ("JPEG", 1)


def test_colours_are_converted_to_grey_profile(tmp_path, picture):
    """With gamma 1, the same grey is stored as another number than in sRGB."""
    path = tmp_path / "linear.png"
    picture.convert("L").save(path, icc_profile=linear_grey_profile())
    original = ImageFile(path)
    srgb_pixels = Photo(path.read_bytes).pixels()
    assert np.abs(srgb_pixels.astype(int) - original.pixels).mean() > 10
    file_pixels = original.to_file_colours(srgb_pixels).astype(int)
    assert np.abs(file_pixels - original.pixels).mean() < 2


def linear_grey_profile():
    """A minimal ICC profile of version 2: a white point, and a tone curve of gamma 1."""
    white_point = struct.pack(">3i", *(round(value * 65536) for value in (0.9642, 1.0, 0.8249)))
    tables = b""
    body = b""
    for name, data in ((b"wtpt", b"XYZ " + bytes(4) + white_point), (b"kTRC", b"curv" + bytes(8))):
        tables += name + struct.pack(">II", 128 + 4 + 2 * 12 + len(body), len(data))
        body += data
    classes = struct.pack(">4s4s4s", b"mntr", b"GRAY", b"XYZ ")
    version = struct.pack(">I", 0x02400000)
    header = bytes(8) + version + classes + bytes(12) + b"acsp" + bytes(28) + white_point
    profile = header.ljust(128, b"\0") + struct.pack(">I", 2) + tables + body
    return struct.pack(">I", len(profile)) + profile[4:]
