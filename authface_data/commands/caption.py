"""`authface caption`: writes tags for every kept face."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from authface_data.commands.engine import (
    AddressOption,
    EngineOption,
    WorkersOption,
    make_engine,
)
from authface_data.commands.outcome import finish_stages
from manifests.support.console import (
    RetryOption,
    WorkspaceOption,
    YesOption,
    console,
    parse_retry,
)
from manifests.support.errors import UserError
from manifests.support.extras import needs_extras
from manifests.support.options import CaptionerName, TrainingSource
from manifests.support.text import count_of

if TYPE_CHECKING:
    from authface_data.captions.captioners import CaptionInput
    from authface_data.engine.run import Engine, Outcomes
    from authface_data.engine.stage import Stage
    from manifests.workspace import Workspace

NEXT_COMMANDS = "authface train-prior --preset paper   (or: authface tags, authface report)"


@needs_extras("data")
def caption(
    captioner: Annotated[
        CaptionerName | None,
        typer.Option(help="What writes the tags. Default: captions.captioner."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="llava: LLaVA-1.6 checkpoint, a hub id or a folder. server: the model's name. "
            "Default: captions.model, captions.server.model."
        ),
    ] = None,
    base_url: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="server: its address, such as http://127.0.0.1:8000/v1. Default: "
            "captions.server.base_url.",
        ),
    ] = None,
    precision: Annotated[
        Literal["bf16", "8bit", "4bit"] | None,
        typer.Option(help="Precision of LLaVA's weights on a GPU. Default: captions.precision."),
    ] = None,
    source: Annotated[
        TrainingSource | None,
        typer.Option(
            help="Faces to caption: those collected from FFHQ, all others (portraits), or both "
            "(workspace). Default: portraits, or ffhq if there are no others."
        ),
    ] = None,
    workspace: WorkspaceOption = None,
    retry: RetryOption = None,
    engine: EngineOption = "local",
    address: AddressOption = None,
    workers: WorkersOption = None,
    yes: YesOption = False,
) -> None:
    """Write semantic and photographic tags for every kept face, checked against measurements.

    Faces of FFHQ get none where there are other faces: Stage II needs no captions.

    ```
    authface caption --captioner measured
    authface caption --captioner server --base-url http://127.0.0.1:8000/v1
    ```
    """
    retry_failed = parse_retry(retry)
    chosen_engine = make_engine(engine, address, workers)
    from authface_data.captions.captioners import (
        add_measurements,
        create_stage,
        load_inputs,
        override_settings,
    )
    from authface_data.captions.recompose import recompose
    from authface_data.captions.server import clear_answers
    from manifests.missing_files import require_crops
    from manifests.workspace import Workspace

    ws = Workspace.find(workspace)
    with ws.lock("caption"):
        name = captioner or ws.settings.captions.captioner
        settings = override_settings(
            ws.settings.captions, name, model=model, base_url=base_url, precision=precision
        )
        inputs = load_inputs(ws, source)
        if not inputs and source not in (None, "workspace"):
            raise UserError(f"--source {source}: no kept face is of this source")
        if not inputs:
            raise UserError(
                "no face is kept; run `authface filter` first (`authface status` shows why faces "
                "were dropped)"
            )

        require_crops(ws, {face_id: row["crop_path"] for face_id, row in inputs})

        # Measurements come first because the tags of every captioner are checked against them. They
        # need no model. Unless they are the main result, outdated ones are replaced without --yes.
        stage = create_stage(ws, "measured", settings)
        redo = yes or name != "measured"
        outcomes = _run_stage(
            ws, stage, inputs, engine=chosen_engine, retry_failed=retry_failed, redo=redo
        )
        if name != "measured":
            _print_outcomes(outcomes, stage, len(inputs))
            measured_failures = outcomes.failed
            stage = create_stage(ws, name, settings)
            outcomes = _run_stage(
                ws,
                stage,
                add_measurements(ws, inputs),
                engine=make_engine("local", None, 1) if name == "server" else chosen_engine,
                retry_failed=retry_failed,
                redo=yes,
            )
            outcomes.failed.update(measured_failures)

        recomposed_count = recompose(ws)
        _print_outcomes(outcomes, stage, len(inputs))
        if not sum(outcomes.failed.values()):
            clear_answers(ws)
        if recomposed_count and not outcomes.processed[stage.name]:
            console.print(
                f"{count_of(recomposed_count, 'caption')} changed with the present settings and vocabulary"
            )
        _print_contradictions(ws, name)
        finish_stages(outcomes, NEXT_COMMANDS)


def _run_stage(
    ws: Workspace,
    stage: Stage,
    inputs: list[CaptionInput],
    *,
    engine: Engine,
    retry_failed: bool,
    redo: bool,
) -> Outcomes:
    from authface_data.engine.run import run_chain
    from authface_data.engine.stage import Chain
    from authface_data.images.open import PictureReader

    return run_chain(
        ws,
        Chain([stage], PictureReader(ws, "crop_path")),
        inputs,
        title=f"caption ({stage.name})",
        engine=engine,
        retry_failed=retry_failed,
        redo=redo,
    )


def _print_outcomes(outcomes: Outcomes, stage: Stage, kept_count: int) -> None:
    rate = f", {outcomes.rate(stage):.2f} images/s" if outcomes.seconds else ""
    console.print(
        f"{count_of(outcomes.processed[stage.name], 'face')} captioned by {stage.name}{rate}, "
        f"of {count_of(kept_count, 'kept face')}"
    )


def _print_contradictions(ws: Workspace, captioner: str) -> None:
    from authface_data.captions.coverage import count_contradictions

    total = sum(item.count for item in count_contradictions(ws) if item.captioner == captioner)
    if total:
        left_out = ws.settings.captions.contradictions == "leave out"
        treatment = "left out of the captions" if left_out else "kept in the captions"
        console.print(
            f"[yellow]{count_of(total, 'contradiction')} between tags and picture:[/] {treatment}; "
            "`authface report` lists them"
        )
