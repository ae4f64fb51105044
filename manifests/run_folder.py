"""The files of a training run: every file name, and readers that both halves use.

A run folder is a diffusers model folder once training is finished (`model_index.json` is written
last), and it keeps what the run was started with, its checkpoints, metrics and pictures.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

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
LINEAGE_FILE = "lineage.parquet"
"""One row per training face and stage: photograph, photographer, licence basis."""
CHECKPOINTS = "checkpoints"
LOGS = "logs"
"""TensorBoard event files."""
LORA = "lora"
"""LoRA layers of a Stage I run with `lora_rank`."""
PREVIEWS = "drawn"
"""Preview grids of Stage I, `step-00001000.png`."""
AUDIT = "audit"
"""Memorisation audit of Stage I."""
AUDIT_FILE = "audit.csv"
VALIDATION = "validation"
"""Validation strips and metrics of Stage II."""
VALIDATION_FILE = "validation.csv"
GRADIENT_LEDGER_FILE = "ledger.csv"


def step_name(step: int, suffix: str = "") -> str:
    """Name of a checkpoint folder or picture of a step, "step-00001000.png"."""
    return f"step-{step:08d}{suffix}"


def is_finished(folder: Path) -> bool:
    """Whether a run folder holds a complete model."""
    return (folder / MODEL_INDEX_FILE).is_file()


def read_run(folder: Path) -> dict[str, Any] | None:
    """What a run was started with (the content of `run.json`), or None if there is no run."""
    return _read_json(folder / RUN_FILE)


def read_notes(folder: Path) -> dict[str, Any]:
    """The notes of a finished model, or {} if the folder has none."""
    return _read_json(folder / NOTES_FILE) or {}


def list_runs(workspace: Workspace) -> list[str]:
    """Names of the workspace's runs, sorted."""
    return [
        name for name in workspace.list_names(RUNS) if workspace.exists(f"{RUNS}/{name}/{RUN_FILE}")
    ]


def _read_json(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text("utf-8")) if path.is_file() else None
