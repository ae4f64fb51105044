"""Trainers of the tiny models, and steps of them without the training loop."""

from collections.abc import Iterator, Mapping, Sequence

import pandas as pd
import torch
from accelerate import Accelerator

from authface_train.data.latents import cached_latents
from authface_train.data.prompts import Embedding, cached_prompts
from authface_train.data.sample_keys import SampleKey, step_keys
from authface_train.data.samples import Sample
from authface_train.models.sdxl import detach_core, tiny_sdxl
from authface_train.presets import load_preset
from authface_train.settings import PriorSettings
from authface_train.stages.prior import PriorTrainer
from authface_train.stages.restorer import RestorerTrainer, make_controlnet
from authface_train.training.loop import StepLosses, Trainer, stack_samples
from manifests.workspace import Workspace

NUM_FACES = 6
"""Faces of the trainer of Stage I."""
NULL_PROMPT = Embedding(torch.zeros(77, 64), torch.zeros(32))


class RandomLatents(Sequence):
    """Random latents, different for every face.

    Args:
        side: Height and width of the latents.
    """

    def __init__(self, side: int) -> None:
        self.side = side

    def __len__(self) -> int:
        return NUM_FACES

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        return torch.randn(2, 2, 4, self.side, self.side, generator=generator) * 5


class RandomPrompts(Sequence):
    """Random embeddings, different for every caption."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(100 + index)
        return Embedding(
            torch.randn(77, 64, generator=generator), torch.randn(32, generator=generator)
        )


def make_prior_trainer(
    overrides: Mapping[str, object] | None = None, latent_side: int = 16
) -> PriorTrainer:
    """A trainer of Stage I on the tiny SDXL, with random latents and prompts."""
    settings = load_preset("prior", "tiny", {"audit": False, **(overrides or {})})
    assert isinstance(settings, PriorSettings)
    return PriorTrainer(
        settings=settings,
        core=detach_core(tiny_sdxl(0)),
        view=pd.DataFrame({"face_id": [f"face-{number}" for number in range(NUM_FACES)]}),
        latents=RandomLatents(latent_side),
        prompts=RandomPrompts(NUM_FACES * settings.orders),
        null_prompt=NULL_PROMPT,
        accelerator=Accelerator(cpu=True),
    )


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
