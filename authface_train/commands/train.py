"""`authface train-prior` and `authface train-restore`."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from authface_train.commands.silence_libraries import silence_libraries
from manifests.support.console import JsonOption, WorkspaceOption, console, print_json, quote_path
from manifests.support.errors import PartialFailureError, UserError
from manifests.support.extras import needs_extras
from manifests.support.options import DegradationPreset, TrainingSource, TrainPreset

if TYPE_CHECKING:
    from authface_train.memory.dry_run import Plan
    from authface_train.settings import PriorSettings, RestorerSettings
    from authface_train.training.jobs import JobRequest
    from manifests.workspace import Workspace

LAUNCHER_VARIABLE = "TORCHELASTIC_RUN_ID"
"""Environment variable that torchrun and `accelerate launch` set."""

PresetOption = Annotated[
    TrainPreset, typer.Option(help="Settings to start from: the paper's, or those for your GPUs.")
]
StepsOption = Annotated[
    int | None,
    typer.Option(min=1, help="Optimizer steps of the whole run. Default: those of the preset."),
]
SourceOption = Annotated[
    TrainingSource | None,
    typer.Option(
        help="Training faces: those collected from FFHQ, all others (portraits), or both "
        "(workspace). Default: that of the preset, or of the resumed run."
    ),
]
OutputOption = Annotated[
    Path | None,
    typer.Option(help="Folder of the run. Default: runs/STAGE-PRESET in the workspace."),
]
ResumeOption = Annotated[
    bool,
    typer.Option("--resume", help="Continue from the newest checkpoint, bit for bit."),
]
DryRunOption = Annotated[
    bool,
    typer.Option("--dry-run", help="Estimate memory, disk and time; train nothing."),
]
FacesOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="With --dry-run: plan for N faces, without any face and without weights. Default: "
        "plan for the kept faces.",
    ),
]
UnknownLicenceOption = Annotated[
    bool,
    typer.Option("--allow-unknown-licence", help="Train on faces without a licence basis."),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a setting of the preset. Repeatable."),
]


@needs_extras("data", "train")
def train_prior(
    preset: PresetOption = "paper",
    base: Annotated[
        str | None,
        typer.Option(
            help="SDXL to start from: hub id, folder or .safetensors file; `tiny` builds a random "
            "one. Default: that of the preset, or of the resumed run."
        ),
    ] = None,
    steps: StepsOption = None,
    tags: Annotated[
        Literal["none", "semantic", "photographic", "both"] | None,
        typer.Option(help="Families of tags that make the captions. Default: that of the preset."),
    ] = None,
    source: SourceOption = None,
    output: OutputOption = None,
    resume: ResumeOption = False,
    allow_unknown_licence: UnknownLicenceOption = False,
    set_: SetOption = None,
    dry_run: DryRunOption = False,
    faces: FacesOption = None,
    as_json: JsonOption = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Stage I: fine-tune SDXL's U-Net into a face prior.

    ```
    authface train-prior --preset 1x24gb --dry-run --faces 2000
    authface train-prior --preset 1x24gb --set learning_rate=1e-6
    authface train-prior --preset 1x24gb --resume
    ```
    """
    _end_with_launcher()
    from authface_train.presets import load_preset
    from authface_train.settings import PriorSettings
    from manifests.workspace import Workspace

    overrides = _overrides(set_, base=base, steps=steps, tags=tags, source=source)
    if faces is not None:
        _check_faces_option(dry_run)
        settings = load_preset("prior", preset, overrides)
        _plan_early(settings, preset, faces, output, as_json)
        return
    ws = Workspace.find(workspace)
    folder = output or _default_folder(ws, f"prior-{preset}")
    if resume:
        overrides = {
            **_overrides(None, base=_base_of_run(folder)),
            **_settings_of_run(folder, PriorSettings),
            **overrides,
        }
    settings = load_preset("prior", preset, overrides)
    assert isinstance(settings, PriorSettings)
    silence_libraries()
    from authface_train.training.jobs import JobRequest

    request = JobRequest(
        workspace=ws,
        settings=settings,
        base=settings.base,
        folder=folder,
        resume=resume,
        allow_unknown_licence=allow_unknown_licence,
    )
    if dry_run:
        _plan(request, preset, as_json)
        return
    _train(request, _restore_command(request, preset))


@needs_extras("data", "train")
def train_restore(
    preset: PresetOption = "paper",
    prior: Annotated[
        str | None,
        typer.Option(
            help="Folder of a Stage I run, or its exported .safetensors file. Default: the newest "
            "of the workspace."
        ),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            help="Any SDXL instead of a prior: hub id, folder or .safetensors file. Default: none."
        ),
    ] = None,
    steps: StepsOption = None,
    degradation: Annotated[
        DegradationPreset | None,
        typer.Option(help="How faces are degraded. Default: that of the preset."),
    ] = None,
    source: SourceOption = None,
    facial_weight: Annotated[
        Literal["time-aware", "constant", "constant-matched", "off"] | None,
        typer.Option(help="Weight of the facial loss over time. Default: that of the preset."),
    ] = None,
    output: OutputOption = None,
    resume: ResumeOption = False,
    allow_unknown_licence: UnknownLicenceOption = False,
    set_: SetOption = None,
    dry_run: DryRunOption = False,
    faces: FacesOption = None,
    calibrate: Annotated[
        bool,
        typer.Option(
            "--calibrate",
            help="Measure the facial loss against the noise loss and suggest lambdas; train "
            "nothing.",
        ),
    ] = False,
    as_json: JsonOption = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Stage II: train a ControlNet on the frozen prior, with the time-aware facial loss.

    ```
    authface train-restore --preset 1x24gb --prior runs/prior-1x24gb
    authface train-restore --preset 1x24gb --calibrate
    ```
    """
    _end_with_launcher()
    from authface_train.data.degradation import get_preset as get_degradation
    from authface_train.models.sdxl_config import SDXL, TINY
    from authface_train.presets import load_preset
    from authface_train.settings import RestorerSettings
    from manifests.run_folder import is_finished
    from manifests.workspace import Workspace

    if prior and base:
        raise UserError("--prior and --base both name the model to start from; use one of them")
    if prior and not Path(prior).is_file() and not is_finished(Path(prior)):
        raise UserError(
            f"{prior} holds no finished prior (model_index.json is missing); "
            "make one with `authface train-prior`"
        )
    overrides = _overrides(
        set_,
        steps=steps,
        degradation=degradation,
        source=source,
        **{"facial.weight": facial_weight},
    )
    settings = load_preset("restorer", preset, overrides)
    assert isinstance(settings, RestorerSettings)
    get_degradation(settings.degradation)
    if faces is not None:
        _check_faces_option(dry_run)
        _plan_early(settings, preset, faces, output, as_json)
        return
    ws = Workspace.find(workspace)
    folder = output or _default_folder(ws, f"restorer-{preset}")
    if resume or calibrate:
        overrides = {**_settings_of_run(folder, RestorerSettings), **overrides}
        settings = load_preset("restorer", preset, overrides)
    silence_libraries()
    from authface_train.training.jobs import JobRequest
    from authface_train.training.setup import has_prior, latest_prior

    starting_model = prior or base
    if starting_model is None and (resume or calibrate):
        starting_model = _base_of_run(folder)
    if starting_model is None and dry_run and not has_prior(ws):
        starting_model = TINY if preset == TINY else SDXL
    request = JobRequest(
        workspace=ws,
        settings=settings,
        base=starting_model or latest_prior(ws),
        folder=folder,
        resume=resume,
        allow_unknown_licence=allow_unknown_licence,
    )
    if dry_run:
        _plan(request, preset, as_json)
    elif calibrate:
        _calibrate(request)
    else:
        _train(request, f"authface restore --model {quote_path(folder)} --input DIR --output DIR")


def _end_with_launcher() -> None:
    """Receive SIGTERM if torchrun or `accelerate launch` is killed."""
    if LAUNCHER_VARIABLE in os.environ:
        from manifests.support.child_process import signal_at_parent_end

        signal_at_parent_end(signal.SIGTERM)


def _default_folder(ws: Workspace, name: str) -> Path:
    """Folder of a run without `--output`.

    Raises:
        UserError: If the workspace is in an object store.
    """
    from manifests.run_folder import RUNS

    if not ws.is_local:
        raise UserError(
            f"--output is required: {ws.root} is in an object store, and a run needs a folder on a "
            "disk"
        )
    return ws.local_path(f"{RUNS}/{name}")


def _overrides(set_options: list[str] | None, **options: object) -> dict[str, object]:
    """Settings from `--set` and from the command's own options, which take precedence."""
    from authface_train.presets import parse_set_option

    overrides = dict(map(parse_set_option, set_options or []))
    overrides.update({name: value for name, value in options.items() if value is not None})
    return overrides


def _base_of_run(folder: Path) -> str | None:
    """Base that the run in a folder started from, or None if the folder holds no run."""
    from manifests.run_folder import read_run

    record = read_run(folder)
    return None if record is None else record.get("base")


def _restore_command(request: JobRequest, preset: str) -> str:
    """The command of Stage II that follows a prior."""
    from authface_train.presets import load_preset
    from authface_train.training.setup import has_ffhq
    from manifests.sources import FFHQ

    command = f"authface train-restore --preset {preset} --prior {quote_path(request.folder)}"
    if load_preset("restorer", preset).source == FFHQ and not has_ffhq(request.workspace):
        # The preset learns from FFHQ, as the paper does, and this workspace has none.
        command += " --source workspace"
    return command


def _settings_of_run(
    folder: Path, stage: type[PriorSettings] | type[RestorerSettings]
) -> dict[str, object]:
    """Settings that continuing the run in a folder takes over from it, whatever the preset says.

    These are the source of its faces, and settings that did not exist when it was started.

    Args:
        folder: The run folder; without a run there is nothing to take over.
        stage: Class of the settings of the stage.
    """
    from authface_train.presets import setting_names
    from authface_train.runs.training_run import flatten
    from authface_train.settings import LATER_SETTINGS
    from manifests.run_folder import read_run

    record = read_run(folder)
    if record is None:
        return {}
    earlier = flatten(record.get("settings", {}))
    known = setting_names(stage)
    kept: dict[str, object] = {
        name: value
        for name, value in LATER_SETTINGS.items()
        if name in known and name not in earlier
    }
    return kept | _overrides(None, source=earlier.get("source", "workspace"))


def _train(request: JobRequest, next_command: str) -> None:
    from authface_train.training.jobs import build_job, run_job
    from authface_train.training.processes import run_together
    from manifests.run_folder import read_notes

    with run_together():
        job = build_job(request)
        run_job(job)
    if not job.accelerator.is_main_process:
        return
    if read_notes(request.folder).get("untrained"):
        console.print(
            "[yellow]Untrained base:[/] built from configuration with random weights, to try the "
            "software. The model's images are noise."
        )
    console.print(
        f"The {request.stage} is in {quote_path(request.folder)}; load it with "
        "DiffusionPipeline.from_pretrained"
    )
    console.print(f"Next: [bold]{next_command}[/]")


def _check_faces_option(dry_run: bool) -> None:
    if not dry_run:
        raise UserError("--faces is only valid with --dry-run")


def _plan(request: JobRequest, preset: str, as_json: bool) -> None:
    """Print the plan of a run; without its weights on this machine, from their architecture."""
    from authface_train.models.sdxl import is_on_this_machine
    from authface_train.training.jobs import load_rows, plan_job
    from authface_train.training.processes import run_together

    if not is_on_this_machine(request.base, request.workspace.weights_dir):
        rows = load_rows(request)
        settings = request.settings.model_copy(update={"source": rows.source})
        _plan_early(settings, preset, len(rows.all), request.folder, as_json)
        return
    with run_together():
        plan = plan_job(request)
    if plan is not None:  # the main process prints it
        _print_plan(plan, as_json)


def _plan_early(
    settings: PriorSettings | RestorerSettings,
    preset: str,
    num_faces: int,
    folder: Path | None,
    as_json: bool,
) -> None:
    """Print the plan of a run from the architecture of its base."""
    silence_libraries()
    from authface_train.memory.early_plan import plan_from_architecture
    from authface_train.models.sdxl_config import TINY
    from authface_train.settings import PriorSettings

    if os.environ.get("RANK", "0") != "0":
        return  # the main process prints it
    base = settings.base if isinstance(settings, PriorSettings) else preset
    plan = plan_from_architecture(
        settings,
        preset=preset,
        is_tiny=base == TINY,
        num_faces=num_faces,
        folder=folder or Path(),
    )
    _print_plan(plan, as_json)


def _print_plan(plan: Plan, as_json: bool) -> None:
    """Print a plan.

    Raises:
        PartialFailureError: If the run does not fit.
    """
    from authface_train.commands.dry_run_table import print_plan

    if as_json:
        print_json(plan)
    else:
        print_plan(plan)
    if not plan.fits:
        raise PartialFailureError("the run does not fit with these settings; see the table above")


def _calibrate(request: JobRequest) -> None:
    from authface_train.commands.calibration_table import print_calibration
    from authface_train.training.jobs import calibrate_job
    from authface_train.training.processes import run_together

    with run_together():
        calibration = calibrate_job(request)
    if calibration is not None:
        print_calibration(calibration)
