"""Metadata of Google Takeout: the names of its JSON files, and what is read from them.

A picture `IMG_1.jpg` is described by `IMG_1.jpg.supplemental-metadata.json`, in older archives by
`IMG_1.jpg.json`. Takeout cuts names: the part before `.json` has at most 46 characters, sometimes a
few more. The number of a copy stays at the end: `IMG_1(2).jpg` belongs to
`IMG_1.jpg.supplemental-metadata(2).json`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

SUFFIX = "supplemental-metadata"
MAX_STEM_LENGTH = 46
COPY_NUMBER = re.compile(r"\(\d+\)$")

DATE_KEY = "photoTakenTime"
PLACE_KEY = "geoData"


def is_takeout(content: Mapping[str, object]) -> bool:
    """Whether a JSON object is the description of a picture by Google Takeout."""
    return isinstance(content.get(DATE_KEY), dict)


def sidecar_names(name: str) -> Iterator[str]:
    """The names that Google Takeout may give to the JSON file of a picture.

    Args:
        name: File name of the picture.

    Yields:
        File names. Those in which the name of the picture itself is cut come last.
    """
    stem, dot, suffix = name.rpartition(".")
    number = COPY_NUMBER.search(stem)
    parts = [(name, "")]
    if number is not None:
        parts.append((f"{stem[: number.start()]}{dot}{suffix}", number[0]))
    for base, copy in parts:
        full = f"{base}.{SUFFIX}"
        shortest = min(len(base) + 1, MAX_STEM_LENGTH)
        for length in range(len(full), shortest - 1, -1):
            if length != len(base) or copy:  # `IMG_1.jpg.json` is not special to Takeout
                yield f"{full[:length]}{copy}.json"
        if copy:
            yield f"{base}{copy}.json"


def taken_at(content: Mapping[str, object]) -> str | None:
    """When the picture was taken: UTC, in the format of EXIF; None if the date is unusable."""
    date = content.get(DATE_KEY)
    timestamp = date.get("timestamp") if isinstance(date, dict) else None
    try:
        taken = datetime.fromtimestamp(int(str(timestamp)), UTC)
    except (ValueError, OverflowError, OSError):
        return None
    return taken.strftime("%Y:%m:%d %H:%M:%S")


def position(content: Mapping[str, object]) -> dict[str, float]:
    """Latitude and longitude in degrees; empty if the position is unknown."""
    place = content.get(PLACE_KEY)
    if not isinstance(place, dict):
        return {}
    latitude, longitude = place.get("latitude"), place.get("longitude")
    if not isinstance(latitude, int | float) or not isinstance(longitude, int | float):
        return {}
    # A whole number in JSON may be too large for a float, but not for a comparison.
    is_on_earth = abs(latitude) <= 90 and abs(longitude) <= 180
    if not is_on_earth or not (latitude or longitude):
        return {}
    return {"latitude": float(latitude), "longitude": float(longitude)}
