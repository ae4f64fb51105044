"""Blanking the place where a photograph was taken, without changing a pixel of its file.

The GPS directory of EXIF is emptied, and GPS and place values in XMP and IPTC are overwritten with
spaces, so that the length of the file stays the same. PNG chunks that hold such metadata compressed
or in hexadecimal are removed.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Iterator

from authface_data.images.metadata import GPS_IFD

# EXIF is a TIFF structure. It starts the file (TIFF), follows "Exif\0\0" (JPEG, HEIC), or follows
# "EXIF" and a length of 4 bytes (WebP). Each entry is a prefix and the number of bytes between it
# and the TIFF structure.
EXIF_PREFIXES = ((b"Exif\0\0", 0), (b"EXIF", 4))
TIFF_MAGIC = (b"II*\0", b"MM\0*")
TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
"""Bytes per value of the TIFF types."""
LAST_GPS_TAG = 31
MAX_VALUE_BYTES = 65536

# XMP: XML between the first and the last occurrence of one of these names.
XMP_MARKERS = (b"xmpmeta", b"rdf:RDF")
MAX_XMP_BYTES = 1 << 20
"""Assumed length of an XMP packet whose closing tag is missing."""
LOCATION_NAMES = (
    rb"(?:[\w-]+:[Gg][Pp][Ss]\w+|photoshop:(?:City|State|Country)"
    rb"|Iptc4xmpCore:(?:Location|CountryCode)"
    rb"|Iptc4xmpExt:(?:City|Sublocation|ProvinceState|CountryName|CountryCode|Location\w+))"
)
XMP_ATTRIBUTE = re.compile(rb"(<?" + LOCATION_NAMES + rb"""\s*=\s*["'])([^"']*)""")
XMP_ELEMENT = re.compile(rb"(<" + LOCATION_NAMES + rb"(?:\s[^>]*)?>)(.*?)(?=</)", re.DOTALL)

# IPTC: records in a block of Photoshop's metadata. The third byte is the type of the record; these
# types hold a city, sublocation, province, country or other location, as a name or a code.
IPTC_BLOCK = b"8BIM\x04\x04"
IPTC_LOCATION = re.compile(rb"\x1c\x02[\x1a\x1b\x5a\x5c\x5f\x64\x65](..)", re.DOTALL)

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
RAW_PROFILE = b"Raw profile type "
"""Prefix of the PNG chunks in which ImageMagick writes EXIF, XMP and IPTC in hexadecimal."""
LOCATION_HINTS = (b"GPS", b"Gps", b"photoshop:", b"Iptc4xmp")


def strip_location(data: bytes) -> bytes:
    """Blank GPS and place metadata in a picture file.

    Args:
        data: The content of the file.

    Returns:
        The changed content, or the same object if the file holds no location or its metadata is
        malformed.
    """
    if data.startswith(PNG_SIGNATURE):
        return _strip_png(data)
    blanked = _blank_location(data)
    return data if blanked == data else blanked


def _blank_location(data: bytes) -> bytes:
    """Blank the location in EXIF, XMP and IPTC metadata.

    A photograph can have tens of megabytes, so fixed byte strings are searched first, and regular
    expressions are applied only to the parts that these delimit.
    """
    output = bytearray(data)
    for start in _tiff_starts(data):
        _clear_gps_directory(output, start)

    for marker in XMP_MARKERS:
        first = data.find(marker)
        if first >= 0:
            last = data.rfind(marker)
            end = last if last > first else min(first + MAX_XMP_BYTES, len(output))
            _blank_xmp(output, first, end)

    for position in _find_all(data, IPTC_BLOCK):
        _blank_iptc(output, position + len(IPTC_BLOCK))
    return bytes(output)


def _tiff_starts(data: bytes) -> Iterator[int]:
    """Yield the position of every TIFF structure that may hold EXIF tags."""
    if data.startswith(TIFF_MAGIC):
        yield 0
    for prefix, gap in EXIF_PREFIXES:
        for position in _find_all(data, prefix):
            start = position + len(prefix) + gap
            if data.startswith(TIFF_MAGIC, start):
                yield start


def _find_all(data: bytes, pattern: bytes) -> Iterator[int]:
    """Yield the position of every occurrence of a byte string."""
    position = data.find(pattern)
    while position >= 0:
        yield position
        position = data.find(pattern, position + 1)


def _blank_xmp(output: bytearray, start: int, end: int) -> None:
    for pattern in (XMP_ATTRIBUTE, XMP_ELEMENT):
        for match in pattern.finditer(bytes(output[start:end])):
            output[start + match.start(2) : start + match.end(2)] = b" " * len(match[2])


def _blank_iptc(output: bytearray, position: int) -> None:
    """Overwrite the locations in an IPTC block.

    Args:
        output: The content of the file, changed in place.
        position: Where the name of the block starts: a length byte and the name, padded to an even
            length, followed by the size of the block in 4 bytes.
    """
    if position >= len(output):
        return
    block_start = position + (output[position] + 2) // 2 * 2 + 4
    block_size = int.from_bytes(output[block_start - 4 : block_start], "big")
    block_end = min(block_start + block_size, len(output))
    for match in IPTC_LOCATION.finditer(bytes(output[block_start:block_end])):
        (length,) = struct.unpack(">H", match[1])
        start = block_start + match.end()
        end = min(start + length, block_end)
        output[start:end] = b" " * max(end - start, 0)


def _clear_gps_directory(output: bytearray, start: int) -> None:
    """Clear the GPS directory of the TIFF structure that starts at `start`, in place."""
    byte_order = "<" if output[start : start + 2] == b"II" else ">"

    def read(value_format: str, offset: int) -> int:
        return int(struct.unpack_from(byte_order + value_format, output, start + offset)[0])

    try:
        main_directory = read("I", 4)
        for index in range(read("H", main_directory)):
            entry = main_directory + 2 + 12 * index
            if read("H", entry) != GPS_IFD:
                continue
            # A malformed pointer can lead back to the main directory, which must not be cleared.
            gps_directory = read("I", entry + 8)
            if gps_directory != main_directory:
                _clear_directory(output, start, gps_directory, read)
    except struct.error:
        return


def _clear_directory(
    output: bytearray, start: int, directory: int, read: Callable[[str, int], int]
) -> None:
    """Overwrite a GPS directory and its values with zeros, in place.

    Args:
        output: The content of the file.
        start: Where the TIFF structure starts.
        directory: Offset of the directory within the TIFF structure.
        read: Reads an integer in a given `struct` format at an offset within the TIFF structure.
    """
    num_entries = read("H", directory)
    entries = [directory + 2 + 12 * index for index in range(num_entries)]
    if any(read("H", entry) > LAST_GPS_TAG for entry in entries):
        return  # not a GPS directory

    for entry in entries:
        size = TYPE_BYTES.get(read("H", entry + 2), 1) * read("I", entry + 4)
        offset = read("I", entry + 8)
        # Values of up to 4 bytes are stored in the entry itself.
        if 4 < size < MAX_VALUE_BYTES and start + offset + size <= len(output):
            output[start + offset : start + offset + size] = bytes(size)

    length = min(2 + 12 * num_entries, len(output) - start - directory)
    output[start + directory : start + directory + length] = bytes(length)


def _strip_png(data: bytes) -> bytes:
    """Blank or remove the chunks of a PNG that hold a location, with new checksums."""
    pieces = [PNG_SIGNATURE]
    changed = False
    position = len(PNG_SIGNATURE)
    while position + 12 <= len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        chunk_type = data[position + 4 : position + 8]
        body = data[position + 8 : position + 8 + length]
        blanked = _blank_location(body) if chunk_type in (b"eXIf", b"iTXt", b"tEXt") else body
        next_position = position + 12 + length

        if chunk_type in (b"zTXt", b"iTXt", b"tEXt") and _hides_location(chunk_type, body):
            changed = True
        elif blanked != body:
            changed = True
            checksum = zlib.crc32(chunk_type + blanked).to_bytes(4, "big")
            pieces += [data[position : position + 8], blanked, checksum]
        else:
            pieces.append(data[position:next_position])
        position = next_position
    return b"".join([*pieces, data[position:]]) if changed else data


def _hides_location(chunk_type: bytes, body: bytes) -> bool:
    """Whether a PNG text chunk may hold a location in a form that cannot be overwritten."""
    keyword, _, rest = body.partition(b"\0")
    if keyword.startswith(RAW_PROFILE):
        return True
    if chunk_type == b"tEXt":
        return False
    if chunk_type == b"iTXt" and not rest.startswith(b"\1"):
        return False  # not compressed

    # In zTXt the text follows the compression method; in iTXt it follows the compression flag and
    # method, the language tag and the translated keyword.
    compressed = rest[1:] if chunk_type == b"zTXt" else rest[2:].split(b"\0", 2)[-1]
    try:
        text = zlib.decompress(compressed)
    except zlib.error:
        return False
    return any(hint in text for hint in LOCATION_HINTS)
