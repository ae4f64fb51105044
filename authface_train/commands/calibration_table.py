"""Prints the strength of the facial loss, for `train-restore --calibrate`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from manifests.support.console import console
from manifests.support.text import count_of

if TYPE_CHECKING:
    from authface_train.stages.calibrate import Calibration


def print_calibration(calibration: Calibration) -> None:
    """Print gradients by timestep, the overall ratio and the lambdas to use."""
    from authface_train.stages.calibrate import MAX_RATIO, TARGET_RATIO

    faces = count_of(calibration.faces, "training face")
    console.print(f"{faces}, source [bold]{calibration.source}[/]")
    if calibration.checkpoint_step is not None:
        console.print(f"Measured at the checkpoint after step {calibration.checkpoint_step}:")
    else:
        console.print(
            "Measured before the facial loss starts, after training the discriminators for "
            f"{calibration.warmup_steps} steps:"
        )
    console.print(_gradient_table(calibration))

    ratio = calibration.ratio
    console.print(
        f"facial / noise gradient over all timesteps: {ratio:.3f} (recommended: {TARGET_RATIO})"
    )
    if ratio > MAX_RATIO:
        console.print(f"[yellow]Above {MAX_RATIO} the facial loss dominates training.[/]")
    if calibration.lambda_d is not None and calibration.lambda_s is not None:
        console.print(
            f"For a ratio of {TARGET_RATIO}: [bold]"
            f"--set facial.lambda_d={calibration.lambda_d:.3g} "
            f"--set facial.lambda_s={calibration.lambda_s:.3g}[/]"
        )


def _gradient_table(calibration: Calibration) -> Table:
    table = Table(
        "timesteps",
        "noise",
        "adversarial",
        "Gram",
        "facial / noise",
        "cos adversarial",
        "cos Gram",
    )
    for entry in calibration.entries:
        first_timestep = int(entry["band"]) * 100
        table.add_row(
            f"{first_timestep} to {first_timestep + 99}",
            f"{entry['noise']:.2e}",
            f"{entry['adversarial']:.2e}",
            f"{entry['style']:.2e}",
            f"{entry['ratio']:.3f}",
            f"{entry['cosine_adversarial']:+.2f}",
            f"{entry['cosine_style']:+.2f}",
        )
    return table
