"""Checks of model folders before a library loads them: damaged files are named in one line.

The libraries end with errors of many kinds, and most of them do not name the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from manifests.run_folder import MODEL_INDEX_FILE
from manifests.support.errors import AuthfaceError, UserError
from manifests.support.parsing import parse_json_object, read_json_object
from manifests.support.text import excerpt

if TYPE_CHECKING:
    from pydantic import JsonValue

OBJECT_SUFFIXES = ("config.json", "index.json", "vocab.json", "tokenizer.json", "_map.json")
"""Ends of the names of files that hold a JSON object."""
CONFIG_FILES = ("config.json", "scheduler_config.json")
"""Files with the sizes of a model. Those of tokenizers use huge numbers for "no limit"."""
MAX_LAYERS = 1000
MAX_SIZE = 10**8
LIBRARIES = ("diffusers", "transformers", "authface_train")
"""Packages whose classes a `model_index.json` may name."""
MAX_HEADER_BYTES = 100_000_000
"""The format's own limit for the header of a safetensors file."""
ADVICE = "get the original file, or use another model"


def check_model_files(folder: Path) -> None:
    """Check the configuration files of a model and the headers of its weights.

    Args:
        folder: A folder of diffusers or transformers, with or without a folder for each part.

    Raises:
        UserError: If a file is damaged, or the index names a class of another package.
    """
    for path in [*sorted(folder.glob("*.json")), *sorted(folder.glob("*/*.json"))]:
        if path.name.endswith(OBJECT_SUFFIXES):
            values = read_json_object(path, ADVICE)
            if path.name in CONFIG_FILES:
                _check_numbers(path, values)
    for path in [*sorted(folder.glob("*.safetensors")), *sorted(folder.glob("*/*.safetensors"))]:
        try:
            _check_safetensors(path)
        except OSError as error:
            raise UserError(
                f"{path} cannot be read ({error.strerror or error}); {ADVICE}"
            ) from error
        except ValueError as error:
            raise UserError(f"{path} is damaged ({excerpt(str(error))}); {ADVICE}") from error
    if (folder / MODEL_INDEX_FILE).is_file():
        _check_index(folder / MODEL_INDEX_FILE)


def _check_numbers(path: Path, values: dict[str, JsonValue]) -> None:
    """Refuse sizes that no model has: building the model would not end, or fill the memory."""
    for key, value in values.items():
        if isinstance(value, dict):
            _check_numbers(path, value)
        limit = MAX_LAYERS if "layer" in key else MAX_SIZE
        numbers = value if isinstance(value, list) else [value]
        if any(isinstance(number, int) and abs(number) > limit for number in numbers):
            raise UserError(f"{path} is damaged ({excerpt(key, 40)} is too large); {ADVICE}")


def _check_index(path: Path) -> None:
    """Check that the parts of a pipeline are pairs of a known package and a class."""
    for name, value in read_json_object(path, ADVICE).items():
        if not isinstance(value, list):
            continue
        is_pair = len(value) == 2 and all(item is None or isinstance(item, str) for item in value)
        package = str(value[0]).split(".")[0] if is_pair else ""
        if not is_pair or (value[0] is not None and package not in LIBRARIES):
            raise UserError(
                f"{path} is damaged ({excerpt(name, 40)} does not name a class of "
                f"{' or '.join(LIBRARIES)}); {ADVICE}"
            )


def _check_safetensors(path: Path) -> None:
    """Raise ValueError if the header of a file does not describe its content.

    Format: https://huggingface.co/docs/safetensors
    """
    file_bytes = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if file_bytes < 8 or length > min(MAX_HEADER_BYTES, file_bytes - 8):
            raise ValueError("its header is cut off")
        header = parse_json_object(file.read(length))
    content_bytes = file_bytes - 8 - length
    ends = [_tensor_end(name, entry) for name, entry in header.items() if name != "__metadata__"]
    if max(ends, default=0) != content_bytes:
        raise ValueError(
            f"it holds {content_bytes:,} bytes of tensors instead of {max(ends, default=0):,}"
        )


def _tensor_end(name: str, entry: JsonValue) -> int:
    """Offset of the end of a tensor in the file."""
    offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
    if isinstance(offsets, list) and len(offsets) == 2 and isinstance(offsets[1], int):
        return offsets[1]
    raise ValueError(f"its entry {excerpt(name, 40)} is malformed")


@contextmanager
def explain_loading(model: object, advice: str = ADVICE) -> Iterator[None]:
    """Turn any error while a library loads a model into a UserError of one line.

    Missing files and full memory keep their errors: other code says what to do about them.

    Args:
        model: The model or the part that is loaded, for the message.
        advice: What the user can do; the end of the message.
    """
    try:
        yield
    except (AuthfaceError, OSError, MemoryError):
        raise
    except Exception as error:
        if type(error).__name__ == "OutOfMemoryError":  # of torch, which this module cannot import
            raise
        reason = excerpt(str(error)) or type(error).__name__
        raise UserError(f"{model} cannot be loaded ({reason}); {advice}") from error
