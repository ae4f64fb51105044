"""The collecting stage: checks a photograph, keeps it, and writes its row."""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image

from authface_data.engine.stage import Dropped, Item, Rows, WritePixels
from authface_data.photo import Photo
from manifests.ledger import Subject
from manifests.schema import PHOTOS
from manifests.workspace import Workspace

UNDECODABLE = (OSError, EOFError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError)


def open_file(row: Mapping[str, Any]) -> Photo:
    """The photograph in the file that an input row names."""
    return Photo(Path(row["file"]).read_bytes)


class CollectStage:
    """Decodes a photograph once in full, copies the file as it is into `photos/`, and records what it is.

    A file that cannot be decoded is dropped with the decoder's words.
    """

    name = "collect"
    version = 1
    subject: Subject = "photo"
    gives = PHOTOS
    input_mark = "mark"
    uses_gpu = False
    batch_size = 1

    def __init__(self, source: str, licence_basis: str):
        self.source, self.licence_basis = source, licence_basis

    def settings(self) -> dict[str, Any]:
        return {"source": self.source, "licence_basis": self.licence_basis}

    def setup(self, device: str) -> None:
        return

    def process(self, batch: Sequence[Item], write_pixels: WritePixels) -> list[Rows | Dropped]:
        return [self._one(item, write_pixels) for item in batch]

    def _one(self, item: Item, write_pixels: WritePixels) -> Rows | Dropped:
        import imagehash

        photo: Photo = item.picture
        name = item.row["name"]
        try:
            photo.pixels()
            small = photo.pixels(256)
            facts = camera_facts(photo.exif)
        except UNDECODABLE as error:
            words = re.sub(r" <_io\S* object at \w+>", "", str(error))  # an address would differ from run to run
            return Dropped(f"undecodable: {name}: {words}"[:500])
        sha256 = hashlib.sha256(photo.data).hexdigest()
        path = Workspace.photo_path(item.key, sha256, Path(name).suffix.lower())
        write_pixels(path, photo.data)
        width, height = photo.size_px
        row = {
            "photo_id": item.key,
            "source": self.source,
            "source_url": item.row.get("source_url"),
            "photographer_name": item.row.get("photographer_name"),
            "photographer_url": item.row.get("photographer_url"),
            "licence": item.row.get("licence"),
            "consent_ref": item.row.get("consent_ref"),
            "person": item.row.get("person"),
            "note": item.row.get("note"),
            "licence_basis": item.row.get("licence_basis") or self.licence_basis,
            "path": path,
            "sha256": sha256,
            "bytes": len(photo.data),
            "width": width,
            "height": height,
            "format": photo.format,
            "description": item.row.get("description") or name,
            "phash": str(imagehash.phash(Image.fromarray(small))),
            "collected_at": datetime.now(UTC),
            **facts,
        }
        return Rows([row])


def camera_facts(exif: Mapping[int, Any]) -> dict[str, Any]:
    """Camera columns of `photos` from EXIF tags. What is missing or malformed is left out; place is not read."""

    def text(tag: int) -> str | None:
        value = exif.get(tag)
        if isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        return str(value).strip("\0 ") or None if value is not None else None

    def number(tag: int) -> float | None:
        value = exif.get(tag)
        value = value[0] if isinstance(value, tuple) and value else value
        try:
            result = float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError, ZeroDivisionError):
            return None
        return result if result == result and abs(result) < 1e12 else None

    iso = number(ExifTags.Base.ISOSpeedRatings)
    return {
        "camera_make": text(ExifTags.Base.Make),
        "camera_model": text(ExifTags.Base.Model),
        "lens": text(ExifTags.Base.LensModel),
        "focal_length_mm": number(ExifTags.Base.FocalLength),
        "aperture": number(ExifTags.Base.FNumber),
        "iso": None if iso is None else int(iso),
        "exposure_s": number(ExifTags.Base.ExposureTime),
        "taken_at": text(ExifTags.Base.DateTimeOriginal),
    }
