"""Headers of safetensors files: names, types and shapes of tensors, without reading the tensors.

Format: https://huggingface.co/docs/safetensors
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from manifests.support.parsing import parse_json_object
from manifests.support.text import excerpt

if TYPE_CHECKING:
    from pydantic import JsonValue

MAX_HEADER_BYTES = 100_000_000
"""The format's own limit for the header."""

OTHER_FORMATS = {
    b"GGUF": "a GGUF file, whose weights are quantised",
    b"PK\x03\x04": "a PyTorch checkpoint, which may contain code",
    b"\x80": "a PyTorch checkpoint, which may contain code",
    b"version https://git-lfs": "a Git LFS pointer; `git lfs pull` downloads the file itself",
    b"<!doctype html": "a web page",
    b"<html": "a web page",
}
"""What a file is that starts with these bytes, in lower case for text."""


@dataclass(frozen=True)
class TensorInfo:
    """Type and shape of a tensor in a file."""

    dtype: str
    """Such as "F16"."""
    shape: tuple[int, ...]
    end: int
    """Offset of the end of the tensor's bytes after the header."""


@dataclass(frozen=True)
class SafetensorsHeader:
    """Header of a safetensors file."""

    tensors: dict[str, TensorInfo]
    metadata: dict[str, str]


def other_format(path: Path) -> str | None:
    """What a file is that is often taken for a safetensors file, such as "a GGUF file".

    Raises:
        OSError: If the file cannot be read.
    """
    with path.open("rb") as file:
        start = file.read(32)
    # A header of 128 bytes also starts with \x80, followed by seven zeros.
    if start[1:8] == bytes(7):
        return None
    for magic, description in OTHER_FORMATS.items():
        if start.startswith(magic) or start.lower().startswith(magic):
            return description
    return None


def read_header(path: Path) -> SafetensorsHeader:
    """Read the header of a safetensors file.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If the header does not describe the content of the file.
    """
    description = other_format(path)
    if description is not None:
        raise ValueError(f"it is {description}")
    file_bytes = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if file_bytes < 8 or length > min(MAX_HEADER_BYTES, file_bytes - 8):
            raise ValueError("its header is cut off")
        header = parse_json_object(file.read(length))

    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict):
        raise ValueError("its metadata is malformed")
    tensors = {name: _tensor_info(name, entry) for name, entry in header.items()}
    content_bytes = file_bytes - 8 - length
    described_bytes = max((tensor.end for tensor in tensors.values()), default=0)
    if described_bytes != content_bytes:
        raise ValueError(
            f"it holds {content_bytes:,} bytes of tensors instead of {described_bytes:,}"
        )
    return SafetensorsHeader(tensors, {name: str(value) for name, value in metadata.items()})


def _tensor_info(name: str, entry: JsonValue) -> TensorInfo:
    values = entry if isinstance(entry, dict) else {}
    offsets = values.get("data_offsets")
    shape = values.get("shape", [])
    if isinstance(offsets, list) and isinstance(shape, list):
        ends = [offset for offset in offsets if isinstance(offset, int)]
        sizes = tuple(size for size in shape if isinstance(size, int))
        if len(ends) == len(offsets) == 2 and len(sizes) == len(shape):
            return TensorInfo(str(values.get("dtype")), sizes, ends[1])
    raise ValueError(f"its entry {excerpt(name, 40)} is malformed")
