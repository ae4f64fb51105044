"""Uploads to the Hugging Face hub, and what of a model is uploaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pandas as pd

from manifests.licence_policy import has_basis
from manifests.run_folder import LINEAGE_FILE, MODEL_INDEX_FILE, is_finished
from manifests.support.errors import MissingResourceError, UserError
from manifests.support.hub import HUB_ID
from manifests.support.text import count_of, excerpt

RepositoryKind = Literal["model", "dataset"]
MODEL_SUFFIXES = (".json", ".safetensors", ".txt", ".md", ".parquet", ".model")
"""Suffixes of the files of a model. Pictures and logs of the run stay here."""
PRIVATE_FOLDERS = ("checkpoints", "logs", "drawn", "audit", "validation")
"""Folders of a run that are never uploaded: checkpoints, and pictures of people."""


def check_repository(name: str) -> None:
    """Check the name of a repository.

    Raises:
        UserError: If it is not OWNER/NAME.
    """
    if not HUB_ID.fullmatch(name):
        raise UserError(f"--repo {name}: use OWNER/NAME, as on the Hugging Face hub")


def list_model_files(folder: Path) -> list[Path]:
    """The files of a finished model that are uploaded, relative to its folder.

    Args:
        folder: Folder of a run, or an exported model folder.

    Raises:
        UserError: If the model is not finished, its lineage is missing, or it has learned from
            photographs without a licence basis.
    """
    if not is_finished(folder):
        raise UserError(f"{folder} holds no finished model ({MODEL_INDEX_FILE} is missing)")
    lineage = folder / LINEAGE_FILE
    if not lineage.is_file():
        raise UserError(
            f"{folder} has no {LINEAGE_FILE}: the photographs in the model are unknown, and it is "
            "not pushed"
        )
    photos = pd.read_parquet(lineage, columns=["photo_id", "licence_basis"])
    unknown = photos.loc[~photos["licence_basis"].map(has_basis).astype(bool), "photo_id"]
    if len(unknown):
        raise UserError(
            f"the model has learned from {count_of(unknown.nunique(), 'photograph')} without a "
            f"licence basis (first: {unknown.iloc[0]}); train it again without "
            "--allow-unknown-licence"
        )
    files = [path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file()]
    return [
        path
        for path in files
        if path.suffix in MODEL_SUFFIXES
        and path.parts[0] not in PRIVATE_FOLDERS
        and not path.name.startswith(".")
    ]


def upload(
    repository: str, kind: RepositoryKind, folder: Path, files: Sequence[Path], *, public: bool
) -> str:
    """Create a repository, if necessary, and upload files to it in one commit.

    Args:
        repository: OWNER/NAME.
        kind: Kind of the repository.
        folder: Folder of the files.
        files: Paths relative to the folder.
        public: Whether a new repository is public.

    Returns:
        The address of the repository.

    Raises:
        MissingResourceError: If no token is set, or the hub cannot be reached.
        UserError: If the hub refuses the upload.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, get_token
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    if get_token() is None:
        raise MissingResourceError(
            "the Hugging Face hub needs a token with write access; set HF_TOKEN, or run "
            "`hf auth login`"
        )
    api = HfApi()
    additions = [CommitOperationAdd(path.as_posix(), str(folder / path)) for path in files]
    try:
        address = api.create_repo(repository, repo_type=kind, private=not public, exist_ok=True)
        api.create_commit(
            repository, additions, commit_message="Upload by authface push", repo_type=kind
        )
    except HfHubHTTPError as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"the hub refused the upload to {repository} ({reason})") from error
    except Exception as error:
        # The hub's library raises the errors of its HTTP client, whose name depends on the version.
        is_network = isinstance(error, OfflineModeIsEnabled | OSError)
        if not is_network and not type(error).__module__.startswith("httpx"):
            raise
        raise MissingResourceError(
            f"the Hugging Face hub cannot be reached ({excerpt(str(error))}); push from a machine "
            "with network access"
        ) from error
    return str(address)
