"""What both stages do before they train: processes, rows, the run's folder, whether it fits. Refusals come before any step."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, TypeVar

import pandas as pd
import torch
from accelerate import Accelerator
from accelerate.utils import (
    DistributedDataParallelKwargs,
    InitProcessGroupKwargs,
    broadcast_object_list,
)

from authface_train.memory.estimator import MemoryEstimator, capacity
from authface_train.models.digest import model_digest
from authface_train.runs.run_folder import RunFolder
from authface_train.settings import TrainSettings
from authface_train.training import loop
from authface_train.training.sharding import sharding_from_launcher
from manifests.support.console import console
from manifests.support.errors import MissingResourceError, UserError
from manifests.training_view import training_view
from manifests.workspace import Workspace

S = TypeVar("S", bound=TrainSettings)


def processes(settings: S) -> tuple[Accelerator, S]:
    """The accelerator, and settings as the launcher would have them."""
    asked = sharding_from_launcher()
    if asked and asked != settings.sharding:
        console.print(f"[yellow]sharding={asked}[/], as the launcher asks")
        settings = settings.model_copy(update={"sharding": asked})
    on_gpu = torch.cuda.is_available()
    if settings.mixed_precision == "fp16" and not on_gpu:
        raise UserError("mixed_precision=fp16 needs a CUDA card: --set mixed_precision=no, or bf16")
    accelerator = Accelerator(
        mixed_precision=settings.mixed_precision,
        cpu=not on_gpu,
        kwargs_handlers=[
            DistributedDataParallelKwargs(gradient_as_bucket_view=True),
            # The others wait while the main process saves or compares pictures.
            InitProcessGroupKwargs(timeout=timedelta(hours=2)),
        ],
    )
    loop.samples_per_process(settings, accelerator.num_processes)
    if settings.micro_batch is not None:
        loop.accumulation_steps(settings, accelerator.num_processes)
    return accelerator, settings


@dataclass(frozen=True)
class TrainingRows:
    """Of the training view. held_out: the validation split."""

    training: pd.DataFrame
    held_out: pd.DataFrame


def rows(
    workspace: Workspace,
    tags: Any,
    unknown_licence: bool,
    source: Literal["workspace", "ffhq"] = "workspace",
) -> TrainingRows:
    """source: all kept faces, or FFHQ's. Raises UserError where there is nothing to train on, or faces lack a caption."""
    view = training_view(workspace, tags, allow_unknown_licence=unknown_licence)
    if source == "ffhq":
        view = view[view["source"] == "ffhq"]
        if view.empty:
            raise UserError(
                "--source ffhq: no kept face is FFHQ's; `authface collect --source ffhq --path DIR`, then filter"
            )
    training = view[view["split"] == "train"].reset_index(drop=True)
    if training.empty:
        raise UserError("no kept face to train on: `authface filter`, then `authface status`")
    lacking = int((training["caption"].fillna("") == "").sum())
    if tags != "none" and lacking:
        kind = "" if tags == "both" else f" of {tags} tags"
        raise UserError(
            f"{lacking} kept faces have no caption{kind}: `authface caption` first, or --tags none"
        )
    return TrainingRows(training, view[view["split"] == "val"].reset_index(drop=True))


def with_micro_batch(
    settings: S, run: RunFolder, resume: bool, budget: MemoryEstimator, accelerator: Accelerator
) -> S:
    """Settings with a micro-batch: as set, as a resumed run has it, or the most that every process's card holds."""
    if settings.micro_batch is None and resume and (before := run.record()) is not None:
        settings = settings.model_copy(update={"micro_batch": before["settings"]["micro_batch"]})
    if settings.micro_batch is None:
        world = accelerator.num_processes
        room = torch.tensor(
            capacity(accelerator.device, world), dtype=torch.float64, device=accelerator.device
        )
        least = float(accelerator.gather(room.reshape(1)).min())  # type: ignore[union-attr]
        settings = settings.model_copy(
            update={"micro_batch": budget.derive_micro_batch(settings, world, least)}
        )
    pieces = loop.accumulation_steps(settings, accelerator.num_processes)
    if settings.step_in_backward and pieces > 1:
        raise UserError(
            f"step_in_backward steps after every micro-batch, and {settings.batch} samples are {pieces} of them here: "
            "a smaller batch, or --set step_in_backward=false"
        )
    return settings


def begin(
    run: RunFolder, accelerator: Accelerator, settings: TrainSettings, view: pd.DataFrame, resume: bool, base: str, unet: Any,
    disk_bytes: float,
) -> None:  # fmt: skip
    """Begin the run on the main process; its refusal is every process's. disk_bytes: what checkpoints and model will take."""
    refusal: list[str | None] = [None]
    if accelerator.is_main_process:
        try:
            free = shutil.disk_usage(existing(run.folder)).free
            if not resume and free < disk_bytes:
                raise UserError(
                    f"checkpoints and model take {disk_bytes / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free at {run.folder}: "
                    "another --output, or --set keep_checkpoints=1"
                )
            run.begin(settings, view, resume, base, model_digest(unet), accelerator.num_processes)
        except UserError as error:
            refusal = [str(error)]
    broadcast_object_list(refusal)
    if refusal[0] is not None:
        raise UserError(refusal[0])


def existing(folder: Path) -> Path:
    """The folder, or the nearest parent that is there."""
    folder = folder.absolute()
    while not folder.is_dir():
        folder = folder.parent
    return folder


@contextmanager
def out_of_memory_is_a_line(settings: TrainSettings) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"out of memory with micro_batch {settings.micro_batch}: --dry-run says what fits; a smaller --set micro_batch=N "
            "accumulates more"
        ) from error


def last_prior(workspace: Workspace) -> str:
    """The newest finished Stage I run of the workspace. Raises MissingResourceError where there is none."""
    from authface_train.runs.saving import notes_of

    runs = workspace.local("runs")
    runs.mkdir(exist_ok=True)
    finished = [
        folder
        for folder in runs.iterdir()
        if notes_of(folder).get("stage") == "prior" and (folder / "model_index.json").is_file()
    ]
    if not finished:
        raise MissingResourceError(
            f"there is no finished prior in {runs}: `authface train-prior` first, or name one with --prior DIR"
        )
    return str(max(finished, key=lambda folder: (folder / "model_index.json").stat().st_mtime))


def base_of(folder: Path) -> str | None:
    """What the run in a folder began from; None where there is no run."""
    record = RunFolder(folder, "restorer").record()
    return None if record is None else str(record["base"])
