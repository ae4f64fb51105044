"""Stripping of locations: no pixel, no length and no other tag changes."""

import io
import math
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from authface_data.images.metadata import read_gps
from authface_data.images.strip_location import strip_location

CAMERA_MAKE = 0x010F
GPS_IFD = 0x8825
GPS = {1: "S", 2: (33.0, 51.0, 25.2), 3: "E", 4: (151.0, 12.0, 40.0), 29: "2024:01:01"}
GPS_DEGREES = (-33.857, 151.2111111)
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/">'
    b'<rdf:Description exif:GPSLatitude="33,51.42S" photoshop:City="Sydney" xmp:Rating="5">'
    b"<exif:GPSLongitude>151,12E</exif:GPSLongitude>"
    b"<Iptc4xmpCore:Location>Sydney</Iptc4xmpCore:Location>"
    b"</rdf:Description></x:xmpmeta>"
)


def encode_with_gps(image_format: str, endian: str = "<", **options) -> bytes:
    exif = Image.Exif()
    exif.endian = endian
    exif[CAMERA_MAKE] = "Canon"
    exif[GPS_IFD] = GPS
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, image_format, exif=exif.tobytes(), **options)
    return buffer.getvalue()


def pixels_of(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("endian", ["<", ">"])
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_gps_is_removed_and_everything_else_kept(image_format, endian):
    data = encode_with_gps(image_format, endian)
    assert read_gps(data) == pytest.approx(GPS_DEGREES)

    stripped = strip_location(data)

    assert read_gps(stripped) == (None, None)
    assert len(stripped) == len(data)
    assert np.array_equal(pixels_of(stripped), pixels_of(data))
    with Image.open(io.BytesIO(stripped)) as image:
        image.load()
        assert image.getexif()[CAMERA_MAKE] == "Canon"
        assert not image.getexif().get_ifd(GPS_IFD)
    assert strip_location(stripped) is stripped


@pytest.mark.filterwarnings("ignore")
def test_damaged_gps_is_unknown():
    """Every byte of the metadata is damaged in turn; no coordinate is infinite or an error."""
    data = encode_with_gps("JPEG", "<")
    start, end = data.index(b"Exif\0\0"), data.index(b"\xff\xdb")
    unknown = 0
    for position in range(start, end):
        damaged = bytearray(data)
        damaged[position] ^= 0xFF
        coordinates = [value for value in read_gps(bytes(damaged)) if value is not None]
        assert all(map(math.isfinite, coordinates))
        unknown += not coordinates
    assert unknown > 10
    zeros = data.replace(struct.pack("<II", 33, 1), bytes(8))
    assert zeros != data
    assert None in read_gps(zeros)


def test_gps_of_heic_is_removed():
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.register_heif_opener()
    data = encode_with_gps("HEIF")
    assert read_gps(data) == pytest.approx(GPS_DEGREES)
    stripped = strip_location(data)
    assert read_gps(stripped) == (None, None)
    assert np.array_equal(pixels_of(stripped), pixels_of(data))


@pytest.mark.parametrize("image_format", ["JPEG", "WEBP"])
def test_location_in_xmp_is_removed(image_format):
    stripped = strip_location(encode_with_gps(image_format, xmp=XMP))
    for value in (b"33,51.42S", b"Sydney", b"151,12E"):
        assert value not in stripped
    assert b'xmp:Rating="5"' in stripped


def test_location_in_iptc_is_removed():
    city = b"\x1c\x02\x5a\x00\x06Sydney"
    block = b"Photoshop 3.0\x008BIM\x04\x04\x00\x00" + len(city).to_bytes(4, "big") + city
    jpeg = encode_with_gps("JPEG")
    data = jpeg[:2] + b"\xff\xed" + (len(block) + 2).to_bytes(2, "big") + block + jpeg[2:]
    stripped = strip_location(data)
    assert b"Sydney" not in stripped
    assert np.array_equal(pixels_of(stripped), pixels_of(data))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xd8",
        b"\x89PNG\r\n\x1a\n",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"MM\0*\0\0\0\x08\0\x01\x88\x25",
    ],
)
def test_malformed_file_is_unchanged(data):
    assert strip_location(data) == data


def test_file_truncated_anywhere_keeps_its_length():
    data = encode_with_gps("JPEG", xmp=XMP)
    for length in range(0, len(data), 7):
        assert len(strip_location(data[:length])) == length


def test_both_pictures_of_an_mpo_file_are_stripped():
    """Phones write MPO: two JPEG files in a row, each with its EXIF metadata."""
    data = encode_with_gps("JPEG") + encode_with_gps("JPEG")
    stripped = strip_location(data)
    half = len(data) // 2
    assert read_gps(stripped[:half]) == read_gps(stripped[half:]) == (None, None)
    assert np.array_equal(pixels_of(stripped[half:]), pixels_of(data[half:]))


def png_with_chunk(chunk_type: bytes, body: bytes) -> bytes:
    """Insert a chunk after the header of a small PNG."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (1, 2, 3)).save(buffer, "PNG")
    data = buffer.getvalue()
    checksum = zlib.crc32(chunk_type + body).to_bytes(4, "big")
    chunk = len(body).to_bytes(4, "big") + chunk_type + body + checksum
    return data[:33] + chunk + data[33:]


@pytest.mark.parametrize(
    ("chunk_type", "body"),
    [
        (b"tEXt", b"Raw profile type exif\0\nexif\n  12\n" + b"47505320".hex().encode()),
        (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(XMP)),
        (b"zTXt", b"Comment\0\0" + zlib.compress(b"GPS 52.5")),
    ],
    ids=["raw profile", "compressed xmp", "compressed text"],
)
def test_png_chunk_with_hidden_location_is_removed(chunk_type, body):
    data = png_with_chunk(chunk_type, body)
    stripped = strip_location(data)
    assert body not in stripped
    assert np.array_equal(pixels_of(stripped), pixels_of(data))


def test_png_chunk_without_location_is_kept():
    data = png_with_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"a nice day"))
    assert strip_location(data) is data


@pytest.mark.parametrize(
    "name", [b"drone-dji:GpsLatitude", b"Iptc4xmpExt:LocationName", b"exif:GPSAltitude"]
)
def test_other_location_properties_of_xmp_are_removed(name):
    xmp = XMP.replace(b"photoshop:City", name)
    assert b"Sydney" not in strip_location(encode_with_gps("JPEG", xmp=xmp))


def test_gps_pointer_to_the_main_directory_changes_nothing():
    """Clearing the picture's main directory would ruin the file."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (9, 9, 9)).save(buffer, "TIFF", tiffinfo={GPS_IFD: 8})
    data = buffer.getvalue()
    main_directory = int.from_bytes(data[4:8], "little")
    if main_directory != 8:
        data = data.replace((8).to_bytes(4, "little"), main_directory.to_bytes(4, "little"))
    assert np.array_equal(pixels_of(strip_location(data)), pixels_of(data))
