"""Builds and runs the training jobs of both stages.

A command creates a `JobRequest` and passes it to one of three functions:

* `build_job` checks the request, encodes the inputs and builds the trainer; `run_job` then trains
  and saves the model.
* `plan_job` is the dry run: it estimates memory, disk space and duration.
* `calibrate_job` measures the strength of the facial loss of a Stage II run.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import torch
from accelerate import Accelerator

from authface_train.data.captions import build_captions
from authface_train.data.crops import cache_crops, crop_bytes, crops_cache
from authface_train.data.degradation import REFERENCE_PX
from authface_train.data.latents import Latents, cached_latents, latents_cache
from authface_train.data.prompts import Embedding, Prompts, cached_prompts
from authface_train.memory import dry_run
from authface_train.memory.dry_run import StageSettings
from authface_train.memory.estimator import (
    FLOAT32_BYTES,
    MemoryEstimator,
    count_parameters,
    estimate_disk_use,
)
from authface_train.memory.fake_tensor_pass import (
    NUM_TOKENS,
    PriorPass,
    RestorerPass,
    pooled_width,
)
from authface_train.memory.peak_cache import PeakCache
from authface_train.models.digest import model_digest
from authface_train.models.sdxl import DiffusionCore, detach_core, load_base, vae_scale_factor
from authface_train.runs import saving
from authface_train.runs.training_run import TrainingRun
from authface_train.settings import PriorSettings, RestorerSettings
from authface_train.stages.prior import PriorTrainer
from authface_train.training import setup
from authface_train.training.loop import Trainer, train
from authface_train.training.machines import check_same_request, check_shared_run
from authface_train.training.processes import leave_together, run_on_main
from authface_train.training.setup import TrainingRows
from manifests.run_register import register_run
from manifests.support.errors import UserError
from manifests.support.progress import ProgressBar
from manifests.workspace import Workspace

if TYPE_CHECKING:
    from diffusers import StableDiffusionXLPipeline

    from authface_train.stages.calibrate import Calibration
    from authface_train.stages.restorer import RestorerTrainer

logger = logging.getLogger(__name__)

STAGE_OF_SETTINGS = {PriorSettings: "prior", RestorerSettings: "restorer"}
TRAINED_MODEL = {"prior": "unet", "restorer": "controlnet"}
"""Name of the model that a stage saves, among the trainer's `models`."""


@dataclass(frozen=True)
class JobRequest:
    """A requested run.

    Attributes:
        workspace: Workspace with the training faces and the caches.
        settings: Settings of the run; their type decides the stage.
        base: Model to start from, hub id or folder: SDXL for Stage I, the prior for Stage II.
        folder: Run folder.
        resume: Whether an existing run may be continued.
        allow_unknown_licence: Train on faces without a licence basis.
        rows: Faces to train on instead of the workspace's training view.
    """

    workspace: Workspace
    settings: StageSettings
    base: str
    folder: Path
    resume: bool = False
    allow_unknown_licence: bool = False
    rows: TrainingRows | None = None

    @property
    def stage(self) -> str:
        """The stage, "prior" or "restorer"."""
        return STAGE_OF_SETTINGS[type(self.settings)]

    def load_pipeline(self, *, unet_as_stored: bool = False) -> StableDiffusionXLPipeline:
        """Load the base in float32 on the CPU.

        Args:
            unet_as_stored: Load the U-Net in the dtype of its file, which is faster.
        """
        return load_base(
            self.base,
            self.workspace.weights_dir,
            self.settings.seed,
            unet_as_stored=unet_as_stored,
        )


@dataclass(frozen=True)
class CachedInputs:
    """Encoded inputs of a run. Stage II uses the training latents and the null prompt only.

    Attributes:
        train_latents: Posteriors of the training faces, see `Latents`.
        null_prompt: Embedding of the empty prompt.
        val_latents: Posteriors of the held-out faces.
        train_prompts: `settings.orders` embeddings per training face, face by face.
        val_prompts: One embedding per held-out face.
        preview_captions: Captions of the preview grids.
        preview_prompts: One embedding per preview caption.
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
        settings: The requested settings with the launcher's sharding and a micro-batch.
        accelerator: Knows the device and the processes.
        rows: The training and held-out faces.
        run: Writes the run folder.
        core: The base's U-Net and scheduler.
        inputs: Encoded inputs.
        trainer: Trainer of the stage.
    """

    request: JobRequest
    settings: StageSettings
    accelerator: Accelerator
    rows: TrainingRows
    run: TrainingRun
    core: DiffusionCore
    inputs: CachedInputs
    trainer: PriorTrainer | RestorerTrainer


def build_job(request: JobRequest) -> TrainingJob:
    """Check a run, start its folder, encode its inputs and build its trainer.

    Args:
        request: The requested run.

    Raises:
        UserError: If the run cannot work as requested; nothing is written then.
        MissingResourceError: If the base is neither on disk nor downloadable.
    """
    accelerator, settings = setup.start_processes(request.settings)
    run = TrainingRun(request.folder, request.stage)
    run_on_main(accelerator, lambda: run.check_folder(request.resume))
    preparation = _prepare(request, accelerator, settings)
    settings = preparation.settings
    with ThreadPoolExecutor(max_workers=1) as executor:
        base_digest = None
        if accelerator.is_local_main_process:
            # Hashing SDXL's U-Net takes seconds; meanwhile the memory is estimated.
            base_digest = executor.submit(model_digest, preparation.pipeline.unet)
        settings = setup.choose_micro_batch(
            settings,
            run,
            resume=request.resume,
            estimator=preparation.estimator,
            accelerator=accelerator,
        )
        setup.start_run(
            run,
            accelerator,
            settings,
            preparation.rows.training,
            resume=request.resume,
            base=request.base,
            base_digest=base_digest,
            disk_use=estimate_disk_use(
                preparation.estimator.fake_pass, settings, preparation.model_bytes
            ),
        )
    try:
        check_shared_run(run, base_digest, accelerator)
        with setup.explain_out_of_memory(settings):
            job = _assemble_job(preparation, settings, run)
        if accelerator.is_main_process:
            register_run(request.workspace, request.folder, request.stage)
        return job
    except BaseException:
        run.withdraw()
        raise


def run_job(job: TrainingJob) -> None:
    """Train a job to its last step and save the model on the main process.

    The other processes wait for the model; then all leave the process group.

    Raises:
        Terminated, KeyboardInterrupt, PartialFailureError: See `training.loop.train`.
    """
    try:
        _train_and_save(job)
    finally:
        job.run.release()


def _train_and_save(job: TrainingJob) -> None:
    from authface_train.callbacks.build import build_callbacks

    with setup.explain_out_of_memory(job.settings):
        train(
            job.trainer,
            build_callbacks(job),
            settings=job.settings,
            run=job.run,
            accelerator=job.accelerator,
        )
    trained = job.trainer.models[TRAINED_MODEL[job.request.stage]]
    weights = saving.final_weights(trained, job.accelerator)
    if job.accelerator.is_main_process:
        _save(job, weights)
    leave_together(job.accelerator)


def plan_job(request: JobRequest) -> dry_run.Plan | None:
    """Estimate what a run takes, and time a few steps if it fits. Nothing is written.

    Args:
        request: The requested run.

    Returns:
        The plan on the main process, None on the others.
    """
    preparation = _prepare(request, *setup.start_processes(request.settings))
    inputs = _dummy_inputs(preparation)
    cache_size = _estimate_cache_size(preparation, inputs)
    core = detach_core(preparation.pipeline)

    def make_trainer(settings: StageSettings) -> Trainer:
        return _make_trainer(preparation, settings, core, inputs)

    def measure_step(settings: StageSettings, accumulation: int) -> float:
        return dry_run.time_step(settings, make_trainer, accumulation, preparation.accelerator)

    plan = dry_run.plan_run(
        stage=request.stage,
        settings=preparation.settings,
        estimator=preparation.estimator,
        machine=dry_run.this_machine(preparation.accelerator),
        measure_step=measure_step,
        num_faces=len(preparation.rows.all),
        cache_size=cache_size,
        model_bytes=preparation.model_bytes,
        folder=request.folder,
    )
    leave_together(preparation.accelerator)
    return plan if preparation.accelerator.is_main_process else None


def calibrate_job(request: JobRequest) -> Calibration | None:
    """Measure the facial loss against the noise loss. Nothing is written but the caches.

    Args:
        request: A Stage II run; its newest checkpoint is measured if it has one.

    Returns:
        The measurement on the main process, None on the others.

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
    preparation = _prepare(request, *setup.start_processes(request.settings))
    run = TrainingRun(request.folder, request.stage)
    with setup.explain_out_of_memory(preparation.settings):
        job = _assemble_job(preparation, preparation.settings, run)
        assert isinstance(job.trainer, RestorerTrainer)
        calibration = calibrate(job.trainer, run)
    leave_together(job.accelerator)
    return calibration if job.accelerator.is_main_process else None


@dataclass(frozen=True)
class _Preparation:
    """A checked request, before anything is written or encoded.

    Attributes:
        request: The requested run.
        settings: The requested settings with the launcher's sharding and the source of the faces.
        accelerator: Knows the device and the processes.
        rows: The training and held-out faces.
        pipeline: The base, with VAE and text encoders.
        estimator: Estimates the memory of the run.
        model_bytes: Size of the finished model.
    """

    request: JobRequest
    settings: StageSettings
    accelerator: Accelerator
    rows: TrainingRows
    pipeline: StableDiffusionXLPipeline
    estimator: MemoryEstimator
    model_bytes: float


def _prepare(
    request: JobRequest, accelerator: Accelerator, settings: StageSettings
) -> _Preparation:
    """Read the faces and load the base; see `build_job` for the errors."""
    rows = request.rows or load_rows(request)
    if request.rows is None:
        settings = settings.model_copy(update={"source": rows.source})
    if rows.why_none_held_out is not None and accelerator.is_main_process:
        logger.warning(rows.why_none_held_out)
    check_same_request(settings, rows.all, resume=request.resume, accelerator=accelerator)
    pipeline = request.load_pipeline(unet_as_stored=True)
    scale_factor = vae_scale_factor(pipeline)
    # The finished model is saved in float32.
    model_bytes = FLOAT32_BYTES * count_parameters(
        pipeline.unet, pipeline.vae, pipeline.text_encoder, pipeline.text_encoder_2
    )
    fake_pass: PriorPass | RestorerPass
    if isinstance(settings, PriorSettings):
        fake_pass = PriorPass(pipeline.unet, settings, scale_factor)
    else:
        fake_pass = RestorerPass(pipeline.unet, settings, scale_factor)
        model_bytes += FLOAT32_BYTES * fake_pass.num_trainable
    # Without its index: fake tensors of "cpu" and "cpu:0" do not mix.
    device = torch.device(accelerator.device.type)
    return _Preparation(
        request=request,
        settings=settings,
        accelerator=accelerator,
        rows=rows,
        pipeline=pipeline,
        estimator=MemoryEstimator(fake_pass, device, PeakCache(request.workspace)),
        model_bytes=model_bytes,
    )


def load_rows(request: JobRequest) -> TrainingRows:
    """Read the faces of a run from its workspace; see `training.setup.load_rows` for the errors."""
    settings = request.settings
    return setup.load_rows(
        request.workspace,
        settings.tags if isinstance(settings, PriorSettings) else "none",
        allow_unknown_licence=request.allow_unknown_licence,
        source=settings.source,
    )


def _assemble_job(
    preparation: _Preparation, settings: StageSettings, run: TrainingRun
) -> TrainingJob:
    """Encode the inputs, free VAE and text encoders, then build the trainer."""
    if isinstance(settings, PriorSettings):
        inputs = _encode_prior_inputs(preparation, settings)
    else:
        inputs = _encode_restorer_inputs(preparation)
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
    settings: StageSettings,
    core: DiffusionCore,
    inputs: CachedInputs,
) -> PriorTrainer | RestorerTrainer:
    if isinstance(settings, PriorSettings):
        return PriorTrainer(
            settings=settings,
            core=core,
            view=preparation.rows.training,
            latents=inputs.train_latents,
            prompts=inputs.train_prompts,
            null_prompt=inputs.null_prompt,
            accelerator=preparation.accelerator,
        )

    from authface_train.stages.restorer import RestorerTrainer, make_controlnet

    return RestorerTrainer(
        settings=settings,
        core=core,
        controlnet=make_controlnet(core.unet, settings.seed, core.vae_scale_factor),
        workspace=preparation.request.workspace,
        view=preparation.rows.training,
        latents=inputs.train_latents,
        null_prompt=inputs.null_prompt,
        accelerator=preparation.accelerator,
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


def _encode_restorer_inputs(preparation: _Preparation) -> CachedInputs:
    is_main = preparation.accelerator.is_main_process
    with ProgressBar("crops", unit="faces", enabled=is_main) as bar:
        cache_crops(
            preparation.request.workspace,
            preparation.rows.training,
            REFERENCE_PX,
            preparation.accelerator,
            bar.update,
        )
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


def _dummy_inputs(preparation: _Preparation) -> CachedInputs:
    """Random inputs in the shape of the encoded ones, for a dry run."""
    settings = preparation.settings
    config = preparation.pipeline.unet.config
    side = settings.resolution_px // vae_scale_factor(preparation.pipeline)
    num_faces = len(preparation.rows.training)
    num_prompts = num_faces * settings.orders if isinstance(settings, PriorSettings) else 0
    prompt = Embedding(
        embeds=torch.randn(NUM_TOKENS, config.cross_attention_dim),
        pooled=torch.randn(pooled_width(config)),
    )
    posterior = torch.randn(2, 2, config.in_channels, side, side)
    return CachedInputs(
        train_latents=dry_run.DummyCache(posterior, num_faces),
        null_prompt=prompt,
        train_prompts=dry_run.DummyCache(prompt, num_prompts),
    )


def _estimate_cache_size(preparation: _Preparation, inputs: CachedInputs) -> dry_run.CacheSize:
    """Size of the cached crops, and of latents and prompts from dummy inputs of their shape."""
    rows = preparation.rows
    is_prior = isinstance(preparation.settings, PriorSettings)
    # Stage II does not encode held-out faces, and the empty prompt is its only prompt.
    encoded_rows = rows.all if is_prior else rows.training
    num_prompts = len(inputs.train_prompts) if is_prior else 1
    workspace = preparation.request.workspace
    latents = latents_cache(
        workspace,
        preparation.pipeline.vae,
        preparation.settings.resolution_px,
        preparation.accelerator.device,
    )
    num_missing = len(latents.missing(encoded_rows["crop_sha256"]))
    all_crop_bytes = missing_crop_bytes = 0
    if not is_prior:
        num_missing_crops = len(
            crops_cache(workspace, REFERENCE_PX).missing(encoded_rows["crop_sha256"])
        )
        all_crop_bytes = len(encoded_rows) * crop_bytes(REFERENCE_PX)
        missing_crop_bytes = num_missing_crops * crop_bytes(REFERENCE_PX)

    latent_bytes = FLOAT32_BYTES * inputs.train_latents[0].numel()
    values_per_prompt = sum(tensor.numel() for tensor in inputs.null_prompt)
    prompt_bytes = FLOAT32_BYTES * num_prompts * values_per_prompt
    return dry_run.CacheSize(
        all_bytes=len(encoded_rows) * latent_bytes + prompt_bytes + all_crop_bytes,
        # All prompts count as missing: the captions that key their cache are not built here.
        missing_bytes=num_missing * latent_bytes + prompt_bytes + missing_crop_bytes,
    )


def _save(job: TrainingJob, weights: dict[str, torch.Tensor]) -> None:
    """Save the model with the trained weights, by parameter name, of its U-Net or ControlNet."""
    request = job.request
    if isinstance(job.settings, PriorSettings):
        saving.save_prior(
            job.run, job.settings, weights, load=request.load_pipeline, base=request.base
        )
        return

    from authface_train.stages.restorer import make_controlnet

    pipeline = request.load_pipeline()
    controlnet = make_controlnet(pipeline.unet, job.settings.seed, job.core.vae_scale_factor)
    saving.save_restorer(
        job.run,
        job.settings,
        weights,
        controlnet=controlnet,
        load=lambda: pipeline,
        prior=request.base,
    )
