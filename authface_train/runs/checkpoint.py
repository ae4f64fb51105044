"""Checkpoints of a run: weights, optimizer state, moving averages, loss scaler and step.

`Accelerator.save_state` is not used because its files depend on the number of processes and a
killed process leaves half of them. These checkpoints are the same files for one process, DDP and
FSDP2, so that a run can be resumed on other hardware, and they appear in one rename. Random numbers
come from counters (see `data/sample_keys.py`), so no generator state is saved.

`checkpoint_saver` writes them.
"""

from __future__ import annotations

import logging
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object

from authface_train.training.sharding import load_optimizer_state
from authface_train.training.trainable_model import TrainableModel
from manifests.run_folder import step_name
from manifests.support.errors import UserError
from manifests.support.parsing import parse_json_object
from manifests.support.safetensors_header import read_header
from manifests.support.text import excerpt

logger = logging.getLogger(__name__)

T = TypeVar("T")

FOLDER_PATTERN = re.compile(r"step-(\d{8})")
STATE_FILE = "state.json"
ADVICE = "restore one from a backup, or start another run with a new --output"


class DamagedCheckpointError(Exception):
    """A checkpoint cannot be loaded. The message says why, without its path."""


def list_steps(folder: Path) -> list[int]:
    """Steps of the complete checkpoints in a folder, ascending."""
    if not folder.is_dir():
        return []
    matches = [FOLDER_PATTERN.fullmatch(item.name) for item in folder.iterdir()]
    return sorted(int(match[1]) for match in matches if match)


def folder_bytes(folder: Path) -> int:
    """Size of all checkpoints in a folder, in bytes, with unfinished ones that will be removed."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def load_latest(
    folder: Path, models: Mapping[str, TrainableModel], accelerator: Accelerator
) -> int:
    """Load the newest checkpoint that is not damaged into the models.

    All processes must call it together. They load the same checkpoint: one that a single process
    cannot read is damaged for all of them. A warning names each damaged checkpoint.

    Args:
        folder: Folder of the run's checkpoints.
        models: The models in training, by name. They are changed in place.
        accelerator: The run's accelerator.

    Returns:
        Number of steps that are done; 0 without a checkpoint.

    Raises:
        UserError: If there are checkpoints and all of them are damaged.
    """
    steps = [list_steps(folder)]
    broadcast_object_list(steps)
    damaged: dict[str, str] = {}
    for step in reversed(steps[0]):
        source = folder / step_name(step)
        try:
            _load(source, models, accelerator)
        except DamagedCheckpointError as error:
            damaged[source.name] = str(error)
            continue
        if damaged and accelerator.is_main_process:
            logger.warning(
                "%s; continuing from %s",
                ", ".join(f"{folder / name} is damaged ({damaged[name]})" for name in damaged),
                source.name,
            )
        return step
    if damaged:
        name, reason = next(iter(damaged.items()))
        raise UserError(f"no checkpoint in {folder} can be loaded ({name}: {reason}); {ADVICE}")
    return 0


def check(folder: Path, models: Mapping[str, bool]) -> dict[str, Any]:
    """Check that the files of a checkpoint are complete, without reading their tensors.

    Args:
        folder: Folder of the checkpoint.
        models: Names of the models, and whether an EMA of their weights is kept.

    Returns:
        The content of its `state.json`.

    Raises:
        OSError, ValueError: If a file is missing or damaged.
    """
    for name, has_ema in models.items():
        with _name_file(weights_path(folder, name)) as path:
            read_header(path)
        # A file that is cut off has no directory, which is at its end.
        with _name_file(optimizer_path(folder, name)) as path, zipfile.ZipFile(path):
            pass
        if has_ema:
            with _name_file(ema_path(folder, name)) as path:
                read_header(path)
    with _name_file(folder / STATE_FILE) as path:
        state = parse_json_object(path.read_bytes())
    step = state.get("step")
    if not isinstance(step, int) or folder.name != step_name(step):
        raise ValueError(f"{STATE_FILE} is that of another step")
    return state


@contextmanager
def _name_file(path: Path) -> Iterator[Path]:
    """Add the name of a file to the ValueError that says what is wrong with it."""
    try:
        yield path
    except (ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path.name}: {excerpt(str(error))}") from error


def describe_damage(error: Exception) -> str:
    """Why a file of a checkpoint cannot be loaded, in one line."""
    if isinstance(error, OSError) and error.filename:
        return f"{Path(error.filename).name}: {error.strerror}"
    return excerpt(str(error)) or type(error).__name__


def _load(source: Path, models: Mapping[str, TrainableModel], accelerator: Accelerator) -> None:
    """Load one checkpoint. Raises DamagedCheckpointError on all processes."""
    from safetensors.torch import load_file

    has_ema = {name: model.ema is not None for name, model in models.items()}
    state = _run_on_all(check, source, has_ema)
    # Reading and loading alternate: loading a sharded model is collective, and a process that
    # cannot read a file must not leave the others waiting.
    for name, model in models.items():
        weights = _run_on_all(load_file, weights_path(source, name))
        _run_on_all(model.load_state, weights, accelerator)
        del weights
        moments = _run_on_all(_load_torch, optimizer_path(source, name))
        _run_on_all(load_optimizer_state, model.module, model.optimizer, moments)
        del moments
        if model.ema is not None:
            average = _run_on_all(load_file, ema_path(source, name))
            _run_on_all(model.ema.load_state_dict, average)
            del average
    if accelerator.scaler is not None:
        _run_on_all(lambda: accelerator.scaler.load_state_dict(state["scaler"]))


def _load_torch(path: Path) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True, mmap=True)


def _run_on_all(function: Callable[..., T], *arguments: object) -> T:
    """Call a function on every process; if it fails on one, raise DamagedCheckpointError on all."""
    result: T | None = None
    reason = ""
    try:
        result = function(*arguments)
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        reason = describe_damage(error)
    for any_reason in gather_object([reason]):
        if any_reason:
            raise DamagedCheckpointError(any_reason)
    return cast(T, result)


def weights_path(folder: Path, name: str) -> Path:
    """The weights of a model in a checkpoint.

    Args:
        folder: Folder of the checkpoint.
        name: Name of the model.
    """
    return folder / f"{name}.safetensors"


def optimizer_path(folder: Path, name: str) -> Path:
    """The optimizer state of a model in a checkpoint.

    Args:
        folder: Folder of the checkpoint.
        name: Name of the model.
    """
    return folder / f"{name}.optimiser.pt"


def ema_path(folder: Path, name: str) -> Path:
    """The moving average of a model's weights in a checkpoint.

    Args:
        folder: Folder of the checkpoint.
        name: Name of the model.
    """
    return folder / f"{name}.ema.safetensors"
