"""The collecting stage: checks a photograph, keeps it, and writes its row."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from authface_data.engine.stage import Dropped, FileLink, Item, Rows, WritePixels
from authface_data.images.hashes import hash_pixels, perceptual_hash
from authface_data.images.metadata import camera_metadata, read_gps
from authface_data.images.open import DECODE_ERRORS, IMAGE_SUFFIXES, Photo
from authface_data.images.strip_location import strip_location
from manifests.schema import PHOTOS
from manifests.tombstones import Tombstones
from manifests.verdicts import Subject
from manifests.workspace import Workspace

FROM_SOURCE = (
    "source_url", "photographer_name", "photographer_url", "licence", "terms_date", "consent_ref", "person", "note",
    "source_tags", "download_location", "aligned", "landmarks68_px",
)  # fmt: skip
PLACE = ("place", "latitude", "longitude")
Keep = Literal["copy", "hardlink", "reference"]


def open_file(row: Mapping[str, Any]) -> Photo:
    """The photograph in the file that an input row names."""
    return Photo(lambda: Path(row["file"]).read_bytes())


class DownloadError(Exception):
    """A photograph that did not come; another try may bring it."""


class CollectStage:
    """Decodes a photograph once in full, keeps the file in `photos/`, and records what it is.

    An input row names a `file`, its `name`, and what the source says of it, as columns of `photos`; or, instead of a file, why
    there is none (`refused`, `failed`). A file that cannot be decoded is dropped with the decoder's words, one whose bytes or
    pixels were forgotten is dropped as that.

    licence_basis: of photographs whose row names none. keep: copy the file, or have a hard or symbolic link to it.
    """

    name = "collect"
    version = 2  # 2: a hash of the pixels; GPS blanked
    subject: Subject = "photo"
    manifest = PHOTOS
    input_hash_column = "mark"
    uses_gpu = False
    batch_size = 1

    def __init__(
        self,
        source: str,
        licence_basis: str | None = None,
        keep: Keep = "copy",
        store_place: bool = False,
        tombstones: Tombstones | None = None,
    ):
        self.source, self.licence_basis, self.keep, self.store_place = (
            source,
            licence_basis,
            keep,
            store_place,
        )
        self.tombstones = tombstones

    def settings(self) -> dict[str, Any]:
        settings: dict[str, Any] = {"source": self.source, "licence_basis": self.licence_basis}
        if self.keep != "copy":
            settings["keep"] = self.keep
        return settings

    def setup(self, device: str) -> None:
        return

    def process(self, batch: Sequence[Item], write_pixels: WritePixels) -> list[Rows | Dropped]:
        return [self._one(item, write_pixels) for item in batch]

    def _one(self, item: Item, write_pixels: WritePixels) -> Rows | Dropped:
        said = item.row
        if said.get("failed"):
            raise DownloadError(said["failed"])
        if said.get("refused"):
            return Dropped(said["refused"])
        photo: Photo = item.picture
        name = said["name"]
        try:
            pixels = photo.pixels()
            facts = camera_metadata(photo.exif)
        except DECODE_ERRORS as error:
            words = re.sub(
                r" <_io\S* object at \w+>", "", str(error)
            )  # an address would differ from run to run
            return Dropped(f"undecodable: {name}: {words}"[:500])
        pixel_hash = hash_pixels(pixels)
        data = photo.data if self.store_place or self.keep != "copy" else strip_location(photo.data)
        sha256 = hashlib.sha256(data).hexdigest()
        if self.tombstones and (self.tombstones.holds(sha256) or self.tombstones.holds(pixel_hash)):
            return Dropped("forgotten: this photograph was taken out before")
        path = Workspace.photo_path(item.key, sha256, suffix_of(photo, name))
        as_it_is = FileLink(said["file"], hard=self.keep != "reference")
        write_pixels(
            path,
            as_it_is if self.keep != "copy" or (said.get("ours") and data is photo.data) else data,
        )
        width, height = photo.size_px
        told = {column: said.get(column) for column in FROM_SOURCE}
        if told["landmarks68_px"] is not None and said.get("landmarks_side_px"):
            scale = width / said["landmarks_side_px"]
            told["landmarks68_px"] = [
                [(x + 0.5) * scale - 0.5, (y + 0.5) * scale - 0.5]
                for x, y in told["landmarks68_px"]
            ]
        if self.store_place:
            latitude, longitude = read_gps(photo.data)
            told |= {"latitude": latitude, "longitude": longitude}
            told |= {column: said[column] for column in PLACE if said.get(column) is not None}
        row = {
            "photo_id": item.key,
            "source": self.source,
            **told,
            "licence_basis": said.get("licence_basis") or self.licence_basis,
            "path": path,
            "sha256": sha256,
            "bytes": len(data),
            "width": width,
            "height": height,
            "format": photo.format,
            "description": said.get("description") or name,
            "phash": perceptual_hash(pixels),
            "pixel_hash": pixel_hash,
            "collected_at": datetime.now(UTC),
            **{
                column: said.get(column) if value is None else value
                for column, value in facts.items()
            },
        }
        return Rows([row])


def suffix_of(photo: Photo, name: str) -> str:
    """The file's own suffix where it is one of a picture's, else that of its format."""
    own = Path(name).suffix.lower()
    return (
        own
        if own in IMAGE_SUFFIXES
        else {"JPEG": ".jpg", "MPO": ".jpg"}.get(photo.format, f".{photo.format.lower()}")
    )
