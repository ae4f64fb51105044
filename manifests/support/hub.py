"""Where a model of the hub is looked for, and what is said when it cannot be had."""

from __future__ import annotations

import re
from pathlib import Path

from manifests.support.errors import MissingResourceError, UserError

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def resolve_model(model: str, weights_dir: str | None) -> str:
    """A local folder if `model` is one or weights_dir has it; else the hub id, for the library to find or download.

    Raises UserError for what is neither a folder nor can be a hub id.
    """
    if Path(model).is_dir():
        return model
    if weights_dir and Path(weights_dir, model).is_dir():
        return str(Path(weights_dir, model))
    if not HUB_ID.fullmatch(model):
        raise UserError(
            f"{model} is not there: name a folder, or a model of the Hugging Face hub as owner/name"
        )
    return model


def missing_model_error(
    model: str, files: str, weights_dir: str | None, error: Exception
) -> MissingResourceError:
    """The error for a model that is neither here nor to be had. files: the ones wanted, in words."""
    place = Path(weights_dir, model) if weights_dir else "a folder, and name that folder instead"
    why = str(error).splitlines()[0] if str(error) else type(error).__name__
    return MissingResourceError(
        f"the weights of {model} are not here and could not be downloaded ({why[:160]}): "
        f"get {files} of {model} from the Hugging Face hub, and put them into {place}"
    )


def download_model(model: str, weights_dir: str | None, files: str) -> Path:
    """The local folder of a model, downloaded where it is a hub id that is not there yet. files: those wanted, in words.

    Raises UserError and MissingResourceError as `locate` and `missing` do.
    """
    where = resolve_model(model, weights_dir)
    if Path(where).is_dir():
        return Path(where)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        return Path(snapshot_download(where))
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        raise missing_model_error(model, files, weights_dir, error) from error
