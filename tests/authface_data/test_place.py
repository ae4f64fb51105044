"""Places blanked in files of every kind: no pixel, no length and no other tag changes."""

import io

import numpy as np
import pytest
from PIL import Image

from authface_data.place import gps, without_place

CAMERA, GPS = 0x010F, {1: "S", 2: (33.0, 51.0, 25.2), 3: "E", 4: (151.0, 12.0, 40.0), 29: "2024:01:01"}
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description exif:GPSLatitude="33,51.42S" photoshop:City="Sydney" '
    b'xmp:Rating="5"><exif:GPSLongitude>151,12E</exif:GPSLongitude><Iptc4xmpCore:Location>Sydney</Iptc4xmpCore:Location>'
    b"</rdf:Description></x:xmpmeta>"
)


def encoded(kind: str, endian: str = "<", **options) -> bytes:
    exif = Image.Exif()
    exif.endian = endian
    exif[CAMERA] = "Canon"
    exif[0x8825] = GPS
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind, exif=exif.tobytes(), **options)
    return out.getvalue()


def pixels_of(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("endian", ["<", ">"])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_gps_goes_and_nothing_else(kind, endian):
    data = encoded(kind, endian)
    assert gps(data) == pytest.approx((-33.857, 151.2111111))
    blank = without_place(data)
    assert gps(blank) == (None, None)
    assert len(blank) == len(data)
    assert np.array_equal(pixels_of(blank), pixels_of(data))
    with Image.open(io.BytesIO(blank)) as image:
        image.load()
        assert image.getexif()[CAMERA] == "Canon"
        assert not image.getexif().get_ifd(0x8825)
    assert without_place(blank) is blank


def test_heic():
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.register_heif_opener()
    data = encoded("HEIF")
    assert gps(data) == pytest.approx((-33.857, 151.2111111))
    blank = without_place(data)
    assert gps(blank) == (None, None)
    assert np.array_equal(pixels_of(blank), pixels_of(data))


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_xmp(kind):
    blank = without_place(encoded(kind, xmp=XMP))
    for word in (b"33,51.42S", b"Sydney", b"151,12E"):
        assert word not in blank
    assert b'xmp:Rating="5"' in blank


def test_iptc():
    city = b"\x1c\x02\x5a\x00\x06Sydney"
    block = b"Photoshop 3.0\x008BIM\x04\x04\x00\x00" + len(city).to_bytes(4, "big") + city
    jpeg = encoded("JPEG")
    data = jpeg[:2] + b"\xff\xed" + (len(block) + 2).to_bytes(2, "big") + block + jpeg[2:]
    blank = without_place(data)
    assert b"Sydney" not in blank
    assert np.array_equal(pixels_of(blank), pixels_of(data))


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"Exif\0\0II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\0\x01\x88\x25"]
)
def test_what_is_no_picture_is_left_as_it_is(data):
    assert without_place(data) == data


def test_truncated_anywhere_it_never_raises():
    data = encoded("JPEG", xmp=XMP)
    for length in range(0, len(data), 7):
        assert len(without_place(data[:length])) == length
