"""JSON and TOML from files and servers, which may be damaged, hostile or made by other programs.

Every fault is one line: bad syntax, a wrong encoding, deep nesting, or a number too large for any
use.
"""

from __future__ import annotations

import json
import math
import tomllib
from itertools import chain
from typing import TYPE_CHECKING, Any

from manifests.support.errors import UserError
from manifests.support.text import excerpt

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import JsonValue

MAX_DEPTH = 64
"""Deepest nesting of lists and tables that is accepted."""
MAX_TOML_BYTES = 1_000_000
MAX_DOTS = 200
"""Largest number of dots in a line of TOML."""
MAX_DIGITS = 300
"""Most digits of a whole number in JSON, so that it can be converted to a float."""
MAX_JSON_BYTES = 16_000_000
"""Largest JSON file that is read; those of models and runs have a few kilobytes."""

_TOO_LARGE = "it contains a number that is too large"


def parse_json(data: bytes | str, *, allow_infinity: bool = False) -> JsonValue:
    """Parse a JSON value strictly.

    Args:
        data: The text; bytes are UTF-8, UTF-16 or UTF-32.
        allow_infinity: Accept Infinity and -Infinity, which Python writes.

    Returns:
        The value. Its other numbers are finite and fit into a float.

    Raises:
        ValueError: If the text is not valid JSON, contains NaN, Infinity or a larger number, or is
            nested more than `MAX_DEPTH` deep.
    """
    try:
        value = json.loads(
            data,
            parse_float=_finite_float,
            parse_constant=_infinity if allow_infinity else _refuse_constant,
        )
    except RecursionError:
        raise ValueError(_too_deep()) from None
    except ValueError as error:
        if "int_max_str_digits" in str(error):
            raise ValueError(_TOO_LARGE) from None
        raise
    _check_values(value, 10**MAX_DIGITS)
    return value


def parse_json_object(data: bytes | str, *, allow_infinity: bool = False) -> dict[str, JsonValue]:
    """Parse a JSON object strictly, see `parse_json`.

    Args:
        data: The text; bytes are UTF-8, UTF-16 or UTF-32.
        allow_infinity: Accept Infinity and -Infinity.

    Returns:
        The values by name.

    Raises:
        ValueError: If the text is not valid JSON, or another value than an object.
    """
    value = parse_json(data, allow_infinity=allow_infinity)
    if not isinstance(value, dict):
        raise ValueError("it does not hold an object")
    return value


def read_json_object(
    path: Path, advice: str, *, allow_infinity: bool = False
) -> dict[str, JsonValue]:
    """Read a file that must hold a JSON object.

    Args:
        path: The file.
        advice: What the user can do if the file is damaged; the end of the message.
        allow_infinity: Accept Infinity and -Infinity, which Python writes.

    Raises:
        UserError: If the file cannot be read or holds something else.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_JSON_BYTES + 1)
        if len(data) > MAX_JSON_BYTES:
            raise ValueError(f"it is larger than {MAX_JSON_BYTES / 1e6:g} MB")
        return parse_json_object(data, allow_infinity=allow_infinity)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}); {advice}") from error
    except ValueError as error:
        raise UserError(f"{path} is damaged ({excerpt(str(error))}); {advice}") from error


def parse_toml(data: bytes | str, path: object) -> dict[str, Any]:
    """Parse a TOML document.

    Args:
        data: The text; bytes are UTF-8 with or without a byte order mark.
        path: Path or name of the document, for messages.

    Raises:
        UserError: If the text is not valid TOML, is longer than `MAX_TOML_BYTES`, is nested more
            than `MAX_DEPTH` deep, or contains a number of more than 64 bits.
    """
    try:
        return _load_toml(data)
    except ValueError as error:
        raise UserError(f"{path} is not valid TOML: {excerpt(str(error))}") from error


def _load_toml(data: bytes | str) -> dict[str, Any]:
    if len(data) > MAX_TOML_BYTES:
        raise ValueError(f"it is larger than {MAX_TOML_BYTES / 1e6:g} MB")
    text = data.decode("utf-8-sig") if isinstance(data, bytes) else data
    # tomllib takes hours for a key of a million parts.
    if any(line.count(".") > MAX_DOTS for line in text.split("\n")):
        raise ValueError(f"it has a line with more than {MAX_DOTS} dots")
    try:
        table = tomllib.loads(text)
    except RecursionError:
        raise ValueError(_too_deep()) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        raise
    except ValueError:
        raise ValueError(_TOO_LARGE) from None
    _check_values(table, 2**64)
    return table


def _check_values(value: object, limit: int) -> None:
    """Check the depth and the whole numbers of a parsed value.

    A call for each item would take longer than parsing a tokenizer's 100,000 items.

    Raises:
        ValueError: If lists and tables are nested more than `MAX_DEPTH` deep, or the absolute value
            of a whole number is not below the limit.
    """
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        numbers = [item for item in level if type(item) is int]
        if numbers and not -limit < min(numbers) <= max(numbers) < limit:
            raise ValueError(_TOO_LARGE)
        tables = [item.values() for item in level if type(item) is dict]
        lists = [item for item in level if type(item) is list]
        level = list(chain(chain.from_iterable(tables), chain.from_iterable(lists)))
        if not level:
            return
    raise ValueError(_too_deep())


def _too_deep() -> str:
    return f"its values are nested more than {MAX_DEPTH} deep"


def _finite_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(_TOO_LARGE)
    return value


def _refuse_constant(name: str) -> float:
    raise ValueError(f"it contains {name}, which is not valid JSON")


def _infinity(name: str) -> float:
    return _refuse_constant(name) if name == "NaN" else float(name)
