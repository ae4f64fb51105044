"""Tombstones: that something was forgotten, without saying what.

A tombstone is a hash, under a key of the workspace, of a photograph's id, of its file's hash or of its pixels' hash. Whoever
has the photograph can ask whether it was forgotten; whoever has only the tombstones learns nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable
from datetime import UTC, datetime

from manifests.schema import TOMBSTONES
from manifests.store import Store
from manifests.workspace import Workspace

KEY_FILE = "manifests/.tombstone-key"


class Tombstones:
    """What a workspace has forgotten, as it stands when this is made. Picklable: workers ask it too."""

    def __init__(self, workspace: Workspace):
        self._key = workspace.read_bytes(KEY_FILE) if workspace.exists(KEY_FILE) else b""
        self._hashes = (
            set(Store(workspace, TOMBSTONES).read(["keyed_hash"])["keyed_hash"].to_pylist())
            if self._key
            else set()
        )

    def __bool__(self) -> bool:
        return bool(self._hashes)

    def holds(self, secret: str) -> bool:
        """Whether an id, or a hash of a file or of pixels, was forgotten."""
        return bool(self._hashes) and self.keyed_hash(secret) in self._hashes

    def keyed_hash(self, secret: str) -> str:
        """32 hex digits, HMAC-SHA256 under the workspace's key."""
        return hmac.new(self._key, secret.encode(), hashlib.sha256).hexdigest()[:32]


def add_tombstones(
    workspace: Workspace, secrets_by_kind: Iterable[tuple[str, str]], why: str | None
) -> Tombstones:
    """Write tombstones for (kind, secret): kind is id, file or pixels. Returns all there are now."""
    workspace.create_exclusive(KEY_FILE, secrets.token_hex(32).encode())
    before, now = Tombstones(workspace), datetime.now(UTC)
    rows = [
        {
            "keyed_hash": before.keyed_hash(secret),
            "kind": kind,
            "why": why,
            "forgotten_at": now,
            "fingerprint": "",
        }
        for kind, secret in secrets_by_kind
        if not before.holds(secret)
    ]
    Store(workspace, TOMBSTONES).append(rows)
    return Tombstones(workspace)
