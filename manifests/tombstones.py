"""Tombstones: records that a photograph was forgotten, without revealing which one.

A tombstone is a keyed hash (HMAC-SHA256 under a key of the workspace) of a photograph's id, of the
hash of its file or of the hash of its pixels. Somebody who has the photograph can check whether it
was forgotten; the tombstones alone reveal nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from datetime import UTC, datetime

from manifests.schema import TOMBSTONES
from manifests.store import Store
from manifests.support.errors import UserError
from manifests.workspace import Workspace

KEY_FILE = "manifests/.tombstone-key"
KEY = re.compile(rb"[0-9a-f]{64}")


class Tombstones:
    """The tombstones of a workspace at the time of construction. Picklable, for worker processes.

    Args:
        workspace: The workspace to read.

    Raises:
        UserError: If the key of the tombstones is missing or damaged.
    """

    def __init__(self, workspace: Workspace) -> None:
        keyed_hashes = Store(workspace, TOMBSTONES).read(["keyed_hash"])["keyed_hash"]
        self._hashes: set[str] = set(keyed_hashes.to_pylist())
        has_key = workspace.exists(KEY_FILE)
        self._key = workspace.read_bytes(KEY_FILE) if has_key else b""
        if (self._hashes or has_key) and not KEY.fullmatch(self._key):
            raise UserError(
                f"{workspace.root}/{KEY_FILE} is missing or damaged; restore it from a backup, "
                "because without it photographs that were forgotten cannot be recognised"
            )

    def __bool__(self) -> bool:
        return bool(self._hashes)

    def contains(self, secret: str) -> bool:
        """Whether an id, or the hash of a file or of pixels, was forgotten."""
        return bool(self._hashes) and self.keyed_hash(secret) in self._hashes

    def keyed_hash(self, secret: str) -> str:
        """32 hexadecimal digits: HMAC-SHA256 under the key of the workspace."""
        return hmac.new(self._key, secret.encode(), hashlib.sha256).hexdigest()[:32]


def add_tombstones(
    workspace: Workspace, secrets_by_kind: Iterable[tuple[str, str]], why: str | None
) -> Tombstones:
    """Write tombstones; existing ones are not written again.

    Args:
        workspace: The workspace to write.
        secrets_by_kind: Pairs of kind ("id", "file" or "pixels") and the id or hash.
        why: The reason for forgetting.

    Returns:
        All tombstones of the workspace.
    """
    present = Tombstones(workspace)
    if workspace.create_exclusive(KEY_FILE, secrets.token_hex(32).encode()):
        present = Tombstones(workspace)
    now = datetime.now(UTC)
    rows = [
        {
            "keyed_hash": present.keyed_hash(secret),
            "kind": kind,
            "why": why,
            "forgotten_at": now,
            "fingerprint": "",
        }
        for kind, secret in secrets_by_kind
        if not present.contains(secret)
    ]
    Store(workspace, TOMBSTONES).append(rows)
    return Tombstones(workspace)
