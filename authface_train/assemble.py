"""From a workspace and settings to a finished run, for either stage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from authface_train import lineage, loop
from authface_train.data.latents import cached_latents, model_digest
from authface_train.data.prompts import captions_of, encode_prompts, time_ids
from authface_train.model_card import model_card
from authface_train.prior import PriorTrainer
from authface_train.run import NOTES, Run
from authface_train.sdxl import TINY, load_base
from authface_train.settings import PriorSettings, RestorerSettings, TrainSettings
from manifests.command_line import console, shown
from manifests.errors import Missing, UserMistake
from manifests.views import training_view
from manifests.workspace import Workspace


def train_prior(workspace: Workspace, settings: PriorSettings, folder: Path, resume: bool, unknown_licence: bool) -> bool:
    """Stage I. Returns whether this is the main process. Raises UserMistake or Missing before any step is taken."""
    accelerator = _accelerator(settings)
    view = _training_rows(workspace, settings.tags, unknown_licence)
    pipeline = load_base(settings.base, workspace.weights_dir, settings.seed)
    run = Run(folder, "prior")
    _begin(run, accelerator, settings, view, resume, settings.base, pipeline)
    latents = _latents(workspace, pipeline, view, settings, accelerator)
    prompts = encode_prompts(pipeline, _prompts(pipeline, view, settings), accelerator.device)
    _leave_memory(pipeline)
    trainer = PriorTrainer(settings, pipeline, view, latents, prompts, accelerator)
    loop.train(trainer, settings, run, accelerator)
    if accelerator.is_main_process:
        pipeline.unet = accelerator.unwrap_model(trainer.parts["unet"].module).cpu()
        _save(run, settings, pipeline, settings.base)
    return accelerator.is_main_process


def train_restorer(
    workspace: Workspace, settings: RestorerSettings, folder: Path, resume: bool, unknown_licence: bool, prior: str
) -> bool:
    """Stage II on a prior: the folder of a Stage I run, or any SDXL. Returns whether this is the main process."""
    from diffusers import StableDiffusionXLControlNetPipeline

    from authface_train.restorer import RestorerTrainer, make_controlnet

    accelerator = _accelerator(settings)
    view = _training_rows(workspace, "none", unknown_licence)
    pipeline = load_base(prior, workspace.weights_dir, settings.seed)
    run = Run(folder, "restorer")
    _begin(run, accelerator, settings, view, resume, prior, pipeline)
    latents = _latents(workspace, pipeline, view, settings, accelerator)
    null_prompt = encode_prompts(pipeline, [""], accelerator.device)
    _leave_memory(pipeline)
    controlnet = make_controlnet(pipeline.unet, settings.seed)
    trainer = RestorerTrainer(settings, pipeline, controlnet, workspace, view, latents, null_prompt, accelerator)
    loop.train(trainer, settings, run, accelerator)
    if accelerator.is_main_process:
        trained = accelerator.unwrap_model(trainer.parts["controlnet"].module).cpu()
        pipeline.unet.cpu()
        _save(run, settings, StableDiffusionXLControlNetPipeline(**pipeline.components, controlnet=trained), prior)
    return accelerator.is_main_process


def _begin(
    run: Run, accelerator: Accelerator, settings: TrainSettings, view: pd.DataFrame, resume: bool, base: str, pipeline: Any
) -> None:
    """Begin the run on the main process; its refusal is every process's."""
    refusal: list[str | None] = [None]
    if accelerator.is_main_process:
        try:
            run.begin(settings, view, resume, base, model_digest(pipeline.unet))
        except UserMistake as error:
            refusal = [str(error)]
    broadcast_object_list(refusal)
    if refusal[0] is not None:
        raise UserMistake(refusal[0])


def last_prior(workspace: Workspace) -> str:
    """The newest finished Stage I run of the workspace. Raises Missing where there is none."""
    runs = workspace.local("runs")
    runs.mkdir(exist_ok=True)
    finished = [
        folder
        for folder in runs.iterdir()
        if _notes(folder).get("stage") == "prior" and (folder / "model_index.json").is_file()
    ]
    if not finished:
        raise Missing(f"there is no finished prior in {runs}: `authface train-prior` first, or name one with --prior DIR")
    return str(max(finished, key=lambda folder: (folder / "model_index.json").stat().st_mtime))


def base_of(folder: Path) -> str | None:
    """What the run in a folder began from; None where there is no run."""
    record = Run(folder, "restorer").record()
    return None if record is None else str(record["base"])


def _notes(folder: Path) -> dict[str, Any]:
    path = folder / NOTES
    return json.loads(path.read_text()) if path.is_file() else {}


def _accelerator(settings: TrainSettings) -> Accelerator:
    """Refuses a batch that does not divide before anything is made."""
    on_gpu = torch.cuda.is_available()
    accelerator = Accelerator(mixed_precision=settings.mixed_precision if on_gpu else "no", cpu=not on_gpu)
    loop.check_batch(settings, accelerator.num_processes)
    return accelerator


def _training_rows(workspace: Workspace, tags: Any, unknown_licence: bool) -> pd.DataFrame:
    """The training split. Raises UserMistake where there is nothing to train on, or faces lack a caption."""
    view = training_view(workspace, tags, allow_unknown_licence=unknown_licence)
    view = view[view["split"] == "train"].reset_index(drop=True)
    if view.empty:
        raise UserMistake("no kept face to train on: `authface filter`, then `authface status`")
    lacking = int((view["caption"].fillna("") == "").sum())
    if tags != "none" and lacking:
        kind = "" if tags == "both" else f" of {tags} tags"
        raise UserMistake(f"{lacking} kept faces have no caption{kind}: `authface caption` first, or --tags none")
    return view


def _latents(
    workspace: Workspace, pipeline: Any, view: pd.DataFrame, settings: TrainSettings, accelerator: Accelerator
) -> torch.Tensor:
    """The main process fills the cache, the others read it."""
    with console.status("latents") as shown:

        def report(done: int, total: int) -> None:
            shown.update(f"latents {done} of {total}")

        with accelerator.main_process_first():
            return cached_latents(workspace, pipeline.vae, view, settings.resolution_px, accelerator.device, report)


def _prompts(pipeline: Any, view: pd.DataFrame, settings: PriorSettings) -> list[str]:
    """The captions of every row, `settings.orders` of each."""
    tags = [own if isinstance(own, list) else [] for own in view["tags"]]
    captions, cut = captions_of(pipeline, tags, view["face_id"].tolist(), settings.orders, settings.seed)
    if cut:
        console.print(f"[yellow]{cut} captions are longer than the text encoders see:[/] their last tags are left out")
    return captions


def _leave_memory(pipeline: Any) -> None:
    """VAE and text encoders have done their work: off the card."""
    for model in (pipeline.vae, pipeline.text_encoder, pipeline.text_encoder_2):
        model.cpu()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _save(run: Run, settings: TrainSettings, pipeline: Any, base: str) -> None:
    untrained = base == TINY or bool(_notes(Path(base)).get("untrained"))
    frozen = pd.read_parquet(run.folder / lineage.FILE)
    notes = {
        "stage": run.stage,
        "resolution_px": settings.resolution_px,
        "time_ids": time_ids(settings.resolution_px),
        "steps": settings.steps,
        "untrained": untrained,
    }
    card = model_card(run.stage, settings.model_dump(mode="json"), frozen, untrained)
    run.save_model(pipeline, notes, card)
    if untrained:
        console.print("[yellow]Untrained:[/] built from configuration, for trying the machinery only; it restores nothing")
    console.print(f"The {run.stage} is in {shown(run.folder)}: DiffusionPipeline.from_pretrained loads it")
