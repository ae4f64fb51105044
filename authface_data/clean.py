"""What can be removed from a workspace without losing data: caches, copies, old checkpoints."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from manifests.lock import LOCK
from manifests.run_folder import CHECKPOINTS, RUNS, list_runs
from manifests.support.cache_folder import cache_dir
from manifests.workspace import Workspace

Kind = Literal["cache", "temporary", "copies", "checkpoints"]
KINDS: tuple[Kind, ...] = get_args(Kind)

CACHES = {
    "cache/crops": "crops for training; the next run makes them again",
    "cache/latents": "encoded crops; the next run makes them again, which takes a GPU",
    "cache/prompts": "encoded captions; the next run makes them again",
    "cache/descriptors": "face descriptors; the next audit makes them again",
    "cache/memory": "memory estimates; the next run makes them again",
    "cache/previews": "previews of web photographs",
}
"""Folder of the workspace that can be computed again -> what it holds. Answers of servers and the
state of an API's limits stay."""
COPIES = "manifests/.before-"
"""Start of the folders in which `authface migrate` keeps old manifests."""


@dataclass(frozen=True)
class Removable:
    """A file or folder that can be removed.

    Attributes:
        kind: What it is.
        path: Its path.
        size: Its size in bytes.
        description: What it holds.
    """

    kind: Kind
    path: str
    size: int
    description: str


def list_removable(workspace: Workspace, kinds: Sequence[Kind] = KINDS) -> list[Removable]:
    """List what can be removed from a workspace, the largest first.

    Checkpoints are those of finished runs, except the newest one of each, and none of a run that a
    process holds. For a workspace in an object store only the cache on this machine is listed.

    Args:
        workspace: The workspace.
        kinds: The kinds to list.
    """
    found: list[tuple[Kind, Path, str]] = []
    local = workspace.local_cache
    found += [("cache", local.local_path(path), text) for path, text in CACHES.items()]
    if workspace.is_local:
        found += [
            ("temporary", workspace.local_path(path), "unfinished file of a dead process")
            for path in workspace.list_dead_temp()
        ]
        downloads = workspace.local_path("cache/downloads")
        found += [("temporary", path, "unfinished download") for path in _list(downloads)]
        folder = workspace.local_path(COPIES)
        found += [
            ("copies", path, "manifests before `authface migrate`")
            for path in folder.parent.glob(f"{folder.name}*")
        ]
        for run in list_runs(workspace):
            run_folder = workspace.local_path(f"{RUNS}/{run.name}")
            if run.is_finished() and not (run_folder / LOCK).exists():
                steps = sorted(_list(run_folder / CHECKPOINTS))
                found += [("checkpoints", path, "of a finished run") for path in steps[:-1]]

    items = [
        Removable(kind, str(path), _size(path), description)
        for kind, path, description in found
        if kind in kinds and path.exists()
    ]
    return sorted(items, key=lambda item: (-item.size, item.path))


def remove(items: Sequence[Removable]) -> None:
    """Remove files and folders. The workspace must be locked.

    Args:
        items: What to remove.
    """
    for item in items:
        path = Path(item.path)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _list(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _size(path: Path) -> int:
    """Size of a file, or of all files of a folder, in bytes."""
    if not path.is_dir():
        return path.lstat().st_size
    return sum(file.lstat().st_size for file in path.rglob("*") if file.is_file())


def machine_cache() -> tuple[str, int]:
    """The cache of this machine (weights and the demo's photographs) and its size in bytes."""
    folder = cache_dir()
    return str(folder), _size(folder) if folder.is_dir() else 0
