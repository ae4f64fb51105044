"""Blanking the place where a photograph was taken, without changing a pixel of its file.

The GPS directory of EXIF is emptied, and GPS and place values in XMP and IPTC are overwritten with
spaces, so that the length of the file stays the same. PNG chunks that hold such metadata compressed
or in hexadecimal are removed.

The time is linear in the size of the file, whatever the file contains. A file with more metadata
blocks than any program writes is refused.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple, TypeVar

from authface_data.images.tiff_directory import GPS_IFD, TIFF_MAGIC, TiffStructure

# EXIF is a TIFF structure. It starts the file (TIFF), follows "Exif\0\0" (JPEG, HEIC), or follows
# "EXIF" and a length of 4 bytes (WebP). Each entry is a prefix and the number of bytes between it
# and the TIFF structure.
EXIF_PREFIXES = ((b"Exif\0\0", 0), (b"EXIF", 4))
JPEG_EXIF_MARKER = b"\xff\xe1"
"""Marker of the JPEG segment that holds EXIF; its length follows, and then the prefix."""
LAST_GPS_TAG = 31
MAX_GPS_ENTRIES = 1024
"""A directory of more tags is not a GPS directory, which has at most 32 of them."""
MAX_VALUE_BYTES = 65536

MAX_BLOCKS = 64
"""Largest number of EXIF or of IPTC blocks of a file. Programs write one of each, and a film scan
of many pages one a page."""
MAX_IPTC_BYTES = 1 << 20
"""Largest part of an IPTC block that is searched. Such blocks are limited to 64 kB in a JPEG."""

# XMP: XML between the first and the last occurrence of one of these names.
XMP_MARKERS = (b"xmpmeta", b"rdf:RDF")
MAX_XMP_BYTES = 1 << 20
"""Assumed length of an XMP packet whose closing tag is missing."""
GPS_NAME = rb":[Gg][Pp][Ss]\w+"
"""A GPS property after its prefix, such as `exif:GPSLatitude`."""
PLACE_NAME = (
    rb"photoshop:(?:City|State|Country)|Iptc4xmpCore:(?:Location|CountryCode)"
    rb"|Iptc4xmpExt:(?:City|Sublocation|ProvinceState|CountryName|CountryCode|Location\w+)"
)
# In these patterns, every repetition ends at a character that the next attempt starts with, so
# that a search reads each byte a bounded number of times.
XMP_ATTRIBUTE = re.compile(
    rb"(?:" + GPS_NAME + rb"|" + PLACE_NAME + rb""")\s*=\s*(?:"([^"<]*)|'([^'<]*))"""
)
XMP_OPENING_TAG = re.compile(rb"<(?:[\w-]+" + GPS_NAME + rb"|" + PLACE_NAME + rb")(?:\s[^<>]*)?>")

# IPTC: records in a block of Photoshop's metadata. The third byte is the type of the record; these
# types hold a city, sublocation, province, country or other location, as a name or a code.
IPTC_BLOCK = b"8BIM\x04\x04"
IPTC_LOCATION = re.compile(rb"\x1c\x02[\x1a\x1b\x5a\x5c\x5f\x64\x65](..)", re.DOTALL)

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
RAW_PROFILE = b"Raw profile type "
"""Prefix of the PNG chunks in which ImageMagick writes EXIF, XMP and IPTC in hexadecimal."""
LOCATION_HINTS = (b"GPS", b"Gps", b"photoshop:", b"Iptc4xmp")
MAX_TEXT_BYTES = 1 << 20
"""Largest compressed text of a PNG that is unpacked. A larger one is removed without a look."""

BlockT = TypeVar("BlockT")


class Range(NamedTuple):
    """A part of a file that is overwritten.

    Attributes:
        start: Offset of its first byte.
        end: Offset of the byte after it.
        fill: The byte that it is filled with.
    """

    start: int
    end: int
    fill: bytes


def strip_location(data: bytes) -> bytes:
    """Blank GPS and place metadata in a picture file.

    Args:
        data: The content of the file.

    Returns:
        The changed content, or the same object if the file holds no location or its metadata is
        malformed.

    Raises:
        ValueError: If the file has more than `MAX_BLOCKS` blocks of EXIF or of IPTC metadata.
    """
    return _strip_png(data) if data.startswith(PNG_SIGNATURE) else _blank_location(data)


def _blank_location(data: bytes) -> bytes:
    """Blank the location in EXIF, XMP and IPTC metadata.

    A photograph can have tens of megabytes, so fixed byte strings are searched first, and regular
    expressions are applied only to the parts that these delimit.
    """
    ranges: list[Range] = []
    for start, end in _limited(_tiff_structures(data), "EXIF"):
        ranges += _gps_directory_ranges(data, start, end)

    for marker in XMP_MARKERS:
        first = data.find(marker)
        if first >= 0:
            last = data.rfind(marker)
            end = last if last > first else min(first + MAX_XMP_BYTES, len(data))
            ranges += _xmp_ranges(data, first, end)

    for position in _limited(_find_all(data, IPTC_BLOCK), "IPTC"):
        ranges += _iptc_ranges(data, position + len(IPTC_BLOCK))
    return _overwrite(data, ranges)


def _overwrite(data: bytes, ranges: list[Range]) -> bytes:
    """Fill parts of a file, with one copy of it. Returns the same object if nothing changes."""
    content = memoryview(data)
    pieces: list[bytes | memoryview] = []
    position = 0
    for start, end, fill in sorted(ranges):
        if end > position:
            start = max(start, position)  # ranges may overlap
            pieces += [content[position:start], fill * (end - start)]
            position = end
    if not pieces:
        return data
    blanked = b"".join([*pieces, content[position:]])
    return data if blanked == data else blanked


def _limited(blocks: Iterator[BlockT], kind: str) -> list[BlockT]:
    """The positions of metadata blocks. Raises ValueError if there are too many."""
    limited = list(islice(blocks, MAX_BLOCKS + 1))
    if len(limited) > MAX_BLOCKS:
        raise ValueError(f"it has more than {MAX_BLOCKS} blocks of {kind} metadata")
    return limited


def _tiff_structures(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield where every TIFF structure that may hold EXIF tags starts, and ends at the latest."""
    if data.startswith(TIFF_MAGIC):
        yield 0, len(data)
    for prefix, gap in EXIF_PREFIXES:
        for position in _find_all(data, prefix):
            start = position + len(prefix) + gap
            if not data.startswith(TIFF_MAGIC, start):
                continue
            end = len(data)
            if data[position - 4 : position - 2] == JPEG_EXIF_MARKER:
                end = position - 2 + int.from_bytes(data[position - 2 : position], "big")
            elif gap:  # a chunk of a WebP file states its length
                end = start + int.from_bytes(data[start - gap : start], "little")
            yield start, min(end, len(data))


def _find_all(data: bytes, pattern: bytes) -> Iterator[int]:
    """Yield the position of every occurrence of a byte string."""
    position = data.find(pattern)
    while position >= 0:
        yield position
        position = data.find(pattern, position + 1)


def _xmp_ranges(data: bytes, start: int, end: int) -> Iterator[Range]:
    """Yield the locations in an XMP packet: attributes, and the content of elements."""
    for match in XMP_ATTRIBUTE.finditer(data, start, end):
        group = match.lastindex or 0
        yield Range(match.start(group), match.end(group), b" ")

    closing = 0
    for match in XMP_OPENING_TAG.finditer(data, start, end):
        content_start = match.end()
        if content_start <= closing:
            continue  # within an element that is blanked already
        closing = data.find(b"</", content_start, end)
        if closing < 0:  # malformed XML: blank the text and leave the rest
            next_tag = data.find(b"<", content_start, end)
            if next_tag >= 0:
                yield Range(content_start, next_tag, b" ")
            return
        yield Range(content_start, closing, b" ")


def _iptc_ranges(data: bytes, position: int) -> Iterator[Range]:
    """Yield the locations in an IPTC block.

    Args:
        data: The content of the file.
        position: Where the name of the block starts: a length byte and the name, padded to an even
            length, followed by the size of the block in 4 bytes.
    """
    if position >= len(data):
        return
    block_start = position + (data[position] + 2) // 2 * 2 + 4
    block_size = int.from_bytes(data[block_start - 4 : block_start], "big")
    block_end = min(block_start + min(block_size, MAX_IPTC_BYTES), len(data))
    for match in IPTC_LOCATION.finditer(data, block_start, block_end):
        (length,) = struct.unpack(">H", match[1])
        end = min(match.end() + length, block_end)
        yield Range(match.end(), end, b" ")


def _gps_directory_ranges(data: bytes, start: int, end: int) -> Iterator[Range]:
    """Yield the GPS directory of the TIFF structure from `start` to `end`, and its values."""
    try:
        structure = TiffStructure(data, start)
        main_directory = structure.first_directory()
        main_end = main_directory + structure.directory_bytes(main_directory)
        pointers = {
            entry.offset for entry in structure.entries(main_directory) if entry.tag == GPS_IFD
        }
        for pointer in pointers:
            for position, size in _gps_ranges(structure, pointer):
                # A malformed offset can lead to the header, the main directory, or out of the
                # structure. Clearing these would ruin the file.
                is_in_header = position < structure.header_bytes
                is_in_main = position < main_end and position + size > main_directory
                if not is_in_header and not is_in_main and start + position + size <= end:
                    yield Range(start + position, start + position + size, b"\0")
    except struct.error:
        return


def _gps_ranges(structure: TiffStructure, directory: int) -> list[tuple[int, int]]:
    """(offset, size) of a GPS directory and of its values; [] if it is not a GPS directory.

    Args:
        structure: The TIFF structure that the directory belongs to.
        directory: Offset of the directory within the structure.
    """
    if structure.num_entries(directory) > MAX_GPS_ENTRIES:
        return []
    entries = list(structure.entries(directory))
    if any(entry.tag > LAST_GPS_TAG for entry in entries):
        return []
    ranges = [
        (entry.offset, entry.size)
        for entry in entries
        if structure.inline_bytes < entry.size < MAX_VALUE_BYTES
    ]
    length = structure.count_bytes + structure.entry_bytes * len(entries)
    return [*ranges, (directory, length)]


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
    decompressor = zlib.decompressobj()
    try:
        text = decompressor.decompress(compressed, MAX_TEXT_BYTES)
    except zlib.error:
        return False
    return bool(decompressor.unconsumed_tail) or any(hint in text for hint in LOCATION_HINTS)
