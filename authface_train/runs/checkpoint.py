"""Checkpoints: weights, optimisers, averages, the loss scaler and the step, written whole or not at all.

Noise, order, captions and whatever else is drawn come from counters, and the global generators are seeded anew by every step:
the step's number is all that there is to be saved of them.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from authface_train.training.ema import EMA
from authface_train.training.sharding import (
    load_model_state,
    load_optimiser_state,
    model_state,
    optimiser_state,
)

NAME = re.compile(r"step-(\d{8})")


@dataclass
class TrainableModel:
    """A module that is trained, what trains it, and the average of its weights if one is kept."""

    module: torch.nn.Module
    optimiser: torch.optim.Optimizer
    ema: EMA | None = None


def steps(folder: Path) -> list[int]:
    """The steps of the complete checkpoints in a folder, ascending."""
    if not folder.is_dir():
        return []
    return sorted(
        int(match[1]) for item in folder.iterdir() if (match := NAME.fullmatch(item.name))
    )


def save(
    folder: Path, step: int, parts: dict[str, TrainableModel], accelerator: Accelerator, keep: int
) -> None:
    """Write `step-<step>/`, remove all but the last `keep`. All processes call it: each gives its share, one writes."""
    temp = folder / f".writing-{step}"
    main = accelerator.is_main_process
    if main:
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob(".writing-*"):
            shutil.rmtree(leftover)
        temp.mkdir()
    for name, part in parts.items():
        _write(main, temp / f"{name}.safetensors", model_state(part.module, accelerator))
        optimiser = optimiser_state(part.module, part.optimiser, accelerator)
        if main:
            torch.save(optimiser, temp / f"{name}.optimiser.pt")
        if part.ema is not None:
            _write(main, temp / f"{name}.ema.safetensors", part.ema.state())
    if not main:
        return
    state: dict[str, Any] = {"step": step}
    if accelerator.scaler is not None:
        state["scaler"] = accelerator.scaler.state_dict()
    (temp / "state.json").write_text(json.dumps(state))
    for file in temp.iterdir():
        with file.open("rb") as handle:
            os.fsync(handle.fileno())
    target = folder / f"step-{step:08d}"
    if target.exists():
        shutil.rmtree(target)
    os.replace(temp, target)
    for old in steps(folder)[:-keep]:
        shutil.rmtree(folder / f"step-{old:08d}")


def _write(main: bool, path: Path, tensors: dict[str, torch.Tensor]) -> None:
    from safetensors.torch import save_file

    if main:
        save_file(tensors, path)


def load_last(folder: Path, parts: dict[str, TrainableModel], accelerator: Accelerator) -> int:
    """Put the newest checkpoint into the parts. Returns its step: how many are done. 0 where there is none."""
    from safetensors.torch import load_file

    there = steps(folder)
    if not there:
        return 0
    source = folder / f"step-{there[-1]:08d}"
    for name, part in parts.items():
        load_model_state(part.module, load_file(source / f"{name}.safetensors"), accelerator)
        optimiser = torch.load(
            source / f"{name}.optimiser.pt", map_location="cpu", weights_only=True, mmap=True
        )
        load_optimiser_state(part.module, part.optimiser, optimiser)
        if part.ema is not None:
            part.ema.load(load_file(source / f"{name}.ema.safetensors"))
    state = json.loads((source / "state.json").read_text())
    if accelerator.scaler is not None:
        accelerator.scaler.load_state_dict(state["scaler"])
    return int(state["step"])
