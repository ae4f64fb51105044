"""CLIP's vocabulary, from inside the openai-clip package: captions are counted in it, tiny tokenizers built from it.

And how a caption of more tokens than its encoders see loses whole tags.
"""

from __future__ import annotations

import gzip
import importlib.util
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

from manifests.support.errors import MissingResourceError

MERGES = 48894
MAX_TOKENS = 77  # tokens, the one before and the one after among them


@lru_cache(maxsize=1)
def clip_vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """(token -> id, merges) of CLIP's byte-pair encoding. Raises MissingResourceError where openai-clip is not installed."""
    package = importlib.util.find_spec(
        "clip"
    )  # found, not imported: importing it would import torch
    folders = list(package.submodule_search_locations or []) if package else []
    path = Path(folders[0], "bpe_simple_vocab_16e6.txt.gz") if folders else None
    if path is None or not path.is_file():
        raise MissingResourceError("CLIP's vocabulary is not here: `pip install openai-clip`")
    lines = gzip.decompress(path.read_bytes()).decode("utf-8").split("\n")
    merges = [(a, b) for a, b in (line.split() for line in lines[1 : MERGES + 1])]
    letters = _byte_letters()
    tokens = [
        *letters,
        *(f"{letter}</w>" for letter in letters),
        *("".join(pair) for pair in merges),
    ]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    return {token: index for index, token in enumerate(tokens)}, merges


def _byte_letters() -> list[str]:
    """The 256 printable characters that stand for bytes, in CLIP's order: printable bytes first, as themselves."""
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    rest = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + index) for index in range(len(rest))]


def truncate_tags(
    tags: Sequence[str],
    count: Callable[[str], int],
    least: Callable[[list[str]], int] = lambda tags: len(tags) - 1,
) -> tuple[list[str], list[str]]:
    """The tags whose caption the encoders see whole, and those left out for it, in the order they went.

    count: tokens of a caption. least: the place of the tag to leave out next; by default the last.
    """
    kept, cut = list(tags), []
    while kept and count(", ".join(kept)) > MAX_TOKENS:
        cut.append(kept.pop(least(kept)))
    return kept, cut
