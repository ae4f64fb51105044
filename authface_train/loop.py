"""One training loop for both stages: which samples a step sees, checkpoints, losses, interruption."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Iterator
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch.utils.data import DataLoader, Dataset, Sampler

from authface_train import checkpoint
from authface_train.checkpoint import Part
from authface_train.data.counters import Draw, micro_batches, step_draws
from authface_train.run import Run
from authface_train.settings import TrainSettings
from manifests.command_line import console
from manifests.errors import Terminated, UserMistake

Sample = dict[str, torch.Tensor]


class Trainer(Protocol):
    """What a stage brings to the loop. parts: all that is trained; faces: how many there are to draw from."""

    parts: dict[str, Part]
    faces: int

    def sample(self, draw: Draw) -> Sample:
        """One sample's tensors, on the CPU; the same for the same draw, whoever asks."""
        ...

    def step(self, step: int, draws: list[Draw], micros: Iterator[Sample]) -> dict[str, torch.Tensor]:
        """Forward, backward and optimiser steps of one global batch. draws: of all processes; micros: this one's batches.

        Returns the losses, each this process's share of the mean over the global batch times the number of processes.
        """
        ...


class _Samples(Dataset):
    def __init__(self, trainer: Trainer):
        self.trainer = trainer

    def __getitem__(self, draw: Draw) -> Sample:
        return self.trainer.sample(draw)


class _MicroBatches(Sampler):
    """The draws of every micro-batch of this process, from a step on."""

    def __init__(self, settings: TrainSettings, faces: int, first: int, rank: int, world: int):
        self.settings, self.faces, self.first, self.rank, self.world = settings, faces, first, rank, world

    def __iter__(self) -> Iterator[list[Draw]]:
        for step in range(self.first, self.settings.steps):
            draws = step_draws(self.settings.seed, step, self.settings.batch, self.faces)
            yield from micro_batches(draws, self.rank, self.world, self.settings.micro_batch)


def check_batch(settings: TrainSettings, world: int) -> int:
    """Micro-batches per step and process. Raises UserMistake where the global batch does not divide."""
    if settings.batch % world or (settings.batch // world) % min(settings.micro_batch, settings.batch // world):
        raise UserMistake(
            f"batch {settings.batch} does not divide over {world} processes in micro-batches of {settings.micro_batch}: "
            "change micro_batch with --set micro_batch=N"
        )
    share = settings.batch // world
    return share // min(settings.micro_batch, share)


def train(trainer: Trainer, settings: TrainSettings, run: Run, accelerator: Accelerator) -> None:
    """Train to `settings.steps`, from the newest checkpoint if there is one.

    SIGTERM and Ctrl-C save a checkpoint first. A loss that is not finite stops the run, the last good checkpoint kept.
    """
    pieces = check_batch(settings, accelerator.num_processes)
    done = checkpoint.load_last(run.checkpoints, trainer.parts, accelerator.unwrap_model)
    main = accelerator.is_main_process
    if main:
        run.open_metrics(done)
        console.print(f"{run.stage}: {trainer.faces} faces, batch {settings.batch}, steps {done} to {settings.steps}")
    loader = iter(
        DataLoader(
            _Samples(trainer),
            batch_sampler=_MicroBatches(settings, trainer.faces, done, accelerator.process_index, accelerator.num_processes),
            num_workers=settings.workers,
            worker_init_fn=_leave_signals_to_the_loop,
            persistent_workers=settings.workers > 0,
        )
    )
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[state]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with (
        _Signals() as asked,
        Progress(*columns, speed_estimate_period=600, disable=not main) as progress,
        _tensorboard(run, main, done) as board,
    ):
        bar = progress.add_task(run.stage, total=settings.steps, completed=done, state="")
        began = time.monotonic()
        for step in range(done, settings.steps):
            draws = step_draws(settings.seed, step, settings.batch, trainer.faces)
            micros = (_to(next(loader), accelerator.device) for _ in range(pieces))
            losses = _mean_over_processes(trainer.step(step, draws, micros), accelerator)
            if not all(math.isfinite(value) for value in losses.values()):
                raise RuntimeError(
                    f"step {step + 1}: the losses are {losses}; the last good checkpoint is in {run.checkpoints}"
                )
            if main:
                run.log(step + 1, losses)
                for name, value in losses.items():
                    board.add_scalar(f"{run.stage}/{name}", value, step + 1)
                rate = (step + 1 - done) * settings.batch / (time.monotonic() - began)
                progress.update(bar, completed=step + 1, state=f"loss {losses['loss']:.4f}  {rate:.1f} images/s")
            last = step + 1 == settings.steps
            if main and (last or asked.signal or (step + 1) % settings.checkpoint_every == 0):
                checkpoint.save(run.checkpoints, step + 1, trainer.parts, accelerator.unwrap_model, settings.keep_checkpoints)
            accelerator.wait_for_everyone()
            if asked.signal and not last:
                words = f"stopped after step {step + 1}, saved; go on with --resume"
                if asked.signal == signal.SIGTERM:
                    raise Terminated(words)
                raise KeyboardInterrupt(words)


def _leave_signals_to_the_loop(_: int) -> None:
    """Workers finish what the step in hand needs; the loop ends them."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def _to(sample: Sample, device: torch.device) -> Sample:
    return {name: value.to(device, non_blocking=True) for name, value in sample.items()}


def _mean_over_processes(losses: dict[str, torch.Tensor], accelerator: Accelerator) -> dict[str, float]:
    names = sorted(losses)
    values = torch.stack([losses[name].float().to(accelerator.device) for name in names])
    return dict(zip(names, accelerator.reduce(values, "mean").tolist(), strict=True))  # type: ignore[union-attr]


def _tensorboard(run: Run, main: bool, done: int) -> Any:
    """A TensorBoard writer that a resumed run takes up at its step; nothing on other processes."""
    from contextlib import nullcontext

    if not main:
        return nullcontext()
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(run.folder / "logs"), purge_step=done + 1)


class _Signals:
    """Remembers SIGTERM and SIGINT, so that the step in hand is finished and saved."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _Signals:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._remember)
        return self

    def _remember(self, number: int, _: Any) -> None:
        if self.signal is not None:
            raise KeyboardInterrupt  # asked twice: now
        self.signal = number

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
