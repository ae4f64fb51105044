"""A download in progress that another run can resume.

Beside the target lie `<name>.part` with the first bytes, and `<name>.json` with the URL and the
version of the file that these bytes belong to.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import httpx

from manifests.support.parsing import parse_json_object

VERSION = re.compile(r"[ -~]{1,1000}")
"""Values that can be sent back in a header."""


class PartialDownload:
    """The bytes of a file that have been received so far.

    Args:
        target: Where the whole file will be placed.
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        self.part_path = target.with_name(f"{target.name}.part")
        self.state_path = target.with_name(f"{target.name}.json")

    def resumable(self, url: str) -> tuple[int, str]:
        """What can be resumed from this URL.

        Returns:
            The number of bytes on the disk and the version of the file that they belong to, or
            (0, "") if the download must start from the beginning.
        """
        try:
            state = parse_json_object(self.state_path.read_bytes())
            size = self.part_path.stat().st_size
        except (OSError, ValueError):
            return 0, ""
        version = state.get("version")
        is_usable = isinstance(version, str) and VERSION.fullmatch(version) is not None
        if not is_usable or state.get("url") != url or not size:
            return 0, ""
        return size, str(version)

    def start(self, url: str, response: httpx.Response) -> None:
        """Start from the first byte; record the version if the server can resume it.

        Old bytes are removed before the new version is recorded: a kill in between must not leave
        the version of one file beside the bytes of another.

        Args:
            url: The URL of the request.
            response: The response whose body will be written.
        """
        self.state_path.unlink(missing_ok=True)
        self.part_path.write_bytes(b"")
        version = resume_version(response)
        if version and response.headers.get("accept-ranges", "").lower() != "none":
            self.state_path.write_text(json.dumps({"url": url, "version": version}))

    def finish(self) -> None:
        """Move the complete file to its target."""
        self.state_path.unlink(missing_ok=True)
        os.replace(self.part_path, self.target)

    def remove(self) -> None:
        """Discard what was received."""
        self.part_path.unlink(missing_ok=True)
        self.state_path.unlink(missing_ok=True)


def resume_version(response: httpx.Response) -> str:
    """A value for If-Range that identifies exactly these bytes.

    A strong ETag, otherwise the Last-Modified date; empty if the response has neither or the value
    cannot be sent back in a header.
    """
    tag = response.headers.get("etag", "")
    is_strong_tag = bool(tag) and not tag.startswith("W/")
    version = tag if is_strong_tag else response.headers.get("last-modified", "")
    return version if VERSION.fullmatch(version) else ""
