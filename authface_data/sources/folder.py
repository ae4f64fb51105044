"""A folder of photographs, such as studio portraits, with optional sidecar files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from typing import ClassVar

from authface_data.sources.file_source import FileSource, ImageFile, find_image_files
from authface_data.sources.protocol import PhotoInput
from authface_data.sources.sidecars import Sidecars
from manifests.support.fingerprint import fingerprint

PREFIX = "fs_"
HASHED_BYTES = 65536
"""How many bytes of each end of a file go into its id."""


class FolderSource(FileSource):
    """Every image file below a folder, described by its sidecar files."""

    name: ClassVar[str] = "folder"
    requires_licence_basis: ClassVar[bool] = True

    def describe_photos(self) -> Iterator[PhotoInput]:
        """Describe each image file; rows of sidecar tables without an image go to `skipped`."""
        sidecars = Sidecars()
        for image_file in find_image_files(self.options.path, self.skipped, sidecars):
            yield _describe(image_file, sidecars.columns_for(image_file.path))
        self.skipped.extend(sidecars.unmatched_rows())


def _describe(image_file: ImageFile, sidecar: dict[str, str]) -> PhotoInput:
    """Describe one file.

    The id hashes the path within the folder, the size and both ends of the file. It stays the same
    when the folder is moved, and needs no full read. A file that cannot be read gets an id too, so
    that its failure can be recorded.
    """
    stat = image_file.path.stat()
    raw_name = os.fsencode(image_file.relative_path)  # a file name may be invalid UTF-8
    digest = hashlib.sha256(raw_name + f"\0{stat.st_size}\0".encode())
    try:
        with image_file.path.open("rb") as file:
            digest.update(file.read(HASHED_BYTES))
            file.seek(max(stat.st_size - HASHED_BYTES, 0))
            digest.update(file.read(HASHED_BYTES))
    except OSError:
        digest.update(b"\0unreadable")

    return PhotoInput(
        photo_id=PREFIX + digest.hexdigest()[:16],
        name=raw_name.decode("utf-8", "replace"),
        file=str(image_file.path),
        fingerprint=fingerprint(size=stat.st_size, time=stat.st_mtime_ns, sidecar=sidecar),
        columns=sidecar,
    )
