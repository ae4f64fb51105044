"""Where a photograph was taken: read only where asked for, else blanked in the file that is kept.

Blanking changes no length and no pixel: the GPS directory of EXIF is emptied, GPS and place in XMP and IPTC are overwritten.
"""

from __future__ import annotations

import io
import re
import struct
import zlib

from PIL import Image

GPS_IFD = 0x8825
TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
# A TIFF header where EXIF begins: a TIFF file itself, JPEG and HEIC ("Exif"), WebP ("EXIF" and a length).
TIFF = re.compile(rb"(?:\A|Exif\0\0|EXIF.{4})(II\*\0|MM\0\*)", re.DOTALL)
NAMES = (
    rb"(?:exif:GPS\w+|photoshop:(?:City|State|Country)|Iptc4xmpCore:(?:Location|CountryCode)"
    rb"|Iptc4xmpExt:(?:City|Sublocation|ProvinceState|CountryName|CountryCode|LocationId))"
)
XMP_VALUE = re.compile(rb"(<?" + NAMES + rb"""\s*=\s*["'])([^"']*)""")
XMP_ELEMENT = re.compile(rb"(<" + NAMES + rb"(?:\s[^>]*)?>)(.*?)(?=</)", re.DOTALL)
IPTC = re.compile(rb"\x1c\x02[\x1a\x1b\x5a\x5c\x5f\x64\x65](..)", re.DOTALL)  # location code and name, city to country
PNG = b"\x89PNG\r\n\x1a\n"


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
    head = data[: _metadata_end(data)]
    out = bytearray(head)
    for found in TIFF.finditer(head):
        _empty_gps(out, found.start(1))
    if b"GPS" in head or b"photoshop:" in head or b"Iptc4xmp" in head:
        for pattern in (XMP_VALUE, XMP_ELEMENT):
            for found in pattern.finditer(bytes(out)):
                out[found.start(2) : found.end(2)] = b" " * len(found[2])
    at = head.find(b"Photoshop 3.0\0")
    while at >= 0:
        for found in IPTC.finditer(head, at, at + 65536):
            (length,) = struct.unpack(">H", found[1])
            if length < 1024:
                out[found.end() : found.end() + length] = b" " * length
        at = head.find(b"Photoshop 3.0\0", at + 1)
    return bytes(out) + data[len(head) :]


def _metadata_end(data: bytes) -> int:
    """Where a JPEG's compressed picture begins; other files are looked at whole."""
    if not data.startswith(b"\xff\xd8"):
        return len(data)
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        if data[at + 1] == 0xDA:
            return at
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return min(at, len(data))


def _empty_gps(out: bytearray, start: int) -> None:
    """Empty the GPS directory of the TIFF structure that begins at `start`."""
    order = "<" if out[start : start + 2] == b"II" else ">"

    def read(kind: str, at: int) -> int:
        return int(struct.unpack_from(order + kind, out, start + at)[0])

    try:
        first = read("I", 4)
        for entry in range(read("H", first)):
            at = first + 2 + 12 * entry
            if read("H", at) == GPS_IFD:
                _empty_directory(out, start, read("I", at + 8), read)
    except struct.error:
        return


def _empty_directory(out: bytearray, start: int, directory: int, read) -> None:
    count = read("H", directory)
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
        if kind in (b"eXIf", b"iTXt", b"tEXt"):
            blank = _blanked(body)
            if blank != body:
                changed = True
                pieces += [data[at : at + 8], blank, zlib.crc32(kind + blank).to_bytes(4, "big")]
                at += 12 + length
                continue
        pieces.append(data[at : at + 12 + length])
        at += 12 + length
    return b"".join([*pieces, data[at:]]) if changed else data
