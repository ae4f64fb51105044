"""FFHQ and sets laid out like it: aligned faces of 1024 px, and a JSON with landmarks and a licence per picture."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from authface_data.images.open import IMAGE_SUFFIXES
from authface_data.sources.folder import walk
from manifests.support.errors import UserError
from manifests.support.fingerprint import fingerprint
from manifests.support.text import to_utf8

PREFIX = "ffhq_"
JSON_NAMES = ("ffhq-dataset-v2.json", "ffhq-dataset-v1.json")


def find_photos(folder: Path, passed_over: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(photo_id, input row) of every aligned picture below a folder.

    The id is `ffhq_` and the picture's name without its suffix (`ffhq_00042`); a name that is there twice counts once. The
    JSON is looked for in the folder and beside it. Raises UserError for one that cannot be read, and where no picture is.
    """
    said = _read_json(folder, passed_over)
    seen: set[str] = set()
    for path, within in walk(folder, passed_over):
        stem = path.stem
        photo_id = PREFIX + re.sub(r"[^A-Za-z0-9_-]", "_", stem)
        if photo_id in seen:
            passed_over.append(f"{path}: there is another picture of that name")
            continue
        seen.add(photo_id)
        told = said.get(str(int(stem)), {}) if stem.isascii() and stem.isdecimal() else {}
        stat = path.stat()
        mark = fingerprint(size=stat.st_size, time=stat.st_mtime_ns, said=told)
        yield photo_id, {"file": str(path), "name": within, "mark": mark, "aligned": True, **told}
    if not seen:
        raise UserError(f"no pictures in {folder} (looked for {', '.join(IMAGE_SUFFIXES)})")


def _read_json(folder: Path, passed_over: list[str]) -> dict[str, dict[str, Any]]:
    """Number of the picture -> columns of `photos`; nothing where there is no JSON."""
    for path in (place / name for name in JSON_NAMES for place in (folder, folder.parent)):
        if not path.is_file():
            continue
        try:
            entries = json.loads(path.read_text("utf-8-sig"))
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path} cannot be read as JSON: {error}") from error
        if not isinstance(entries, dict):
            raise UserError(f"{path} should map the pictures' numbers to what is known of them")
        return {
            number: _columns(number, entry, path, passed_over) for number, entry in entries.items()
        }
    return {}


def _columns(number: str, entry: Any, path: Path, passed_over: list[str]) -> dict[str, Any]:
    try:
        about, image = entry["metadata"], entry["image"]
        licence = _text(about.get("license"))
        row: dict[str, Any] = {
            "photographer_name": _text(about.get("author")),
            "source_url": _text(about.get("photo_url")),
            "licence": licence,
            "licence_basis": licence_basis(licence) if licence else None,
            "description": _text(about.get("photo_title")),
        }
        points = image.get("face_landmarks")
        if points is not None:
            row["landmarks68_px"] = [[float(x), float(y)] for x, y in points]
            row["landmarks_side_px"] = float((image.get("pixel_size") or [1024])[0])
            if len(points) != 68 or not all(
                math.isfinite(value) for point in row["landmarks68_px"] for value in point
            ):
                raise ValueError("not 68 points")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        passed_over.append(
            f"{path}: entry {number} is not as it should be ({error}): nothing is taken from it"
        )
        return {}
    return row


def _text(value: Any) -> str | None:
    return to_utf8(str(value)) or None if value is not None else None


def licence_basis(licence: str) -> str:
    """A picture's own licence as a ground for training: public domain marks, else the licence by its name."""
    if re.search(r"public domain|cc0", licence, re.IGNORECASE):
        return "public-domain"
    return f"other:{licence}"
