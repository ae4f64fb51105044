"""The folder of a training run: every file name, and readers that both halves use.

Once training is finished, a run folder is a diffusers model folder (`model_index.json` is written
last). It also holds the record of how the run was started, its checkpoints, metrics and pictures.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from manifests.support.errors import UserError
from manifests.support.parsing import parse_json_object
from manifests.support.text import excerpt
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
VALIDATION_FACES_FILE = "faces.csv"
"""Ids of the faces that the validation strips show, in `VALIDATION`."""
GRADIENT_LEDGER_FILE = "ledger.csv"
"""Gradient norms of the parts of the Stage II loss."""
ADVICE = "restore it from a backup, or remove the run and start another"


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
    """Read how a run was started (`run.json`).

    Returns:
        The record, or None if the folder has no run.

    Raises:
        UserError: If the file is damaged.
    """
    path = folder / RUN_FILE
    return _parse(path.read_bytes(), path, _RunRecord) if path.is_file() else None


def read_notes(folder: Path) -> dict[str, Any]:
    """Read the notes of a finished model (`authface.json`).

    Returns:
        The notes, or {} if the folder has none.

    Raises:
        UserError: If the file is damaged.
    """
    path = folder / NOTES_FILE
    return _parse(path.read_bytes(), path, _Notes) if path.is_file() else {}


def resume_command(stage: str, name: str) -> str:
    """The command that continues a run in the `runs/` of a workspace.

    Args:
        stage: "prior" or "restorer".
        name: Name of the run's folder. The default name tells the preset.
    """
    command = "train-prior" if stage == "prior" else "train-restore"
    if name.startswith(f"{stage}-"):
        return f"authface {command} --preset {name.removeprefix(f'{stage}-')} --resume"
    return f"authface {command} --output {RUNS}/{name} --resume"


class _RunRecord(BaseModel):
    """The types of the values in `run.json`."""

    model_config = ConfigDict(strict=True)

    stage: str = ""
    settings: dict[str, JsonValue] = {}
    processes: int | None = None
    data: str = ""
    base: str = ""
    base_digest: str = ""


class _Notes(BaseModel):
    """The types of the values in `authface.json`."""

    model_config = ConfigDict(strict=True)

    stage: str = ""
    resolution_px: int | None = Field(None, ge=64, le=8192, multiple_of=8)
    time_ids: list[float] | None = Field(None, min_length=6, max_length=6)
    steps: int | None = None
    untrained: bool = False


def _parse(content: bytes, path: object, types: type[BaseModel]) -> dict[str, Any]:
    """Parse the content of a JSON file and check the types of the known values."""
    try:
        values = parse_json_object(content)
        types.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        reason = f"{key}: {first['msg'].lower()}"
        raise UserError(f"{path} is damaged ({excerpt(reason)}); {ADVICE}") from error
    except ValueError as error:
        raise UserError(f"{path} is damaged ({excerpt(str(error))}); {ADVICE}") from error
    return values


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
        """Read how the run was started, as `read_run` does."""
        content = self.read_file(RUN_FILE)
        return None if content is None else _parse(content, self._path(RUN_FILE), _RunRecord)

    def read_notes(self) -> dict[str, Any]:
        """Read the notes of a finished model, as `read_notes` does."""
        content = self.read_file(NOTES_FILE)
        return {} if content is None else _parse(content, self._path(NOTES_FILE), _Notes)

    def _path(self, path: str) -> str:
        return f"{self.workspace.root}/{RUNS}/{self.name}/{path}"

    def lineage_photo_ids(self) -> set[str]:
        """Ids of the photographs that the run has learned from.

        Raises:
            UserError: If the lineage is damaged.
        """
        path = f"{RUNS}/{self.name}/{LINEAGE_FILE}"
        if not self.workspace.exists(path):
            return set()
        try:
            with self.workspace.open(path) as file:
                return set(pq.read_table(file, columns=["photo_id"])["photo_id"].to_pylist())
        except (pa.ArrowException, OSError, KeyError) as error:
            raise UserError(
                f"{self._path(LINEAGE_FILE)} is damaged ({excerpt(str(error))}); restore it from a "
                "backup, or remove the run"
            ) from error


def list_runs(workspace: Workspace) -> list[WorkspaceRun]:
    """List the folders in the workspace's `runs/`, sorted by name."""
    return [WorkspaceRun(workspace, name) for name in workspace.list_names(RUNS)]
