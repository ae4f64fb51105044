"""Picture files from strangers: no code runs, and memory and time stay bounded."""

import contextlib
import io
import struct
import sys
import time
import tracemalloc
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from authface_data.images import open as opening
from authface_data.images.metadata import camera_metadata
from authface_data.images.open import (
    DECODE_ERRORS,
    IMAGE_SUFFIXES,
    Photo,
    PictureReadError,
    PictureTooLargeError,
    open_image,
)
from authface_data.images.strip_location import strip_location
from authface_data.images.tiff_directory import check_directories
from manifests.support.time_limit import TimeLimitError, time_limit

POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/tmp/x) (w) file closefile\n"
SECONDS = 10
"""Far more than any of these files needs, and far less than a quadratic search would take."""


@pytest.fixture(autouse=True)
def default_limit(monkeypatch):
    monkeypatch.setattr(opening, "_memory_limit_gb", None)
    monkeypatch.delenv("AUTHFACE_PICTURE_GB", raising=False)


def encode(image: Image.Image, image_format: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def small_picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8))


def png_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png_header(width: int, height: int, colour_type: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, colour_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header)


def tiff_with_tags(tags: list[tuple[int, int, int, int]], size: int = 2000) -> bytes:
    """A TIFF file with (tag, type, count, value) entries and zeros up to a size."""
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    data = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    return data + bytes(max(size - len(data), 0))


@pytest.mark.parametrize(
    "data",
    [POSTSCRIPT, b"\xc5\xd0\xd3\xc6" + struct.pack("<7I", 32, 80, 0, 0, 0, 0, 0) + POSTSCRIPT],
    ids=["eps", "eps with a DOS header"],
)
def test_postscript_reaches_no_decoder(data, monkeypatch):
    def run_ghostscript(*arguments, **options):
        raise AssertionError("Ghostscript was called")

    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", run_ghostscript)
    with Image.open(io.BytesIO(data)) as image, pytest.raises(AssertionError):
        image.load()  # this Pillow would run it
    with pytest.raises(ValueError, match="not a picture of a supported format"):
        open_image(data)
    with pytest.raises(ValueError, match="not a picture of a supported format"):
        Photo(lambda: data).pixels()


@pytest.mark.parametrize("image_format", ["PPM", "TGA", "PCX", "ICO", "SGI", "DDS", "JPEG2000"])
def test_other_formats_of_pillow_are_refused(image_format):
    data = encode(small_picture(), image_format)
    with Image.open(io.BytesIO(data)) as image:
        image.load()
    with pytest.raises(ValueError, match="not a picture of a supported format"):
        open_image(data)


@pytest.mark.parametrize(
    "image_format", ["JPEG", "MPO", "PNG", "WEBP", "TIFF", "HEIF", "AVIF", "BMP", "GIF"]
)
def test_supported_formats_are_read(image_format):
    second = Image.new("RGB", (64, 48))
    options = {"save_all": True, "append_images": [second]} if image_format == "MPO" else {}
    data = encode(small_picture(), image_format, **options)
    photo = Photo(lambda: data)
    assert photo.format == image_format
    assert photo.pixels().shape == (48, 64, 3)


def test_first_frame_of_an_animation_is_read():
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue", "blue")]
    data = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert Photo(lambda: data).pixels()[16, 16].tolist() == [255, 0, 0]


def test_suffixes_name_the_supported_formats():
    assert set(IMAGE_SUFFIXES) >= {".jpe", ".jfif", ".avif", ".bmp", ".gif"}


@pytest.mark.parametrize("size_px", [(65500, 1), (65500, 2), (1, 65500), (1, 1)])
def test_very_narrow_jpeg_is_decoded(size_px):
    data = encode(Image.new("RGB", size_px, (200, 10, 10)), "JPEG")
    photo = Photo(lambda: data)
    longest = min(max(size_px), 1920)
    assert max(photo.pixels(1920).shape[:2]) == longest
    assert photo.region((0, 0, 8, 8), shrink=8).pixels.size


def test_large_photographs_of_cameras_pass():
    for size_px in [(8192, 5464), (11648, 8736)]:  # 45 and 102 megapixels
        data = encode(Image.new("L", size_px), "JPEG").replace(
            b"\x01\x01\x11\x00", b"\x01\x01\x11\x00"
        )
        assert open_image(data).size == size_px


def test_picture_above_the_memory_limit_is_refused_with_figures():
    data = png_header(22000, 22000, 6) + png_chunk(b"IDAT", b"")
    expected = r"decoding 22000 x 22000 pixels \(RGBA\) would take 7\.7 GB .* limit is 2 GB"
    with pytest.raises(PictureTooLargeError, match=expected) as refusal:
        Photo(lambda: data).pixels()
    assert refusal.value.needed_gb == pytest.approx(7.744, abs=0.01)
    assert isinstance(refusal.value, DECODE_ERRORS)


def test_memory_limit_can_be_raised(monkeypatch):
    data = png_header(22000, 22000, 6) + png_chunk(b"IDAT", b"")
    monkeypatch.setenv("AUTHFACE_PICTURE_GB", "8")
    assert open_image(data).size == (22000, 22000)
    opening.limit_memory(4)  # the settings of a workspace come before the environment
    with pytest.raises(PictureTooLargeError, match="limit is 4 GB"):
        open_image(data)


def test_tile_of_a_tiff_counts_as_memory():
    size = [(256, 4, 1, 64), (257, 4, 1, 64), (258, 3, 1, 8), (259, 3, 1, 8), (262, 3, 1, 1)]
    tiles = [(322, 4, 1, 60_000), (323, 4, 1, 60_000), (324, 4, 1, 500), (325, 4, 1, 100)]
    with pytest.raises(PictureTooLargeError):
        open_image(tiff_with_tags([*size, *tiles]))


def test_tags_that_share_a_value_are_refused():
    """Pillow copies the value of each tag: 60,000 tags of 1 MB would take 60 GB."""
    tags = [(tag, 7, 1_000_000, 0) for tag in range(60_000)]
    with time_limit(SECONDS, ends_process=False), pytest.raises(ValueError, match="tags of its"):
        open_image(tiff_with_tags(tags, size=1_800_000))


def test_directories_that_overlap_are_refused():
    """Each of 60,000 tags leads to another directory of about as many tags."""
    data = tiff_with_tags([(0x8769, 4, 1, 10 + 12 * number) for number in range(60_000)])
    jpeg = encode(small_picture(), "JPEG")
    block = b"Exif\0\0" + data[:60_000]
    blocks = (b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block) * 60
    with time_limit(SECONDS, ends_process=False):
        for hostile in (data, jpeg[:2] + blocks + jpeg[2:]):
            with pytest.raises(ValueError, match="more than 10,000 tags"):
                open_image(hostile)


def test_directories_that_form_a_loop_end():
    with time_limit(SECONDS, ends_process=False):
        check_directories(tiff_with_tags([(0x8769, 4, 1, 8), (0x8825, 4, 1, 8)]))


@pytest.mark.parametrize("text", [b"a" * 400_000, b":GPSa" * 80_000, b"<a:GPS " * 60_000])
def test_long_xmp_text_is_searched_in_linear_time(text):
    xmp = b"XML:com.adobe.xmp\0\0\0\0\0<x:xmpmeta>" + text + b"</x:xmpmeta>"
    data = encode(small_picture(), "PNG")
    data = data[:33] + png_chunk(b"iTXt", xmp) + data[33:]
    with time_limit(SECONDS, ends_process=False):
        assert len(strip_location(data)) == len(data)


@pytest.mark.parametrize("closing", [b"", b"</"])
def test_unclosed_gps_elements_are_searched_in_linear_time(closing):
    packet = b"<x:xmpmeta>" + b"<exif:GPSLatitude>52" * 60_000 + closing + b"<x:xmpmeta"
    with time_limit(SECONDS, ends_process=False):
        stripped = strip_location(b"\xff\xd8" + packet)
    assert len(stripped) == len(packet) + 2
    assert b"<exif:GPSLatitude>52<" not in stripped[:50]


def test_gps_element_without_an_end_is_blanked():
    stripped = strip_location(b"\xff\xd8<x:xmpmeta><exif:GPSLatitude>52.1N<x:xmpmeta")
    assert b"52.1N" not in stripped


def test_apostrophe_in_a_place_ends_nothing():
    stripped = strip_location(b"""\xff\xd8<x:xmpmeta photoshop:City="L'Aquila" a='b'><x:xmpmeta""")
    assert b"Aquila" not in stripped
    assert b"a='b'" in stripped


def test_many_exif_blocks_are_refused():
    block = b"Exif\0\0II*\0\x08\0\0\0\xff\xff"
    segment = b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block
    jpeg = encode(small_picture(), "JPEG")
    data = jpeg[:2] + segment * 40_000 + jpeg[2:]
    with time_limit(SECONDS, ends_process=False):
        with pytest.raises(ValueError, match="64 blocks of EXIF"):
            strip_location(data)
        with pytest.raises(ValueError, match="64 blocks of EXIF"):
            open_image(data)


def test_many_iptc_blocks_are_refused():
    data = b"\xff\xd8" + (b"8BIM\x04\x04\0\0\xff\xff\xff\xff" + b"\x1c\x02" * 50) * 5000
    with time_limit(SECONDS, ends_process=False), pytest.raises(ValueError, match="IPTC"):
        strip_location(data)


def test_large_compressed_text_is_removed_without_unpacking_it_all():
    text = zlib.compress(bytes(50_000_000))
    data = encode(small_picture(), "PNG")
    bomb = png_chunk(b"zTXt", b"Comment\0\0" + text)
    assert strip_location(data[:33] + bomb + data[33:]) == data


def test_gps_of_a_big_tiff_is_removed():
    gps = struct.pack("<Q", 1) + struct.pack("<HHQ8s", 1, 2, 2, b"N") + bytes(8)
    main = struct.pack("<Q", 1) + struct.pack("<HHQQ", 0x8825, 13, 1, 52) + bytes(8)
    data = b"II+\0\x08\0\0\0" + struct.pack("<Q", 16) + main + gps
    assert len(data[:52]) == 52
    stripped = strip_location(data)
    assert data[52:60] != bytes(8)
    assert stripped[52:80] == bytes(28)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_deflate"])
def test_messages_of_the_tiff_library_become_warnings(compression, capfd):
    data = bytearray(encode(small_picture(), "TIFF", compression=compression))
    rng = np.random.default_rng(3)
    messages = []
    for _ in range(40):
        damaged = bytearray(data)
        damaged[rng.integers(8, len(data) - 200)] ^= 0xFF
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            with contextlib.suppress(DECODE_ERRORS):
                Photo(lambda damaged=damaged: bytes(damaged)).pixels()
        messages += [str(warning.message) for warning in caught]
    assert messages
    assert capfd.readouterr().err == ""


def test_damaged_files_raise_only_decode_errors():
    """Pillow and its libraries raise many kinds of exceptions for damaged files."""
    rng = np.random.default_rng(7)
    num_errors = 0
    for image_format in ("JPEG", "PNG", "WEBP", "TIFF", "HEIF", "AVIF", "BMP", "GIF"):
        data = encode(small_picture(), image_format)
        for _ in range(25):
            damaged = bytearray(data)
            for position in rng.integers(0, min(len(data), 400), 6):
                damaged[position] = rng.integers(256)
            photo = Photo(lambda damaged=damaged: bytes(damaged))
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    photo.pixels(32)
                    camera_metadata(photo.exif)
                    strip_location(photo.data)
            except DECODE_ERRORS:
                num_errors += 1
    assert num_errors > 20


def test_file_that_cannot_be_read_is_not_undecodable(tmp_path):
    with pytest.raises(PictureReadError, match=r"cannot read .*gone\.jpg: No such file"):
        open_image(tmp_path / "gone.jpg")
    with pytest.raises(PictureReadError, match="No such file"):
        Photo((tmp_path / "gone.jpg").read_bytes).pixels()
    assert not issubclass(PictureReadError, DECODE_ERRORS)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc exists on Linux only")
def test_read_error_of_the_drive_is_named(tmp_path):
    (tmp_path / "a.jpg").symlink_to("/proc/self/mem")  # reading its start is an I/O error
    with pytest.raises(PictureReadError, match="Input/output error"):
        open_image(tmp_path / "a.jpg")


def test_file_larger_than_the_limit_is_not_read(tmp_path):
    with (tmp_path / "huge.tif").open("wb") as file:
        file.truncate(3_000_000_000)
    with pytest.raises(PictureTooLargeError, match=r"the file would take 3\.0 GB"):
        open_image(tmp_path / "huge.tif")


def test_blanking_copies_a_file_once():
    gps = b"<x:xmpmeta><exif:GPSLatitude>52.1N</exif:GPSLatitude><x:xmpmeta"
    data = b"\xff\xd8" + gps + bytes(20_000_000)
    assert strip_location(b"\xff\xd8" + bytes(100)) == b"\xff\xd8" + bytes(100)
    tracemalloc.start()
    try:
        stripped = strip_location(data)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert b"52.1N" not in stripped
    assert len(stripped) == len(data)
    assert peak_bytes < 1.1 * len(data)
    with pytest.raises(PictureTooLargeError):  # the content and its copy
        opening._check_memory(open_image(encode(small_picture(), "JPEG")), 1_100_000_000)


def test_jpeg_of_many_scans_is_refused_and_a_progressive_photograph_is_not():
    picture = Image.effect_noise((320, 240), 60).convert("RGB")
    data = encode(picture, "JPEG", progressive=True)
    assert data.count(b"\xff\xda") > 5
    assert Photo(lambda: data).size_px == (320, 240)

    last_scan = data[data.rindex(b"\xff\xda") : -2]
    with pytest.raises(ValueError, match="more than 100 scans"):
        open_image(data[:-2] + last_scan * 100 + data[-2:])
    # A motion photo has a film behind its picture, where the bytes of the marker mean nothing.
    assert open_image(data + last_scan * 200).size == (320, 240)


def test_decoding_outside_the_engine_has_a_time_limit(monkeypatch):
    monkeypatch.setattr(opening, "DECODE_SECONDS", 0.05)
    data = encode(small_picture(), "PNG")
    with pytest.raises(ValueError, match=r"longer than 0\.05 s"), opening.decoding(data):
        time.sleep(5)
    with (
        pytest.raises(TimeLimitError),
        time_limit(0.1, ends_process=False),
        opening.decoding(data),
    ):
        time.sleep(5)


def test_time_limit_interrupts_and_leaves_no_alarm():
    with pytest.raises(TimeLimitError), time_limit(0.05, ends_process=False):
        time.sleep(5)
    with time_limit(0.05, ends_process=False):
        pass
    time.sleep(0.1)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("pointer", [0, 4, 8, 10, 26, 60])
def test_gps_pointer_into_the_header_or_main_directory_ruins_nothing(pointer):
    buffer = io.BytesIO()
    small_picture().save(buffer, "TIFF", tiffinfo={0x8825: 0x7FFF_1234})
    data = buffer.getvalue().replace(struct.pack("<I", 0x7FFF_1234), struct.pack("<I", pointer))
    stripped = strip_location(data)
    expected = np.asarray(small_picture())
    assert np.array_equal(Photo(lambda: stripped).pixels(), expected)


def test_gps_values_outside_of_their_jpeg_segment_are_left_alone():
    exif = Image.Exif()
    exif[0x8825] = {2: (33.0, 51.0, 25.2)}
    jpeg = bytearray(encode(small_picture(), "JPEG", exif=exif.tobytes()))
    entry = jpeg.index(struct.pack(">HHI", 2, 5, 3)) + 8
    jpeg[entry : entry + 4] = struct.pack(">I", 600)  # into the compressed pixels
    stripped = strip_location(bytes(jpeg))
    assert stripped != bytes(jpeg)
    assert np.array_equal(Photo(lambda: stripped).pixels(), Photo(lambda: bytes(jpeg)).pixels())
