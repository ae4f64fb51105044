"""How strong the facial loss is beside the noise loss before a run is begun, and the lambdas that would make it right."""

from __future__ import annotations

from rich.table import Table

from authface_train.callbacks.gradient_ledger import GradientLedger, overall
from authface_train.data.sample_keys import step_keys
from authface_train.runs.checkpoint import load_last
from authface_train.runs.run_folder import RunFolder
from authface_train.stages.restorer import RestorerTrainer, stacked
from manifests.support.console import console

AIM, TOO_STRONG, WARM_STEPS = 0.1, 0.5, 100


def calibrate(trainer: RestorerTrainer, run: RunFolder) -> None:
    """Print it and advice: at the run's newest checkpoint, or at the start with discriminators that have had WARM_STEPS.

    Nothing is written.
    """
    settings, facial = trainer.settings, trainer.facial
    assert facial is not None
    done = load_last(run.checkpoints, trainer.parts, trainer.accelerator)
    if done > settings.facial.start_step:
        console.print(f"The run in {run.folder}, after {done} steps:")
    else:
        steps = min(WARM_STEPS, settings.facial.discriminator_only_steps)
        console.print(f"Before any step, with discriminators that have learnt for {steps}:")
        for step in range(steps):
            draws = step_keys(settings.seed, step, settings.batch, trainer.faces)
            batch = stacked([trainer.sample(draw) for draw in draws])
            trainer.discriminators_alone(
                step, {name: value.to(trainer.accelerator.device) for name, value in batch.items()}
            )
    entries = GradientLedger(trainer, run.folder).measure()
    table = Table(
        "timesteps", "noise", "adversarial", "Gram", "facial / noise", "cos adversarial", "cos Gram"
    )
    for entry in entries:
        band = int(entry["band"])
        pulls = (f"{entry[name]:.2e}" for name in ("noise", "adversarial", "style"))
        cosines = (f"{entry[name]:+.2f}" for name in ("cosine_adversarial", "cosine_style"))
        table.add_row(
            f"{band * 100} to {band * 100 + 99}", *pulls, f"{entry['ratio']:.3f}", *cosines
        )
    console.print(table)
    ratio = overall(entries)
    words = f"facial loss / noise loss at eps, over all timesteps: {ratio:.3f} (aim {AIM})"
    if ratio > TOO_STRONG:
        words = f"[yellow]{words}: above {TOO_STRONG} it governs what is learnt[/]"
    console.print(words)
    if ratio > 0:
        lambdas = (settings.facial.lambda_d * AIM / ratio, settings.facial.lambda_s * AIM / ratio)
        console.print(
            f"To reach the aim: [bold]--set facial.lambda_d={lambdas[0]:.3g} --set facial.lambda_s={lambdas[1]:.3g}[/]"
        )
