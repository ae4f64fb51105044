"""Models of the Hugging Face hub: local folders, downloads, and the error for missing weights."""

from __future__ import annotations

import re
from pathlib import Path

from manifests.support.errors import MissingResourceError, UserError

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")

MAX_REASON_LENGTH = 160


def resolve_model(model: str, weights_dir: str | None) -> str:
    """Find a model on the disk.

    Args:
        model: A folder, or a hub id as owner/name.
        weights_dir: A folder that may contain the model under its hub id.

    Returns:
        A local folder if there is one, else the hub id for the library to find or download.

    Raises:
        UserError: If `model` is neither a folder nor a possible hub id.
    """
    if Path(model).is_dir():
        return model
    if weights_dir and Path(weights_dir, model).is_dir():
        return str(Path(weights_dir, model))
    if not HUB_ID.fullmatch(model):
        raise UserError(
            f"no model folder {model}; name a folder, or a model of the Hugging Face hub as "
            "owner/name"
        )
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
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        return Path(snapshot_download(location))
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        raise missing_model_error(model, files, weights_dir, error) from error
