"""Texts from outside, made fit to be stored."""

from __future__ import annotations


def to_utf8(text: str) -> str:
    """A text that can be stored: JSON and file names may hold halves of characters, which no table can."""
    return text.encode("utf-8", "replace").decode().strip()
