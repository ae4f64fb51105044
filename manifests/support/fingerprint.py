"""Fingerprints: short names for "made with exactly these settings"."""

from __future__ import annotations

import hashlib
import json


def fingerprint(**parts: object) -> str:
    """16 hex digits over the named parts (JSON values; order of names does not matter).

    A row is done when its key is there with the fingerprint that the present settings give; another fingerprint
    makes it stale.
    """
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def short_hash(text: str, digits: int = 8) -> str:
    """The first hex digits of the SHA-256 of a text, for file names and ids."""
    return hashlib.sha256(text.encode()).hexdigest()[:digits]
