"""The training loop of both stages: sample order, checkpoints, metrics, interruption."""

from __future__ import annotations

import contextlib
import logging
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from accelerate import Accelerator
from torch.utils.data import Dataset

from authface_train.data.sample_keys import SampleKey, derive_seed, step_keys
from authface_train.data.samples import Sample
from authface_train.runs import checkpoint
from authface_train.runs.checkpoint_saver import CheckpointSaver
from authface_train.settings import TrainSettings
from authface_train.training.loss_guard import DiscriminatorMonitor, LossGuard, primary_loss
from authface_train.training.metrics_logger import MetricsLogger
from authface_train.training.optimizer import learning_rate, set_learning_rate
from authface_train.training.processes import leave_together
from authface_train.training.sample_loader import sample_loader
from authface_train.training.signals import SignalCatcher, stop_run
from authface_train.training.trainable_model import TrainableModel
from manifests.support.errors import UserError

if TYPE_CHECKING:
    from authface_train.callbacks import Callback
    from authface_train.runs.training_run import TrainingRun

logger = logging.getLogger(__name__)

NUM_TRAIN_TIMESTEPS = 1000
"""Timesteps of SDXL's noise schedule."""
TIMESTEP_BINS = 10
"""Bins of 100 timesteps in which the noise loss is recorded."""
CPU_TENSORS = frozenset({"key", "boxes_px", "visible"})
"""Tensors of a sample that decide what is computed: reading them from a GPU would wait for it."""


@dataclass
class StepLosses:
    """Losses of one step on one process.

    Attributes:
        means: Losses and the gradient norm by name, () float32 each. Losses are scaled so that
            their mean over the processes is the mean over the global batch.
        by_timestep: (2, TIMESTEP_BINS) float32; row 0 sums this process's noise losses in each
            bin, row 1 counts its samples.
    """

    means: dict[str, torch.Tensor]
    by_timestep: torch.Tensor


class Trainer(Protocol):
    """A training stage, as the loop uses it.

    Attributes:
        models: The trained models by name. The learning rate schedule applies to the first.
        num_faces: Number of faces to draw samples from.
    """

    models: dict[str, TrainableModel]
    num_faces: int

    @property
    def dataset(self) -> Dataset[Sample]:
        """Maps the key of a sample to its tensors on the CPU.

        They depend on the key and the run's seed alone. Data workers receive a pickled copy.
        """
        ...

    def step(self, step: int, keys: list[SampleKey], micro_batches: Iterator[Sample]) -> StepLosses:
        """Forward, backward and optimizer step of one global batch.

        Args:
            step: Number of the step, from 0.
            keys: The samples of the global batch, of all processes.
            micro_batches: This process's samples, in micro-batches on its device.
        """
        ...


def stack_samples(samples: Sequence[Sample]) -> Sample:
    """Stack samples into a batch: each tensor gets a leading batch dimension."""
    return {name: torch.stack([sample[name] for sample in samples]) for name in samples[0]}


def to_device(batch: Sample, device: torch.device) -> Sample:
    """Move a batch to a device, but `CPU_TENSORS`. Copies from pinned memory run asynchronously.

    Args:
        batch: Tensors by name.
        device: The device.
    """
    return {
        name: tensor if name in CPU_TENSORS else tensor.to(device, non_blocking=True)
        for name, tensor in batch.items()
    }


def train(
    trainer: Trainer,
    callbacks: Sequence[Callback],
    *,
    settings: TrainSettings,
    run: TrainingRun,
    accelerator: Accelerator,
) -> None:
    """Train to `settings.steps`, from the newest checkpoint if there is one.

    A signal of `STOP_SIGNALS`, sent to any process, finishes the step, saves a checkpoint and
    stops the run.

    Args:
        trainer: The stage.
        callbacks: Called after every step, see `Callback`.
        settings: The run's settings, with a micro-batch.
        run: Where metrics and checkpoints are written.
        accelerator: Knows the device and the processes.

    Raises:
        Terminated: After SIGTERM, SIGUSR1 or SIGHUP, when the checkpoint is saved.
        KeyboardInterrupt: After Ctrl-C, when the checkpoint is saved.
        PartialFailureError: If a loss is non-finite or spikes; the last checkpoint is kept.
        UserError: If the batch cannot be divided over the processes, or a checkpoint cannot be
            written.
    """
    is_main = accelerator.is_main_process
    rank = accelerator.process_index
    accumulation = accumulation_steps(settings, accelerator.num_processes)
    first_step = checkpoint.load_latest(run.checkpoint_folder, trainer.models, accelerator)
    if is_main:
        _log_start(trainer, settings, run, first_step, accumulation, accelerator.num_processes)

    history = [primary_loss(row) for row in run.read_metrics() if int(row["step"]) <= first_step]
    loss_guard = LossGuard(settings.spike, history)
    discriminator_monitor = DiscriminatorMonitor()
    with (
        sample_loader(
            trainer.dataset, trainer.num_faces, settings, first_step, accelerator
        ) as loader,
        SignalCatcher(may_abort=accelerator.num_processes == 1) as signals,
        MetricsLogger(run, settings, first_step)
        if is_main
        else contextlib.nullcontext() as metrics_logger,
        CheckpointSaver(run.checkpoint_folder, accelerator, settings.keep_checkpoints) as saver,
    ):
        for callback in callbacks:
            callback.on_step_end(first_step, metrics_logger)

        for step in range(first_step, settings.steps):
            keys = step_keys(settings.seed, step, settings.batch, trainer.num_faces)
            batches = (to_device(next(loader), accelerator.device) for _ in range(accumulation))
            rate = learning_rate(settings, step)
            # Discriminators, the models after the first, keep their own rate.
            set_learning_rate(next(iter(trainer.models.values())).optimizer, rate)
            # The global generators serve dropout and stochastic rounding.
            torch.manual_seed(derive_seed(settings.seed, step, rank, "step"))

            losses = trainer.step(step, keys, batches)
            metrics, stop_signal, save_failed = _reduce_step(
                losses, signals.received, saver.has_failed, accelerator
            )
            loss_guard.check(step + 1, metrics)
            if metrics_logger is not None:
                metrics_logger.log_step(step + 1, metrics, rate)
                discriminator_monitor.check(step + 1, metrics)

            if stop_signal and is_main:
                logger.info("a signal stops the run; saving step %d", step + 1)
            is_last = step + 1 == settings.steps
            is_due = (step + 1) % settings.checkpoint_every == 0
            if is_due or is_last or stop_signal or save_failed:
                must_wait = is_last or stop_signal or save_failed
                saver.save(
                    step + 1,
                    trainer.models,
                    best=run.best_step(),
                    in_background=settings.checkpoint_in_background and not must_wait,
                )
                accelerator.wait_for_everyone()
            if stop_signal:
                leave_together(accelerator)
                stop_run(
                    stop_signal,
                    f"stopped after step {step + 1} and saved; continue with --resume",
                )
            for callback in callbacks:
                callback.on_step_end(step + 1, metrics_logger)
            if metrics_logger is not None:
                metrics_logger.resume_timer()

        # A signal during the last callbacks.
        stop_signal = _reduce_signals(signals.received, accelerator)
        if stop_signal:
            leave_together(accelerator)
            stop_run(stop_signal, "stopped after the last step; --resume writes the model")


def _log_start(
    trainer: Trainer,
    settings: TrainSettings,
    run: TrainingRun,
    first_step: int,
    accumulation: int,
    num_processes: int,
) -> None:
    micro_batch = settings.batch // num_processes // accumulation
    logger.info(
        "%s: %d faces, steps %d to %d, batch %d = %d x %d accumulated x %d processes",
        run.stage,
        trainer.num_faces,
        first_step,
        settings.steps,
        settings.batch,
        micro_batch,
        accumulation,
        num_processes,
    )


# How the global batch is divided


def samples_per_process(settings: TrainSettings, num_processes: int) -> int:
    """Number of samples per step and process.

    Args:
        settings: `batch` is used.
        num_processes: Number of processes.

    Raises:
        UserError: If the global batch is not a multiple of the number of processes.
    """
    if settings.batch % num_processes:
        raise UserError(
            f"batch {settings.batch} is not a multiple of {num_processes} processes; "
            "use another --set batch=N or another number of processes"
        )
    return settings.batch // num_processes


def accumulation_steps(settings: TrainSettings, num_processes: int) -> int:
    """Number of micro-batches per step and process.

    Args:
        settings: `batch` and `micro_batch` are used; a micro-batch larger than a process's share of
            the batch counts as that share.
        num_processes: Number of processes.

    Raises:
        UserError: If a process's share of the batch is not a multiple of the micro-batch.
    """
    share = samples_per_process(settings, num_processes)
    assert settings.micro_batch is not None, "the micro-batch is derived before training starts"
    micro_batch = min(settings.micro_batch, share)
    if share % micro_batch:
        raise UserError(
            f"batch {settings.batch} over {num_processes} processes is {share} samples each, not a "
            f"multiple of micro_batch {micro_batch}; change it with --set micro_batch=N"
        )
    return share // micro_batch


# Reducing losses and signals over the processes


def _reduce_step(
    losses: StepLosses, received: int | None, save_failed: bool, accelerator: Accelerator
) -> tuple[dict[str, float | None], int, bool]:
    """Average the losses over the processes and find out what has happened to any process.

    One reduction carries it all, so that every process does the same after the same step.

    Args:
        losses: Losses of this process.
        received: Signal that this process received, or None.
        save_failed: Whether this process could not write a checkpoint in the background.
        accelerator: Reduces over the processes.

    Returns:
        Metrics by name; SIGTERM, SIGINT or 0, see `_signal_of_flags`; and `save_failed` of any
        process. The metrics include the mean noise loss of each timestep bin, `loss_t000` to
        `loss_t900`; it is None if no process has a sample in the bin.
    """
    device = accelerator.device
    names = sorted(losses.means)
    means = torch.stack([losses.means[name].float().to(device) for name in names])
    flags = _signal_flags(received, means.device)
    failure = torch.tensor([float(save_failed)], device=means.device)
    packed = torch.cat([means, losses.by_timestep.flatten().to(means), flags, failure])
    reduced: list[float] = accelerator.reduce(packed, "mean").tolist()  # type: ignore[union-attr]

    metrics: dict[str, float | None] = dict(zip(names, reduced, strict=False))
    sums = reduced[len(names) : len(names) + TIMESTEP_BINS]
    counts = reduced[len(names) + TIMESTEP_BINS : len(names) + 2 * TIMESTEP_BINS]
    for index, (total, count) in enumerate(zip(sums, counts, strict=True)):
        first_timestep = index * NUM_TRAIN_TIMESTEPS // TIMESTEP_BINS
        metrics[f"loss_t{first_timestep:03d}"] = total / count if count else None
    return metrics, _signal_of_flags(reduced[-3:-1]), bool(reduced[-1])


def _reduce_signals(received: int | None, accelerator: Accelerator) -> int:
    """The signal that any process received, or 0. All processes must call it together."""
    flags = _signal_flags(received, accelerator.device)
    reduced: list[float] = accelerator.reduce(flags, "mean").tolist()  # type: ignore[union-attr]
    return _signal_of_flags(reduced)


def _signal_flags(received: int | None, device: torch.device) -> torch.Tensor:
    """(2,) float32: whether a signal other than Ctrl-C was received, and whether Ctrl-C was."""
    is_interrupt = received == signal.SIGINT
    is_other = received is not None and not is_interrupt
    return torch.tensor([float(is_other), float(is_interrupt)], device=device)


def _signal_of_flags(flags: Sequence[float]) -> int:
    """SIGTERM for any signal other than Ctrl-C, SIGINT for Ctrl-C, or 0."""
    is_other, is_interrupt = flags
    if is_other:
        return signal.SIGTERM
    return signal.SIGINT if is_interrupt else 0
