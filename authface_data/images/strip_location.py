"""Where a photograph was taken: read only where asked for, else blanked in the file that is kept.

Blanking changes no pixel: the GPS directory of EXIF is emptied, GPS and place in XMP and IPTC are overwritten. Chunks of a PNG
that hold such metadata compressed or in hexadecimal are left out.
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Iterator

from PIL import Image

GPS_IFD = 0x8825
TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
# Before a TIFF header: nothing in a TIFF file, a word in JPEG and HEIC, a word and a length in WebP.
EXIF_WORDS = ((b"Exif\0\0", 0), (b"EXIF", 4))
TIFF = (b"II*\0", b"MM\0*")
# An XMP packet lies between these words; 1 MB where the closing one is missing.
XMP_WORDS, XMP_MOST = (b"xmpmeta", b"rdf:RDF"), 1 << 20
NAMES = (
    rb"(?:[\w-]+:[Gg][Pp][Ss]\w+|photoshop:(?:City|State|Country)|Iptc4xmpCore:(?:Location|CountryCode)"
    rb"|Iptc4xmpExt:(?:City|Sublocation|ProvinceState|CountryName|CountryCode|Location\w+))"
)
XMP_VALUE = re.compile(rb"(<?" + NAMES + rb"""\s*=\s*["'])([^"']*)""")
XMP_ELEMENT = re.compile(rb"(<" + NAMES + rb"(?:\s[^>]*)?>)(.*?)(?=</)", re.DOTALL)
IPTC = re.compile(
    rb"\x1c\x02[\x1a\x1b\x5a\x5c\x5f\x64\x65](..)", re.DOTALL
)  # location code and name, city to country
HINTS = (b"GPS", b"Gps", b"photoshop:", b"Iptc4xmp")
LAST_GPS_TAG = 31
IPTC_BLOCK = b"8BIM\x04\x04"
PNG = b"\x89PNG\r\n\x1a\n"
RAW_PROFILE = (
    b"Raw profile type "  # how ImageMagick writes EXIF, XMP and IPTC into a PNG: in hexadecimal
)


def without_place(data: bytes) -> bytes:
    """The file with GPS and place blanked; the same object where there is none, or where its metadata is malformed."""
    if data.startswith(PNG):
        return _png(data)
    blank = _blanked(data)
    return data if blank == data else blank


def gps(data: bytes) -> tuple[float | None, float | None]:
    """(latitude, longitude) in degrees, north and east positive, from EXIF; None where it is not told."""
    with Image.open(io.BytesIO(data)) as image:
        said = image.getexif().get_ifd(GPS_IFD)

    def degrees(value: object, reference: object, negative: str) -> float | None:
        try:
            d, m, s = (float(part) for part in value)  # type: ignore[attr-defined]
        except (TypeError, ValueError, ZeroDivisionError):
            return None
        total = d + m / 60 + s / 3600
        return -total if str(reference).strip("\0 ").upper() == negative else total

    return degrees(said.get(2), said.get(1), "S"), degrees(said.get(4), said.get(3), "W")


def _blanked(data: bytes) -> bytes:
    """Looks for fixed words first: patterns are matched only where they can be, for a photograph has tens of megabytes."""
    out = bytearray(data)
    for start in (
        0,
        *(at + len(word) + gap for word, gap in EXIF_WORDS for at in _places(data, word)),
    ):
        if data.startswith(TIFF, start):
            _empty_gps(out, start)
    for word in XMP_WORDS:
        first = data.find(word)
        if first >= 0:
            last = data.rfind(word)
            _blank_xmp(out, first, last if last > first else min(first + XMP_MOST, len(out)))
    for at in _places(data, IPTC_BLOCK):
        _blank_iptc(out, at + len(IPTC_BLOCK))
    return bytes(out)


def _places(data: bytes, word: bytes) -> Iterator[int]:
    """Where a word stands."""
    at = data.find(word)
    while at >= 0:
        yield at
        at = data.find(word, at + 1)


def _blank_xmp(out: bytearray, first: int, last: int) -> None:
    for pattern in (XMP_VALUE, XMP_ELEMENT):
        for found in pattern.finditer(bytes(out[first:last])):
            out[first + found.start(2) : first + found.end(2)] = b" " * len(found[2])


def _blank_iptc(out: bytearray, at: int) -> None:
    """Overwrite places in Photoshop's block of IPTC: at its name, which is padded to an even length, then its size."""
    if at >= len(out):
        return
    begins = at + (out[at] + 2) // 2 * 2 + 4
    ends = min(begins + int.from_bytes(out[begins - 4 : begins], "big"), len(out))
    for found in IPTC.finditer(bytes(out[begins:ends])):
        (length,) = struct.unpack(">H", found[1])
        first = begins + found.end()
        last = min(first + length, ends)
        out[first:last] = b" " * max(last - first, 0)


def _empty_gps(out: bytearray, start: int) -> None:
    """Empty the GPS directory of the TIFF structure that begins at `start`."""
    order = "<" if out[start : start + 2] == b"II" else ">"

    def read(kind: str, at: int) -> int:
        return int(struct.unpack_from(order + kind, out, start + at)[0])

    try:
        first = read("I", 4)
        for entry in range(read("H", first)):
            at = first + 2 + 12 * entry
            if read("H", at) == GPS_IFD and read("I", at + 8) != first:
                _empty_directory(out, start, read("I", at + 8), read)
    except struct.error:
        return


def _empty_directory(out: bytearray, start: int, directory: int, read) -> None:
    count = read("H", directory)
    if any(read("H", directory + 2 + 12 * entry) > LAST_GPS_TAG for entry in range(count)):
        return  # a pointer to something else
    for entry in range(count):
        at = directory + 2 + 12 * entry
        size = TYPE_BYTES.get(read("H", at + 2), 1) * read("I", at + 4)
        where = read("I", at + 8)
        if 4 < size < 65536 and start + where + size <= len(out):
            out[start + where : start + where + size] = bytes(size)
    length = min(2 + 12 * count, len(out) - start - directory)
    out[start + directory : start + directory + length] = bytes(length)


def _png(data: bytes) -> bytes:
    """The same for the chunks of a PNG that may hold metadata, their checksums made anew."""
    pieces, at, changed = [PNG], len(PNG), False
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        at_next = at + 12 + length
        if kind in (b"zTXt", b"iTXt", b"tEXt") and _hides_place(kind, body):
            changed, at = True, at_next  # left out whole
            continue
        if kind in (b"eXIf", b"iTXt", b"tEXt"):
            blank = _blanked(body)
            if blank != body:
                changed, at = True, at_next
                pieces += [
                    data[at - 12 - length : at - 4 - length],
                    blank,
                    zlib.crc32(kind + blank).to_bytes(4, "big"),
                ]
                continue
        pieces.append(data[at:at_next])
        at = at_next
    return b"".join([*pieces, data[at:]]) if changed else data


def _hides_place(kind: bytes, body: bytes) -> bool:
    """Whether a text chunk of a PNG holds metadata in a form that cannot be overwritten, and may tell a place."""
    name, _, rest = body.partition(b"\0")
    if name.startswith(RAW_PROFILE):
        return True
    if kind == b"iTXt" and not rest.startswith(b"\1"):
        return False  # not compressed
    if kind == b"tEXt":
        return False
    packed = rest[1:] if kind == b"zTXt" else rest[2:].split(b"\0", 2)[-1]
    try:
        text = zlib.decompress(packed)
    except zlib.error:
        return False
    return any(hint in text for hint in HINTS)
