"""`authface train-prior` and `authface train-restore`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from authface_train.commands.silence_libraries import silence_libraries
from manifests.support.console import JsonOption, WorkspaceOption, console, quote_path
from manifests.support.errors import UserError

if TYPE_CHECKING:
    from authface_train.memory.dry_run import Plan

PRESETS = "paper | tiny | 1x24gb | 1x80gb | 4x48gb | 8x80gb: what the settings start from."
PresetOption = Annotated[str, typer.Option(help=PRESETS)]
StepsOption = Annotated[int | None, typer.Option(min=1, help="Optimiser steps of the whole run.")]
OutputOption = Annotated[
    Path | None, typer.Option(help="The run's folder. Default: runs/STAGE-PRESET in the workspace.")
]
ResumeOption = Annotated[
    bool, typer.Option("--resume", help="Go on from the newest checkpoint, exactly.")
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Say what it takes and whether it fits, and take no step.")
]
UnknownOption = Annotated[
    bool, typer.Option("--allow-unknown-licence", help="Train on faces without a licence basis.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a setting. Repeatable."),
]


def train_prior(
    preset: PresetOption = "paper",
    base: Annotated[
        str | None, typer.Option(help="SDXL to start from: hub id or folder; `tiny` is random.")
    ] = None,
    steps: StepsOption = None,
    tags: Annotated[
        Literal["none", "semantic", "photographic", "both"] | None,
        typer.Option(help="Which tags make the captions."),
    ] = None,
    output: OutputOption = None,
    resume: ResumeOption = False,
    allow_unknown_licence: UnknownOption = False,
    set_: SetOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Stage I: fine-tune SDXL's U-Net into a face prior."""
    from authface_train.presets import load_preset
    from authface_train.settings import PriorSettings
    from manifests.workspace import Workspace

    ws = Workspace.find(workspace)
    settings = load_preset("prior", preset, _changes(set_, base=base, steps=steps, tags=tags))
    assert isinstance(settings, PriorSettings)
    folder = output or ws.local(f"runs/prior-{preset}")
    silence_libraries()
    from authface_train.training import jobs as assemble

    if dry_run:
        return _show(assemble.plan_prior(ws, settings, folder, allow_unknown_licence), as_json)
    if assemble.train_prior(ws, settings, folder, resume, allow_unknown_licence):
        console.print(
            f"Next: [bold]authface train-restore --preset {preset} --prior {quote_path(folder)}[/]"
        )


def train_restore(
    preset: PresetOption = "paper",
    prior: Annotated[
        str | None,
        typer.Option(help="Folder of a Stage I run. Default: the newest of the workspace."),
    ] = None,
    base: Annotated[
        str | None, typer.Option(help="Instead of a prior: any SDXL, hub id or folder.")
    ] = None,
    steps: StepsOption = None,
    degradation: Annotated[
        str | None, typer.Option(help="gfpgan | bfrffusion | codeformer-large | …")
    ] = None,
    source: Annotated[
        Literal["workspace", "ffhq"] | None,
        typer.Option(help="All kept faces, or those collected from FFHQ."),
    ] = None,
    facial_weight: Annotated[
        Literal["time-aware", "constant", "constant-matched", "off"] | None,
        typer.Option(help="How the facial loss counts over time."),
    ] = None,
    output: OutputOption = None,
    resume: ResumeOption = False,
    allow_unknown_licence: UnknownOption = False,
    set_: SetOption = None,
    dry_run: DryRunOption = False,
    calibrate: Annotated[
        bool,
        typer.Option(
            "--calibrate",
            help="Only measure the facial loss against the noise loss, and advise lambdas.",
        ),
    ] = False,
    as_json: JsonOption = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Stage II: train a ControlNet on the frozen prior, with the time-aware latent facial feature loss."""
    from authface_train.presets import load_preset
    from authface_train.settings import RestorerSettings
    from manifests.workspace import Workspace

    if prior and base:
        raise UserError("--prior and --base both name what to build on: give one")
    ws = Workspace.find(workspace)
    changes = _changes(
        set_,
        steps=steps,
        degradation=degradation,
        source=source,
        **{"facial.weight": facial_weight},
    )
    settings = load_preset("restorer", preset, changes)
    assert isinstance(settings, RestorerSettings)
    from authface_train.data.degradation import preset as degradation_preset

    degradation_preset(settings.degradation)
    if prior and not Path(prior, "model_index.json").is_file():
        raise UserError(
            f"{prior} holds no finished prior (no model_index.json): `authface train-prior` makes one"
        )
    folder = output or ws.local(f"runs/restorer-{preset}")
    silence_libraries()
    from authface_train.training import jobs as assemble
    from authface_train.training import setup as start

    begun = resume or (calibrate and (folder / "run.json").is_file())
    on = prior or base or (start.base_of(folder) if begun else None) or start.last_prior(ws)
    if dry_run:
        return _show(
            assemble.plan_restorer(ws, settings, folder, allow_unknown_licence, on), as_json
        )
    if calibrate:
        return assemble.calibrate_restorer(ws, settings, folder, allow_unknown_licence, on)
    if assemble.train_restorer(ws, settings, folder, resume, allow_unknown_licence, on):
        console.print(
            f"Next: [bold]authface restore --model {quote_path(folder)} --input DIR --output DIR[/]"
        )


def _show(plan: Plan, as_json: bool) -> None:
    from authface_train.memory import dry_run
    from manifests.support.errors import PartialFailureError

    dry_run.show(plan, as_json)
    if not plan.fits:
        raise PartialFailureError("as it is set, the run does not fit here")


def _changes(given: list[str] | None, **options: object) -> list[str]:
    """`--set` changes, then the options that were given, which win."""
    return [
        *(given or []),
        *(f"{name}={value}" for name, value in options.items() if value is not None),
    ]
