"""Saves the checkpoints of a run, if wanted while training goes on; see `checkpoint`."""

from __future__ import annotations

import copy
import json
import logging
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import psutil
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from authface_train.runs.checkpoint import (
    STATE_FILE,
    ema_path,
    list_steps,
    optimizer_path,
    weights_path,
)
from authface_train.training.processes import run_on_main
from authface_train.training.sharding import optimizer_state
from authface_train.training.trainable_model import TrainableModel
from manifests.run_folder import step_name
from manifests.support.errors import UserError
from manifests.support.files import apply_umask, explain_write_errors, sync_folder

logger = logging.getLogger(__name__)

TEMPORARY_PREFIX = ".writing-"
BYTES_PER_WEIGHT = 12
"""A weight and its two moments in float32; an EMA takes four bytes more."""
MEMORY_MARGIN = 1.25


class _State(NamedTuple):
    """A part of a checkpoint: its file in a folder, and how it is gathered and written.

    The gathered tensors are on the CPU. `is_live` says that training goes on changing them.
    """

    path_in: Callable[[Path], Path]
    gather: Callable[[], object]
    write: Callable[..., object]
    is_live: bool


class CheckpointSaver:
    """Saves checkpoints. As a context manager it waits for the last one at the end.

    Args:
        folder: Folder of the run's checkpoints.
        accelerator: The run's accelerator.
        keep: Number of newest checkpoints to keep.
    """

    def __init__(self, folder: Path, accelerator: Accelerator, keep: int) -> None:
        self.folder = folder
        self.accelerator = accelerator
        self.keep = keep
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None

    def __enter__(self) -> CheckpointSaver:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._thread is not None:
            self._thread.join()

    @property
    def has_failed(self) -> bool:
        """Whether a checkpoint could not be written in the background. Main process only."""
        return self._error is not None

    def save(
        self,
        step: int,
        models: Mapping[str, TrainableModel],
        *,
        best: int | None = None,
        in_background: bool = False,
    ) -> None:
        """Write the checkpoint of a step and remove old ones.

        All processes must call it together: each contributes its shards, the main process writes.

        Args:
            step: Number of steps that are done.
            models: The models in training, by name.
            best: Step of a checkpoint that is kept beside the newest ones.
            in_background: Copy the states and return; the files are written while training goes
                on. With too little memory for the copy they are written before it goes on.

        Raises:
            UserError: On all processes, if the main process cannot write this checkpoint, or could
                not write the one before in the background. The other checkpoints are as they were.
        """
        self.finish()
        if in_background and self._has_memory(models):
            self._start_writing(step, models, best)
        else:
            self._write(step, models, best)

    def finish(self) -> None:
        """Wait for the checkpoint that is being written. All processes must call it together.

        Raises:
            UserError: On all processes, if it could not be written.
        """

        def wait() -> None:
            if self._thread is not None:
                self._thread.join()
                self._thread = None
            if self._error is not None:
                error, self._error = self._error, None
                raise error

        run_on_main(self.accelerator, wait)

    def _write(self, step: int, models: Mapping[str, TrainableModel], best: int | None) -> None:
        """Write each state before the next one is gathered: one of SDXL's U-Net takes 10 GB."""
        unfinished = _UnfinishedCheckpoint(self.folder, step)

        def on_main(function: Callable[[], object]) -> None:
            run_on_main(self.accelerator, partial(_explained, unfinished.target, function))

        try:
            on_main(unfinished.create)
            for state in _states(models, self.accelerator):
                gathered = state.gather()
                on_main(partial(state.write, gathered, state.path_in(unfinished.path)))
                del gathered
            on_main(partial(unfinished.commit, self._scaler_state()))
        except UserError:
            if self.accelerator.is_main_process:
                unfinished.remove()  # makes room on a full disk
            raise
        if self.accelerator.is_main_process:
            _remove_old(self.folder, step, self.keep, best)

    def _start_writing(
        self, step: int, models: Mapping[str, TrainableModel], best: int | None
    ) -> None:
        """Copy all states on the main process and write them in a thread."""
        copies: list[tuple[_State, object]] = []
        for state in _states(models, self.accelerator):
            gathered = state.gather()
            if self.accelerator.is_main_process:
                copies.append((state, copy.deepcopy(gathered) if state.is_live else gathered))
            del gathered
        if not self.accelerator.is_main_process:
            return
        unfinished = _UnfinishedCheckpoint(self.folder, step)
        scaler_state = self._scaler_state()

        def write_files() -> None:
            unfinished.create()
            while copies:
                state, value = copies.pop(0)
                state.write(value, state.path_in(unfinished.path))
            unfinished.commit(scaler_state)
            _remove_old(self.folder, step, self.keep, best)

        def write() -> None:
            try:
                _explained(unfinished.target, write_files)
            except Exception as error:
                unfinished.remove()
                self._error = error

        self._thread = threading.Thread(target=write, name=unfinished.target.name)
        self._thread.start()

    def _has_memory(self, models: Mapping[str, TrainableModel]) -> bool:
        """Whether the main process has memory for a copy of all states; the same on all."""
        needed = 0
        for model in models.values():
            count = sum(weight.numel() for weight in model.weights)
            needed += count * (BYTES_PER_WEIGHT + (4 if model.ema is not None else 0))
        available = psutil.virtual_memory().available
        decision = [available >= MEMORY_MARGIN * needed]
        broadcast_object_list(decision)
        if not decision[0] and self.accelerator.is_main_process:
            logger.warning(
                "a copy of the states needs %.0f GB and %.0f GB of memory are free: the checkpoint "
                "is written before training goes on",
                needed / 1e9,
                available / 1e9,
            )
        return decision[0]

    def _scaler_state(self) -> dict[str, object] | None:
        scaler = self.accelerator.scaler
        return None if scaler is None else dict(scaler.state_dict())


def _states(models: Mapping[str, TrainableModel], accelerator: Accelerator) -> Iterator[_State]:
    """The states of a checkpoint in the order in which they are gathered and written."""
    from safetensors.torch import save_file

    on_cpu = accelerator.device.type == "cpu"
    for name, model in models.items():
        yield _State(
            partial(weights_path, name=name), partial(model.state, accelerator), save_file, on_cpu
        )
        yield _State(
            partial(optimizer_path, name=name),
            partial(optimizer_state, model.module, model.optimizer, accelerator),
            _save_torch,
            on_cpu,
        )
        if model.ema is not None:
            is_live = model.ema.average[0].device.type == "cpu"
            yield _State(partial(ema_path, name=name), model.ema.state_dict, save_file, is_live)


def _save_torch(value: object, path: Path) -> None:
    # If torch opens the file, its error does not say that the disk is full.
    with path.open("wb") as file:
        torch.save(value, file)


def _explained(path: Path, write: Callable[[], object]) -> None:
    """Write a part of `path`; if that fails, raise UserError."""
    try:
        with explain_write_errors(path):
            write()
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error


class _UnfinishedCheckpoint:
    """A checkpoint that is being written beside the others.

    Args:
        folder: Folder of the run's checkpoints.
        step: Number of steps that are done.

    Attributes:
        path: Folder of the files.
        target: What the folder will be called.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self._step = step
        self.path = folder / f"{TEMPORARY_PREFIX}{step}"
        self.target = folder / step_name(step)

    def create(self) -> None:
        """Make the empty folder and remove those that a killed process has left."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        for leftover in self.path.parent.glob(f"{TEMPORARY_PREFIX}*"):
            shutil.rmtree(leftover)
        self.path.mkdir()

    def commit(self, scaler_state: dict[str, object] | None) -> None:
        """Flush the files to disk, then put the folder in place in one rename."""
        state: dict[str, object] = {"step": self._step}
        if scaler_state is not None:
            state["scaler"] = scaler_state
        (self.path / STATE_FILE).write_text(json.dumps(state))
        apply_umask(self.path)
        for file in self.path.iterdir():
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
        if self.target.exists():
            shutil.rmtree(self.target)
        os.replace(self.path, self.target)
        sync_folder(self.target.parent)

    def remove(self) -> None:
        """Remove the folder, if it is there."""
        shutil.rmtree(self.path, ignore_errors=True)


def _remove_old(folder: Path, step: int, keep: int, best: int | None) -> None:
    """Remove all checkpoints but the newest ones and the best one."""
    steps = list_steps(folder)
    newest = [other for other in steps if other <= step][-keep:]
    for other in steps:
        if other in newest or other == best:
            continue
        source = folder / step_name(other)
        if other > step:
            logger.warning("removed the damaged checkpoint %s, which is replaced now", source)
        # Half of a removed checkpoint must not look like a whole one after a kill.
        removed = folder / f"{TEMPORARY_PREFIX}removed-{other}"
        os.replace(source, removed)
        shutil.rmtree(removed)
