"""Builds the model of a checkpoint, also of a run that is not finished."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from pydantic import ValidationError

from authface_train.models.digest import model_digest
from authface_train.models.sdxl import load_base, vae_scale_factor
from authface_train.runs import checkpoint
from authface_train.runs.saving import ModelOrigin, StateDict, write_prior, write_restorer
from authface_train.settings import STAGES, PriorSettings, RestorerSettings
from manifests.run_folder import CHECKPOINTS, LINEAGE_FILE, RUN_FILE, read_run, step_name
from manifests.settings import SETTINGS_FILE
from manifests.support.errors import MissingResourceError, UserError
from manifests.support.files import explain_write_errors
from manifests.support.text import excerpt
from manifests.workspace import Workspace


@contextmanager
def checkpoint_model(
    run_folder: Path, step: int, parent: Path, base: str | None = None
) -> Iterator[Path]:
    """Write the model of a checkpoint as a diffusers folder that exists inside the context.

    The weights are those that the finished run would have saved at this step: the moving average if
    the run keeps one. The other parts are those of the base.

    Args:
        run_folder: Folder of a run of either stage.
        step: Step of the checkpoint.
        parent: Folder for the temporary folder; it is created if necessary.
        base: The model that the run started from, if it has moved since.

    Yields:
        The model folder, with notes, model card and lineage.

    Raises:
        UserError: If the run has no such checkpoint, the checkpoint is damaged, or the base is not
            the one that the run was started from.
        MissingResourceError: If the base is neither on disk nor downloadable.
    """
    record = read_run(run_folder)
    if record is None:
        raise UserError(f"{run_folder} holds no run (no {RUN_FILE}); use the folder of a run")
    stage = record.get("stage")
    if stage not in STAGES:
        raise UserError(f"{run_folder / RUN_FILE} names no stage; use the folder of a run")
    try:
        settings = STAGES[stage].model_validate(record["settings"])
        origin = ModelOrigin(run_folder, stage, base or record["base"], step)
        base_digest = record["base_digest"]
    except (ValidationError, KeyError) as error:
        raise UserError(
            f"{run_folder / RUN_FILE} does not fit this version ({excerpt(str(error))}); "
            "export the checkpoint with the version of authface that trained the run"
        ) from error
    source = _find_checkpoint(run_folder, step)
    recorded = Path(record["base"])
    if base is None and recorded.is_absolute() and not recorded.exists():
        raise MissingResourceError(
            f"{run_folder} was started from {recorded}, which is not there any more; name that "
            "model with --base"
        )

    folder = parent / f".writing-{run_folder.absolute().name}-{step_name(step)}"
    with explain_write_errors(folder.parent):
        try:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            _write_model(folder, source, settings, base_digest, origin)
            shutil.copyfile(run_folder / LINEAGE_FILE, folder / LINEAGE_FILE)
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _find_checkpoint(run_folder: Path, step: int) -> Path:
    folder = run_folder / CHECKPOINTS
    steps = checkpoint.list_steps(folder)
    if not steps:
        raise UserError(f"{run_folder} has no checkpoints; export it without --checkpoint")
    if step not in steps:
        raise UserError(
            f"{run_folder} has no checkpoint of step {step}; choose from: "
            f"{', '.join(map(str, steps))}"
        )
    return folder / step_name(step)


def _write_model(
    folder: Path,
    source: Path,
    settings: PriorSettings | RestorerSettings,
    base_digest: str,
    origin: ModelOrigin,
) -> None:
    """Load base and checkpoint, and write the model into an empty folder."""
    name = "unet" if isinstance(settings, PriorSettings) else "controlnet"
    has_ema = settings.ema_decay > 0
    try:
        checkpoint.check(source, {name: has_ema})
    except (OSError, ValueError) as error:
        reason = checkpoint.describe_damage(error)
        raise UserError(f"{source} is damaged ({reason}); choose another checkpoint") from error

    pipeline = load_base(origin.base, _weights_dir(origin.run_folder), settings.seed)
    if model_digest(pipeline.unet) != base_digest:
        raise UserError(
            f"{origin.base} is not the model that {origin.run_folder} was started from, or has "
            "changed since; name that model with --base"
        )
    if isinstance(settings, PriorSettings):
        write_prior(
            folder,
            settings,
            pipeline,
            lambda unet: _read_weights(source, name, unet, has_ema=has_ema),
            origin,
        )
        return

    from authface_train.stages.restorer import make_controlnet

    controlnet = make_controlnet(pipeline.unet, settings.seed, vae_scale_factor(pipeline))
    controlnet.load_state_dict(_read_weights(source, name, controlnet, has_ema=has_ema))
    write_restorer(folder, settings, pipeline, controlnet, origin)


def _read_weights(source: Path, name: str, module: torch.nn.Module, *, has_ema: bool) -> StateDict:
    """Read the weights of a checkpoint, or their moving average.

    Args:
        source: Folder of the checkpoint.
        name: Name of the model in it.
        module: The model; the parameters with `requires_grad` are those that were trained.
        has_ema: Whether the checkpoint has a moving average.
    """
    from safetensors.torch import load_file

    weights = load_file(checkpoint.weights_path(source, name))
    if not has_ema:
        return weights
    average = load_file(checkpoint.ema_path(source, name))
    trained = [key for key, parameter in module.named_parameters() if parameter.requires_grad]
    for index, key in enumerate(trained):
        # A finished run saves its average in the precision of the weights.
        weights[key] = average[str(index)].to(weights[key].dtype)
    return weights


def _weights_dir(run_folder: Path) -> str | None:
    """The folder of weights of the workspace that holds a run."""
    for parent in run_folder.absolute().parents:
        if (parent / SETTINGS_FILE).is_file():
            return Workspace(parent).weights_dir
    return None
