"""One training loop for both stages: which samples a step sees, checkpoints, losses, interruption."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader, Dataset, Sampler

from authface_train.data.sample_keys import SampleKey, derive_seed, micro_batches, step_keys
from authface_train.runs import checkpoint
from authface_train.runs.checkpoint import TrainableModel
from authface_train.runs.run_folder import RunFolder, read_metrics
from authface_train.settings import TrainSettings
from authface_train.training.metrics_logger import (
    DiscriminatorMonitor,
    LossGuard,
    MetricsLogger,
    primary_loss,
)
from authface_train.training.optimizer import learning_rate, set_learning_rate
from manifests.support.console import console
from manifests.support.errors import Terminated, UserError

Sample = dict[str, torch.Tensor]
TIMESTEP_BINS = 10


@dataclass
class Losses:
    """Of one step. means: this process's share of the mean over the global batch, times the number of processes. bands: (2,
    BANDS), sums and counts of this process's samples by timestep."""

    means: dict[str, torch.Tensor]
    bands: torch.Tensor


class Trainer(Protocol):
    """What a stage brings to the loop. parts: all that is trained; faces: how many there are to draw from."""

    parts: dict[str, TrainableModel]
    faces: int

    def sample(self, draw: SampleKey) -> Sample:
        """One sample's tensors, on the CPU; the same for the same draw, whoever asks."""
        ...

    def step(self, step: int, draws: list[SampleKey], micros: Iterator[Sample]) -> Losses:
        """Forward, backward and optimiser steps of one global batch. draws: of all processes; micros: this one's batches."""
        ...

    def look(self, step: int, watch: MetricsLogger | None) -> None:
        """After `step` steps, for all processes: draw and audit where it is time and not done. watch: the main process's."""
        ...


class _Samples(Dataset):
    def __init__(self, trainer: Trainer):
        self.trainer = trainer

    def __getitem__(self, draw: SampleKey) -> Sample:
        return self.trainer.sample(draw)


class _MicroBatches(Sampler):
    """The draws of every micro-batch of this process, from a step on."""

    def __init__(self, settings: TrainSettings, faces: int, first: int, rank: int, world: int):
        self.settings, self.faces, self.first, self.rank, self.world = (
            settings,
            faces,
            first,
            rank,
            world,
        )

    def __iter__(self) -> Iterator[list[SampleKey]]:
        for step in range(self.first, self.settings.steps):
            draws = step_keys(self.settings.seed, step, self.settings.batch, self.faces)
            yield from micro_batches(draws, self.rank, self.world, _micro(self.settings))


def _micro(settings: TrainSettings) -> int:
    assert settings.micro_batch is not None, "derived before anything is trained"
    return settings.micro_batch


def samples_per_process(settings: TrainSettings, world: int) -> int:
    """Samples of a step per process. Raises UserError where the global batch does not divide."""
    if settings.batch % world:
        raise UserError(f"batch {settings.batch} does not divide over {world} processes")
    return settings.batch // world


def accumulation_steps(settings: TrainSettings, world: int) -> int:
    """Micro-batches per step and process. Raises UserError where the global batch does not divide."""
    share, micro = samples_per_process(settings, world), _micro(settings)
    if share % min(micro, share):
        raise UserError(
            f"batch {settings.batch} does not divide over {world} processes in micro-batches of {micro}: "
            "change micro_batch with --set micro_batch=N"
        )
    return share // min(micro, share)


def train(
    trainer: Trainer, settings: TrainSettings, run: RunFolder, accelerator: Accelerator
) -> None:
    """Train to `settings.steps`, from the newest checkpoint if there is one.

    SIGTERM and Ctrl-C save a checkpoint first, whichever process is told. A loss that is not finite or jumps stops the run, the
    last good checkpoint kept.
    """
    pieces = accumulation_steps(settings, accelerator.num_processes)
    done = checkpoint.load_last(run.checkpoints, trainer.parts, accelerator)
    main, rank, world = (
        accelerator.is_main_process,
        accelerator.process_index,
        accelerator.num_processes,
    )
    if main:
        told = f"{run.stage}: {trainer.faces} faces, steps {done} to {settings.steps}, batch {settings.batch}"
        console.print(
            f"{told} = {settings.batch // world // pieces} x {pieces} accumulated x {world} processes"
        )
    before = [primary_loss(row) for row in read_metrics(run.metrics) if int(row["step"]) <= done]
    sanity, collapse = LossGuard(settings, before), DiscriminatorMonitor()
    with (
        _loader(trainer, settings, done, accelerator) as loader,
        _Signals() as asked,
        MetricsLogger(run, settings, done) if main else contextlib.nullcontext() as watch,
    ):
        trainer.look(done, watch)
        for step in range(done, settings.steps):
            draws = step_keys(settings.seed, step, settings.batch, trainer.faces)
            micros = (_to(next(loader), accelerator.device) for _ in range(pieces))
            rate = learning_rate(settings, step)
            # Of the first part: discriminators keep theirs.
            set_learning_rate(next(iter(trainer.parts.values())).optimiser, rate)
            torch.manual_seed(
                derive_seed(settings.seed, step, rank, "step")
            )  # for dropout and stochastic rounding
            values, stop = _over_processes(
                trainer.step(step, draws, micros), asked.signal, accelerator
            )
            sanity.check(step + 1, values)
            if watch is not None:
                watch.told(step + 1, values, rate)
                collapse.check(step + 1, values)
            last = step + 1 == settings.steps
            if last or stop or (step + 1) % settings.checkpoint_every == 0:
                checkpoint.save(
                    run.checkpoints, step + 1, trainer.parts, accelerator, settings.keep_checkpoints
                )
                accelerator.wait_for_everyone()
            if stop and not last:
                words = f"stopped after step {step + 1}, saved; go on with --resume"
                if stop == signal.SIGTERM:
                    raise Terminated(words)
                raise KeyboardInterrupt(words)
            trainer.look(step + 1, watch)
            if watch is not None:
                watch.go_on()


@contextlib.contextmanager
def _loader(
    trainer: Trainer, settings: TrainSettings, done: int, accelerator: Accelerator
) -> Iterator[Iterator[Sample]]:
    """The micro-batches of this process, from a step on, by workers that have ended when this has."""
    rank, world = accelerator.process_index, accelerator.num_processes
    with _one_thread_each() if settings.workers else contextlib.nullcontext():
        loader: Any = iter(
            DataLoader(
                _Samples(trainer),
                batch_sampler=_MicroBatches(settings, trainer.faces, done, rank, world),
                num_workers=settings.workers,
                worker_init_fn=_be_a_worker,
                persistent_workers=settings.workers > 0,
                pin_memory=accelerator.device.type == "cuda",
            )
        )
    try:
        yield loader
    finally:
        if settings.workers:  # they ignore signals: a process that came to its exit before they did would wait for ever
            loader._shutdown_workers()


@contextlib.contextmanager
def _one_thread_each() -> Iterator[None]:
    """Processes that are forked within keep OpenCV to one thread, as torch does by itself. They cannot be told so afterwards: a
    pool of threads that is forked is waited for in vain."""
    import cv2

    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)


def _be_a_worker(_: int) -> None:
    """Workers finish what the step in hand needs: the loop ends them."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def _to(sample: Sample, device: torch.device) -> Sample:
    return {name: value.to(device, non_blocking=True) for name, value in sample.items()}


def _over_processes(
    losses: Losses, signalled: int | None, accelerator: Accelerator
) -> tuple[dict[str, float | None], int]:
    """The losses of the global batch by name, bands among them; and the signal that any process was sent, 0 for none.

    One exchange for all, so that every process stops after the same step.
    """
    names = sorted(losses.means)
    means = torch.stack([losses.means[name].float().to(accelerator.device) for name in names])
    told = torch.tensor(
        [float(signalled == signal.SIGTERM), float(signalled == signal.SIGINT)], device=means.device
    )
    everything = torch.cat([means, losses.bands.flatten().to(means), told])
    numbers: list[float] = accelerator.reduce(everything, "mean").tolist()  # type: ignore[union-attr]
    values: dict[str, float | None] = dict(zip(names, numbers, strict=False))
    sums, counts = (
        numbers[len(names) : len(names) + TIMESTEP_BINS],
        numbers[len(names) + TIMESTEP_BINS : len(names) + 2 * TIMESTEP_BINS],
    )
    for band in range(TIMESTEP_BINS):
        values[f"loss_t{band * 1000 // TIMESTEP_BINS:03d}"] = (
            sums[band] / counts[band] if counts[band] else None
        )
    return values, signal.SIGTERM if numbers[-2] else signal.SIGINT if numbers[-1] else 0


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
