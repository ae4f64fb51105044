"""CLIP's byte-pair vocabulary, read from the installed openai-clip package.

Captions are counted in its tokens, and the tokenizers of tiny models are built from it.
"""

from __future__ import annotations

import gzip
import importlib.util
from functools import lru_cache
from pathlib import Path

from manifests.support.errors import MissingResourceError

MAX_TOKENS = 77
"""Tokens that CLIP's text encoders see, the start and the end token included."""

_VOCABULARY_FILE = "bpe_simple_vocab_16e6.txt.gz"
_NUM_MERGES = 48894


@lru_cache(maxsize=1)
def clip_vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Read CLIP's byte-pair encoding.

    Returns:
        The ids by token, and the merges in order of priority.

    Raises:
        MissingResourceError: If openai-clip is not installed.
    """
    # The package is located without importing it, because importing it would import torch.
    package = importlib.util.find_spec("clip")
    folders = list(package.submodule_search_locations or []) if package else []
    path = Path(folders[0], _VOCABULARY_FILE) if folders else None
    if path is None or not path.is_file():
        raise MissingResourceError("CLIP's vocabulary is missing; run `pip install openai-clip`")

    lines = gzip.decompress(path.read_bytes()).decode("utf-8").split("\n")
    merges = []
    for line in lines[1 : _NUM_MERGES + 1]:
        first, second = line.split()
        merges.append((first, second))

    characters = _byte_characters()
    tokens = list(characters)
    tokens += [f"{character}</w>" for character in characters]
    tokens += ["".join(merge) for merge in merges]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    return {token: index for index, token in enumerate(tokens)}, merges


def _byte_characters() -> list[str]:
    """The 256 printable characters that represent bytes in CLIP's vocabulary, in its order.

    Printable bytes come first and represent themselves.
    """
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    num_others = 256 - len(printable)
    return [chr(byte) for byte in printable] + [chr(256 + index) for index in range(num_others)]
