"""The folder of a training run: every file name, and readers that both halves use.

Once training is finished, a run folder is a diffusers model folder (`model_index.json` is written
last). It also holds the record of how the run was started, its checkpoints, metrics and pictures.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from manifests.workspace import Workspace

RUNS = "runs"
"""Folder of a workspace that holds its runs."""

RUN_FILE = "run.json"
"""What a run was started with: stage, settings, base, data fingerprint, number of processes."""
METRICS_FILE = "metrics.csv"
"""Losses of every step."""
NOTES_FILE = "authface.json"
"""What restoring must know about a finished model, such as `stage` and `untrained`."""
MODEL_INDEX_FILE = "model_index.json"
"""Index of a diffusers pipeline; present once the model is complete."""
MODEL_CARD_FILE = "README.md"
"""Model card in the format of the Hugging Face hub."""
LINEAGE_FILE = "lineage.parquet"
"""One row per training face and stage: photograph, photographer, licence basis."""
CHECKPOINTS = "checkpoints"
"""Checkpoints by step, `step-00001000`."""
LOGS = "logs"
"""TensorBoard event files."""
LORA = "lora"
"""LoRA layers of a Stage I run with `lora_rank`."""
PREVIEWS = "drawn"
"""Preview grids of Stage I, `step-00001000.png`."""
AUDIT = "audit"
"""Memorisation audit of Stage I."""
AUDIT_FILE = "audit.csv"
"""Metrics of every audit, in `AUDIT`."""
VALIDATION = "validation"
"""Validation strips and metrics of Stage II."""
VALIDATION_FILE = "validation.csv"
"""Metrics of every validation, in `VALIDATION`."""
GRADIENT_LEDGER_FILE = "ledger.csv"
"""Gradient norms of the parts of the Stage II loss."""


def step_name(step: int, suffix: str = "") -> str:
    """Name of a checkpoint folder or picture of a step.

    Args:
        step: The training step.
        suffix: File name suffix with the dot.

    Returns:
        Such as "step-00001000.png".
    """
    return f"step-{step:08d}{suffix}"


def is_finished(folder: Path) -> bool:
    """Whether a run folder holds a complete model."""
    return (folder / MODEL_INDEX_FILE).is_file()


def read_run(folder: Path) -> dict[str, Any] | None:
    """Read how a run was started (`run.json`). Returns None if the folder has no run."""
    return _read_json(folder / RUN_FILE)


def read_notes(folder: Path) -> dict[str, Any]:
    """Read the notes of a finished model (`authface.json`). Returns {} if the folder has none."""
    return _read_json(folder / NOTES_FILE) or {}


def _read_json(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text("utf-8")) if path.is_file() else None


@dataclass(frozen=True)
class WorkspaceRun:
    """Reads a run folder inside a workspace, which need not be on a local file system.

    Attributes:
        workspace: The workspace.
        name: Name of the folder in `runs/`.
    """

    workspace: Workspace
    name: str

    def read_file(self, path: str) -> bytes | None:
        """Read a file of the run folder. Returns None if it is missing."""
        full_path = f"{RUNS}/{self.name}/{path}"
        return self.workspace.read_bytes(full_path) if self.workspace.exists(full_path) else None

    def is_finished(self) -> bool:
        """Whether the folder holds a complete model."""
        return self.workspace.exists(f"{RUNS}/{self.name}/{MODEL_INDEX_FILE}")

    def read_run(self) -> dict[str, Any] | None:
        """Read how the run was started. Returns None if the folder has no run."""
        content = self.read_file(RUN_FILE)
        return None if content is None else json.loads(content)

    def read_notes(self) -> dict[str, Any]:
        """Read the notes of a finished model. Returns {} if the folder has none."""
        return json.loads(self.read_file(NOTES_FILE) or b"{}")

    def lineage_photo_ids(self) -> set[str]:
        """Ids of the photographs that the run has learned from."""
        path = f"{RUNS}/{self.name}/{LINEAGE_FILE}"
        if not self.workspace.exists(path):
            return set()
        with self.workspace.open(path) as file:
            return set(pq.read_table(file, columns=["photo_id"])["photo_id"].to_pylist())


def list_runs(workspace: Workspace) -> list[WorkspaceRun]:
    """List the folders in the workspace's `runs/`, sorted by name."""
    return [WorkspaceRun(workspace, name) for name in workspace.list_names(RUNS)]
