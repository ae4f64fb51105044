"""`--dry-run`: before any step, what a run takes per card, whether it is there, how long it lasts, and which preset fits."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from rich.table import Table

from authface_train import presets as preset
from authface_train.data.sample_keys import step_keys
from authface_train.memory.estimator import MemoryEstimator, capacity, disk_bytes
from authface_train.settings import TrainSettings
from authface_train.training.loop import Trainer, accumulation_steps
from authface_train.training.setup import existing
from manifests.support.console import console, print_json
from manifests.support.errors import UserError


@dataclass(frozen=True)
class Plan:
    """Memory and disk in GB (10^9 bytes), memory per card. hours: of all steps, None where nothing fits to be timed."""

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
    """Bytes of latents and prompts: of all, and of those that are still to be made."""

    all_bytes: float
    missing_bytes: float


def plan(
    stage: str, settings: TrainSettings, budget: MemoryEstimator, accelerator: Accelerator, make_trainer: Callable[[Any], Trainer],
    cache: CacheSize, model_bytes: float, folder: Path,
) -> Plan:  # fmt: skip
    """make_trainer: the stage's trainer for settings, on samples of noise; it is only made where the run fits."""
    world, device = accelerator.num_processes, accelerator.device
    there = capacity(device, world)
    micro: int | None = settings.micro_batch
    if micro is None:
        try:
            micro = budget.derive_micro_batch(settings, world, there)
        except UserError:
            micro = None
    found = budget.memory(settings, micro or 1, world)
    fits = micro is not None and found.total <= there
    pieces = seconds = None
    if micro is not None:
        settings = settings.model_copy(update={"micro_batch": micro})
        pieces = accumulation_steps(settings, world)
        seconds = _timed(settings, make_trainer, pieces, accelerator) if fits else None
    disk = disk_bytes(budget.rehearsal, settings, model_bytes) + cache.missing_bytes
    free = float(shutil.disk_usage(existing(folder)).free)
    return Plan(
        stage=stage,
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU",
        processes=world,
        batch=settings.batch,
        micro_batch=micro,
        accumulation=pieces,
        memory_gb={name: _gb(size) for name, size in asdict(found).items()},
        memory_total_gb=_gb(found.total),
        memory_there_gb=_gb(there),
        fits=fits and disk <= free,
        steps=settings.steps,
        seconds_per_step=seconds,
        images_per_second=settings.batch / seconds if seconds else None,
        hours=settings.steps * seconds / 3600 if seconds else None,
        cache_gb=_gb(cache.all_bytes),
        cache_missing_gb=_gb(cache.missing_bytes),
        disk_gb=_gb(disk),
        disk_free_gb=_gb(free),
        preset_that_fits=None if fits else _nearest(stage, settings, budget, world, there),
    )


def _timed(
    settings: TrainSettings,
    make_trainer: Callable[[Any], Trainer],
    pieces: int,
    accelerator: Accelerator,
) -> float:
    """Seconds of a step, from real ones of one and two micro-batches: the optimiser's share is in both."""
    assert settings.micro_batch is not None
    world = accelerator.num_processes
    trainer = make_trainer(settings)
    took = []
    for many in (1, 2) if pieces > 1 else (1,):
        trainer.settings = settings.model_copy(  # type: ignore[attr-defined]
            update={"batch": many * settings.micro_batch * world}
        )
        draws = step_keys(settings.seed, 0, many * settings.micro_batch, trainer.faces)
        samples = [trainer.sample(draw) for draw in draws[: settings.micro_batch]]
        batch = {
            name: torch.stack([one[name] for one in samples]).to(accelerator.device)
            for name in samples[0]
        }
        times = []
        for _ in range(3):  # the first makes the optimiser's state
            began = time.perf_counter()
            trainer.step(0, draws * world, iter([batch] * many))
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            times.append(time.perf_counter() - began)
        took.append(min(times[1:]))
    return took[0] if len(took) == 1 else took[0] + (pieces - 1) * max(0.0, took[1] - took[0])


def _nearest(
    stage: str, settings: TrainSettings, budget: MemoryEstimator, world: int, there: float
) -> str | None:
    """The preset for the most cards up to those here, and the most memory, of which one sample fits; None where none does."""
    cards = {
        name: card
        for name in preset.names()
        if (card := preset.card_of(name)) is not None and card.count <= world
    }
    same = {"base": getattr(settings, "base", None)}
    for name in sorted(cards, key=lambda name: (-cards[name].count, -cards[name].memory_gb)):
        changes = [f"{key}={value}" for key, value in same.items() if value]
        other = preset.load_preset(stage, name, changes)
        other = other.model_copy(update={"resolution_px": settings.resolution_px})
        if budget.memory(other, 1, world).total <= there:
            return name
    return None


def show(found: Plan, as_json: bool) -> None:
    """Print a plan."""
    if as_json:
        print_json(asdict(found))
        return
    table = Table(title=f"{found.stage} on {found.processes} x {found.device}: memory per card")
    table.add_column("what")
    table.add_column("GB", justify="right")
    for name, size in found.memory_gb.items():
        table.add_row(name, f"{size:.2f}")
    table.add_row("[bold]together", f"[bold]{found.memory_total_gb:.2f}")
    table.add_row("there", f"{found.memory_there_gb:.2f}")
    table.add_row("cache, mapped from disk and not counted", f"{found.cache_gb:.2f}")
    console.print(table)
    if found.micro_batch:
        share = (
            f"{found.micro_batch} x {found.accumulation} accumulated x {found.processes} processes"
        )
        console.print(f"batch {found.batch} = {share}")
    if found.hours is not None and found.seconds_per_step and found.images_per_second:
        console.print(
            f"{found.steps} steps of {found.seconds_per_step:.2f} s, {found.images_per_second:.2f} images/s: "
            f"[bold]{_hours(found.hours)}[/], beside {found.cache_missing_gb:.2f} GB of latents and prompts to be made first"
        )
    console.print(f"disk: {found.disk_gb:.1f} GB of {found.disk_free_gb:.1f} GB free")
    if found.fits:
        console.print("[green]It fits.[/] Run it without --dry-run")
    elif found.preset_that_fits:
        console.print(f"[red]It does not fit.[/] --preset {found.preset_that_fits} does")
    elif found.memory_total_gb > found.memory_there_gb:
        console.print(
            "[red]It does not fit, and no preset does:[/] smaller weights, or --set lora_rank=16"
        )
    else:
        console.print(
            "[red]It does not fit on the disk:[/] another --output, or --set keep_checkpoints=1"
        )


def _hours(hours: float) -> str:
    return f"{hours:.1f} hours" if hours < 48 else f"{hours / 24:.1f} days"


def _gb(size: float) -> float:
    return size / 1e9


class DummyCache(Sequence[Any]):
    """Stands for cached latents or prompts where only their shape matters: the same for every index."""

    def __init__(self, one: Any, length: int):
        self.one, self.length = one, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: Any) -> Any:
        return self.one
