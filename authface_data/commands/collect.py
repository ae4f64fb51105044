"""`authface collect`: bring photographs into the workspace."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.markup import escape

from authface_data.commands.engine import (
    AddressOption,
    EngineOption,
    WorkersOption,
    make_engine,
)
from authface_data.commands.outcome import print_next
from manifests.support.console import (
    JsonOption,
    RetryOption,
    WorkspaceOption,
    YesOption,
    console,
    parse_retry,
    print_json,
    quote_path,
)
from manifests.support.errors import PartialFailureError, UserError
from manifests.support.extras import needs_extras
from manifests.support.text import count_of

if TYPE_CHECKING:
    from authface_data.sources.protocol import CollectReport, Plan, RefreshReport
    from manifests.workspace import Workspace

SourceName = Literal["folder", "unsplash", "unsplash-dataset", "authface-hq", "ffhq"]

# Help panels: each names the sources that accept its options.
NOT_API = "Sources folder, ffhq, authface-hq and unsplash-dataset"
FILES = "Sources folder, ffhq and authface-hq"
API = "Source unsplash"
DATASET = "Source unsplash-dataset"
WEB = "Sources unsplash and unsplash-dataset"

GENERAL_OPTIONS = (
    "source",
    "refresh",
    "workspace",
    "retry",
    "engine",
    "address",
    "workers",
    "yes",
    "as_json",
)
MAX_LISTED_IDS = 20


@needs_extras("data")
def collect(
    context: typer.Context,
    source: Annotated[SourceName, typer.Option(help="Where the photographs come from.")],
    path: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the photographs; for unsplash-dataset, the data set or its zip. "
            "Required for these sources.",
            rich_help_panel=NOT_API,
        ),
    ] = None,
    licence_basis: Annotated[
        str | None,
        typer.Option(
            help="Why the photographs may be used for training: own, public-domain, other:TEXT. "
            "Default: unknown, which training refuses.",
            rich_help_panel=NOT_API,
        ),
    ] = None,
    files: Annotated[
        Literal["copy", "hardlink", "reference"] | None,
        typer.Option(
            help="How the workspace keeps the files: as a copy or as a link. Default: copy.",
            rich_help_panel=FILES,
        ),
    ] = None,
    query: Annotated[
        list[str] | None, typer.Option(help="Search text. Repeatable.", rich_help_panel=API)
    ] = None,
    topic: Annotated[
        list[str] | None, typer.Option(help="Name of a topic. Repeatable.", rich_help_panel=API)
    ] = None,
    collection: Annotated[
        list[str] | None, typer.Option(help="Id of a collection. Repeatable.", rich_help_panel=API)
    ] = None,
    user: Annotated[
        list[str] | None,
        typer.Option(help="Username of a photographer. Repeatable.", rich_help_panel=API),
    ] = None,
    orientation: Annotated[
        Literal["landscape", "portrait", "squarish"] | None,
        typer.Option(
            help="Only photographs of this orientation. Default: any.", rich_help_panel=API
        ),
    ] = None,
    content_filter: Annotated[
        Literal["low", "high"] | None,
        typer.Option(
            help="Unsplash's filter of unsafe content. Default: low.", rich_help_panel=API
        ),
    ] = None,
    order_by: Annotated[
        str | None,
        typer.Option(
            help="relevant, latest or editorial; topics and users accept other values too. "
            "Default: Unsplash's.",
            rich_help_panel=API,
        ),
    ] = None,
    details: Annotated[
        bool,
        typer.Option(
            "--details",
            help="Fetch camera data and tags too, with one more request for each photograph.",
            rich_help_panel=API,
        ),
    ] = False,
    i_have_permission: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="What permission you have, and from whom. Required once, stored on every row.",
            rich_help_panel=API,
        ),
    ] = None,
    no_wait: Annotated[
        bool,
        typer.Option(
            "--no-wait",
            help="Stop with exit code 4 when the hour's requests are spent, instead of waiting.",
            rich_help_panel=API,
        ),
    ] = False,
    keyword: Annotated[
        list[str] | None,
        typer.Option(
            help="Only photographs with one of these keywords. Repeatable.",
            rich_help_panel=DATASET,
        ),
    ] = None,
    camera: Annotated[
        str | None,
        typer.Option(
            help="Only photographs whose camera maker or model contains this text. Default: any.",
            rich_help_panel=DATASET,
        ),
    ] = None,
    min_aspect: Annotated[
        float | None,
        typer.Option(min=0, help="Smallest width / height. Default: any.", rich_help_panel=DATASET),
    ] = None,
    max_aspect: Annotated[
        float | None,
        typer.Option(min=0, help="Largest width / height. Default: any.", rich_help_panel=DATASET),
    ] = None,
    max_photos: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Stop when this many of the offered photographs are in the workspace. Default: "
            "all of them.",
            rich_help_panel=WEB,
        ),
    ] = None,
    min_megapixels: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Skip smaller photographs. Default: collect.min_megapixels.",
            rich_help_panel=WEB,
        ),
    ] = None,
    min_long_side: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="PX",
            help="Skip photographs whose longer side is shorter than this. Default: "
            "collect.min_long_side_px.",
            rich_help_panel=WEB,
        ),
    ] = None,
    face_gate: Annotated[
        bool | None,
        typer.Option(
            help="Download a photograph only if its preview shows a face. Default: "
            "collect.face_gate.",
            rich_help_panel=WEB,
        ),
    ] = None,
    plan: Annotated[
        bool,
        typer.Option(
            "--plan",
            help="Estimate downloads, requests and time; download nothing.",
            rich_help_panel=WEB,
        ),
    ] = False,
    refresh: Annotated[
        bool,
        typer.Option(
            "--refresh", help="Look up which collected photographs the source no longer has."
        ),
    ] = False,
    workspace: WorkspaceOption = None,
    retry: RetryOption = None,
    engine: EngineOption = "local",
    address: AddressOption = None,
    workers: WorkersOption = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Collect photographs into the workspace, with the licence and the origin of each.

    ```
    authface collect --source folder --path ~/portraits --licence-basis own
    authface collect --source unsplash --query portrait --max-photos 500 --plan
    ```
    """
    retry_failed = parse_retry(retry)
    chosen_engine = make_engine(engine, address, workers)
    from authface_data.sources.protocol import PlannedSource, RunOptions
    from authface_data.sources.registry import check_options, create_source, source_class
    from manifests.workspace import Workspace

    # The options of the sources reach their options models by name, see `given_options`.
    given = given_options(context)
    check_options(source, given)
    if refresh:
        _check_refresh_options(given)

    ws = Workspace.find(workspace)
    with ws.lock("collect"):
        if refresh:
            _print_refresh(source_class(source).refresh(ws, wait=not no_wait))
            return
        photo_source = create_source(source, ws, given)
        if plan:
            assert isinstance(photo_source, PlannedSource)
            _print_plan(photo_source.plan(), as_json)
            return
        report = photo_source.collect(RunOptions(retry_failed, chosen_engine, redo=yes))
    _print_report(ws, report)
    print_next("authface filter")


def given_options(context: typer.Context) -> dict[str, object]:
    """The options of sources that were given on the command line, by parameter name."""
    given: dict[str, object] = {}
    for name, value in context.params.items():
        origin = context.get_parameter_source(name)
        is_given = origin is not None and origin.name == "COMMANDLINE"
        if is_given and name not in GENERAL_OPTIONS:
            given[name] = value
    return given


def _check_refresh_options(given: dict[str, object]) -> None:
    for name in given:
        if name != "no_wait":
            raise UserError(f"--refresh cannot be combined with --{name.replace('_', '-')}")


def _print_plan(plan: Plan, as_json: bool) -> None:
    if as_json:
        print_json(plan)
        return
    for line in plan.lines():
        console.print(escape(line))


def _print_report(ws: Workspace, report: CollectReport) -> None:
    """Print what was collected. Raises the error that ended the collection, if any."""
    _print_vanished(report.vanished)
    console.print(f"{report.summary()} (in {quote_path(ws.root)}/photos)")
    for note in report.notes:
        console.print(escape(note))
    if report.without_licence_basis:
        console.print(
            f"[yellow]{count_of(report.without_licence_basis, 'photograph')} without a licence basis:[/] "
            "training refuses such faces; collect again with --licence-basis"
        )

    failed_message = (
        f"{count_of(report.failed, 'photograph')} could not be collected; `authface status` lists the "
        "reasons. Try them again with --retry failed"
    )
    if report.error is not None:
        if report.failed:
            console.print(f"[yellow]{failed_message}[/]")
        raise report.error
    if report.failed:
        raise PartialFailureError(failed_message)


def _print_refresh(report: RefreshReport) -> None:
    _print_vanished(report.vanished)
    for note in report.notes:
        console.print(escape(note))
    if report.error is not None:
        raise report.error
    console.print(
        f"{count_of(report.checked, 'photograph')} looked up, {len(report.vanished)} of them vanished"
    )


def _print_vanished(photo_ids: list[str]) -> None:
    """Print how to remove photographs that vanished at their source."""
    if not photo_ids:
        return
    listed = " ".join(shlex.quote(photo_id) for photo_id in photo_ids[:MAX_LISTED_IDS])
    num_more = len(photo_ids) - MAX_LISTED_IDS
    more = f" (and {num_more} more, see authface status)" if num_more > 0 else ""
    console.print(
        f"Vanished at the source: {count_of(len(photo_ids), 'photograph')}. To forget them here too:"
    )
    console.print(f"  [bold]authface forget -- {escape(listed)}[/]{more}")
