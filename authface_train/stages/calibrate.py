"""Calibration of Stage II: strength of the facial loss relative to the noise loss."""

from __future__ import annotations

from dataclasses import dataclass

from authface_train.callbacks.gradient_ledger import GradientLedger, LedgerEntry, overall_ratio
from authface_train.data.sample_keys import step_keys
from authface_train.runs.checkpoint import load_latest
from authface_train.runs.training_run import TrainingRun
from authface_train.stages.restorer import RestorerTrainer
from authface_train.training.loop import stack_samples, to_device
from manifests.support.progress import track

TARGET_RATIO = 0.1
"""Recommended ratio of the facial loss's gradient to the noise loss's."""
MAX_RATIO = 0.5
"""Above this ratio the facial loss dominates training."""
MAX_WARMUP_STEPS = 100
"""Maximum number of steps that new discriminators are trained before the measurement."""


@dataclass(frozen=True)
class Calibration:
    """Gradients of the facial loss and the noise loss, and the lambdas to use.

    Attributes:
        source: Where the training faces come from, see `TrainSettings.source`.
        faces: Number of training faces.
        checkpoint_step: Step of the measured checkpoint. None if the facial loss had not started
            by then, in which case new discriminators were trained first.
        warmup_steps: Number of steps that the new discriminators were trained; 0 for a checkpoint.
        entries: Gradients by timestep bin.
        ratio: Facial gradient divided by noise gradient, over all timesteps.
        lambda_d: Setting `facial.lambda_d` that reaches `TARGET_RATIO`; None if the ratio is 0.
        lambda_s: Setting `facial.lambda_s` that reaches `TARGET_RATIO`; None if the ratio is 0.
    """

    source: str | None
    faces: int
    checkpoint_step: int | None
    warmup_steps: int
    entries: list[LedgerEntry]
    ratio: float
    lambda_d: float | None
    lambda_s: float | None


def calibrate(trainer: RestorerTrainer, run: TrainingRun) -> Calibration:
    """Measure the gradients at the run's newest checkpoint, or before the run starts.

    If the facial loss has not started at that checkpoint, the discriminators are trained alone for
    up to `MAX_WARMUP_STEPS` steps first: untrained ones give no meaningful gradient. Nothing is
    written to the run folder.

    Args:
        trainer: A trainer with a facial loss. Its weights are changed.
        run: The run, which may not exist yet.
    """
    settings = trainer.settings.facial
    finished_steps = load_latest(run.checkpoint_folder, trainer.models, trainer.accelerator)
    warmup_steps = 0
    if finished_steps <= settings.start_step:
        warmup_steps = min(MAX_WARMUP_STEPS, settings.discriminator_only_steps)
        _train_discriminators(trainer, warmup_steps)

    entries = GradientLedger(trainer=trainer, folder=run.folder).measure()
    ratio = overall_ratio(entries)
    return Calibration(
        source=trainer.settings.source,
        faces=trainer.num_faces,
        checkpoint_step=finished_steps if finished_steps > settings.start_step else None,
        warmup_steps=warmup_steps,
        entries=entries,
        ratio=ratio,
        lambda_d=settings.lambda_d * TARGET_RATIO / ratio if ratio > 0 else None,
        lambda_s=settings.lambda_s * TARGET_RATIO / ratio if ratio > 0 else None,
    )


def _train_discriminators(trainer: RestorerTrainer, num_steps: int) -> None:
    """Train the discriminators alone on the samples of the run's first steps."""
    settings = trainer.settings
    device = trainer.accelerator.device
    for step in track(range(num_steps), "warm-up", unit="steps"):
        keys = step_keys(settings.seed, step, settings.batch, trainer.num_faces)
        batch = stack_samples([trainer.dataset[key] for key in keys])
        trainer.train_discriminators(step, to_device(batch, device))
