"""FFHQ and sets with its layout: aligned faces of 1024 px, with metadata in one JSON file.

Source: https://github.com/NVlabs/ffhq-dataset
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from authface_data.faces.align import ffhq_quad
from authface_data.faces.landmarks import alignment_points
from authface_data.sources.aligned import AlignedSource, Size, plain_name
from authface_data.sources.file_source import FileOptions, SourceFile
from authface_data.sources.image_files import path_text
from authface_data.sources.protocol import PhotoInput
from manifests.sources import FFHQ, FFHQ_PREFIX
from manifests.support.errors import UserError
from manifests.support.fingerprint import fingerprint
from manifests.support.text import excerpt, to_utf8
from manifests.workspace import Workspace

JSON_NAMES = ("ffhq-dataset-v2.json", "ffhq-dataset-v1.json")
LANDMARKS = 68
DEFAULT_SIDE_PX = 1024
SIDE_KEY = "landmarks_side_px"

MALFORMED_ERRORS = (
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    OverflowError,
    RecursionError,
)
"""Exceptions that an entry of the wrong shape causes."""
PICTURE_CORNERS = np.array([[0, 0], [0, 1], [1, 1], [1, 0]])
"""Corners of a picture in the order of a quad, relative to its side."""
MAX_CORNER_OFFSET = 0.15
"""How far a corner of the landmarks' quad may be from one of the picture, relative to its side."""


class FfhqSource(AlignedSource):
    """Pictures named by number, with an optional JSON file in the folder or in its parent.

    Args:
        workspace: The workspace to fill.
        options: Where the pictures are, and how they are kept.
    """

    name: ClassVar[str] = FFHQ
    has_one_size: ClassVar[bool] = True

    def __init__(self, workspace: Workspace, options: FileOptions) -> None:
        super().__init__(workspace, options)
        self._metadata: Mapping[str, Mapping[str, object]] = {}

    def read_metadata(self) -> None:
        """Read the JSON file of the set, if it has one."""
        self._metadata = _read_json(self.options.path, self.skipped)

    def photo_id(self, file: SourceFile) -> str:
        """`ffhq_` and the picture's name without its suffix, such as `ffhq_00042`."""
        return FFHQ_PREFIX + plain_name(file.path.stem, file.path.stem)

    def describe(self, file: SourceFile, photo_id: str) -> PhotoInput:
        """Describe one picture by its entry in the JSON file.

        Args:
            file: The picture.
            photo_id: Its id.
        """
        stem = file.path.stem
        metadata: Mapping[str, object] = {}
        if stem.isascii() and stem.isdecimal():
            metadata = self._metadata.get(str(int(stem)), {})

        columns = dict(metadata)
        side_px = columns.pop(SIDE_KEY, None)
        # The keyword `said` is part of the hash and must stay.
        earlier = fingerprint(size=file.size, time=file.mtime_ns, said=metadata)
        return PhotoInput(
            photo_id=photo_id,
            name=to_utf8(file.relative_path),
            file=str(file.path),
            fingerprint=earlier
            if file.sha256 is None
            else fingerprint(content=file.sha256, metadata=metadata),
            earlier_fingerprint=earlier,
            columns={"aligned": True, **columns},
            landmarks_side_px=side_px if isinstance(side_px, float) else None,
        )

    def alignment_problem(self, photo: PhotoInput, size: Size) -> str | None:
        """Why the landmarks of a picture show that it is not aligned as in FFHQ, or None.

        FFHQ cuts out the quad that the landmarks define, so the quad of the landmarks in the
        picture is the picture.

        Args:
            photo: The picture.
            size: Its size.
        """
        landmarks, side_px = photo.columns.get("landmarks68_px"), photo.landmarks_side_px
        if landmarks is None or side_px is None:
            return None
        with np.errstate(all="ignore"):
            corners = ffhq_quad(*alignment_points(np.array(landmarks))).corners_px
            offset = float(np.abs((corners + 0.5) / side_px - PICTURE_CORNERS).max())
        if offset <= MAX_CORNER_OFFSET:
            return None
        return "not_aligned: its landmarks are not where FFHQ's alignment puts them"


def licence_basis(licence: str) -> str:
    """The licence basis of a picture: `public-domain`, or `other:` and the name of its licence."""
    if re.search(r"public domain|cc0", licence, re.IGNORECASE):
        return "public-domain"
    return f"other:{licence}"


def _read_json(folder: Path, skipped: list[str]) -> dict[str, dict[str, object]]:
    """Columns by the number of the picture; empty without a JSON file. Bad entries go to `skipped`.

    Raises UserError if the file cannot be read.
    """
    path = _find_json(folder)
    if path is None:
        return {}
    try:
        entries = json.loads(path.read_text("utf-8-sig"))
    except (ValueError, RecursionError, OSError) as error:
        raise UserError(
            f"{path_text(path)} cannot be read as JSON ({excerpt(str(error))}); replace it with "
            "the file of the data set, or remove it"
        ) from error
    if not isinstance(entries, dict):
        raise UserError(
            f"{path} must be a JSON object that maps picture numbers to metadata; remove it, or "
            "replace it"
        )

    metadata: dict[str, dict[str, object]] = {}
    for number, entry in entries.items():
        try:
            metadata[number] = _columns(entry)
        except MALFORMED_ERRORS as error:
            skipped.append(
                f"{path_text(path)}: entry {excerpt(number)} is malformed "
                f"({excerpt(str(error))}); its metadata is ignored"
            )
            metadata[number] = {}
    return metadata


def _find_json(folder: Path) -> Path | None:
    for name in JSON_NAMES:
        for parent in (folder, folder.parent):
            if (parent / name).is_file():
                return parent / name
    return None


def _columns(entry: Any) -> dict[str, object]:
    """Columns of the photos manifest from one entry, and the side that its landmarks refer to.

    Raises one of MALFORMED_ERRORS if the entry is malformed.
    """
    metadata = entry["metadata"]
    image = entry["image"]
    licence = _text(metadata.get("license"))
    columns: dict[str, object] = {
        "photographer_name": _text(metadata.get("author")),
        "source_url": _text(metadata.get("photo_url")),
        "licence": licence,
        "licence_basis": licence_basis(licence) if licence else None,
        "description": _text(metadata.get("photo_title")),
    }

    points = image.get("face_landmarks")
    if points is not None:
        landmarks = [[float(x), float(y)] for x, y in points]
        is_finite = all(math.isfinite(x) and math.isfinite(y) for x, y in landmarks)
        if len(landmarks) != LANDMARKS or not is_finite:
            raise ValueError(f"not {LANDMARKS} points")
        columns["landmarks68_px"] = landmarks
        columns[SIDE_KEY] = float((image.get("pixel_size") or [DEFAULT_SIDE_PX])[0])
    return columns


def _text(value: object) -> str | None:
    if value is None:
        return None
    return to_utf8(str(value)) or None
