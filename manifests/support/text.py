"""Text from outside: cleaning it before it is stored or printed, and matching names."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable

_MARKDOWN_CHARACTERS = "\\`*_[]<>#|"


def to_utf8(text: str) -> str:
    """Replace characters that UTF-8 cannot encode, and remove control characters and outer blanks.

    JSON and file names may contain lone surrogates, which Parquet and text files cannot store, and
    characters such as NUL, which tables cannot hold.
    """
    encodable = text.encode("utf-8", "replace").decode()
    return "".join(
        character
        for character in encodable
        if character in "\n\t" or unicodedata.category(character) != "Cc"
    ).strip()


def to_storable(path: str) -> str:
    """A path as Parquet and text files can store it: bytes that are not UTF-8 become `\\udcff`."""
    return path.encode("utf-8", "backslashreplace").decode()


def escape_markdown(text: str) -> str:
    """Escape text so that Markdown shows it literally, on one line: no links, tags or headings."""
    one_line = " ".join(text.split())
    return "".join(
        f"\\{character}" if character in _MARKDOWN_CHARACTERS else character
        for character in one_line
    )


def strip_control(text: str) -> str:
    """Make control characters visible, so that a terminal prints them instead of obeying them.

    File names and texts from servers may contain escape codes that change colours, move the cursor
    or set the title of the window. Line feeds, tabs and the joiners of scripts and emoji are kept.

    Args:
        text: Any text.

    Returns:
        The text with control characters, direction marks and lone surrogates as escapes, such as
        `\\x1b`.
    """
    if text.isprintable():
        return text
    return "".join(
        character.encode("unicode_escape").decode() if _is_control(character) else character
        for character in text
    )


def _is_control(character: str) -> bool:
    is_kept = character in "\n\t\u200c\u200d"
    return not is_kept and unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")


def excerpt(text: str, length: int = 200) -> str:
    """The beginning of a text of unknown origin, for a message.

    Args:
        text: Such as the answer of a server, or an error that quotes it.
        length: Largest number of characters.

    Returns:
        One line without control characters; "..." marks the end that is cut off.
    """
    one_line = strip_control(" ".join(text[: 10 * length].split()))
    return one_line if len(one_line) <= length else f"{one_line[: length - 3]}..."


def normal_name(name: str) -> str:
    """A form of a name that is equal for all its Unicode normal forms and cases."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def count_of(number: int, noun: str, plural: str | None = None) -> str:
    """A number and its noun, such as "1 face" and "2,000 faces".

    Args:
        number: The number.
        noun: The noun in the singular.
        plural: The noun in the plural, if that is not the singular with "s".
    """
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def nearest_name(name: str, known: Iterable[str]) -> str | None:
    """Find the known name that is most similar to a name.

    Args:
        name: The name that is not known.
        known: The known names.

    Returns:
        The nearest known name, or None if none is similar.
    """
    names = {normal_name(candidate): candidate for candidate in known}
    matches = difflib.get_close_matches(normal_name(name), list(names), n=1, cutoff=0.5)
    return names[matches[0]] if matches else None


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """The error message about an unknown name, with the nearest known name or else all of them.

    Args:
        kind: What the name should be, for example "captioner".
        name: The name that is not known.
        known: The known names.
    """
    names = list(known)
    hint = did_you_mean(name, names) or f"; choose from: {', '.join(names)}"
    return f'unknown {kind} "{excerpt(name, 80)}"{hint}'


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """End of an error message about an unknown name.

    Args:
        name: The name that is not known.
        known: The known names.

    Returns:
        "; did you mean X?" with the nearest known name, or "" if none is similar.
    """
    nearest = nearest_name(name, known)
    return "" if nearest is None else f"; did you mean {nearest}?"
