"""TIFF directories, the structure of TIFF files and of EXIF metadata: walking and checking them.

A directory lists tags with their values, or with the offset of the value. Nothing in the format
stops 65,535 tags from sharing one large value, so that a file of 2 MB could take 65 GB of memory,
or from leading to 65,535 overlapping directories of as many tags, which would take hours to read.
`check_directories` refuses such files before a decoder reads them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""First bytes of TIFF and BigTIFF structures of both byte orders."""

GPS_IFD = 0x8825
SUB_DIRECTORIES = (0x8769, GPS_IFD, 0xA005)
"""Tags whose value is the offset of another directory: EXIF, GPS and interoperability."""

TYPE_BYTES = {
    1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4,
    16: 8, 17: 8, 18: 8,  # BigTIFF
}  # fmt: skip
"""Bytes per value of the TIFF types."""

MAX_ENTRIES = 65_535
"""Largest number of tags of a directory. BigTIFF allows more, but there are no more tags."""
MAX_TAGS = 10_000
"""Largest number of tags of a structure in all its directories. Cameras write a few hundred."""
MAX_EXTRA_BYTES = 64_000_000
"""Bytes by which the values of all tags may exceed the file; values of some files overlap."""


class Entry(NamedTuple):
    """One tag of a directory.

    Attributes:
        tag: Number of the tag.
        size: Bytes of all its values.
        offset: Offset of the values within the structure. Values that fit are stored in place of
            the offset.
    """

    tag: int
    size: int
    offset: int


class TiffStructure:
    """A TIFF structure within a file, such as a TIFF file or a block of EXIF metadata.

    Args:
        data: The file.
        start: Where the structure starts in the file. All offsets count from there.

    Raises:
        ValueError: If there is no TIFF structure.
    """

    def __init__(self, data: bytes | bytearray, start: int) -> None:
        self.data = data
        self.start = start
        magic = bytes(data[start : start + 4])
        if magic not in TIFF_MAGIC:
            raise ValueError("not a TIFF structure")
        self.byte_order = "<" if magic.startswith(b"II") else ">"
        self.is_big = b"+" in magic
        self.entry_bytes = 20 if self.is_big else 12
        self.count_bytes = 8 if self.is_big else 2
        self.inline_bytes = 8 if self.is_big else 4
        self.header_bytes = 16 if self.is_big else 8
        self._count_format = "Q" if self.is_big else "H"
        self._offset_format = "Q" if self.is_big else "I"

    def read(self, value_format: str, offset: int) -> int:
        """Read one integer.

        Args:
            value_format: A format of `struct`, without the byte order.
            offset: Offset within the structure.

        Raises:
            struct.error: If the file ends before.
        """
        return int(
            struct.unpack_from(self.byte_order + value_format, self.data, self.start + offset)[0]
        )

    def first_directory(self) -> int:
        """Offset of the first directory. Raises struct.error if the file ends before."""
        return self.read(self._offset_format, 8 if self.is_big else 4)

    def num_entries(self, directory: int) -> int:
        """Number of tags of a directory. Raises struct.error if the file ends before."""
        return self.read(self._count_format, directory)

    def directory_bytes(self, directory: int) -> int:
        """Bytes of a directory, with the offset of the next one after it."""
        return self.count_bytes + self.entry_bytes * self.num_entries(directory) + self.inline_bytes

    def entries(self, directory: int) -> Iterator[Entry]:
        """The tags of a directory, as far as the file reaches.

        Args:
            directory: Offset of the directory.

        Raises:
            struct.error: If the file ends before the directory.
        """
        start = self.start + directory + self.count_bytes
        end = start + self.entry_bytes * min(self.num_entries(directory), MAX_ENTRIES)
        content = self.data[start:end]
        content = content[: len(content) // self.entry_bytes * self.entry_bytes]
        entry_format = f"{self.byte_order}HH{self._offset_format * 2}"
        for tag, value_type, count, offset in struct.iter_unpack(entry_format, content):
            yield Entry(tag, TYPE_BYTES.get(value_type, 1) * count, offset)


def check_directories(data: bytes, start: int = 0) -> None:
    """Refuse a TIFF structure whose tags would cost a decoder too much memory.

    A structure that ends too early is not refused: decoders handle that.

    Args:
        data: The file.
        start: Where the structure starts in the file.

    Raises:
        ValueError: If there are too many tags, if their values are together much larger than the
            file, which means that they overlap, or if there is no TIFF structure.
    """
    structure = TiffStructure(data, start)
    available = len(data) - start
    total_bytes = 0
    num_tags = 0
    visited: set[int] = set()
    waiting: list[int] = []
    try:
        waiting.append(structure.first_directory())
        while waiting:
            directory = waiting.pop()
            if directory in visited:
                continue
            visited.add(directory)
            for entry in structure.entries(directory):
                num_tags += 1
                if num_tags > MAX_TAGS:
                    raise ValueError(f"its metadata has more than {MAX_TAGS:,} tags")
                # Decoders skip values that lie beyond the end of the file.
                if entry.offset + entry.size <= available:
                    total_bytes += entry.size
                if entry.tag in SUB_DIRECTORIES:
                    waiting.append(entry.offset)
                if total_bytes > available + MAX_EXTRA_BYTES:
                    raise ValueError(
                        f"the tags of its metadata hold more than {total_bytes // 1_000_000} MB"
                    )
    except struct.error:
        return
