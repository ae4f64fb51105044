"""Builds training runs: inputs, then trainer, then callbacks. Real, dry and reproduced runs alike.

A command makes a `JobRequest`. `build_job` turns it into a `TrainingJob`, refusing what cannot work
before anything is computed, and `run_job` trains it and saves the model. `plan_job` measures what
the run would take, and `calibrate_job` how strong the facial loss is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import torch
from accelerate import Accelerator

from authface_train.callbacks import Callback
from authface_train.data.captions import build_captions
from authface_train.data.latents import Latents, cached_latents, latents_cache
from authface_train.data.prompts import Embedding, Prompts, cached_prompts
from authface_train.memory import dry_run
from authface_train.memory.estimator import (
    MemoryEstimator,
    estimate_disk_bytes,
    parameter_bytes,
)
from authface_train.memory.fake_tensor_pass import PriorPass, RestorerPass
from authface_train.models.sdxl import DiffusionCore, detach_core, load_base, vae_scale_factor
from authface_train.runs import saving
from authface_train.runs.training_run import TrainingRun
from authface_train.settings import PriorSettings, RestorerSettings, TrainSettings
from authface_train.stages.prior import PriorTrainer
from authface_train.training import setup
from authface_train.training.loop import Trainer, train
from authface_train.training.setup import TrainingRows
from manifests.support.errors import UserError
from manifests.support.progress import ProgressBar
from manifests.workspace import Workspace

if TYPE_CHECKING:
    from diffusers import StableDiffusionXLPipeline

    from authface_train.stages.calibrate import Calibration
    from authface_train.stages.restorer import RestorerTrainer

STAGE_OF_SETTINGS = {PriorSettings: "prior", RestorerSettings: "restorer"}
TRAINED_MODEL = {"prior": "unet", "restorer": "controlnet"}


@dataclass(frozen=True)
class JobRequest:
    """A requested run.

    Attributes:
        workspace: Workspace with the training faces and the caches.
        settings: Settings; their type decides the stage.
        base: Model to start from, hub id or folder: SDXL for Stage I, the prior for Stage II.
        folder: Folder of the run.
        resume: Whether an existing run may be continued.
        allow_unknown_licence: Train on faces without a licence basis.
        rows: Faces to train on instead of the workspace's training view.
    """

    workspace: Workspace
    settings: PriorSettings | RestorerSettings
    base: str
    folder: Path
    resume: bool = False
    allow_unknown_licence: bool = False
    rows: TrainingRows | None = None

    @property
    def stage(self) -> str:
        """The stage, "prior" or "restorer"."""
        return STAGE_OF_SETTINGS[type(self.settings)]

    def load_pipeline(self) -> StableDiffusionXLPipeline:
        """Load the base in float32 on the CPU."""
        return load_base(self.base, self.workspace.weights_dir, self.settings.seed)


@dataclass(frozen=True)
class CachedInputs:
    """Encoded inputs of a run. Stage II uses the training latents and the null prompt only.

    Attributes:
        train_latents: Posteriors of the training faces, see `NoiseSampler`.
        null_prompt: Embedding of the empty prompt.
        val_latents: Posteriors of the held-out faces.
        train_prompts: `settings.orders` embeddings per training face, face by face.
        val_prompts: One embedding per held-out face.
        preview_captions: Captions of the preview grids.
        preview_prompts: Their embeddings.
    """

    train_latents: Sequence[torch.Tensor]
    null_prompt: Embedding
    val_latents: Sequence[torch.Tensor] = ()
    train_prompts: Sequence[Embedding] = ()
    val_prompts: Sequence[Embedding] = ()
    preview_captions: Sequence[str] = ()
    preview_prompts: Sequence[Embedding] = ()


@dataclass(frozen=True)
class TrainingJob:
    """A run that is ready to be trained.

    Attributes:
        request: The requested run.
        settings: The settings with the launcher's sharding and a micro-batch.
        accelerator: Knows the device and the processes.
        rows: The training and held-out faces.
        run: The run's folder.
        core: The base's U-Net and scheduler.
        inputs: Encoded inputs.
        trainer: The stage.
        callbacks: What runs beside training.
    """

    request: JobRequest
    settings: PriorSettings | RestorerSettings
    accelerator: Accelerator
    rows: TrainingRows
    run: TrainingRun
    core: DiffusionCore
    inputs: CachedInputs
    trainer: Trainer
    callbacks: Sequence[Callback] = field(default=())


def build_job(request: JobRequest) -> TrainingJob:
    """Check a run, start its folder, encode its inputs and build its trainer and callbacks.

    Args:
        request: The requested run.

    Raises:
        UserError: If the run cannot work as requested; nothing is written then.
        MissingResourceError: If the base cannot be had.
    """
    from authface_train.callbacks.build import build_callbacks

    preparation = _prepare(request)
    accelerator = preparation.accelerator
    run = TrainingRun(request.folder, request.stage)
    settings = setup.choose_micro_batch(
        preparation.settings, run, request.resume, preparation.estimator, accelerator
    )
    setup.start_run(
        run,
        accelerator,
        settings,
        preparation.rows.training,
        resume=request.resume,
        base=request.base,
        unet=preparation.pipeline.unet,
        disk_bytes=estimate_disk_bytes(
            preparation.estimator.fake_pass, settings, preparation.model_bytes
        ),
    )
    with setup.explain_out_of_memory(settings):
        job = _build_trainer(preparation, settings, run)
        return replace(job, callbacks=build_callbacks(job))


def run_job(job: TrainingJob) -> None:
    """Train a job to its last step and save the model on the main process.

    Raises:
        Terminated, KeyboardInterrupt, PartialFailureError: As `training.loop.train`.
    """
    with setup.explain_out_of_memory(job.settings):
        train(job.trainer, job.callbacks, job.settings, job.run, job.accelerator)
    trained = job.trainer.models[TRAINED_MODEL[job.request.stage]]
    weights = saving.final_weights(trained, job.accelerator)
    if job.accelerator.is_main_process:
        _save(job, weights)


def plan_job(request: JobRequest) -> dry_run.Plan:
    """Estimate what a run takes, and time a few steps if it fits. Nothing is written.

    Args:
        request: What the run would be asked to do.
    """
    preparation = _prepare(request)
    rows = preparation.rows
    resolution_px = preparation.settings.resolution_px
    latent, prompt = _dummy_inputs(preparation.pipeline, resolution_px)
    num_faces = len(rows.training)
    num_prompts = 1
    cached_rows = rows.training
    if isinstance(preparation.settings, PriorSettings):
        num_prompts = num_faces * preparation.settings.orders
        cached_rows = rows.all
    latent_cache = latents_cache(request.workspace, preparation.pipeline.vae, resolution_px)
    num_missing = len(latent_cache.missing(cached_rows["crop_sha256"]))
    prompt_bytes = 4.0 * num_prompts * sum(tensor.numel() for tensor in prompt)
    latent_bytes = 4.0 * latent.numel()
    cache_size = dry_run.CacheSize(
        all_bytes=len(cached_rows) * latent_bytes + prompt_bytes,
        missing_bytes=num_missing * latent_bytes + prompt_bytes,
    )
    inputs = CachedInputs(
        train_latents=dry_run.DummyCache(latent, num_faces),
        null_prompt=prompt,
        train_prompts=dry_run.DummyCache(prompt, num_prompts),
    )
    model_bytes = preparation.model_bytes
    core = detach_core(preparation.pipeline)

    def make_trainer(settings: TrainSettings) -> Trainer:
        return _make_trainer(preparation, settings, core, inputs)

    return dry_run.plan_run(
        stage=request.stage,
        settings=preparation.settings,
        estimator=preparation.estimator,
        accelerator=preparation.accelerator,
        make_trainer=make_trainer,
        cache_size=cache_size,
        model_bytes=model_bytes,
        folder=request.folder,
    )


def calibrate_job(request: JobRequest) -> Calibration:
    """Measure the facial loss against the noise loss. Nothing is written but the caches.

    Args:
        request: A Stage II run; its newest checkpoint is measured if it has one.

    Raises:
        UserError: If the run has no facial loss.
    """
    from authface_train.stages.calibrate import calibrate
    from authface_train.stages.restorer import RestorerTrainer

    if isinstance(request.settings, RestorerSettings) and request.settings.facial.weight == "off":
        raise UserError(
            "--calibrate measures the facial loss, which facial.weight=off disables; choose "
            "another facial.weight"
        )
    preparation = _prepare(request)
    run = TrainingRun(request.folder, request.stage)
    with setup.explain_out_of_memory(preparation.settings):
        job = _build_trainer(preparation, preparation.settings, run)
        assert isinstance(job.trainer, RestorerTrainer)
        return calibrate(job.trainer, run)


@dataclass(frozen=True)
class _Preparation:
    """What is known of a run before it writes or encodes anything."""

    request: JobRequest
    settings: PriorSettings | RestorerSettings
    accelerator: Accelerator
    rows: TrainingRows
    pipeline: StableDiffusionXLPipeline
    estimator: MemoryEstimator
    model_bytes: float


def _prepare(request: JobRequest) -> _Preparation:
    accelerator, settings = setup.start_processes(request.settings)
    rows = request.rows or _load_rows(request)
    pipeline = request.load_pipeline()
    scale_factor = vae_scale_factor(pipeline)
    model_bytes = parameter_bytes(
        pipeline.unet, pipeline.vae, pipeline.text_encoder, pipeline.text_encoder_2
    )
    fake_pass: PriorPass | RestorerPass
    if isinstance(settings, PriorSettings):
        fake_pass = PriorPass(pipeline.unet, settings, scale_factor)
    else:
        fake_pass = RestorerPass(pipeline.unet, settings, scale_factor)
        # The finished model holds the ControlNet in float32 beside the prior.
        model_bytes += 4 * fake_pass.num_trainable
    estimator = MemoryEstimator(fake_pass, accelerator.device)
    return _Preparation(request, settings, accelerator, rows, pipeline, estimator, model_bytes)


def _load_rows(request: JobRequest) -> TrainingRows:
    settings = request.settings
    return setup.load_rows(
        request.workspace,
        settings.tags if isinstance(settings, PriorSettings) else "none",
        allow_unknown_licence=request.allow_unknown_licence,
        source=settings.source if isinstance(settings, RestorerSettings) else "workspace",
    )


def _build_trainer(
    preparation: _Preparation, settings: PriorSettings | RestorerSettings, run: TrainingRun
) -> TrainingJob:
    """Encode the inputs and build the trainer; VAE and text encoders are freed in between."""
    if isinstance(settings, PriorSettings):
        inputs = _encode_prior_inputs(preparation, settings)
    else:
        inputs = _encode_restorer_inputs(preparation, settings)
    core = detach_core(preparation.pipeline)
    return TrainingJob(
        request=preparation.request,
        settings=settings,
        accelerator=preparation.accelerator,
        rows=preparation.rows,
        run=run,
        core=core,
        inputs=inputs,
        trainer=_make_trainer(preparation, settings, core, inputs),
    )


def _make_trainer(
    preparation: _Preparation,
    settings: TrainSettings,
    core: DiffusionCore,
    inputs: CachedInputs,
) -> PriorTrainer | RestorerTrainer:
    view = preparation.rows.training
    accelerator = preparation.accelerator
    if isinstance(settings, PriorSettings):
        return PriorTrainer(
            settings,
            core,
            view,
            inputs.train_latents,
            inputs.train_prompts,
            inputs.null_prompt,
            accelerator,
        )

    from authface_train.stages.restorer import RestorerTrainer, make_controlnet

    assert isinstance(settings, RestorerSettings)
    controlnet = make_controlnet(core.unet, settings.seed, core.vae_scale_factor)
    return RestorerTrainer(
        settings,
        core,
        controlnet,
        preparation.request.workspace,
        view,
        inputs.train_latents,
        inputs.null_prompt,
        accelerator,
    )


def _encode_prior_inputs(preparation: _Preparation, settings: PriorSettings) -> CachedInputs:
    rows = preparation.rows
    latents = _encode_latents(preparation, rows.all)
    captions = build_captions(preparation.pipeline, rows.training, rows.held_out, settings)
    # The empty caption comes last.
    prompts = _encode_captions(preparation, [*captions.all, ""])
    num_faces = len(rows.training)
    first_val = len(captions.training)
    first_preview = first_val + len(captions.held_out)
    return CachedInputs(
        train_latents=latents.subset(0, num_faces),
        null_prompt=prompts[len(prompts) - 1],
        val_latents=latents.subset(num_faces),
        train_prompts=prompts.subset(0, first_val),
        val_prompts=prompts.subset(first_val, first_preview),
        preview_captions=captions.preview,
        preview_prompts=prompts.subset(first_preview, -1),
    )


def _encode_restorer_inputs(preparation: _Preparation, settings: RestorerSettings) -> CachedInputs:
    return CachedInputs(
        train_latents=_encode_latents(preparation, preparation.rows.training),
        null_prompt=_encode_captions(preparation, [""])[0],
    )


def _encode_latents(preparation: _Preparation, view: pd.DataFrame) -> Latents:
    is_main = preparation.accelerator.is_main_process
    with ProgressBar("latents", unit="faces", enabled=is_main) as bar:
        return cached_latents(
            preparation.request.workspace,
            preparation.pipeline.vae,
            view,
            preparation.settings.resolution_px,
            preparation.accelerator,
            bar.update,
        )


def _encode_captions(preparation: _Preparation, captions: Sequence[str]) -> Prompts:
    is_main = preparation.accelerator.is_main_process
    with ProgressBar("prompts", unit="captions", enabled=is_main) as bar:
        return cached_prompts(
            preparation.request.workspace,
            preparation.pipeline,
            captions,
            preparation.accelerator,
            bar.update,
        )


def _dummy_inputs(
    pipeline: StableDiffusionXLPipeline, size_px: int
) -> tuple[torch.Tensor, Embedding]:
    """Random values in the shape of a face's cached latents and of a prompt's embedding."""
    config = pipeline.unet.config
    side = size_px // vae_scale_factor(pipeline)
    pooled_width = (
        config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
    )
    prompt = Embedding(torch.randn(77, config.cross_attention_dim), torch.randn(pooled_width))
    return torch.randn(2, 2, config.in_channels, side, side), prompt


def _save(job: TrainingJob, weights: dict[str, torch.Tensor]) -> None:
    request = job.request
    if isinstance(job.settings, PriorSettings):
        saving.save_prior(
            job.run, job.settings, weights, load=request.load_pipeline, base=request.base
        )
        return

    from authface_train.stages.restorer import make_controlnet

    unet = request.load_pipeline().unet
    controlnet = make_controlnet(unet, job.settings.seed, job.core.vae_scale_factor)
    saving.save_restorer(
        job.run,
        job.settings,
        weights,
        controlnet=controlnet,
        load=request.load_pipeline,
        prior=request.base,
    )
