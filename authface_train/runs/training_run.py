"""The folder of a training run while it is written: its record, metrics, checkpoints and model.

File names and readers are in `manifests.run_folder`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from authface_train.runs import checkpoint
from authface_train.runs.lineage import write_lineage
from authface_train.settings import FREE_ON_RESUME, FREE_WHERE_INEXACT, TrainSettings
from manifests import run_folder as names
from manifests.support import csv_file
from manifests.support.errors import UserError
from manifests.support.files import write_atomic, write_json
from manifests.support.fingerprint import fingerprint

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

# Settings that decide which pictures and measurements a run writes, not what it learns.
OBSERVING_PREFIXES = ("draw.", "audit", "validation.", "ledger")
TEMPORARY_PREFIX = ".writing-"


class TrainingRun:
    """Writes the folder of one training run.

    Args:
        folder: The run folder. diffusers loads the finished model from it.
        stage: "prior" or "restorer".

    Attributes:
        checkpoint_folder: Folder of the checkpoints.
    """

    def __init__(self, folder: Path, stage: str) -> None:
        self.folder = folder
        self.stage = stage
        self.checkpoint_folder = folder / names.CHECKPOINTS
        self._metrics_path = folder / names.METRICS_FILE
        self._metrics_log = csv_file.CsvLog(self._metrics_path)

    def start(
        self,
        settings: TrainSettings,
        view: pd.DataFrame,
        *,
        resume: bool,
        base: str,
        base_digest: str,
        processes: int,
    ) -> None:
        """Start a new run, or check that an existing one can be resumed. Main process only.

        Args:
            settings: Settings of the run.
            view: Training view; its faces and captions become the run's data fingerprint.
            resume: Whether an existing run may be continued.
            base: Hub id or folder of the model that the run starts from.
            base_digest: Digest of that model's U-Net.
            processes: Number of processes.

        Raises:
            UserError: If the folder holds a run and `resume` is false, if the run was started with
                settings that resuming must keep, or if the folder holds something else.
        """
        record = {
            "stage": self.stage,
            "settings": settings.model_dump(mode="json"),
            "processes": processes,
            "data": fingerprint(
                rows=view[["face_id", "crop_sha256", "caption"]].fillna("").to_dict("records")
            ),
            "base": base,
            "base_digest": base_digest,
        }
        if self.folder.exists() and not self.folder.is_dir():
            raise UserError(f"{self.folder} is a file; --output needs a folder")

        previous = self.read_record()
        if previous is not None:
            self._check_resumable(previous, record, settings, resume)
        elif self.folder.is_dir():
            self._check_unused()

        self.folder.mkdir(parents=True, exist_ok=True)
        for leftover in self.folder.glob(f"{TEMPORARY_PREFIX}*"):
            leftover.unlink()
        if previous is None:
            write_lineage(self.folder, self.stage, view, Path(base))
        write_json(self.folder / names.RUN_FILE, record)

    def read_record(self) -> dict[str, Any] | None:
        """What the run was started with, or None if the folder holds no run."""
        return names.read_run(self.folder)

    def read_metrics(self) -> list[dict[str, str]]:
        """The complete rows of the run's metrics, in order of steps."""
        rows = csv_file.read_rows(self._metrics_path)
        return [row for row in rows if row["step"].isdigit()]

    def truncate_metrics(self, done_steps: int) -> None:
        """Drop the metrics of steps after `done_steps`, which a resumed run repeats."""
        rows = [row for row in self.read_metrics() if int(row["step"]) <= done_steps]
        csv_file.write_rows(self._metrics_path, rows)
        self._metrics_log = csv_file.CsvLog(self._metrics_path)

    def log_metrics(self, step: int, values: Mapping[str, float | None]) -> None:
        """Append the metrics of one step.

        Args:
            step: Number of steps that are done, from 1.
            values: Metrics by name; None leaves the cell empty. New names add columns.
        """
        self._metrics_log.append({"step": step, **values})

    def save_model(self, pipeline: DiffusionPipeline, notes: dict[str, object], card: str) -> None:
        """Save the finished model, so that `DiffusionPipeline.from_pretrained(folder)` loads it.

        `model_index.json` is moved into place last: a folder that has it holds a complete model.

        Args:
            pipeline: The pipeline to save.
            notes: Content of `authface.json`.
            card: Text of the model card.
        """
        temporary = self.folder / ".saving"
        shutil.rmtree(temporary, ignore_errors=True)
        pipeline.save_pretrained(temporary, safe_serialization=True)
        write_json(temporary / names.NOTES_FILE, notes)
        write_atomic(temporary / names.MODEL_CARD_FILE, card)

        (self.folder / names.MODEL_INDEX_FILE).unlink(missing_ok=True)
        saved = sorted(temporary.iterdir(), key=lambda item: item.name == names.MODEL_INDEX_FILE)
        for item in saved:
            target = self.folder / item.name
            if target.is_dir():
                shutil.rmtree(target)
            os.replace(item, target)
        temporary.rmdir()

    def _check_unused(self) -> None:
        """Raise UserError if the folder holds more than an interrupted start leaves behind."""
        file_names = {item.name for item in self.folder.iterdir()} - {names.LINEAGE_FILE}
        if any(not name.startswith(TEMPORARY_PREFIX) for name in file_names):
            raise UserError(
                f"{self.folder} is not empty and holds no run; use an empty or new --output"
            )

    def _check_resumable(
        self,
        previous: dict[str, Any],
        record: dict[str, Any],
        settings: TrainSettings,
        resume: bool,
    ) -> None:
        """Raise UserError if the run cannot be continued with these settings and data."""
        if not resume:
            raise UserError(
                f"{self.folder} holds a run; continue it with --resume or use another --output"
            )
        if previous.get("stage") != record["stage"]:
            raise UserError(
                f"{self.folder} holds a run of stage {previous.get('stage')}, not "
                f"{record['stage']}; use another --output"
            )
        self._check_same_settings(previous, record)
        self._check_same_inputs(previous, record)

        done_steps = checkpoint.list_steps(self.checkpoint_folder)
        if done_steps and done_steps[-1] > settings.steps:
            raise UserError(
                f"{self.folder} has done {done_steps[-1]} steps already; "
                f"--steps cannot be {settings.steps}"
            )

    def _check_same_settings(self, previous: dict[str, Any], record: dict[str, Any]) -> None:
        """A resumed run must compute what the uninterrupted run would have computed."""
        free = FREE_ON_RESUME
        if record["settings"]["schedule"] != "constant":
            free = free - {"steps"}  # the cosine schedule depends on the number of steps
        if not record["settings"]["exact_resume"]:
            free = free | FREE_WHERE_INEXACT

        before = {**_flatten(previous.get("settings", {})), "processes": previous.get("processes")}
        now = {**_flatten(record["settings"]), "processes": record["processes"]}
        for name, value in now.items():
            if name in free or name.startswith(OBSERVING_PREFIXES) or before.get(name) == value:
                continue
            hint = ", or pass --set exact_resume=false" if name in FREE_WHERE_INEXACT else ""
            raise UserError(
                f"cannot resume: {name} was {before.get(name)} and is {value} now; "
                f"use the same value or a new --output{hint}"
            )

    def _check_same_inputs(self, previous: dict[str, Any], record: dict[str, Any]) -> None:
        """A resumed run must see the same data and start from the same model."""
        descriptions = {
            "data": "the kept faces or captions have changed",
            "base_digest": "the base model has changed",
        }
        for key, change in descriptions.items():
            if previous.get(key) != record[key]:
                raise UserError(
                    f"cannot resume: {change} since {self.folder} was started; use a new --output"
                )


def _flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as one table with dotted keys."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            flat.update(_flatten(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat
