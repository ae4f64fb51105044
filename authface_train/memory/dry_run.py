"""Dry runs: memory, disk space and duration of a training run, before it is started."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar, overload

import torch
from accelerate import Accelerator

from authface_train.data.sample_keys import step_keys
from authface_train.data.samples import Sample
from authface_train.memory.estimator import (
    MemoryEstimator,
    estimate_disk_use,
)
from authface_train.presets import Card, card_of, load_preset, preset_names
from authface_train.settings import PriorSettings, RestorerSettings
from authface_train.training.loop import Trainer, accumulation_steps, stack_samples, to_device
from authface_train.training.sample_loader import derive_workers
from authface_train.training.setup import nearest_existing_folder, smallest_capacity
from manifests.support.errors import UserError

ValueT = TypeVar("ValueT")
StageSettings = PriorSettings | RestorerSettings

GB = 1e9


@dataclass(frozen=True)
class Plan:
    """Estimated memory, disk space and duration of a run. Fields are those of `--dry-run --json`.

    Attributes:
        stage: "prior" or "restorer".
        device: Name of the GPU, or "CPU".
        processes: Number of processes, one per device.
        batch: Samples per step over all processes.
        micro_batch: Samples per process and forward pass; None if not even one fits into memory.
        accumulation: Micro-batches per step and process; None if none fits.
        memory_gb: Estimated memory per device in GB (10^9 bytes), by part; see `MemoryUse`.
        memory_total_gb: Their sum.
        memory_there_gb: Memory that a run may use on each device.
        fits: Whether both memory and disk space suffice.
        faces: Number of training and held-out faces.
        source: Setting `source` of the run; None if it is open because no face was read.
        steps: Steps of the whole run.
        seconds_per_step: Measured duration of a step, with the preparation of its samples; None if
            the run does not fit into memory.
        images_per_second: Measured samples per second, over all processes.
        hours: Duration of all steps.
        cache_gb: Size of the cached crops, latents and prompt embeddings.
        cache_missing_gb: Size of the part that is not computed yet.
        disk_gb: Disk space for checkpoints, the finished model and the missing cache.
        disk_free_gb: Free disk space.
        preset_that_fits: A preset whose memory suffices, if this run's does not.
    """

    stage: str
    device: str
    processes: int
    batch: int
    micro_batch: int | None
    accumulation: int | None
    memory_gb: dict[str, float]
    memory_total_gb: float
    memory_there_gb: float
    fits: bool
    faces: int
    source: str | None
    steps: int
    seconds_per_step: float | None
    images_per_second: float | None
    hours: float | None
    cache_gb: float
    cache_missing_gb: float
    disk_gb: float
    disk_free_gb: float
    preset_that_fits: str | None


@dataclass(frozen=True)
class CacheSize:
    """Size of the cached crops, latents and prompt embeddings, in bytes.

    Attributes:
        all_bytes: Size for all faces and prompts.
        missing_bytes: Size of the part that is not computed yet.
    """

    all_bytes: float
    missing_bytes: float


@dataclass(frozen=True)
class Machine:
    """The devices of a run.

    Attributes:
        device: Name of the GPU, or "CPU".
        processes: Number of processes, one per device.
        capacity: Memory in bytes that a run may use on each device.
    """

    device: str
    processes: int
    capacity: float


def this_machine(accelerator: Accelerator) -> Machine:
    """The devices of the present processes, which must all call it together.

    Args:
        accelerator: Knows the device and the processes.
    """
    device = accelerator.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    return Machine(name, accelerator.num_processes, smallest_capacity(accelerator))


class DummyCache(Sequence[ValueT]):
    """A sequence that holds the same value at every index.

    It replaces cached latents or prompt embeddings when only their shape matters.

    Args:
        value: The value.
        length: Length of the sequence.
    """

    def __init__(self, value: ValueT, length: int) -> None:
        self.value = value
        self.length = length

    def __len__(self) -> int:
        return self.length

    @overload
    def __getitem__(self, index: int) -> ValueT: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[ValueT]: ...
    def __getitem__(self, index: int | slice) -> ValueT | Sequence[ValueT]:
        if isinstance(index, slice):
            return DummyCache(self.value, len(range(*index.indices(self.length))))
        return self.value


def plan_run(
    *,
    stage: str,
    settings: StageSettings,
    estimator: MemoryEstimator,
    machine: Machine,
    measure_step: Callable[[StageSettings, int], float] | None,
    num_faces: int,
    cache_size: CacheSize,
    model_bytes: float,
    folder: Path,
) -> Plan:
    """Estimate memory and disk space of a run, and time a few steps if it fits into memory.

    Args:
        stage: "prior" or "restorer".
        settings: Settings of the run.
        estimator: Estimates the memory of the stage.
        machine: The devices of the run.
        measure_step: Measures the duration of a step in seconds, for settings with a micro-batch
            and the number of micro-batches. It is called only if the run fits. None leaves the
            duration open.
        num_faces: Number of training and held-out faces.
        cache_size: Size of the cached inputs.
        model_bytes: Size of the finished model.
        folder: Where the run would be written; its disk must hold the checkpoints.
    """
    num_processes = machine.processes
    capacity = machine.capacity
    micro_batch = settings.micro_batch
    if micro_batch is None:
        micro_batch = _largest_micro_batch(estimator, settings, num_processes, capacity)
    memory = estimator.estimate(settings, micro_batch or 1, num_processes)
    fits_memory = micro_batch is not None and memory.total <= capacity

    accumulation: int | None = None
    step_s: float | None = None
    if micro_batch is not None:
        settings = settings.model_copy(update={"micro_batch": micro_batch})
        accumulation = accumulation_steps(settings, num_processes)
        if fits_memory and measure_step is not None:
            step_s = measure_step(settings, accumulation)

    disk_use = estimate_disk_use(estimator.fake_pass, settings, model_bytes)
    disk_bytes = disk_use.peak + cache_size.missing_bytes
    free_bytes = float(shutil.disk_usage(nearest_existing_folder(folder)).free)

    preset_that_fits: str | None = None
    if not fits_memory:
        preset_that_fits = _find_preset(stage, settings, estimator, num_processes, capacity)

    return Plan(
        stage=stage,
        device=machine.device,
        processes=num_processes,
        batch=settings.batch,
        micro_batch=micro_batch,
        accumulation=accumulation,
        memory_gb={part: size / GB for part, size in asdict(memory).items()},
        memory_total_gb=memory.total / GB,
        memory_there_gb=capacity / GB,
        fits=fits_memory and disk_bytes <= free_bytes,
        faces=num_faces,
        source=settings.source,
        steps=settings.steps,
        seconds_per_step=step_s,
        images_per_second=settings.batch / step_s if step_s else None,
        hours=settings.steps * step_s / 3600 if step_s else None,
        cache_gb=cache_size.all_bytes / GB,
        cache_missing_gb=cache_size.missing_bytes / GB,
        disk_gb=disk_bytes / GB,
        disk_free_gb=free_bytes / GB,
        preset_that_fits=preset_that_fits,
    )


def _largest_micro_batch(
    estimator: MemoryEstimator, settings: StageSettings, num_processes: int, capacity: float
) -> int | None:
    """The largest micro-batch that fits, or None."""
    try:
        return estimator.derive_micro_batch(settings, num_processes, capacity)
    except UserError:
        return None


def time_step(
    settings: StageSettings,
    make_trainer: Callable[[StageSettings], Trainer],
    accumulation: int,
    accelerator: Accelerator,
) -> float:
    """Duration of a step in seconds, with the preparation of its samples.

    It is extrapolated from steps of one and of two micro-batches. The optimizer runs once per step,
    so the two durations differ by the cost of one micro-batch.

    Args:
        settings: Settings of the run, with a micro-batch.
        make_trainer: Builds the trainer.
        accumulation: Micro-batches per step and process.
        accelerator: Knows the device and the processes.
    """
    trainer = make_trainer(settings)
    batch, samples_s = _time_samples(trainer, settings)
    batch = to_device(batch, accelerator.device)
    step_s = _time_micro_batches(trainer, settings, batch, 1, accelerator)
    if accumulation > 1:
        step_of_two_s = _time_micro_batches(trainer, settings, batch, 2, accelerator)
        step_s += (accumulation - 1) * max(0.0, step_of_two_s - step_s)
    num_workers = settings.workers
    if num_workers is None:
        batch_bytes = sum(tensor.nbytes for tensor in batch.values())
        num_workers = derive_workers(batch_bytes, accelerator.device)
    if num_workers:
        # Workers prepare samples while the device computes.
        return max(step_s, accumulation * samples_s / num_workers)
    return step_s + accumulation * samples_s


def _time_samples(trainer: Trainer, settings: StageSettings) -> tuple[Sample, float]:
    """Prepare a micro-batch on the CPU. Returns it and the seconds that it took one worker."""
    keys = step_keys(settings.seed, 0, settings.batch, trainer.num_faces)
    trainer.dataset[keys[0]]  # opens files
    started = time.perf_counter()
    batch = stack_samples([trainer.dataset[key] for key in keys[: settings.micro_batch]])
    return batch, time.perf_counter() - started


def _time_micro_batches(
    trainer: Trainer,
    settings: StageSettings,
    batch: Sample,
    num_micro_batches: int,
    accelerator: Accelerator,
) -> float:
    """Duration of a step of `num_micro_batches` micro-batches in seconds, the shorter of two.

    The step is the last one of the run, in which the facial loss of Stage II is at work.
    """
    micro_batch = len(batch["latent"])
    num_processes = accelerator.num_processes
    samples_per_process = num_micro_batches * micro_batch
    trainer.settings = settings.model_copy(  # type: ignore[attr-defined]
        update={"batch": samples_per_process * num_processes}
    )
    keys = step_keys(settings.seed, 0, samples_per_process, trainer.num_faces)

    durations_s = []
    for _ in range(3):
        started = time.perf_counter()
        trainer.step(settings.steps - 1, keys * num_processes, iter([batch] * num_micro_batches))
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        durations_s.append(time.perf_counter() - started)
    # The first step is slower because it allocates the optimizer state.
    return min(durations_s[1:])


def _find_preset(
    stage: str,
    settings: StageSettings,
    estimator: MemoryEstimator,
    num_processes: int,
    capacity: float,
) -> str | None:
    """Find the preset for the largest GPUs that fits into memory here with one sample.

    Presets for more GPUs than there are processes are left out.
    """
    cards: dict[str, Card] = {}
    for name in preset_names():
        card = card_of(name)
        if card is not None and card.count <= num_processes:
            cards[name] = card

    largest_first = sorted(cards, key=lambda name: (-cards[name].count, -cards[name].memory_gb))
    overrides = {"base": settings.base} if isinstance(settings, PriorSettings) else {}
    for name in largest_first:
        preset = load_preset(stage, name, overrides)
        preset = preset.model_copy(update={"resolution_px": settings.resolution_px})
        if estimator.estimate(preset, 1, num_processes).total <= capacity:
            return name
    return None
