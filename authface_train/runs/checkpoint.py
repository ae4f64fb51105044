"""Checkpoints of a run: weights, optimizer state, moving averages, loss scaler and step.

`Accelerator.save_state` is not used because its files depend on the number of processes and a
killed process leaves half of them. These checkpoints are the same files for one process, DDP and
FSDP2, so that a run can be resumed on other hardware, and they appear in one rename. Random numbers
come from counters (see `data/sample_keys.py`), so no generator state is saved.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from authface_train.training.sharding import (
    load_model_state,
    load_optimizer_state,
    model_state,
    optimizer_state,
)
from authface_train.training.trainable_model import TrainableModel
from manifests.run_folder import step_name
from manifests.support.errors import UserError
from manifests.support.model_folder import explain_loading
from manifests.support.parsing import read_json_object
from manifests.support.text import excerpt

FOLDER_PATTERN = re.compile(r"step-(\d{8})")
STATE_FILE = "state.json"
ADVICE = "remove this checkpoint, so that --resume uses the one before it"


def list_steps(folder: Path) -> list[int]:
    """Steps of the complete checkpoints in a folder, ascending."""
    if not folder.is_dir():
        return []
    matches = [FOLDER_PATTERN.fullmatch(item.name) for item in folder.iterdir()]
    return sorted(int(match[1]) for match in matches if match)


def save(
    folder: Path,
    step: int,
    models: Mapping[str, TrainableModel],
    accelerator: Accelerator,
    *,
    keep: int,
) -> None:
    """Write the checkpoint of a step and remove old ones.

    All processes must call it together: each contributes its shards, the main process writes.

    Args:
        folder: Folder of the run's checkpoints.
        step: Number of steps that are done.
        models: The models in training, by name.
        accelerator: The run's accelerator.
        keep: Number of newest checkpoints to keep.
    """
    temporary = folder / f".writing-{step}"
    is_main = accelerator.is_main_process
    if is_main:
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob(".writing-*"):
            shutil.rmtree(leftover)
        temporary.mkdir()

    for name, model in models.items():
        _save_model(temporary, name, model, accelerator)
    if not is_main:
        return

    state: dict[str, object] = {"step": step}
    if accelerator.scaler is not None:
        state["scaler"] = accelerator.scaler.state_dict()
    (temporary / STATE_FILE).write_text(json.dumps(state))
    _commit(temporary, folder / step_name(step))
    for old_step in list_steps(folder)[:-keep]:
        shutil.rmtree(folder / step_name(old_step))


def load_latest(
    folder: Path, models: Mapping[str, TrainableModel], accelerator: Accelerator
) -> int:
    """Load the newest checkpoint into the models.

    Args:
        folder: Folder of the run's checkpoints.
        models: The models in training, by name. They are changed in place.
        accelerator: The run's accelerator.

    Returns:
        Number of steps that are done; 0 without a checkpoint.

    Raises:
        UserError: If the checkpoint is damaged.
    """
    steps = list_steps(folder)
    if not steps:
        return 0

    source = folder / step_name(steps[-1])
    try:
        with explain_loading(source, ADVICE):
            return _load(source, models, accelerator)
    except OSError as error:
        raise UserError(f"{source} cannot be read ({excerpt(str(error))}); {ADVICE}") from error


def _load(source: Path, models: Mapping[str, TrainableModel], accelerator: Accelerator) -> int:
    """Load one checkpoint. Returns the number of steps that are done."""
    from safetensors.torch import load_file

    for name, model in models.items():
        load_model_state(model.module, load_file(_weights_path(source, name)), accelerator)
        moments = torch.load(
            _optimizer_path(source, name), map_location="cpu", weights_only=True, mmap=True
        )
        load_optimizer_state(model.module, model.optimizer, moments)
        if model.ema is not None:
            model.ema.load_state_dict(load_file(_ema_path(source, name)))

    state: dict[str, Any] = read_json_object(source / STATE_FILE, ADVICE)
    step = state.get("step")
    if not isinstance(step, int) or source.name != step_name(step):
        raise UserError(f"{source / STATE_FILE} is damaged (its step is another); {ADVICE}")
    if accelerator.scaler is not None:
        accelerator.scaler.load_state_dict(state["scaler"])
    return step


def _weights_path(folder: Path, name: str) -> Path:
    return folder / f"{name}.safetensors"


def _optimizer_path(folder: Path, name: str) -> Path:
    return folder / f"{name}.optimiser.pt"


def _ema_path(folder: Path, name: str) -> Path:
    return folder / f"{name}.ema.safetensors"


def _save_model(folder: Path, name: str, model: TrainableModel, accelerator: Accelerator) -> None:
    """Gather the states of one model, and write them on the main process.

    Each state is written before the next one is gathered, since one of SDXL's U-Net takes 10 GB.
    """
    from safetensors.torch import save_file

    is_main = accelerator.is_main_process
    weights = model_state(model.module, accelerator)
    if is_main:
        save_file(weights, _weights_path(folder, name))
    del weights

    moments = optimizer_state(model.module, model.optimizer, accelerator)
    if is_main:
        torch.save(moments, _optimizer_path(folder, name))
    del moments

    if model.ema is not None:
        average = model.ema.state_dict()
        if is_main:
            save_file(average, _ema_path(folder, name))


def _commit(temporary: Path, target: Path) -> None:
    """Flush the files to disk, then put the folder in place in one rename."""
    for file in temporary.iterdir():
        with file.open("rb") as handle:
            os.fsync(handle.fileno())
    if target.exists():
        shutil.rmtree(target)
    os.replace(temporary, target)
