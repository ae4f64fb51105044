"""`authface init`, `status`, `explain`, `report`, `migrate`: a workspace made and looked at."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from manifests.support.console import (
    JsonOption,
    WorkspaceOption,
    YesOption,
    console,
    print_json,
    quote_path,
)


def init(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The directory to make.")],
    preset: Annotated[
        str, typer.Option(help="paper | embedded: what authface.toml starts from.")
    ] = "paper",
) -> None:
    """Make a workspace: the directory of one data set."""
    from manifests.schema import MANIFESTS
    from manifests.settings import preset_text
    from manifests.store import Store
    from manifests.workspace import Workspace

    ws = Workspace.create(directory, preset_text(preset))
    for manifest in MANIFESTS.values():
        store = Store(ws, manifest)
        store.compact(
            add=store.table([])
        )  # an empty part, so that every manifest opens from the start
    console.print(
        f"Made {quote_path(ws.root)} from the preset {preset}; its settings are in authface.toml"
    )
    console.print(
        f"Next: [bold]authface collect -w {quote_path(directory)} --source folder --path DIR --licence-basis own[/]"
    )


def status(workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Rows per manifest, what was kept, what was dropped and why, and what to run next."""
    from authface_data.report import status as facts
    from manifests.workspace import Workspace

    found = facts.gather(Workspace.find(workspace))
    if as_json:
        print_json(found)
    else:
        facts.show(found, console)


def explain(
    id: Annotated[str, typer.Argument(metavar="ID", help="A face_id or a photo_id.")],
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """A face's whole story, or a photograph's: source, measurements, every gate's verdict, captions, decisions, runs."""
    from authface_data.report import explain as story
    from manifests.support.text import to_utf8
    from manifests.workspace import Workspace

    told = story.explain(Workspace.find(workspace), to_utf8(id))
    if as_json:
        print_json(told)
    else:
        story.show(told, console)


def report(workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """One self-contained HTML: counts, reasons, balance, contact sheets with credits, captions, curves, restored faces."""
    from authface_data.captions import coverage
    from authface_data.report import balance, page
    from manifests.workspace import Workspace

    ws = Workspace.find(workspace)
    path = page.write(ws)
    facets = balance.balance(ws)
    lacking = balance.missing(facets)
    if as_json:
        told = {"coverage": coverage.coverage(ws), "contradictions": coverage.contradictions(ws)}
        print_json({"report": f"{ws.root}/{path}", "balance": facets, "missing": lacking, **told})
        return
    if lacking:
        console.print(
            f"To ask for, since hardly any kept face is of it: {escape('; '.join(lacking))}"
        )
    console.print(f"Report: {quote_path(ws.root)}/{path}")


def migrate(workspace: WorkspaceOption = None, yes: YesOption = False) -> None:
    """Bring manifests written by an older authface up to date, a copy first."""
    from manifests.migrate import migrate as bring_up_to_date
    from manifests.migrate import outdated
    from manifests.workspace import Workspace

    ws = Workspace.find(workspace)
    with ws.lock("migrate"):
        parts = outdated(ws)
        if not parts:
            console.print("Every manifest is up to date.")
        elif not yes:
            what = ", ".join(f"{count} parts of {name}" for name, count in parts.items())
            console.print(f"{what} would be rewritten, after a copy: pass --yes")
        else:
            copies = bring_up_to_date(ws)
            console.print(
                f"{sum(parts.values())} parts rewritten; the old ones are in {quote_path(ws.root)}/{copies}"
            )
