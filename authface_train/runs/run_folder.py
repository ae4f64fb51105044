"""A run's directory: what it was set to, what it learnt from, its losses, its checkpoints and, in the end, its model."""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pandas as pd

from authface_train.runs import checkpoint, lineage
from authface_train.settings import FREE_ON_RESUME, FREE_WHERE_INEXACT, TrainSettings
from manifests.support.errors import UserError
from manifests.support.fingerprint import fingerprint

RUN, METRICS, NOTES = "run.json", "metrics.csv", "authface.json"
OF_A_START = {lineage.FILE, f".{lineage.FILE}", f".{RUN}"}  # what a killed start may have left


class RunFolder:
    """folder: of the run; diffusers loads the finished model from it. checkpoints, metrics: in it."""

    def __init__(self, folder: Path, stage: str):
        self.folder, self.stage = folder, stage
        self._columns: list[str] = []
        self.checkpoints, self.metrics = folder / "checkpoints", folder / METRICS

    def begin(
        self,
        settings: TrainSettings,
        view: pd.DataFrame,
        resume: bool,
        base: str,
        base_digest: str,
        processes: int,
    ) -> None:
        """Start afresh or go on: for the main process alone. base: what the run begins from, base_digest: of its U-Net.

        Raises UserError where a run is there already, where it was begun otherwise, or where the folder holds something else.
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
            raise UserError(f"{self.folder} is a file: --output names a folder")
        before = self.record()
        if before is not None:
            if not resume:
                raise UserError(
                    f"{self.folder} holds a run: go on with --resume, or name another --output"
                )
            self._check_same(before, record)
            last = checkpoint.steps(self.checkpoints)[-1:]
            if last and last[0] > settings.steps:
                raise UserError(
                    f"{self.folder} has done {last[0]} steps already: --steps cannot be {settings.steps}"
                )
        elif self.folder.is_dir() and {item.name for item in self.folder.iterdir()} - OF_A_START:
            raise UserError(f"{self.folder} holds something that is no run: name another --output")
        self.folder.mkdir(parents=True, exist_ok=True)
        if before is None:
            lineage.freeze(self.folder, self.stage, view, Path(base))
        temp = self.folder / f".{RUN}"
        temp.write_text(json.dumps(record, indent=1))
        os.replace(temp, self.folder / RUN)

    def record(self) -> dict[str, Any] | None:
        """What the run was begun with; None where none was."""
        path = self.folder / RUN
        return json.loads(path.read_text()) if path.is_file() else None

    def _check_same(self, before: dict[str, Any], now: dict[str, Any]) -> None:
        """Resuming must compute what would have been computed."""
        if before["stage"] != now["stage"]:
            raise UserError(
                f"{self.folder} is a run of the {before['stage']}, not of the {now['stage']}"
            )
        free = (
            FREE_ON_RESUME
            if now["settings"]["schedule"] == "constant"
            else FREE_ON_RESUME - {"steps"}
        )
        if not now["settings"]["exact_resume"]:
            free = free | FREE_WHERE_INEXACT
        old = {**_flat(before["settings"]), "processes": before.get("processes")}
        for name, value in {**_flat(now["settings"]), "processes": now["processes"]}.items():
            if (
                old.get(name) == value
                or name in free
                or name.startswith(("draw.", "audit", "validation.", "ledger"))
            ):
                continue
            inexact = " (--set exact_resume=false allows it)" if name in FREE_WHERE_INEXACT else ""
            raise UserError(
                f"{name} was {old.get(name)} and is {value} now: a resumed run keeps its settings; set it back{inexact}"
            )
        for name, words in (
            ("data", "the kept faces or captions have changed"),
            ("base_digest", "the model to begin from has changed"),
        ):
            if before[name] != now[name]:
                raise UserError(
                    f"{words} since {self.folder} began: a resumed run keeps both; start a new --output"
                )

    def open_metrics(self, done_steps: int) -> None:
        """Keep the losses of the first `done_steps` steps; those of steps lost with a kill go."""
        path = self.metrics
        rows = [row for row in read_metrics(path) if int(row["step"]) <= done_steps]
        self._columns = []
        _write_csv(path, rows)

    def log(self, step: int, values: dict[str, float | None]) -> None:
        """One step's losses into metrics.csv."""
        path = self.metrics
        row = {
            "step": str(step),
            **{name: "" if value is None else repr(value) for name, value in values.items()},
        }
        header = self._columns = self._columns or _header(path)
        if set(row) <= set(header):
            with path.open("a", newline="") as file:
                csv.DictWriter(file, header, restval="").writerow(row)
        else:  # a loss that was not there before: a new column
            _write_csv(path, [*read_metrics(path), row])
            self._columns = []

    def save_model(self, pipeline: Any, notes: dict[str, Any], card: str) -> None:
        """Write the pipeline for `from_pretrained(folder)`. model_index.json comes last, as the sign that it is whole."""
        temp = self.folder / ".saving"
        shutil.rmtree(temp, ignore_errors=True)
        pipeline.save_pretrained(temp, safe_serialization=True)
        (temp / NOTES).write_text(json.dumps(notes, indent=1))
        (temp / "README.md").write_text(card)
        (self.folder / "model_index.json").unlink(missing_ok=True)
        for item in sorted(temp.iterdir(), key=lambda item: item.name == "model_index.json"):
            target = self.folder / item.name
            if target.is_dir():
                shutil.rmtree(target)
            os.replace(item, target)
        temp.rmdir()


def read_metrics(path: Path) -> list[dict[str, str]]:
    """The rows of a metrics.csv; none where there is no file. A line cut off by a kill is left out."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [
        row
        for row in rows
        if None not in row and None not in row.values() and str(row["step"]).isdigit()
    ]


def _header(path: Path) -> list[str]:
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return next(csv.reader(file), [])


def _write_csv(path: Path, rows: list[dict[str, str]]) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row))
    temp = path.with_name(f".{path.name}")
    with temp.open("w", newline="") as file:
        writer = csv.DictWriter(file, names, restval="")
        if names:
            writer.writeheader()
        writer.writerows(rows)
    os.replace(temp, path)


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as dotted names."""
    result: dict[str, Any] = {}
    for name, value in settings.items():
        result.update(
            _flat(value, f"{prefix}{name}.")
            if isinstance(value, dict)
            else {f"{prefix}{name}": value}
        )
    return result
