"""The folder of a training run while it is written: its record, metrics, checkpoints and model.

File names and readers are in `manifests.run_folder`.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd

from authface_train.models.sdxl import TINY
from authface_train.runs import checkpoint
from authface_train.runs.lineage import write_lineage
from authface_train.settings import (
    FREE_ON_RESUME,
    FREE_WHERE_INEXACT,
    LATER_SETTINGS,
    TrainSettings,
)
from manifests import run_folder as names
from manifests.lock import LOCK, LocalFolder, WriterLock
from manifests.support import csv_file
from manifests.support.errors import UserError
from manifests.support.files import explain_write_errors, write_json
from manifests.support.fingerprint import fingerprint

# Settings that decide which pictures and measurements a run writes, not what it learns.
OBSERVING_PREFIXES = ("draw.", "audit", "validation.", "ledger")
TEMPORARY_PREFIX = ".writing-"
COMMANDS = {"prior": "train-prior", "restorer": "train-restore"}
"""Commands of the stages, for the message to another writer."""
UNFINISHED_MODEL = ".saving"
"""Folder of a model that is being saved."""
PICTURE_STEP = re.compile(r"step-(\d{8})\.png$")


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
        self._lock = WriterLock(LocalFolder(folder), COMMANDS.get(stage, stage))
        self._is_new = False
        self._new_folders: list[Path] = []

    def check_folder(self, resume: bool) -> None:
        """Check that the folder is free for a new run, or holds one that may be continued.

        Args:
            resume: Whether an existing run may be continued.

        Raises:
            UserError: If it is neither.
        """
        if self.folder.exists() and not self.folder.is_dir():
            raise UserError(f"{self.folder} is a file; --output needs a folder")
        if self.read_record() is not None:
            if not resume:
                raise UserError(
                    f"{self.folder} holds a run; continue it with --resume or use another --output"
                )
        elif self.folder.is_dir():
            self._check_unused()

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

        The run is locked against other writers until `release`. If the start is refused, the folder
        is as it was.

        Args:
            settings: Settings of the run.
            view: Training view; its faces and captions become the run's data fingerprint.
            resume: Whether an existing run may be continued.
            base: Hub id or folder of the model that the run starts from.
            base_digest: Digest of that model's U-Net.
            processes: Number of processes.

        Raises:
            UserError: If the folder holds a run and `resume` is false, if the run was started with
                settings that resuming must keep, if the folder holds something else, or if another
                process writes the run.
        """
        record = {
            "stage": self.stage,
            "settings": settings.model_dump(mode="json"),
            "processes": processes,
            "data": data_fingerprint(view),
            "base": _absolute_path(base),
            "base_digest": base_digest,
        }
        self._check_startable(record, settings, resume)
        self._is_new = False
        self._new_folders = [
            path for path in (self.folder, *self.folder.parents) if not path.exists()
        ]
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
            # Another process may have started the run before the lock was taken.
            self._check_startable(record, settings, resume)
            self._is_new = self.read_record() is None
            for leftover in self.folder.glob(f"{TEMPORARY_PREFIX}*"):
                leftover.unlink(missing_ok=True)
            shutil.rmtree(self.folder / UNFINISHED_MODEL, ignore_errors=True)
            if self._is_new:
                write_lineage(self.folder, self.stage, view, Path(base))
            write_json(self.folder / names.RUN_FILE, record)
        except BaseException:
            self.withdraw()
            raise

    def withdraw(self) -> None:
        """Undo the start of a new run, and release it. A run that was resumed stays as it is."""
        if self._is_new:
            for name in (names.RUN_FILE, names.LINEAGE_FILE):
                (self.folder / name).unlink(missing_ok=True)
        self.release()
        for path in self._new_folders:
            with suppress(OSError):
                path.rmdir()  # stays if another process has written to it

    def release(self) -> None:
        """Let other processes write the run; do nothing if this object has not locked it."""
        self._lock.release()

    def read_record(self) -> dict[str, Any] | None:
        """What the run was started with, or None if the folder holds no run."""
        return names.read_run(self.folder)

    def read_metrics(self) -> list[dict[str, str]]:
        """The complete rows of the run's metrics, in order of steps."""
        rows = csv_file.read_rows(self._metrics_path)
        return [row for row in rows if row["step"].isdigit()]

    def best_step(self) -> int | None:
        """Step at which the audited held-out loss was lowest; None without such an audit.

        The model before the first step does not count: it is the base.
        """
        losses = []
        for row in csv_file.read_rows(self.folder / names.AUDIT / names.AUDIT_FILE):
            if row["held_out_loss"] and int(row["step"]):
                losses.append((float(row["held_out_loss"]), int(row["step"])))
        return min(losses)[1] if losses else None

    def discard_after(self, done_steps: int) -> None:
        """Drop metrics and results of steps after `done_steps`, which a resumed run repeats."""
        rows = [row for row in self.read_metrics() if int(row["step"]) <= done_steps]
        csv_file.write_rows(self._metrics_path, rows)
        self._metrics_log = csv_file.CsvLog(self._metrics_path)

        for path in (
            self.folder / names.AUDIT / names.AUDIT_FILE,
            self.folder / names.VALIDATION / names.VALIDATION_FILE,
            self.folder / names.GRADIENT_LEDGER_FILE,
        ):
            rows = csv_file.read_rows(path)
            kept = [row for row in rows if float(row["step"]) <= done_steps]
            if len(kept) < len(rows):
                csv_file.write_rows(path, kept, columns=list(rows[0]))
        for folder in (names.PREVIEWS, names.AUDIT, names.VALIDATION):
            for picture in (self.folder / folder).glob("*step-*.png"):
                match = PICTURE_STEP.search(picture.name)
                if match and int(match[1]) > done_steps:
                    picture.unlink()

    def log_metrics(self, step: int, values: Mapping[str, float | None]) -> None:
        """Append the metrics of one step.

        Args:
            step: Number of steps that are done, from 1.
            values: Metrics by name; None leaves the cell empty. New names add columns.

        Raises:
            UserError: If another host has taken over the lock of the run.
        """
        self._lock.check()
        self._metrics_log.append({"step": step, **values})

    def save_model(self, write: Callable[[Path], None]) -> None:
        """Save the finished model, so that `DiffusionPipeline.from_pretrained(folder)` loads it.

        `model_index.json` is moved into place last: a folder that has it holds a complete model.

        Args:
            write: Writes the model into an empty folder.

        Raises:
            UserError: If the disk is full or cannot be written, or if another host has taken over
                the lock of the run. An earlier model is as it was.
        """
        self._lock.check()
        temporary = self.folder / UNFINISHED_MODEL
        with explain_write_errors(self.folder):
            try:
                shutil.rmtree(temporary, ignore_errors=True)
                temporary.mkdir()
                write(temporary)
                self._replace_model(temporary)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)

    def _replace_model(self, new_model: Path) -> None:
        (self.folder / names.MODEL_INDEX_FILE).unlink(missing_ok=True)
        saved = sorted(new_model.iterdir(), key=lambda item: item.name == names.MODEL_INDEX_FILE)
        for item in saved:
            target = self.folder / item.name
            if target.is_dir():
                shutil.rmtree(target)
            os.replace(item, target)

    def _check_startable(
        self, record: dict[str, Any], settings: TrainSettings, resume: bool
    ) -> None:
        """Raise UserError if the folder can neither take a new run nor continue this one."""
        self.check_folder(resume)
        previous = self.read_record()
        if previous is not None:
            self._check_resumable(previous, record, settings)

    def _check_unused(self) -> None:
        """Raise UserError if the folder holds more than an interrupted start leaves behind."""
        file_names = {item.name for item in self.folder.iterdir()} - {names.LINEAGE_FILE, LOCK}
        if any(not name.startswith(TEMPORARY_PREFIX) for name in file_names):
            raise UserError(
                f"{self.folder} is not empty and holds no run; use an empty or new --output"
            )

    def _check_resumable(
        self,
        previous: dict[str, Any],
        record: dict[str, Any],
        settings: TrainSettings,
    ) -> None:
        """Raise UserError if the run cannot be continued with these settings and data."""
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

        before = {
            **LATER_SETTINGS,
            **flatten(previous.get("settings", {})),
            "processes": previous.get("processes"),
        }
        now = {**flatten(record["settings"]), "processes": record["processes"]}
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
        if previous.get("data") != record["data"]:
            before = previous.get("settings", {}).get("source") or "workspace"
            now = record["settings"]["source"]
            if now is not None and before != now:
                raise UserError(
                    f"cannot resume: source was {before} and is {now} now; use the same value or "
                    "a new --output"
                )
        descriptions = {
            "data": "the kept faces or captions have changed",
            "base_digest": "the base model has changed",
        }
        for key, change in descriptions.items():
            if previous.get(key) != record[key]:
                raise UserError(
                    f"cannot resume: {change} since {self.folder} was started; use a new --output"
                )


def _absolute_path(base: str) -> str:
    """The base as it is found from any working directory."""
    return str(Path(base).absolute()) if base != TINY and Path(base).exists() else base


def data_fingerprint(view: pd.DataFrame) -> str:
    """Fingerprint of the faces and captions of a training view.

    Args:
        view: The training view.
    """
    return fingerprint(
        rows=view[["face_id", "crop_sha256", "caption"]].fillna("").to_dict("records")
    )


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as one table with dotted keys.

    Args:
        settings: The nested settings.
        prefix: What the keys begin with.
    """
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            flat.update(flatten(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat
