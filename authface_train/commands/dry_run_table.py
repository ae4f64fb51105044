"""Prints memory, disk space and duration of a training run, for `--dry-run`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from manifests.support.console import console
from manifests.support.text import count_of

if TYPE_CHECKING:
    from authface_train.memory.dry_run import Plan


def print_plan(plan: Plan) -> None:
    """Print a plan: memory by part, duration, disk space, and whether the run fits."""
    console.print(_memory_table(plan))
    source = "" if plan.source is None else f", source [bold]{plan.source}[/]"
    console.print(f"{count_of(plan.faces, 'face')}{source}")
    if plan.micro_batch:
        console.print(
            f"batch {plan.batch} = {plan.micro_batch} x {plan.accumulation} accumulated "
            f"x {plan.processes} processes"
        )
    if plan.hours is not None:
        console.print(
            f"{plan.steps} steps of {plan.seconds_per_step:.2f} s "
            f"({plan.images_per_second:.2f} images/s): [bold]{_format_hours(plan.hours)}[/], "
            f"after {plan.cache_missing_gb:.2f} GB of inputs have been cached"
        )
    elif plan.fits:
        console.print(
            f"{plan.steps:,} steps; their duration is measured once the weights are on this machine"
        )
    console.print(f"disk: {plan.disk_gb:.1f} GB needed, {plan.disk_free_gb:.1f} GB free")
    console.print(_conclusion(plan))


def _memory_table(plan: Plan) -> Table:
    table = Table(title=f"{plan.stage} on {plan.processes} x {plan.device}: memory per device")
    table.add_column("part")
    table.add_column("GB", justify="right")
    for part, size_gb in plan.memory_gb.items():
        table.add_row(part, f"{size_gb:.2f}")
    table.add_row("[bold]total", f"[bold]{plan.memory_total_gb:.2f}")
    table.add_row("available", f"{plan.memory_there_gb:.2f}")
    table.add_row("cache (memory-mapped, not counted)", f"{plan.cache_gb:.2f}")
    return table


def _conclusion(plan: Plan) -> str:
    if plan.fits:
        return "[green]It fits.[/] Start it without --dry-run"
    if plan.preset_that_fits:
        return f"[red]It does not fit into memory.[/] --preset {plan.preset_that_fits} fits"
    if plan.memory_total_gb > plan.memory_there_gb:
        return "[red]It does not fit into memory, and no preset does.[/] Try --set lora_rank=16"
    return "[red]It does not fit on the disk.[/] Use another --output, or --set keep_checkpoints=1"


def _format_hours(hours: float) -> str:
    return f"{hours:.1f} hours" if hours < 48 else f"{hours / 24:.1f} days"
