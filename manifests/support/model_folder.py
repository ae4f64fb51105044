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
from manifests.support.parsing import read_json_object
from manifests.support.safetensors_header import SafetensorsHeader, read_header
from manifests.support.text import excerpt

if TYPE_CHECKING:
    from pydantic import JsonValue

OBJECT_SUFFIXES = ("config.json", "index.json", "vocab.json", "tokenizer.json", "_map.json")
"""Ends of the names of files that hold a JSON object."""
SCHEDULER_CONFIG_FILE = "scheduler_config.json"
CONFIG_FILES = ("config.json", SCHEDULER_CONFIG_FILE)
"""Files with the sizes of a model. Those of tokenizers use huge numbers for "no limit"."""
MAX_LAYERS = 1000
MAX_SIZE = 10**8
LIBRARIES = ("diffusers", "transformers", "authface_train")
"""Packages whose classes a `model_index.json` may name."""
ADVICE = "get the original file, or use another model"


def check_model_files(folder: Path) -> None:
    """Check the configuration files of a model and the headers of its weights.

    Args:
        folder: A folder of diffusers or transformers, with or without a folder for each part.

    Raises:
        UserError: If a file is damaged, or the index names a class of another package.
    """
    check_config_files(folder)
    for path in [*sorted(folder.glob("*.safetensors")), *sorted(folder.glob("*/*.safetensors"))]:
        read_weights_header(path)


def check_config_files(folder: Path) -> None:
    """Check the configuration files of a model.

    Args:
        folder: A folder of diffusers or transformers, with or without a folder for each part.

    Raises:
        UserError: If a file is damaged, or the index names a class of another package.
    """
    for path in [*sorted(folder.glob("*.json")), *sorted(folder.glob("*/*.json"))]:
        if path.name.endswith(OBJECT_SUFFIXES):
            read_config(path)
    read_index(folder)


def read_config(path: Path) -> dict[str, JsonValue]:
    """Read a configuration file of a model.

    Raises:
        UserError: If the file is damaged, or a size is impossible.
    """
    # diffusers writes -Infinity for `lambda_min_clipped` of DPMSolverMultistepScheduler.
    values = read_json_object(path, ADVICE, allow_infinity=path.name == SCHEDULER_CONFIG_FILE)
    if path.name in CONFIG_FILES:
        _check_numbers(path, values)
    return values


def read_index(folder: Path) -> dict[str, JsonValue]:
    """Read the index of a pipeline folder.

    Returns:
        The index, or {} if the folder has none.

    Raises:
        UserError: If the index is damaged, or names a class of another package.
    """
    path = folder / MODEL_INDEX_FILE
    if not path.is_file():
        return {}
    index = read_config(path)
    _check_index(path, index)
    return index


def read_weights_header(path: Path) -> SafetensorsHeader:
    """Read the header of a safetensors file.

    Raises:
        UserError: If the file cannot be read or is damaged.
    """
    try:
        return read_header(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}); {ADVICE}") from error
    except ValueError as error:
        raise UserError(f"{path} is damaged ({excerpt(str(error))}); {ADVICE}") from error


def _check_numbers(path: Path, values: dict[str, JsonValue]) -> None:
    """Refuse sizes that no model has: building the model would not end, or fill the memory."""
    for key, value in values.items():
        if isinstance(value, dict):
            _check_numbers(path, value)
        limit = MAX_LAYERS if "layer" in key else MAX_SIZE
        numbers = value if isinstance(value, list) else [value]
        if any(isinstance(number, int) and abs(number) > limit for number in numbers):
            raise UserError(f"{path} is damaged ({excerpt(key, 40)} is too large); {ADVICE}")


def _check_index(path: Path, index: dict[str, JsonValue]) -> None:
    """Check that the parts of a pipeline are pairs of a known package and a class."""
    for name, value in index.items():
        if not isinstance(value, list):
            continue
        is_pair = len(value) == 2 and all(item is None or isinstance(item, str) for item in value)
        package = str(value[0]).split(".")[0] if is_pair else ""
        if not is_pair or (value[0] is not None and package not in LIBRARIES):
            raise UserError(
                f"{path} is damaged ({excerpt(name, 40)} does not name a class of "
                f"{' or '.join(LIBRARIES)}); {ADVICE}"
            )


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
