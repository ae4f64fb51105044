"""The collect stage: decodes a photograph, keeps its file in the workspace and writes its row."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from authface_data.engine.stage import Dropped, FileLink, Item, Rows, WritePixels
from authface_data.images.detail_spectrum import measure_detail
from authface_data.images.hashes import hash_pixels, perceptual_hash
from authface_data.images.metadata import camera_metadata, read_gps
from authface_data.images.open import (
    DECODE_ERRORS,
    IMAGE_SUFFIXES,
    Photo,
    PictureTooLargeError,
    decode_image,
    read_file,
)
from authface_data.images.strip_location import strip_location
from authface_data.sources.protocol import PhotoInput
from manifests.schema import PHOTOS
from manifests.tombstones import Tombstones
from manifests.verdicts import Subject
from manifests.workspace import Workspace

SOURCE_COLUMNS = (
    "source_url",
    "photographer_name",
    "photographer_url",
    "licence",
    "terms_date",
    "consent_ref",
    "person",
    "note",
    "source_tags",
    "download_location",
    "aligned",
    "landmarks68_px",
)
"""Columns that are taken from the source as they are."""

UNBOUNDED_METADATA_FORMATS = ("TIFF", "HEIF", "AVIF")
"""Formats whose metadata may point anywhere in the file."""

PLACE_COLUMNS = ("place", "latitude", "longitude")
MAX_REASON_LENGTH = 500

FileMode = Literal["copy", "hardlink", "reference"]
"""How the workspace keeps a file: a copy, a hard link, or a symbolic link to the original."""


def open_file(row: Mapping[str, Any]) -> Photo:
    """The photograph of an input row, decoded on first use."""
    photo: PhotoInput = row["photo"]

    def read() -> bytes:
        assert photo.file is not None
        return read_file(Path(photo.file))

    return Photo(read)


class DownloadError(Exception):
    """A photograph could not be downloaded; another attempt may succeed."""


class CollectStage:
    """Decodes each photograph in full, keeps its file in `photos/` and describes it in a row.

    A file that cannot be decoded is dropped with the decoder's message. A photograph whose file or
    pixels were removed with `authface forget` is dropped too.

    Args:
        source: Name of the source, for the column `source`.
        licence_basis: Licence basis of photographs for which the source has none.
        file_mode: How the workspace keeps the files.
        store_place: Store the place, and keep it in the files; otherwise it is blanked in both.
        tombstones: What was removed with `authface forget`.
    """

    name = "collect"
    version = 2  # 2: a hash of the pixels; GPS blanked
    subject: Subject = "photo"
    manifest = PHOTOS
    input_hash_column = "fingerprint"
    model = None
    libraries = ()
    batch_size = 1

    def __init__(
        self,
        source: str,
        licence_basis: str | None = None,
        *,
        file_mode: FileMode = "copy",
        store_place: bool = False,
        tombstones: Tombstones | None = None,
    ) -> None:
        self.source = source
        self.licence_basis = licence_basis
        self.file_mode = file_mode
        self.store_place = store_place
        self.tombstones = tombstones

    def settings(self) -> dict[str, object]:
        """Source and licence basis, and the file mode if files are linked."""
        settings: dict[str, object] = {
            "source": self.source,
            "licence_basis": self.licence_basis,
        }
        if self.file_mode != "copy":
            settings["keep"] = self.file_mode
        return settings

    def setup(self, device: str) -> None:
        """Nothing to load."""
        return

    def process(self, batch: Sequence[Item], write_pixels: WritePixels) -> list[Rows | Dropped]:
        """Collect each photograph."""
        return [self._collect(item, write_pixels) for item in batch]

    def _collect(self, item: Item, write_pixels: WritePixels) -> Rows | Dropped:
        source_photo: PhotoInput = item.row["photo"]
        if source_photo.failure is not None:
            raise DownloadError(source_photo.failure)
        if source_photo.rejection is not None:
            return Dropped(source_photo.rejection)

        photo: Photo = item.picture
        try:
            pixels = decode_image(photo.data)
            pixel_hash = hash_pixels(pixels)
            phash = perceptual_hash(pixels)
            detail = measure_detail(pixels)
            del pixels  # the blanked file may have to be decoded too
            camera = camera_metadata(photo.exif)
            keeps_original = self.store_place or self.file_mode != "copy"
            data = photo.data if keeps_original else _without_location(photo, pixel_hash)
        except PictureTooLargeError as error:
            reason = f"too large: {source_photo.name}: {error}"
            return Dropped(reason[:MAX_REASON_LENGTH], error.needed_gb, error.limit_gb)
        except DECODE_ERRORS as error:
            # Pillow's message may contain a memory address, which would differ from run to run.
            message = re.sub(r" <_io\S* object at \w+>", "", str(error))
            return Dropped(f"undecodable: {source_photo.name}: {message}"[:MAX_REASON_LENGTH])

        sha256 = hashlib.sha256(data).hexdigest()
        if self.tombstones and (
            self.tombstones.contains(sha256) or self.tombstones.contains(pixel_hash)
        ):
            return Dropped("forgotten: this photograph was taken out before")

        path = Workspace.photo_path(item.key, sha256, file_suffix(photo, source_photo.name))
        write_pixels(path, self._file_content(source_photo, photo, data))

        width, height = photo.size_px
        columns = source_photo.columns
        row = {
            "photo_id": item.key,
            "source": self.source,
            **{column: columns.get(column) for column in SOURCE_COLUMNS},
            "licence_basis": columns.get("licence_basis") or self.licence_basis,
            "path": path,
            "sha256": sha256,
            "bytes": len(data),
            "width": width,
            "height": height,
            "format": photo.format,
            "description": columns.get("description") or source_photo.name,
            "phash": phash,
            "pixel_hash": pixel_hash,
            "detail_spectrum": None if detail is None else detail.spectrum,
            "coefficient_share": None if detail is None else detail.coefficient_share,
            "collected_at": datetime.now(UTC),
        }
        if source_photo.landmarks_side_px:
            row["landmarks68_px"] = _rescale_landmarks(
                row["landmarks68_px"], width / source_photo.landmarks_side_px
            )
        for column, value in camera.items():
            row[column] = columns.get(column) if value is None else value
        if self.store_place:
            row |= _place_columns(photo, columns)
        return Rows([row])

    def _file_content(
        self, source_photo: PhotoInput, photo: Photo, data: bytes
    ) -> bytes | FileLink:
        """What to write: a link where the file mode or an unchanged download allows it."""
        is_unchanged_download = source_photo.is_temporary and data is photo.data
        if self.file_mode == "copy" and not is_unchanged_download:
            return data
        assert source_photo.file is not None
        return FileLink(source_photo.file, hard=self.file_mode != "reference")


def _without_location(photo: Photo, pixel_hash: str) -> bytes:
    """The content of a photograph's file with the location blanked.

    Args:
        photo: The photograph.
        pixel_hash: Hash of its pixels.

    Raises:
        ValueError: If the location overlaps the pixels, as only a malformed file can have it.
    """
    data = strip_location(photo.data)
    # A JPEG, PNG or WebP has its metadata in segments that bound it.
    is_bounded = data is photo.data or photo.format not in UNBOUNDED_METADATA_FORMATS
    if not is_bounded and hash_pixels(decode_image(data)) != pixel_hash:
        raise ValueError("its location overlaps its pixels")
    return data


def _rescale_landmarks(landmarks: Any, scale: float) -> list[list[float]] | None:
    """Scale pixel-centre coordinates with the size of the image."""
    if landmarks is None:
        return None
    return [[(x + 0.5) * scale - 0.5, (y + 0.5) * scale - 0.5] for x, y in landmarks]


def _place_columns(photo: Photo, columns: Mapping[str, object]) -> dict[str, object]:
    """The place from the file's GPS data; the source's value takes precedence."""
    latitude, longitude = read_gps(photo.data)
    place: dict[str, object] = {"latitude": latitude, "longitude": longitude}
    for column in PLACE_COLUMNS:
        if columns.get(column) is not None:
            place[column] = columns[column]
    return place


def file_suffix(photo: Photo, name: str) -> str:
    """The suffix under which a photograph is kept.

    Args:
        photo: The photograph, for its format.
        name: Its file name at the source.

    Returns:
        The suffix of `name` if it is an image suffix, otherwise one for the format, with the dot.
    """
    suffix = Path(name).suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return suffix
    if photo.format in ("JPEG", "MPO"):
        return ".jpg"
    return f".{photo.format.lower()}"
