"""The register of training runs: where the models are that learned from a workspace's photographs.

A run may write its folder anywhere (`--output`). The register lists them all, one JSON object per
line, so that `authface forget` and `authface explain` can name the models of a photograph.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from manifests.run_folder import LINEAGE_FILE
from manifests.support.parsing import parse_json_object
from manifests.workspace import Workspace

REGISTER_FILE = "manifests/runs.jsonl"


@dataclass(frozen=True)
class RegisteredRun:
    """A run that was started with the photographs of a workspace.

    Attributes:
        folder: The run folder: relative if it is inside the workspace, else absolute.
        stage: "prior" or "restorer".
        started_at: When it was started, in ISO format.
    """

    folder: str
    stage: str
    started_at: str


@dataclass(frozen=True)
class TrainedRuns:
    """What the register knows about some photographs.

    Attributes:
        outside: Folders outside the workspace whose models learned from one of them.
        unreadable: Folders that have moved or are gone, or whose lineage is damaged. Their models
            may have learned from the photographs.
    """

    outside: list[str]
    unreadable: list[str]


def register_run(workspace: Workspace, folder: Path, stage: str) -> None:
    """Add a run to the register. Several processes may do so at once, without the lock.

    Args:
        workspace: The workspace whose photographs the run trains on.
        folder: The run folder.
        stage: "prior" or "restorer".
    """
    path = Path(os.path.realpath(folder))
    name = str(path)
    if workspace.is_local:
        root = Path(os.path.realpath(workspace.root))
        if path.is_relative_to(root):
            name = path.relative_to(root).as_posix()
    run = {"folder": name, "stage": stage, "started_at": datetime.now(UTC).isoformat()}
    workspace.append_line(REGISTER_FILE, json.dumps(run))


def list_registered_runs(workspace: Workspace) -> list[RegisteredRun]:
    """List the registered runs in the order of their start, the last one of every folder."""
    if not workspace.exists(REGISTER_FILE):
        return []
    run_of_folder: dict[str, RegisteredRun] = {}
    for line in workspace.read_bytes(REGISTER_FILE).decode("utf-8", "replace").splitlines():
        try:
            values = parse_json_object(line)
            run = RegisteredRun(**{key: str(value) for key, value in values.items()})
        except (ValueError, TypeError, AttributeError):
            continue  # a line that a crash cut off
        run_of_folder.pop(run.folder, None)
        run_of_folder[run.folder] = run
    return list(run_of_folder.values())


def find_trained_runs(workspace: Workspace, photo_ids: Collection[str]) -> TrainedRuns:
    """Find the registered runs that learned from photographs.

    Runs inside the workspace are listed only if they are unreadable; the others are found by their
    lineage.

    Args:
        workspace: The workspace.
        photo_ids: The photographs.
    """
    outside = []
    unreadable = []
    for run in list_registered_runs(workspace):
        lineage = _read_lineage_ids(workspace, run.folder)
        if lineage is None:
            unreadable.append(run.folder)
        elif Path(run.folder).is_absolute() and not lineage.isdisjoint(photo_ids):
            outside.append(run.folder)
    return TrainedRuns(outside, unreadable)


def _read_lineage_ids(workspace: Workspace, folder: str) -> set[str] | None:
    """Ids of the photographs in the lineage of a run; None if it is missing or damaged."""
    path = f"{folder}/{LINEAGE_FILE}"
    try:
        with open(path, "rb") if Path(folder).is_absolute() else workspace.open(path) as file:
            return set(pq.read_table(file, columns=["photo_id"])["photo_id"].to_pylist())
    except (OSError, pa.ArrowException, KeyError):
        return None
