"""`authface collect`: photographs come in."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.markup import escape

from authface_data.commands.outcome import finish
from manifests.support.console import (
    JsonOption,
    RetryOption,
    WorkersOption,
    WorkspaceOption,
    YesOption,
    console,
    parse_retry,
    print_json,
    quote_path,
)
from manifests.support.errors import PartialFailureError, UserError

if TYPE_CHECKING:
    from authface_data.sources.unsplash import api_source as unsplash
    from authface_data.sources.unsplash import dataset as unsplash_dataset
    from manifests.workspace import Workspace

Source = Literal["folder", "unsplash", "unsplash-dataset", "authface-hq", "ffhq"]
FILES, API, DATASET = "Sources of files", "Source unsplash", "Source unsplash-dataset"
WEB = "Sources of the web"

# Options that mean something only for some sources.
OF_SOURCES = {
    "path": ("folder", "unsplash-dataset", "authface-hq", "ffhq"),
    "files": ("folder", "authface-hq", "ffhq"),
    "licence_basis": ("folder", "unsplash-dataset", "authface-hq", "ffhq"),
    **dict.fromkeys(
        ("query", "topic", "collection", "user", "orientation", "content_filter"), ("unsplash",)
    ),
    **dict.fromkeys(("order_by", "details", "no_wait", "i_have_permission"), ("unsplash",)),
    **dict.fromkeys(
        ("max_photos", "min_megapixels", "min_long_side", "face_gate", "plan"),
        ("unsplash", "unsplash-dataset"),
    ),
    **dict.fromkeys(("keyword", "camera", "min_aspect", "max_aspect"), ("unsplash-dataset",)),
}


def collect(
    context: typer.Context,
    source: Annotated[Source, typer.Option(help="Where from.")],
    path: Annotated[
        Path | None,
        typer.Option(help="The folder that holds the photographs; the data set or its zip."),
    ] = None,
    licence_basis: Annotated[
        str | None,
        typer.Option(
            help="On what ground they may be used for training: own, public-domain, other:TEXT."
        ),
    ] = None,
    files: Annotated[
        Literal["copy", "hardlink", "reference"] | None,
        typer.Option(
            help="How pictures are kept: copied (default), or linked where they lie.",
            rich_help_panel=FILES,
        ),
    ] = None,
    query: Annotated[
        list[str] | None, typer.Option(help="What to search for. Repeatable.", rich_help_panel=API)
    ] = None,
    topic: Annotated[
        list[str] | None, typer.Option(help="A topic's name. Repeatable.", rich_help_panel=API)
    ] = None,
    collection: Annotated[
        list[str] | None, typer.Option(help="A collection's id. Repeatable.", rich_help_panel=API)
    ] = None,
    user: Annotated[
        list[str] | None,
        typer.Option(help="A photographer's name. Repeatable.", rich_help_panel=API),
    ] = None,
    orientation: Annotated[
        Literal["landscape", "portrait", "squarish"] | None, typer.Option(rich_help_panel=API)
    ] = None,
    content_filter: Annotated[
        Literal["low", "high"] | None, typer.Option(rich_help_panel=API)
    ] = None,
    order_by: Annotated[
        str | None,
        typer.Option(
            help="relevant | latest | editorial; of topics and users also others.",
            rich_help_panel=API,
        ),
    ] = None,
    details: Annotated[
        bool,
        typer.Option(
            "--details",
            help="Ask for EXIF and tags too: one more request each, last.",
            rich_help_panel=API,
        ),
    ] = False,
    i_have_permission: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="What permission, from whom. Asked for once, kept on every row.",
            rich_help_panel=API,
        ),
    ] = None,
    no_wait: Annotated[
        bool,
        typer.Option(
            "--no-wait",
            help="Stop (4) when the hour's requests are spent, all kept.",
            rich_help_panel=API,
        ),
    ] = False,
    keyword: Annotated[
        list[str] | None,
        typer.Option(
            help="Only photographs with one of these. Repeatable.", rich_help_panel=DATASET
        ),
    ] = None,
    camera: Annotated[
        str | None,
        typer.Option(help="Part of the maker's or model's name.", rich_help_panel=DATASET),
    ] = None,
    min_aspect: Annotated[
        float | None, typer.Option(min=0, help="Width / height.", rich_help_panel=DATASET)
    ] = None,
    max_aspect: Annotated[
        float | None, typer.Option(min=0, help="Width / height.", rich_help_panel=DATASET)
    ] = None,
    max_photos: Annotated[
        int | None,
        typer.Option(
            min=1, help="Until so many of them are in the workspace.", rich_help_panel=WEB
        ),
    ] = None,
    min_megapixels: Annotated[
        float | None, typer.Option(min=0, help="Smaller ones stay there.", rich_help_panel=WEB)
    ] = None,
    min_long_side: Annotated[
        int | None, typer.Option(min=0, help="Likewise, px.", rich_help_panel=WEB)
    ] = None,
    face_gate: Annotated[
        bool | None,
        typer.Option(
            help="Look for a face on the preview before downloading.", rich_help_panel=WEB
        ),
    ] = None,
    plan: Annotated[
        bool,
        typer.Option(
            "--plan", help="Say what it would take: requests, hours, bytes.", rich_help_panel=WEB
        ),
    ] = False,
    refresh: Annotated[
        bool, typer.Option("--refresh", help="Ask the source again: what has vanished there?")
    ] = False,
    workspace: WorkspaceOption = None,
    retry: RetryOption = None,
    workers: WorkersOption = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Collect photographs into the workspace, with licence and origin on every row."""
    again = parse_retry(retry)
    _check_options(context, source, path, refresh)
    from manifests.workspace import Workspace

    ws = Workspace.find(workspace)
    if licence_basis is not None and not licence_basis.strip():
        raise UserError(
            "--licence-basis is empty: say on what ground these photographs may be used (own, …)"
        )
    basis = licence_basis.strip() if licence_basis else None
    settings = ws.settings.collect
    long_side = settings.min_long_side_px if min_long_side is None else min_long_side
    megapixels = settings.min_megapixels if min_megapixels is None else min_megapixels
    gate = settings.face_gate if face_gate is None else face_gate
    with ws.lock("collect"):
        if refresh:
            _refresh(ws, source, not no_wait)
        elif source == "unsplash":
            from authface_data.sources.unsplash import api_source as unsplash
            from authface_data.sources.unsplash.client import Listing
            from authface_data.sources.unsplash.listings import SizeFilter
            from manifests.support.text import to_utf8

            asked: dict[str, list[str]] = {
                "query": query or [],
                "topic": topic or [],
                "collection": collection or [],
                "user": user or [],
            }
            listings = [
                Listing(kind, to_utf8(name), orientation, content_filter, order_by)  # type: ignore[arg-type]
                for kind, names in asked.items()
                for name in dict.fromkeys(names)
            ]
            if not listings or any(listing.name in ("", ".", "..") for listing in listings):
                raise UserError(
                    "say what to collect: --query TEXT, --topic NAME, --collection ID or --user NAME"
                )
            request = unsplash.Request(
                listings, SizeFilter(megapixels, long_side), max_photos, gate, details, not no_wait
            )
            if plan:
                _say_plan(unsplash.plan(ws, request), as_json)
                return
            tally = unsplash.collect(
                ws, request, unsplash.licence_basis(ws, i_have_permission), again, workers
            )
            _finish(tally.failed)
        elif source == "unsplash-dataset":
            from authface_data.sources.unsplash import dataset as unsplash_dataset
            from authface_data.sources.unsplash.listings import SizeFilter

            assert path is not None
            dataset = unsplash_dataset.Dataset(path)
            sieve = unsplash_dataset.RowFilter(
                SizeFilter(megapixels, long_side),
                frozenset(word.strip().lower() for word in keyword or []),
                camera.strip().lower() if camera else None,
                (min_aspect or 0.0, math.inf if max_aspect is None else max_aspect),
            )
            if plan:
                _say_plan(unsplash_dataset.plan(ws, dataset, sieve, max_photos), as_json)
                return
            _finish(
                unsplash_dataset.collect(
                    ws, dataset, sieve, basis, max_photos, gate, again, workers
                ).failed
            )
        else:
            assert path is not None
            _files(ws, source, path, basis, files or "copy", again, workers, yes)


def _check_options(context: typer.Context, source: str, path: Path | None, refresh: bool) -> None:
    """Raises UserError for an option that means nothing to the source, and for a path that is missing."""
    for name, sources in OF_SOURCES.items():
        given = context.params.get(name)
        if source not in sources and given not in (None, False, [], ()):
            raise UserError(
                f"--{name.replace('_', '-')} means nothing to --source {source}: it is of {', '.join(sources)}"
            )
        if refresh and given not in (None, False, [], ()) and name != "no_wait":
            raise UserError(
                f"--refresh asks again for what is there: it takes no --{name.replace('_', '-')}"
            )
    if source in OF_SOURCES["path"] and path is None and not refresh:
        raise UserError(f"--source {source} takes --path: where the photographs lie")


def _files(
    ws: Workspace,
    source: str,
    path: Path,
    basis: str | None,
    keep: str,
    again: bool,
    workers: int | None,
    yes: bool,
) -> None:
    """Photographs that lie in a folder."""
    from importlib import import_module

    from authface_data.engine import local
    from authface_data.engine.stage import Chain
    from authface_data.sources.stage import CollectStage, open_file
    from manifests.schema import PHOTOS
    from manifests.store import Store
    from manifests.tombstones import Tombstones

    finder = import_module(f"authface_data.sources.{source.replace('-', '_')}")
    tombstones = Tombstones(ws)
    passed_over: list[str] = []
    found = list(finder.find_photos(path, passed_over))
    photos = [(key, row) for key, row in found if not tombstones.holds(key)]
    for words in passed_over:
        console.print(f"[yellow]Passed over:[/] {escape(words)}")
    unknown = [row["name"] for _, row in photos if not (row.get("licence_basis") or basis)]
    if unknown and source == "folder":
        raise UserError(
            f"--licence-basis is missing: on what ground may these photographs be used (own, public-domain, other:TEXT)? "
            f"{len(unknown)} of {len(photos)} have no licence_basis of their own beside them (first: {unknown[0]})"
        )
    stage = CollectStage(source, basis, keep, ws.settings.collect.store_place, tombstones)  # type: ignore[arg-type]
    chain = Chain([stage], open_file)
    outcomes = local.run(
        ws, chain, photos, title="collect", workers=workers, retry_failed=again, redo=yes
    )
    ws.remove_all_but("photos", set(Store(ws, PHOTOS).read(["path"])["path"].to_pylist()))
    if keep == "reference":
        from authface_data.sources import refresh

        refresh.suggest(ws, *refresh.vanished_files(ws))
    if source == "authface-hq":
        from authface_data.captions.qwen import import_captions

        console.print(f"{import_captions(ws)} captions by qwen")
    made, dropped = outcomes.made[stage.name], outcomes.dropped[stage.name]
    forgotten = len(found) - len(photos)
    console.print(
        f"{made} photographs collected, {dropped} could not be used, "
        + (f"{forgotten} not taken since they were forgotten, " if forgotten else "")
        + f"{len(photos) - made - dropped - outcomes.failed[stage.name]} were there already, in {quote_path(ws.root)}/photos"
    )
    if unknown:
        console.print(
            f"[yellow]{len(unknown)} have no licence basis:[/] training refuses them; collect again with --licence-basis"
        )
    finish(outcomes, "authface filter")


def _finish(failed: int) -> None:
    if failed:
        raise PartialFailureError(
            f"{failed} photographs did not come: `authface status` says why; try them again with --retry failed"
        )
    console.print("Next: [bold]authface filter[/]")


def _say_plan(plan: unsplash.Plan | unsplash_dataset.Plan, as_json: bool) -> None:
    if as_json:
        print_json(plan)
    else:
        plan.say()


def _refresh(ws: Workspace, source: str, wait: bool) -> None:
    """Ask a source again. What it has no more becomes a suggestion to forget."""
    from authface_data.sources import refresh

    if source == "unsplash":
        from authface_data.sources.unsplash import api_source as unsplash

        asked, gone = unsplash.refresh(ws, wait)
    else:
        if source == "unsplash-dataset":
            from authface_data.sources.unsplash.listings import hosts_of

            ids, everyone = refresh.vanished_urls(ws, source, hosts_of(ws))
        else:
            ids, everyone = refresh.vanished_files(ws)
        refresh.suggest(ws, ids, everyone)
        asked, gone = len(everyone), len(ids)
    console.print(f"{asked} photographs asked for again, {gone} have vanished")
