"""From a workspace and settings to a finished run, for either stage; or to what it would take."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from accelerate import Accelerator

from authface_train.callbacks.build import onlookers, validation
from authface_train.data.cache import ProgressFunction
from authface_train.data.captions import captions_for
from authface_train.data.latents import Latents, cached_latents, latents_cache
from authface_train.data.prompts import Embedding, cached_prompts
from authface_train.memory import dry_run
from authface_train.memory.estimator import MemoryEstimator, bytes_of, disk_bytes
from authface_train.memory.fake_tensor_pass import PriorPass, RestorerPass
from authface_train.models.sdxl import detach_core, load_base, vae_scale_factor
from authface_train.runs import saving
from authface_train.runs.run_folder import RunFolder
from authface_train.settings import PriorSettings, RestorerSettings
from authface_train.stages.prior import PriorTrainer
from authface_train.training import loop
from authface_train.training import setup as start
from manifests.support.errors import UserError
from manifests.workspace import Workspace

if TYPE_CHECKING:
    from authface_train.stages.restorer import RestorerTrainer


def train_prior(
    workspace: Workspace, settings: PriorSettings, folder: Path, resume: bool, unknown_licence: bool
) -> bool:
    """Stage I. Returns whether this is the main process. Raises UserError or Missing before any step is taken."""
    accelerator, settings = start.processes(settings)
    rows = start.rows(workspace, settings.tags, unknown_licence)
    load = _loader(settings.base, workspace, settings.seed)
    pipeline = load()
    rehearsal = PriorPass(pipeline.unet, settings, vae_scale_factor(pipeline))
    run = RunFolder(folder, "prior")
    settings = start.with_micro_batch(
        settings, run, resume, MemoryEstimator(rehearsal, accelerator.device), accelerator
    )
    room = disk_bytes(rehearsal, settings, _model_bytes(pipeline))
    start.begin(
        run, accelerator, settings, rows.training, resume, settings.base, pipeline.unet, room
    )
    everyone = pd.concat([rows.training, rows.held_out], ignore_index=True)
    with start.out_of_memory_is_a_line(settings):
        latents = _latents(workspace, pipeline, everyone, settings, accelerator)
        captions = captions_for(pipeline, rows.training, rows.held_out, settings)
        with _progress("prompts", accelerator) as report:
            prompts = cached_prompts(workspace, pipeline, [*captions.all, ""], accelerator, report)
        core = detach_core(pipeline)
        faces, first, second = (
            len(rows.training),
            len(captions.training),
            len(captions.training + captions.held_out),
        )
        null_prompt = prompts[len(prompts) - 1]
        trainer = PriorTrainer(
            settings, core, rows.training, latents.part(0, faces), prompts, null_prompt, accelerator
        )
        shares = latents.part(0, faces), latents.part(faces)
        words = prompts.part(0, first), prompts.part(first, second), prompts.part(second, -1)
        trainer.onlookers = onlookers(
            workspace,
            settings,
            rows,
            trainer,
            core,
            shares,
            words,
            captions,
            accelerator,
            run.folder,
        )
        loop.train(trainer, settings, run, accelerator)
    state = saving.final_state(trainer.parts["unet"], accelerator)
    if accelerator.is_main_process:
        saving.save_prior(run, settings, state, load, settings.base)
    return accelerator.is_main_process


def train_restorer(
    workspace: Workspace,
    settings: RestorerSettings,
    folder: Path,
    resume: bool,
    unknown_licence: bool,
    prior: str,
) -> bool:
    """Stage II on a prior: the folder of a Stage I run, or any SDXL. Returns whether this is the main process."""
    from authface_train.callbacks.gradient_ledger import GradientLedger
    from authface_train.stages.restorer import make_controlnet

    accelerator, settings = start.processes(settings)
    rows = start.rows(workspace, "none", unknown_licence, settings.source)
    load = _loader(prior, workspace, settings.seed)
    pipeline = load()
    rehearsal = RestorerPass(pipeline.unet, settings, vae_scale_factor(pipeline))
    run = RunFolder(folder, "restorer")
    settings = start.with_micro_batch(
        settings, run, resume, MemoryEstimator(rehearsal, accelerator.device), accelerator
    )
    room = disk_bytes(rehearsal, settings, _model_bytes(pipeline) + 4 * rehearsal.trained)
    start.begin(run, accelerator, settings, rows.training, resume, prior, pipeline.unet, room)
    cell_px = vae_scale_factor(pipeline)
    with start.out_of_memory_is_a_line(settings):
        trainer = _restorer_trainer(workspace, settings, rows.training, pipeline, accelerator)
        trainer.onlookers = [
            validation(
                workspace, settings, rows, trainer, prior, accelerator, folder / "validation"
            ),
            GradientLedger(trainer, folder),
        ]
        loop.train(trainer, settings, run, accelerator)
    state = saving.final_state(trainer.parts["controlnet"], accelerator)
    if accelerator.is_main_process:
        fresh = make_controlnet(load().unet, settings.seed, cell_px)
        saving.save_restorer(run, settings, fresh, state, load, prior)
    return accelerator.is_main_process


def calibrate_restorer(
    workspace: Workspace,
    settings: RestorerSettings,
    folder: Path,
    unknown_licence: bool,
    prior: str,
) -> None:
    """How strong the facial loss is beside the noise loss: at the newest checkpoint of the run, or at its start."""
    from authface_train.stages.calibrate import calibrate

    if settings.facial.weight == "off":
        raise UserError("--calibrate measures the facial loss, and facial.weight=off has none")
    accelerator, settings = start.processes(settings)
    rows = start.rows(workspace, "none", unknown_licence, settings.source)
    pipeline = _loader(prior, workspace, settings.seed)()
    with start.out_of_memory_is_a_line(settings):
        calibrate(
            _restorer_trainer(workspace, settings, rows.training, pipeline, accelerator),
            RunFolder(folder, "restorer"),
        )


def _restorer_trainer(
    workspace: Workspace,
    settings: RestorerSettings,
    view: pd.DataFrame,
    pipeline: Any,
    accelerator: Accelerator,
) -> RestorerTrainer:
    """With what it needs of the caches; the pipeline goes without VAE and text encoders from then on."""
    from authface_train.stages.restorer import RestorerTrainer, make_controlnet

    latents = _latents(workspace, pipeline, view, settings, accelerator)
    with _progress("prompts", accelerator) as report:
        null_prompt = cached_prompts(workspace, pipeline, [""], accelerator, report)[0]
    core = detach_core(pipeline)
    controlnet = make_controlnet(core.unet, settings.seed, core.vae_scale_factor)
    return RestorerTrainer(
        settings, core, controlnet, workspace, view, latents, null_prompt, accelerator
    )


def plan_prior(
    workspace: Workspace, settings: PriorSettings, folder: Path, unknown_licence: bool
) -> dry_run.Plan:
    """What `train_prior` would take."""
    accelerator, settings = start.processes(settings)
    rows = start.rows(workspace, settings.tags, unknown_licence)
    pipeline = _loader(settings.base, workspace, settings.seed)()
    budget = MemoryEstimator(
        PriorPass(pipeline.unet, settings, vae_scale_factor(pipeline)), accelerator.device
    )
    latent, prompt = _blank(pipeline, settings.resolution_px)
    everyone = pd.concat([rows.training, rows.held_out], ignore_index=True)
    prompts = [prompt] * len(rows.training) * settings.orders
    size = _cache_size(workspace, pipeline, everyone, settings.resolution_px, latent, prompts)
    model_bytes = _model_bytes(pipeline)
    core = detach_core(pipeline)

    def make(with_micro: Any) -> PriorTrainer:
        faces = len(rows.training)
        blank = (
            dry_run.DummyCache(latent, faces),
            dry_run.DummyCache(prompt, faces * settings.orders),
        )
        return PriorTrainer(with_micro, core, rows.training, *blank, prompt, accelerator)

    return dry_run.plan("prior", settings, budget, accelerator, make, size, model_bytes, folder)


def plan_restorer(
    workspace: Workspace,
    settings: RestorerSettings,
    folder: Path,
    unknown_licence: bool,
    prior: str,
) -> dry_run.Plan:
    """What `train_restorer` would take."""
    from authface_train.stages.restorer import RestorerTrainer, make_controlnet

    accelerator, settings = start.processes(settings)
    rows = start.rows(workspace, "none", unknown_licence, settings.source)
    pipeline = _loader(prior, workspace, settings.seed)()
    rehearsal = RestorerPass(pipeline.unet, settings, vae_scale_factor(pipeline))
    latent, prompt = _blank(pipeline, settings.resolution_px)
    size = _cache_size(workspace, pipeline, rows.training, settings.resolution_px, latent, [prompt])
    model_bytes = _model_bytes(pipeline) + 4 * rehearsal.trained
    core = detach_core(pipeline)

    def make(with_micro: Any) -> RestorerTrainer:
        controlnet = make_controlnet(core.unet, settings.seed, core.vae_scale_factor)
        latents = dry_run.DummyCache(latent, len(rows.training))
        return RestorerTrainer(
            with_micro, core, controlnet, workspace, rows.training, latents, prompt, accelerator
        )

    budget = MemoryEstimator(rehearsal, accelerator.device)
    return dry_run.plan("restorer", settings, budget, accelerator, make, size, model_bytes, folder)


def _blank(pipeline: Any, size_px: int) -> tuple[torch.Tensor, Embedding]:
    """Noise in the shape of a face's cached latents, and of a prompt's embedding."""
    config, cells = pipeline.unet.config, size_px // vae_scale_factor(pipeline)
    pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
    prompt = Embedding(torch.randn(77, config.cross_attention_dim), torch.randn(pooled))
    return torch.randn(2, 2, config.in_channels, cells, cells), prompt


def _cache_size(
    workspace: Workspace,
    pipeline: Any,
    view: pd.DataFrame,
    size_px: int,
    latent: torch.Tensor,
    prompts: list[Embedding],
) -> dry_run.CacheSize:
    """prompts: as many as are to be encoded."""
    missing = len(latents_cache(workspace, pipeline.vae, size_px).missing(view["crop_sha256"]))
    words = 4.0 * sum(one.numel() for prompt in prompts for one in prompt)
    return dry_run.CacheSize(
        4.0 * len(view) * latent.numel() + words, 4.0 * missing * latent.numel() + words
    )


def _loader(base: str, workspace: Workspace, seed: int) -> Callable[[], Any]:
    return lambda: load_base(base, workspace.weights_dir, seed)


def _model_bytes(pipeline: Any) -> float:
    return bytes_of(pipeline.unet, pipeline.vae, pipeline.text_encoder, pipeline.text_encoder_2)


def _latents(
    workspace: Workspace, pipeline: Any, view: pd.DataFrame, settings: Any, accelerator: Accelerator
) -> Latents:
    with _progress("latents", accelerator) as report:
        return cached_latents(
            workspace, pipeline.vae, view, settings.resolution_px, accelerator, report
        )


@contextmanager
def _progress(name: str, accelerator: Accelerator) -> Iterator[ProgressFunction]:
    """A bar with rate and time left, where there is something to be made."""
    from rich.progress import Progress, TimeRemainingColumn

    columns = Progress.get_default_columns()[:-1]
    with Progress(
        *columns,
        "{task.completed} of {task.total}",
        TimeRemainingColumn(),
        disable=not accelerator.is_main_process,
        refresh_per_second=2,
    ) as progress:
        task = progress.add_task(name, total=None, visible=False)

        def report(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total, visible=True)

        yield report
