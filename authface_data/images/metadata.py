"""Reading EXIF metadata: camera settings, and the place where a photograph was taken."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TypedDict

from PIL import ExifTags

from authface_data.images.open import DECODE_ERRORS, decoding, open_image
from authface_data.images.tiff_directory import GPS_IFD
from manifests.support.text import to_utf8


class CameraMetadata(TypedDict):
    """The camera columns of `photos`. A value that is missing or malformed in the file is None."""

    camera_make: str | None
    camera_model: str | None
    lens: str | None
    focal_length_mm: float | None
    aperture: float | None
    iso: int | None
    exposure_s: float | None
    taken_at: str | None


def camera_metadata(exif: Mapping[int, object]) -> CameraMetadata:
    """Extract the camera columns of `photos` from EXIF tags.

    Args:
        exif: Tags of the main and the Exif directory, by number, as in `Photo.exif`.

    Returns:
        The camera columns. The place is not read.
    """
    iso = _number(exif.get(ExifTags.Base.ISOSpeedRatings))
    return {
        "camera_make": _text(exif.get(ExifTags.Base.Make)),
        "camera_model": _text(exif.get(ExifTags.Base.Model)),
        "lens": _text(exif.get(ExifTags.Base.LensModel)),
        "focal_length_mm": _number(exif.get(ExifTags.Base.FocalLength)),
        "aperture": _number(exif.get(ExifTags.Base.FNumber)),
        "iso": None if iso is None else int(iso),
        "exposure_s": _number(exif.get(ExifTags.Base.ExposureTime)),
        "taken_at": _text(exif.get(ExifTags.Base.DateTimeOriginal)),
    }


def read_gps(data: bytes) -> tuple[float | None, float | None]:
    """Read the GPS position from the EXIF metadata of a picture file.

    Args:
        data: The content of the file.

    Returns:
        (latitude, longitude) in degrees, positive to the north and the east. A coordinate that is
        missing or malformed is None.
    """
    try:
        with decoding(data), open_image(data) as image:
            tags = image.getexif().get_ifd(GPS_IFD)
    except DECODE_ERRORS:
        return None, None
    latitude = _degrees(
        tags.get(ExifTags.GPS.GPSLatitude), tags.get(ExifTags.GPS.GPSLatitudeRef), "S"
    )
    longitude = _degrees(
        tags.get(ExifTags.GPS.GPSLongitude), tags.get(ExifTags.GPS.GPSLongitudeRef), "W"
    )
    return latitude, longitude


def _text(value: object) -> str | None:
    if value is None:
        return None
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return to_utf8(str(value)) or None


def _number(value: object) -> float | None:
    if isinstance(value, tuple) and value:
        value = value[0]
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return None if math.isnan(number) or abs(number) >= 1e12 else number


def _degrees(value: object, reference: object, negative: str) -> float | None:
    """Convert EXIF degrees, minutes and seconds to degrees.

    Args:
        value: The three numbers.
        reference: Letter of the hemisphere.
        negative: The letter for which the result is negative.
    """
    try:
        degrees, minutes, seconds = (float(part) for part in value)  # type: ignore[attr-defined]
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    total = degrees + minutes / 60 + seconds / 3600
    if not math.isfinite(total):
        return None
    return -total if str(reference).strip("\0 ").upper() == negative else total
