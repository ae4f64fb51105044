"""What FFHQ and AuthFace-HQ share: pictures that are aligned faces, named in a fixed scheme."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from authface_data.images.open import DECODE_ERRORS, open_image
from authface_data.sources.file_source import FileSource, SourceFile
from authface_data.sources.image_files import path_text
from authface_data.sources.protocol import PhotoInput
from manifests.support.fingerprint import fingerprint, short_hash
from manifests.support.text import count_of

MIN_SIDE_PX = 128

Size = tuple[int, int]
"""(width, height) in pixels."""


class AlignedSource(FileSource):
    """Base of the sources of aligned faces. `filter` uses their pictures as crops, whole.

    Pictures that cannot be aligned faces are rejected: those that are not square or too small and,
    in a set of one size, those of another size.
    """

    has_one_size: ClassVar[bool] = False
    """Whether all pictures of the set have the same size."""

    def describe_photos(self) -> Iterator[PhotoInput]:
        """Describe each picture; a second picture of the same id goes to `skipped`."""
        self.read_metadata()
        sizes = {file.path: _read_size(file.path) for file in self.files}
        set_size = self._most_common_size(sizes)
        seen: set[str] = set()
        rejected: list[str] = []
        for file in self.files:
            photo_id = self.photo_id(file)
            if photo_id in seen:
                self.skipped.append(
                    f"{path_text(file.path)}: another picture has the same name, and so the id "
                    f"{photo_id}"
                )
                continue
            seen.add(photo_id)
            photo = self.describe(file, photo_id)
            size = sizes[file.path]
            reason = None
            if size is not None:
                reason = _size_problem(size, set_size) or self.alignment_problem(photo, size)
            if reason is not None:
                rejected.append(f"{path_text(photo.name)}: {reason}")
                photo = replace(
                    photo,
                    rejection=reason,
                    fingerprint=fingerprint(photo=photo.fingerprint, rejection=reason),
                )
            yield photo
        if rejected:
            self.notes.append(
                f"{count_of(len(rejected), 'picture')} not aligned as in this set (first: "
                f"{rejected[0]}); --source folder takes photographs of any shape"
            )

    def _most_common_size(self, sizes: dict[Path, Size | None]) -> Size | None:
        """The size of most square pictures, if all pictures should have it."""
        if not self.has_one_size:
            return None
        counts = Counter(size for size in sizes.values() if size is not None and _is_face(size))
        return counts.most_common(1)[0][0] if counts else None

    def read_metadata(self) -> None:
        """Read metadata of the whole set, before the first picture is described."""
        return

    @abstractmethod
    def photo_id(self, file: SourceFile) -> str:
        """The id of a picture, made from its name."""

    @abstractmethod
    def describe(self, file: SourceFile, photo_id: str) -> PhotoInput:
        """Describe one picture.

        Args:
            file: The picture.
            photo_id: Its id.
        """

    def alignment_problem(self, photo: PhotoInput, size: Size) -> str | None:
        """Why the metadata of a picture shows that it is not aligned, or None.

        Args:
            photo: The picture.
            size: Its size.
        """
        return None


def plain_name(name: str, plain: str) -> str:
    """A name with only the characters that ids have.

    A hash is added where characters had to be replaced: other names may give the same letters.

    Args:
        name: The name.
        plain: The name without the characters, such as slashes, that are replaced in a known way.
    """
    result = re.sub(r"[^A-Za-z0-9_-]", "_", name)
    if result == plain:
        return result
    return f"{result}-{short_hash(name.encode('utf-8', 'backslashreplace').decode())}"


def _read_size(path: Path) -> Size | None:
    """The size of a picture, or None if it cannot be decoded; the collect stage says why."""
    try:
        with open_image(path) as image:
            return image.size
    except DECODE_ERRORS:
        return None


def _is_face(size: Size) -> bool:
    width, height = size
    return width == height >= MIN_SIDE_PX


def _size_problem(size: Size, set_size: Size | None) -> str | None:
    """Why a picture of a size cannot be an aligned face, or None."""
    width, height = size
    if width != height:
        return f"not_square: {width} x {height} px"
    if width < MIN_SIDE_PX:
        return f"too_small: {width} px, at least {MIN_SIDE_PX} are needed"
    if set_size is not None and size != set_size:
        return f"other_size: {width} px, most pictures of the set have {set_size[0]}"
    return None
