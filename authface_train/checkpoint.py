"""Checkpoints: weights, optimisers and the step, written whole or not at all."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

NAME = re.compile(r"step-(\d{8})")


@dataclass
class Part:
    """A module that is trained, and what trains it."""

    module: torch.nn.Module
    optimiser: torch.optim.Optimizer


def steps(folder: Path) -> list[int]:
    """The steps of the complete checkpoints in a folder, ascending."""
    if not folder.is_dir():
        return []
    return sorted(int(match[1]) for item in folder.iterdir() if (match := NAME.fullmatch(item.name)))


def save(folder: Path, step: int, parts: dict[str, Part], unwrap: Any, keep: int) -> None:
    """Write `step-<step>/` and remove all but the last `keep`. Noise and order come from counters, which the step gives."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob(".writing-*"):
        shutil.rmtree(leftover)
    temp = folder / f".writing-{step}"
    temp.mkdir()
    for name, part in parts.items():
        state = {key: value.detach().cpu().contiguous() for key, value in unwrap(part.module).state_dict().items()}
        save_file(state, temp / f"{name}.safetensors")
        torch.save(part.optimiser.state_dict(), temp / f"{name}.optimiser.pt")
    (temp / "state.json").write_text(json.dumps({"step": step}))
    for file in temp.iterdir():
        with file.open("rb") as handle:
            os.fsync(handle.fileno())
    target = folder / f"step-{step:08d}"
    if target.exists():
        shutil.rmtree(target)
    os.replace(temp, target)
    for old in steps(folder)[:-keep]:
        shutil.rmtree(folder / f"step-{old:08d}")


def load_last(folder: Path, parts: dict[str, Part], unwrap: Any) -> int:
    """Put the newest checkpoint into the parts. Returns its step: how many are done. 0 where there is none."""
    from safetensors.torch import load_file

    there = steps(folder)
    if not there:
        return 0
    source = folder / f"step-{there[-1]:08d}"
    for name, part in parts.items():
        unwrap(part.module).load_state_dict(load_file(source / f"{name}.safetensors"))
        part.optimiser.load_state_dict(torch.load(source / f"{name}.optimiser.pt", map_location="cpu", weights_only=True))
    return int(json.loads((source / "state.json").read_text())["step"])
