"""A file on its way: its first bytes lie beside its place as `.part`, and next to them (`.json`) which version they are of."""

from __future__ import annotations

import json
import os
from pathlib import Path

import httpx


class PartialDownload:
    """What of `target` has come."""

    def __init__(self, target: Path):
        self.target = target
        self.part, self.notes = (
            target.with_name(f"{target.name}.part"),
            target.with_name(f"{target.name}.json"),
        )

    def begun(self, url: str) -> tuple[int, str]:
        """How many bytes are there of which version; (0, "") where that cannot be gone on with."""
        try:
            said = json.loads(self.notes.read_text())
            if said["url"] == url and self.part.stat().st_size:
                return self.part.stat().st_size, said["version"]
        except (OSError, ValueError, KeyError, TypeError):
            pass
        return 0, ""

    def begin(self, url: str, answer: httpx.Response) -> None:
        """Make room for an answer's bytes, and note their version where that can be resumed by.

        The old bytes go before the new version is noted: a kill between leaves no version beside the bytes of another.
        """
        self.notes.unlink(missing_ok=True)
        self.part.write_bytes(b"")
        version = version_of(answer)
        if version and answer.headers.get("accept-ranges", "").lower() != "none":
            self.notes.write_text(json.dumps({"url": url, "version": version}))

    def finish(self) -> None:
        self.notes.unlink(missing_ok=True)
        os.replace(self.part, self.target)

    def remove(self) -> None:
        self.part.unlink(missing_ok=True)
        self.notes.unlink(missing_ok=True)


def version_of(answer: httpx.Response) -> str:
    """What names exactly these bytes: a strong ETag, else a date; empty where there is none that can be sent back."""
    tag = answer.headers.get("etag", "")
    version = tag if tag and not tag.startswith("W/") else answer.headers.get("last-modified", "")
    return version if version.isascii() and version.isprintable() else ""
