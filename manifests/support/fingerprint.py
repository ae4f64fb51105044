"""Fingerprints: short hashes that identify the settings and inputs of a result."""

from __future__ import annotations

import hashlib
import json


def fingerprint(**parts: object) -> str:
    """Compute the fingerprint of a set of named values.

    A stored result is up to date if its fingerprint equals the one of the present settings;
    otherwise it is stale.

    Args:
        **parts: JSON values. Their order does not matter.

    Returns:
        16 hexadecimal digits.
    """
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return short_hash(text, digits=16)


def short_hash(text: str, digits: int = 8) -> str:
    """Hash a text for file names and ids.

    Args:
        text: The text to hash.
        digits: Number of digits.

    Returns:
        The first hexadecimal digits of the SHA-256.
    """
    return hashlib.sha256(text.encode()).hexdigest()[:digits]
