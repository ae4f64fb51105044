"""Cleaning of text from outside before it is stored or put into Markdown."""

from __future__ import annotations

_MARKDOWN_CHARACTERS = "\\`*_[]<>#|"


def to_utf8(text: str) -> str:
    """Replace characters that UTF-8 cannot encode, and strip surrounding blanks.

    JSON and file names may contain lone surrogates, which Parquet and text files cannot store.
    """
    return text.encode("utf-8", "replace").decode().strip()


def escape_markdown(text: str) -> str:
    """Escape text so that Markdown shows it literally, on one line: no links, tags or headings."""
    one_line = " ".join(text.split())
    return "".join(
        f"\\{character}" if character in _MARKDOWN_CHARACTERS else character
        for character in one_line
    )
