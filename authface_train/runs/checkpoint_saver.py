"""Saves the checkpoints of a run, optionally in a background thread; see `checkpoint`."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator

from authface_train.runs.checkpoint import (
    STATE_FILE,
    ema_path,
    list_steps,
    optimizer_path,
    weights_path,
)
from authface_train.training.processes import run_on_main
from authface_train.training.sharding import broadcast_decision, is_sharded, optimizer_state
from authface_train.training.trainable_model import TrainableModel
from manifests.run_folder import step_name
from manifests.support.errors import UserError
from manifests.support.files import apply_umask, explain_write_errors, sync_folder
from manifests.support.host_memory import available_bytes

logger = logging.getLogger(__name__)

TEMPORARY_PREFIX = ".writing-"
MEMORY_MARGIN = 1.25
"""Free memory that a copy of the states needs, in sizes of the copy."""


class _State(NamedTuple):
    """A part of a checkpoint: its file in a folder, and how it is gathered and written.

    The gathered tensors may be those in training, on any device. If `is_gathered_anew` is true,
    those on the CPU are not, apart from scalars.
    """

    path_in: Callable[[Path], Path]
    gather: Callable[[], object]
    write: Callable[..., object]
    is_gathered_anew: bool


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
        self._is_abandoned = threading.Event()
        self._error: Exception | None = None
        self._has_warned = False

    def __enter__(self) -> CheckpointSaver:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if isinstance(error, KeyboardInterrupt):
            # A second Ctrl-C does not wait for a whole checkpoint, but for the file in progress.
            self._is_abandoned.set()
        try:
            self._wait()
        except KeyboardInterrupt:
            self._is_abandoned.set()
            raise

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
                on. They are written before it goes on if there is too little memory for the copy,
                or if the checkpoint before could not be written in the background.

        Raises:
            UserError: On all processes, if the main process cannot write before training goes on.
                The other checkpoints are as they were.
        """
        had_failed = self._wait()
        if in_background and broadcast_decision(not had_failed and self._has_memory(models)):
            self._write_in_background(step, models, best)
        else:
            self._write(step, models, best)

    def _wait(self) -> bool:
        """Wait for the checkpoint that is being written; warn if that failed, and return whether."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            logger.warning("no checkpoint was written in the background: %s", error)
        return error is not None

    def _write(self, step: int, models: Mapping[str, TrainableModel], best: int | None) -> None:
        """Write each state before the next one is gathered: one of SDXL's U-Net takes 10 GB."""
        unfinished = _UnfinishedCheckpoint(self.folder, step)

        def on_main(function: Callable[[], object]) -> None:
            def write() -> None:
                with _raise_write_errors(unfinished.target):
                    function()

            run_on_main(self.accelerator, write)

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

    def _write_in_background(
        self, step: int, models: Mapping[str, TrainableModel], best: int | None
    ) -> None:
        """Copy all states on the main process and write them in a thread.

        If the copy fails, they are written without it.
        """
        copies: list[tuple[_State, object]] = []
        is_complete = True
        for state in _states(models, self.accelerator):
            gathered = state.gather()
            if self.accelerator.is_main_process and is_complete:
                try:
                    copies.append((state, copy_to_cpu(gathered, state.is_gathered_anew)))
                except (MemoryError, RuntimeError) as error:
                    logger.warning("the states cannot be copied: %s", error)
                    copies.clear()
                    is_complete = False
            del gathered
        if not broadcast_decision(is_complete):
            self._write(step, models, best)
            return
        if not self.accelerator.is_main_process:
            return
        unfinished = _UnfinishedCheckpoint(self.folder, step)
        scaler_state = self._scaler_state()

        def write() -> None:
            try:
                with _raise_write_errors(unfinished.target):
                    unfinished.create()
                    while copies and not self._is_abandoned.is_set():
                        state, value = copies.pop(0)
                        state.write(value, state.path_in(unfinished.path))
                        del value
                    if self._is_abandoned.is_set():
                        unfinished.remove()
                        return
                    unfinished.commit(scaler_state)
            except Exception as error:
                unfinished.remove()
                self._error = error
            else:
                _remove_old(self.folder, step, self.keep, best)

        self._thread = threading.Thread(target=write, name=unfinished.target.name)
        self._thread.start()

    def _has_memory(self, models: Mapping[str, TrainableModel]) -> bool:
        """Whether this process has memory for a copy of all states."""
        needed = MEMORY_MARGIN * sum(_state_bytes(model) for model in models.values())
        available = available_bytes()
        if available >= needed:
            return True
        if self.accelerator.is_main_process and not self._has_warned:
            self._has_warned = True
            logger.warning(
                "a checkpoint in the background needs %.1f GB of free memory and there are %.1f "
                "GB: it is written before training goes on; give the job more memory, or set "
                "checkpoint_in_background=false",
                needed / 1e9,
                available / 1e9,
            )
        return False

    def _scaler_state(self) -> dict[str, object] | None:
        scaler = self.accelerator.scaler
        return None if scaler is None else dict(scaler.state_dict())


def copy_to_cpu(value: Any, is_gathered_anew: bool = False) -> Any:
    """Copy a state to the CPU. No tensor of the copy shares memory with a tensor in training.

    Args:
        value: Tensors in dictionaries, lists and tuples, with other values among them.
        is_gathered_anew: Tensors on the CPU that are not scalars belong to nobody else, and are
            not copied once more.
    """
    if isinstance(value, dict):
        return {key: copy_to_cpu(item, is_gathered_anew) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(copy_to_cpu(item, is_gathered_anew) for item in value)
    if not isinstance(value, torch.Tensor):
        return value
    if is_gathered_anew and value.device.type == "cpu" and value.dim() > 0:
        return value
    inner = _inner_tensors(value)
    if inner:
        copies = {name: copy_to_cpu(tensor) for name, tensor in inner.items()}
        quantised: Any = value
        _, context = quantised.__tensor_flatten__()
        return type(quantised).__tensor_unflatten__(copies, context, value.shape, value.stride())
    return value.detach().to("cpu", copy=True)


def _state_bytes(model: TrainableModel) -> int:
    """Size of the states of a model in a checkpoint, in bytes."""
    total = _num_bytes([*model.weights, *model.module.buffers(), model.optimizer.state_dict()])
    if model.ema is not None:
        total += sum(4 * weight.numel() for weight in model.ema.parameters)
    return total


def _num_bytes(value: Any) -> int:
    """Size of the tensors in dictionaries, lists and tuples, in bytes."""
    if isinstance(value, dict):
        return sum(map(_num_bytes, value.values()))
    if isinstance(value, list | tuple):
        return sum(map(_num_bytes, value))
    if not isinstance(value, torch.Tensor):
        return 0
    inner = _inner_tensors(value)
    return _num_bytes(inner) if inner else value.numel() * value.element_size()


def _inner_tensors(tensor: torch.Tensor) -> dict[str, torch.Tensor]:
    """The tensors that a quantised tensor consists of, by attribute; none for others."""
    from torch.distributed.tensor import DTensor

    if isinstance(tensor, DTensor) or not hasattr(tensor, "__tensor_flatten__"):
        return {}
    names, _ = tensor.__tensor_flatten__()
    return {name: getattr(tensor, name) for name in names}


def _states(models: Mapping[str, TrainableModel], accelerator: Accelerator) -> Iterator[_State]:
    """The states of a checkpoint in the order in which they are gathered and written."""
    from safetensors.torch import save_file

    on_gpu = accelerator.device.type != "cpu"
    for name, model in models.items():
        yield _State(
            partial(weights_path, name=name), partial(model.state, accelerator), save_file, on_gpu
        )
        yield _State(
            partial(optimizer_path, name=name),
            partial(optimizer_state, model.module, model.optimizer, accelerator),
            _save_torch,
            on_gpu and is_sharded(model.module),
        )
        if model.ema is not None:
            ema_on_gpu = model.ema.average[0].device.type != "cpu"
            yield _State(partial(ema_path, name=name), model.ema.state_dict, save_file, ema_on_gpu)


def _save_torch(value: object, path: Path) -> None:
    # If torch opens the file, its error does not say that the disk is full.
    with path.open("wb") as file:
        torch.save(value, file)


@contextlib.contextmanager
def _raise_write_errors(path: Path) -> Iterator[None]:
    """Turn an error of the disk while a part of `path` is written into UserError."""
    try:
        with explain_write_errors(path):
            yield
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
            shutil.rmtree(leftover, ignore_errors=True)
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
    """Remove all checkpoints but the newest ones and the best one; warn of what stays."""
    try:
        steps = list_steps(folder)
    except OSError as error:
        logger.warning("cannot remove old checkpoints in %s: %s", folder, error.strerror)
        return
    newest = [other for other in steps if other <= step][-keep:]
    for other in steps:
        if other in newest or other == best:
            continue
        source = folder / step_name(other)
        if other > step:
            logger.warning("removed the damaged checkpoint %s, which is replaced now", source)
        # Half of a removed checkpoint must not look like a whole one after a kill.
        removed = folder / f"{TEMPORARY_PREFIX}removed-{other}"
        try:
            os.replace(source, removed)
            shutil.rmtree(removed)
        except OSError as error:
            logger.warning("cannot remove the old checkpoint %s: %s", source, error.strerror)
