"""AuthFace-HQ as its authors released it: aligned faces with captions, without provenance.

A picture `woman/woman_11010.png` has its caption in `woman/woman_11010_qwen.json`. The captions
are imported as those of a captioner named `qwen`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from authface_data.captions.qwen import import_captions
from authface_data.sources.aligned import AlignedSource
from authface_data.sources.file_source import ImageFile
from authface_data.sources.protocol import CollectReport, PhotoInput, RunOptions
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


class AuthfaceHqSource(AlignedSource):
    """Aligned pictures with one caption file each."""

    name: ClassVar[str] = "authface-hq"

    def collect(self, run: RunOptions) -> CollectReport:
        """Bring the pictures into the workspace and import their captions."""
        report = super().collect(run)
        report.notes.append(f"{import_captions(self.workspace)} captions by qwen")
        return report

    def photo_id(self, image_file: ImageFile) -> str:
        """`afhq_` and the picture's path within the folder, without its suffix.

        A hash is added where characters had to be replaced: other paths may give the same letters.
        """
        stem = image_file.relative_path.rsplit(".", 1)[0]
        name = re.sub(r"[^A-Za-z0-9_-]", "_", stem)
        if name != stem.replace("/", "_"):
            name += f"-{short_hash(stem)}"
        return PREFIX + name

    def describe(self, image_file: ImageFile, photo_id: str) -> PhotoInput:
        """Describe one picture, with its caption as `source_tags`.

        Args:
            image_file: The picture.
            photo_id: Its id.
        """
        path = image_file.path
        tags = _read_tags(path.with_name(f"{path.stem}_qwen.json"), self.skipped)
        stat = path.stat()
        return PhotoInput(
            photo_id=photo_id,
            name=image_file.relative_path,
            file=str(path),
            fingerprint=fingerprint(size=stat.st_size, time=stat.st_mtime_ns, tags=tags),
            columns={"aligned": True, "source_tags": tags},
        )


def _read_tags(path: Path, skipped: list[str]) -> list[str] | None:
    """The tags of a caption file, or None and a message in `skipped`."""
    try:
        caption = json.loads(path.read_text("utf-8-sig"))
    except FileNotFoundError:
        skipped.append(f"{path} does not exist; its picture has no caption")
        return None
    except (ValueError, RecursionError, OSError) as error:
        skipped.append(f"{path} cannot be read as JSON ({error}); its picture has no caption")
        return None

    tags: dict[str, None] = {}  # keeps the order of first appearance
    for text in _caption_texts(caption):
        tags |= dict.fromkeys(_split_tags(text))
    if not tags:
        skipped.append(f"{path} holds no caption")
        return None
    return list(tags)


def _caption_texts(value: object) -> Iterator[str]:
    """The texts of a JSON value: those under the keys of CAPTION_KEYS if it has any, else all."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _caption_texts(item)
    elif isinstance(value, dict):
        captions = [item for key, item in value.items() if key.lower() in CAPTION_KEYS]
        for item in captions or value.values():
            yield from _caption_texts(item)


def _split_tags(text: str) -> list[str]:
    """The tags of a text, separated by commas, semicolons or line breaks, in lower case."""
    pieces = (" ".join(to_utf8(piece).split()) for piece in re.split(r"[,;\n]", text))
    tags = (piece.strip(" .").lower() for piece in pieces)
    return [tag for tag in tags if tag]
