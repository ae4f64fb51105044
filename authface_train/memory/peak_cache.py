"""Peaks of fake passes, kept in the workspace's cache.

A fake pass of SDXL takes tens of seconds, and its peak depends on nothing but the models, some
settings and the version of torch.
"""

from __future__ import annotations

import logging

from manifests.workspace import Workspace

logger = logging.getLogger(__name__)

FOLDER = "cache/memory"
MAX_BYTES = 100


class PeakCache:
    """Peaks in bytes by key, one small file each.

    Args:
        workspace: The workspace.
    """

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace.local_cache

    def read(self, key: str) -> int | None:
        """Read a peak, or None if it is not in the cache or its file is damaged."""
        path = f"{FOLDER}/{key}"
        if not self.workspace.exists(path):
            return None
        content = self.workspace.read_bytes(path, limit=MAX_BYTES)
        if not content.isdigit():
            logger.warning("%s is damaged; the estimate is made again", path)
            return None
        return int(content)

    def write(self, key: str, peak: int) -> None:
        """Keep a peak.

        Args:
            key: Fingerprint of everything that the peak depends on.
            peak: The peak in bytes.
        """
        self.workspace.write_bytes(f"{FOLDER}/{key}", str(peak).encode())
