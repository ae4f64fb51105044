"""What FFHQ and AuthFace-HQ share: pictures that are aligned faces, named in a fixed scheme."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator

from authface_data.sources.file_source import FileSource, ImageFile, find_image_files
from authface_data.sources.protocol import PhotoInput


class AlignedSource(FileSource):
    """Base of the sources of aligned faces. `filter` uses their pictures as crops, whole."""

    def describe_photos(self) -> Iterator[PhotoInput]:
        """Describe each picture; a second picture of the same id goes to `skipped`."""
        self.read_metadata()
        seen: set[str] = set()
        for image_file in find_image_files(self.options.path, self.skipped):
            photo_id = self.photo_id(image_file)
            if photo_id in seen:
                self.skipped.append(f"{image_file.path}: another picture has the same name")
                continue
            seen.add(photo_id)
            yield self.describe(image_file, photo_id)

    def read_metadata(self) -> None:
        """Read metadata of the whole set, before the first picture is described."""
        return

    @abstractmethod
    def photo_id(self, image_file: ImageFile) -> str:
        """The id of a picture, made from its name."""

    @abstractmethod
    def describe(self, image_file: ImageFile, photo_id: str) -> PhotoInput:
        """Describe one picture.

        Args:
            image_file: The picture.
            photo_id: Its id.
        """
