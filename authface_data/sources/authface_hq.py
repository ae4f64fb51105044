"""AuthFace-HQ as its authors released it: `woman/woman_11010.png` with `woman/woman_11010_qwen.json`, no provenance.

The pictures are aligned faces. Their captions come in as those of a captioner named `qwen`, once `authface filter` has made
faces of them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from authface_data.images.open import IMAGE_SUFFIXES
from authface_data.sources.folder import walk
from manifests.support.errors import UserError
from manifests.support.fingerprint import fingerprint, short_hash
from manifests.support.text import to_utf8

PREFIX = "afhq_"
CAPTION_KEYS = (
    "caption",
    "captions",
    "tags",
    "text",
    "answer",
    "response",
    "output",
    "prompt",
    "content",
)


def find_photos(folder: Path, passed_over: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(photo_id, input row) of every picture below a folder, its caption under `source_tags`.

    The id is `afhq_` and the picture's path within the folder without its suffix, with a hash where letters had to go. A
    caption that is missing or unreadable is named in `passed_over`. Raises UserError where no picture is.
    """
    seen: set[str] = set()
    for path, within in walk(folder, passed_over):
        stem = within.rsplit(".", 1)[0]
        name = re.sub(r"[^A-Za-z0-9_-]", "_", stem)
        if name != stem.replace("/", "_"):
            name += f"-{short_hash(stem)}"  # other names may come to the same letters
        if name in seen:
            passed_over.append(f"{path}: there is another picture of that name")
            continue
        seen.add(name)
        tags = _tags(path.with_name(f"{path.stem}_qwen.json"), passed_over)
        stat = path.stat()
        mark = fingerprint(size=stat.st_size, time=stat.st_mtime_ns, tags=tags)
        yield (
            PREFIX + name,
            {"file": str(path), "name": within, "mark": mark, "aligned": True, "source_tags": tags},
        )
    if not seen:
        raise UserError(f"no pictures in {folder} (looked for {', '.join(IMAGE_SUFFIXES)})")


def _tags(path: Path, passed_over: list[str]) -> list[str] | None:
    try:
        said = json.loads(path.read_text("utf-8-sig"))
    except FileNotFoundError:
        passed_over.append(f"{path} is not there: its picture has no caption")
        return None
    except (ValueError, RecursionError, OSError) as error:
        passed_over.append(f"{path} cannot be read as JSON ({error}): its picture has no caption")
        return None
    tags = list(dict.fromkeys(tag for text in _texts(said) for tag in _split(text)))
    if not tags:
        passed_over.append(f"{path} holds no caption")
    return tags or None


def _texts(said: Any) -> Iterator[str]:
    """The caption's texts: of the keys that name one where there are such, else all that is written."""
    if isinstance(said, str):
        yield said
    elif isinstance(said, list):
        for item in said:
            yield from _texts(item)
    elif isinstance(said, dict):
        named = [value for key, value in said.items() if key.lower() in CAPTION_KEYS]
        for value in named or said.values():
            yield from _texts(value)


def _split(text: str) -> list[str]:
    return [
        tag
        for piece in re.split(r"[,;\n]", text)
        if (tag := " ".join(to_utf8(piece).split()).strip(" .").lower())
    ]
