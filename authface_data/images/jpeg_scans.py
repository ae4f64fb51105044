"""The number of scans of a JPEG.

A progressive JPEG holds its picture in several scans, about ten. A small file can hold thousands of
empty ones, and a decoder passes over the whole picture for each.
"""

from __future__ import annotations

import re

START = b"\xff\xd8"
"""The first bytes of a JPEG."""
MAX_SCANS = 100
"""Largest number of scans of a JPEG that is decoded. A picture of 100 megapixels with 100 scans
takes about 15 s."""

# A marker is 0xFF and a byte; in compressed data 0xFF is followed by 0 or a restart marker.
_MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")
_STANDALONE = (0x01, 0xD8)
_END = 0xD9
_START_OF_SCAN = 0xDA


def check_scans(data: bytes) -> None:
    """Refuse a JPEG with more scans than a photograph has.

    Args:
        data: The content of a file.

    Raises:
        ValueError: If it is a JPEG with more than `MAX_SCANS` scans.
    """
    if not data.startswith(START):
        return
    num_scans = 0
    position = len(START)
    while match := _MARKER.search(data, position):
        marker = match[1][0]
        position = match.end()
        if marker == _END:
            return
        if marker == _START_OF_SCAN:
            num_scans += 1
            if num_scans > MAX_SCANS:
                raise ValueError(f"it has more than {MAX_SCANS} scans; a photograph has about 10")
        if marker not in _STANDALONE:
            position += int.from_bytes(data[position : position + 2], "big")
