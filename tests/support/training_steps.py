"""Trainers of the tiny models, and steps of them without the training loop."""

from collections.abc import Iterator, Mapping

import pandas as pd
from accelerate import Accelerator

from authface_train.data.latents import cached_latents
from authface_train.data.prompts import cached_prompts
from authface_train.data.sample_keys import SampleKey, step_keys
from authface_train.data.samples import Sample
from authface_train.models.sdxl import detach_core, tiny_sdxl
from authface_train.presets import load_preset
from authface_train.stages.restorer import RestorerTrainer, make_controlnet
from authface_train.training.loop import StepLosses, Trainer, stack_samples
from manifests.workspace import Workspace


def make_restorer_trainer(
    workspace: Workspace, view: pd.DataFrame, overrides: Mapping[str, object] | None = None
) -> RestorerTrainer:
    """A trainer of Stage II on the tiny SDXL whose facial loss acts from the first step.

    It writes latents and prompts into the workspace's cache.
    """
    from_start = {"facial.start_step": 0, "facial.discriminator_only_steps": 0}
    settings = load_preset("restorer", "tiny", {**from_start, **(overrides or {})})
    pipeline = tiny_sdxl(0)
    accelerator = Accelerator(cpu=True)

    def ignore_progress(completed: int, total: int) -> None:
        pass

    latents = cached_latents(
        workspace, pipeline.vae, view, settings.resolution_px, accelerator, ignore_progress
    )
    (null_prompt,) = cached_prompts(workspace, pipeline, [""], accelerator, ignore_progress)
    core = detach_core(pipeline)
    return RestorerTrainer(
        settings=settings,
        core=core,
        controlnet=make_controlnet(core.unet, 0, core.vae_scale_factor),
        workspace=workspace,
        view=view,
        latents=latents,
        null_prompt=null_prompt,
        accelerator=accelerator,
    )


def micro_batches(
    trainer: Trainer, keys: list[SampleKey], size: int | None = None
) -> Iterator[Sample]:
    """The samples of the keys in micro-batches of `size`, by default in one."""
    size = size or len(keys)
    for first in range(0, len(keys), size):
        yield stack_samples([trainer.dataset[key] for key in keys[first : first + size]])


def first_batch(trainer: Trainer, batch: int = 4) -> Sample:
    """The batch of step 0."""
    return next(micro_batches(trainer, step_keys(0, 0, batch, trainer.num_faces)))


def take_step(trainer: Trainer, step: int, size: int | None = None) -> StepLosses:
    """One step in micro-batches of `size`."""
    keys = step_keys(trainer.settings.seed, step, trainer.settings.batch, trainer.num_faces)
    return trainer.step(step, keys, micro_batches(trainer, keys, size))
