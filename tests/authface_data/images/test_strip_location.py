"""Places blanked in files of every kind: no pixel, no length and no other tag changes."""

import io

import numpy as np
import pytest
from PIL import Image

from authface_data.images.metadata import read_gps
from authface_data.images.strip_location import strip_location

CAMERA, GPS = (
    0x010F,
    {1: "S", 2: (33.0, 51.0, 25.2), 3: "E", 4: (151.0, 12.0, 40.0), 29: "2024:01:01"},
)
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
    assert read_gps(data) == pytest.approx((-33.857, 151.2111111))
    blank = strip_location(data)
    assert read_gps(blank) == (None, None)
    assert len(blank) == len(data)
    assert np.array_equal(pixels_of(blank), pixels_of(data))
    with Image.open(io.BytesIO(blank)) as image:
        image.load()
        assert image.getexif()[CAMERA] == "Canon"
        assert not image.getexif().get_ifd(0x8825)
    assert strip_location(blank) is blank


def test_heic():
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.register_heif_opener()
    data = encoded("HEIF")
    assert read_gps(data) == pytest.approx((-33.857, 151.2111111))
    blank = strip_location(data)
    assert read_gps(blank) == (None, None)
    assert np.array_equal(pixels_of(blank), pixels_of(data))


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_xmp(kind):
    blank = strip_location(encoded(kind, xmp=XMP))
    for word in (b"33,51.42S", b"Sydney", b"151,12E"):
        assert word not in blank
    assert b'xmp:Rating="5"' in blank


def test_iptc():
    city = b"\x1c\x02\x5a\x00\x06Sydney"
    block = b"Photoshop 3.0\x008BIM\x04\x04\x00\x00" + len(city).to_bytes(4, "big") + city
    jpeg = encoded("JPEG")
    data = jpeg[:2] + b"\xff\xed" + (len(block) + 2).to_bytes(2, "big") + block + jpeg[2:]
    blank = strip_location(data)
    assert b"Sydney" not in blank
    assert np.array_equal(pixels_of(blank), pixels_of(data))


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
def test_what_is_no_picture_is_left_as_it_is(data):
    assert strip_location(data) == data


def test_truncated_anywhere_it_never_raises():
    data = encoded("JPEG", xmp=XMP)
    for length in range(0, len(data), 7):
        assert len(strip_location(data[:length])) == length


def test_the_second_picture_of_a_phones_file():
    """MPO: a JPEG after the JPEG, with EXIF of its own."""
    data = encoded("JPEG") + encoded("JPEG")
    blank = strip_location(data)
    half = len(data) // 2
    assert read_gps(blank[:half]) == read_gps(blank[half:]) == (None, None)
    assert np.array_equal(pixels_of(blank[half:]), pixels_of(data[half:]))


def png_with(kind: bytes, body: bytes) -> bytes:
    import zlib

    out = io.BytesIO()
    Image.new("RGB", (8, 8), (1, 2, 3)).save(out, "PNG")
    data = out.getvalue()
    chunk = len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")
    return data[:33] + chunk + data[33:]


@pytest.mark.parametrize("form", ["raw profile", "compressed xmp", "compressed text"])
def test_metadata_hidden_in_chunks_of_a_png(form):
    import zlib

    kind, body = {
        "raw profile": (
            b"tEXt",
            b"Raw profile type exif\0\nexif\n  12\n" + b"47505320".hex().encode(),
        ),
        "compressed xmp": (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(XMP)),
        "compressed text": (b"zTXt", b"Comment\0\0" + zlib.compress(b"GPS 52.5")),
    }[form]
    data = png_with(kind, body)
    blank = strip_location(data)
    assert body not in blank
    assert np.array_equal(pixels_of(blank), pixels_of(data))
    harmless = png_with(b"zTXt", b"Comment\0\0" + zlib.compress(b"a nice day"))
    assert strip_location(harmless) is harmless


@pytest.mark.parametrize(
    "name", [b"drone-dji:GpsLatitude", b"Iptc4xmpExt:LocationName", b"exif:GPSAltitude"]
)
def test_other_names_of_place(name):
    xmp = XMP.replace(b"photoshop:City", name)
    assert b"Sydney" not in strip_location(encoded("JPEG", xmp=xmp))


def test_a_pointer_to_something_else_empties_nothing():
    """A GPS pointer that leads to the picture's own directory: blanking it would ruin the file."""
    out = io.BytesIO()
    Image.new("RGB", (8, 8), (9, 9, 9)).save(out, "TIFF", tiffinfo={0x8825: 8})
    data = out.getvalue()
    first = int.from_bytes(data[4:8], "little")
    data = (
        data.replace((8).to_bytes(4, "little"), first.to_bytes(4, "little")) if first != 8 else data
    )
    assert np.array_equal(pixels_of(strip_location(data)), pixels_of(data))
