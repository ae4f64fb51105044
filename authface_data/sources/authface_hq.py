"""AuthFace-HQ as its authors released it: aligned faces with captions, without provenance.

A picture `woman/woman_11010.png` has its caption in `woman/woman_11010_qwen.json`. The captions
are imported as those of a captioner named `qwen`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from authface_data.captions.qwen import import_captions
from authface_data.sources.aligned import AlignedSource, plain_name
from authface_data.sources.file_source import SourceFile
from authface_data.sources.image_files import path_text
from authface_data.sources.protocol import CollectReport, PhotoInput, RunOptions
from authface_data.sources.sidecar_fields import load_json
from manifests.support.fingerprint import fingerprint
from manifests.support.text import count_of, excerpt, to_utf8

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
        report.notes.append(f"{count_of(import_captions(self.workspace), 'caption')} by qwen")
        return report

    def photo_id(self, file: SourceFile) -> str:
        """`afhq_` and the picture's path within the folder, without its suffix."""
        stem = file.relative_path.rsplit(".", 1)[0]
        return PREFIX + plain_name(stem, stem.replace("/", "_"))

    def describe(self, file: SourceFile, photo_id: str) -> PhotoInput:
        """Describe one picture, with its caption as `source_tags`.

        Args:
            file: The picture.
            photo_id: Its id.
        """
        path = file.path
        tags = _read_tags(path.with_name(f"{path.stem}_qwen.json"), self.skipped)
        earlier = fingerprint(size=file.size, time=file.mtime_ns, tags=tags)
        return PhotoInput(
            photo_id=photo_id,
            name=to_utf8(file.relative_path),
            file=str(path),
            fingerprint=earlier
            if file.sha256 is None
            else fingerprint(content=file.sha256, tags=tags),
            earlier_fingerprint=earlier,
            columns={"aligned": True, "source_tags": tags},
        )


def _read_tags(path: Path, skipped: list[str]) -> list[str] | None:
    """The tags of a caption file, or None and a message in `skipped`."""
    tags: dict[str, None] = {}  # keeps the order of first appearance
    try:
        for text in _caption_texts(load_json(path)):
            tags |= dict.fromkeys(_split_tags(text))
    except FileNotFoundError:
        skipped.append(f"{path_text(path)} does not exist; its picture has no caption")
        return None
    except (ValueError, RecursionError, OSError) as error:
        skipped.append(
            f"{path_text(path)} cannot be read as JSON ({excerpt(str(error))}); its picture has no "
            "caption"
        )
        return None

    if not tags:
        skipped.append(f"{path_text(path)} holds no caption")
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
