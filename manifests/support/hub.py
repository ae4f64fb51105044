"""Models of the Hugging Face hub: local folders, downloads, and the error for missing weights."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from manifests.support.errors import MissingResourceError, UserError
from manifests.support.text import did_you_mean

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")

RUNS = "runs"
"""Folder of the runs of a workspace, which is no owner of models."""

FILE_SUFFIXES = (".safetensors", ".ckpt", ".bin", ".gguf", ".pt", ".pth")
"""Ends of the names of model files, which a hub id does not have."""

CONFIG_PATTERNS = ["*.json", "*/*.json"]
"""Files of a pipeline that are downloaded before its weights."""

MAX_REASON_LENGTH = 160


def resolve_model(model: str, weights_dir: str | None, *, allow_file: bool = False) -> str:
    """Find a model on the disk.

    Args:
        model: A folder, or a hub id as owner/name.
        weights_dir: A folder that may contain the model under its name.
        allow_file: Whether the model may also be a file.

    Returns:
        A local folder or file if there is one, else the hub id for the library to find or download.

    Raises:
        UserError: If `model` is neither on the disk nor a possible hub id.
    """
    forms = "a model folder or a .safetensors file" if allow_file else "a model folder"
    for place in [model, *([str(Path(weights_dir, model))] if weights_dir else [])]:
        if Path(place).is_dir() or (allow_file and Path(place).is_file()):
            return place
        if Path(place).exists():
            raise UserError(f"{place} is a file; use {forms}")
    if not HUB_ID.fullmatch(model) or model.lower().endswith(FILE_SUFFIXES):
        raise UserError(
            f"there is no {model} on the disk; use {forms}, or a model of the Hugging Face hub as "
            "owner/name"
        )
    owner, _, name = model.partition("/")
    if Path(owner).is_dir() or owner == RUNS:
        names = [path.name for path in Path(owner).glob("*") if path.is_dir()]
        raise UserError(f"there is no folder {model}{did_you_mean(name, names)}")
    return model


def missing_model_error(
    model: str, files: str, weights_dir: str | None, error: Exception
) -> MissingResourceError:
    """Create the error for a model that is not on the disk and cannot be downloaded.

    Args:
        model: The hub id.
        files: The required files, in words.
        weights_dir: Where the user may put them.
        error: What the download raised.
    """
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    target = Path(weights_dir, model) if weights_dir else "a folder, and pass that folder instead"
    return MissingResourceError(
        f"the weights of {model} are missing and could not be downloaded "
        f"({reason[:MAX_REASON_LENGTH]}); get {files} of {model} from the Hugging Face hub and put "
        f"them into {target}"
    )


def download_model(model: str, weights_dir: str | None, files: str) -> Path:
    """Return the local folder of a model and download it if necessary.

    Args:
        model: A folder, or a hub id as owner/name.
        weights_dir: A folder that may contain the model under its hub id.
        files: The required files in words, for the error message.

    Returns:
        The local folder.

    Raises:
        UserError: If `model` is neither a folder nor a possible hub id.
        MissingResourceError: If the download fails.
    """
    location = resolve_model(model, weights_dir)
    if Path(location).is_dir():
        return Path(location)
    from huggingface_hub import snapshot_download

    with explain_download(model, files, weights_dir):
        return Path(snapshot_download(location))


def download_configs(model: str, weights_dir: str | None, files: str) -> Path:
    """Return a local folder with the configurations of a pipeline on the hub, without its weights.

    Args:
        model: The hub id.
        weights_dir: Where the user may put the model, for the message.
        files: The required files in words, for the message.

    Raises:
        MissingResourceError: If the download fails.
    """
    from huggingface_hub import snapshot_download

    with explain_download(model, files, weights_dir):
        return Path(snapshot_download(model, allow_patterns=CONFIG_PATTERNS))


@contextmanager
def explain_download(model: str, files: str, weights_dir: str | None) -> Iterator[None]:
    """Turn the errors of a download into a MissingResourceError.

    Args:
        model: The hub id.
        files: The required files in words.
        weights_dir: Where the user may put the model.
    """
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        yield
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        raise missing_model_error(model, files, weights_dir, error) from error
