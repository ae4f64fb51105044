"""Problems of a workspace: settings, manifests, missing and damaged files, runs."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from manifests.missing_files import find_missing_files, name_some
from manifests.run_folder import list_runs, resume_command
from manifests.schema import FACES, MANIFESTS, PHOTOS, Manifest
from manifests.store import Store
from manifests.support.errors import UserError
from manifests.support.progress import track
from manifests.support.text import count_of
from manifests.workspace import Workspace

ResultT = TypeVar("ResultT")

READ_BLOCK_BYTES = 1 << 20
MAX_FILES_READ = 1000
"""Largest number of photographs and of crops whose content is compared with their hashes."""


@dataclass(frozen=True)
class Problem:
    """A problem of a workspace.

    Attributes:
        what: What is wrong, in one line.
        repair: What to do: a command, or a sentence if no command helps.
    """

    what: str
    repair: str


@dataclass(frozen=True)
class WorkspaceCheck:
    """The state of a workspace.

    Attributes:
        workspace: Its folder or URL.
        rows: Manifest -> number of its rows. Manifests that cannot be read are left out.
        files_read: Number of photographs and crops whose content was compared with their hashes.
        files: Number of all photographs and crops.
        problems: What is wrong.
    """

    workspace: str
    rows: dict[str, int]
    files_read: int
    files: int
    problems: list[Problem]


def check_workspace(workspace: Workspace) -> WorkspaceCheck:
    """Check the manifests and the files of a workspace. Nothing is changed.

    At most `MAX_FILES_READ` photographs and crops are read, evenly spread.

    Args:
        workspace: The workspace.
    """
    problems: list[Problem] = []
    rows: dict[str, int] = {}
    for name, manifest in MANIFESTS.items():
        count = _attempt(problems, functools.partial(_count_rows, workspace, manifest))
        if count is not None:
            rows[name] = count

    _attempt(problems, workspace.check_no_interrupted_forget)

    files_read = num_files = 0
    if {PHOTOS.name, FACES.name} <= rows.keys():
        problems += _missing_file_problems(workspace)
        files_read, num_files, damaged = _check_contents(workspace)
        problems += damaged
    problems += _run_problems(workspace)
    return WorkspaceCheck(workspace.root, rows, files_read, num_files, problems)


def _count_rows(workspace: Workspace, manifest: Manifest) -> int:
    """Number of rows; their keys are read, so that damaged parts are found."""
    return len(Store(workspace, manifest).read(list(manifest.key)))


def _attempt(problems: list[Problem], action: Callable[[], ResultT]) -> ResultT | None:
    """Do something; a UserError becomes a problem, whose message ends with the repair."""
    try:
        return action()
    except UserError as error:
        what, _, repair = str(error).partition("; ")
        problems.append(Problem(what, repair))
        return None


def _missing_file_problems(workspace: Workspace) -> Iterator[Problem]:
    missing = find_missing_files(workspace)
    absent = sorted(set(missing.photo_ids) - set(missing.broken_links))
    if absent:
        yield Problem(
            f"{count_of(len(absent), 'photograph has', 'photographs have')} no file "
            f"({name_some(absent)})",
            "authface collect, with the folder or source that they came from",
        )
    if missing.broken_links:
        yield Problem(
            f"{count_of(len(missing.broken_links), 'link')} to photographs whose original is gone "
            f"({name_some(missing.broken_links)})",
            "bring the originals back, or authface collect from their new folder",
        )
    if missing.face_ids:
        yield Problem(
            f"{count_of(len(missing.face_ids), 'face has', 'faces have')} no crop "
            f"({name_some(missing.face_ids)})",
            "authface filter",
        )


def _check_contents(workspace: Workspace) -> tuple[int, int, list[Problem]]:
    """Compare files with the hashes of their rows.

    Returns:
        The number of files that were read, the number of all files, and the problems.
    """
    num_read = num_files = 0
    problems = []
    for manifest, path_column, hash_column, repair in (
        (
            PHOTOS,
            "path",
            "sha256",
            "restore the files from a backup, or remove them and collect again",
        ),
        (FACES, "crop_path", "crop_sha256", "remove these crops, then authface filter"),
    ):
        key = manifest.key[0]
        rows = Store(workspace, manifest).read([key, path_column, hash_column]).to_pylist()
        rows = [row for row in rows if row[path_column] and row[hash_column]]
        num_files += len(rows)
        selected = rows[:: max(1, -(-len(rows) // MAX_FILES_READ))]
        damaged = []
        for row in track(selected, f"reading {manifest.name}", unit="files"):
            digest = _hash_file(workspace, row[path_column])
            num_read += digest is not None
            if digest is not None and digest != row[hash_column]:
                damaged.append(row[key])
        if damaged:
            problems.append(
                Problem(
                    f"{count_of(len(damaged), 'file')} of {manifest.name} damaged or changed "
                    f"({name_some(damaged)})",
                    repair,
                )
            )
    return num_read, num_files, problems


def _hash_file(workspace: Workspace, path: str) -> str | None:
    """SHA-256 of a file, or None if it is missing."""
    try:
        digest = hashlib.sha256()
        with workspace.open(path) as file:
            while block := file.read(READ_BLOCK_BYTES):
                digest.update(block)
        return digest.hexdigest()
    except FileNotFoundError:
        return None


def _run_problems(workspace: Workspace) -> list[Problem]:
    problems: list[Problem] = []
    for run in list_runs(workspace):
        record = _attempt(problems, run.read_run)
        if record is not None and not run.is_finished():
            command = resume_command(str(record.get("stage")), run.name)
            problems.append(
                Problem(f"the run {run.name} is not finished", f"{command}, with its other options")
            )
    return problems
