"""`authface collect`: photographs come in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.markup import escape

from authface_data.commands.outcome import finish
from manifests.command_line import RetryOption, WorkersOption, WorkspaceOption, YesOption, console, shown, wants_retry
from manifests.errors import UserMistake


def collect(
    source: Annotated[Literal["folder"], typer.Option(help="Where from: `folder`.")],
    path: Annotated[Path, typer.Option(help="The folder that holds the photographs.")],
    licence_basis: Annotated[
        str, typer.Option(help="On what ground they may be used for training: own, public-domain, other:TEXT.")
    ],
    workspace: WorkspaceOption = None,
    retry: RetryOption = None,
    workers: WorkersOption = None,
    yes: YesOption = False,
) -> None:
    """Collect photographs into the workspace, with licence and origin on every row."""
    if not licence_basis.strip():
        raise UserMistake("--licence-basis is empty: say on what ground these photographs may be used (own, …)")
    again = wants_retry(retry)
    from authface_data.engine import local
    from authface_data.engine.stage import Chain
    from authface_data.sources.folder import find_photos
    from authface_data.sources.stage import CollectStage, open_file
    from manifests.schema import PHOTOS
    from manifests.store import Store
    from manifests.workspace import Workspace

    ws = Workspace.find(workspace)
    with ws.lock("collect"):
        chain = Chain([CollectStage(source, licence_basis.strip())], open_file)
        passed_over: list[str] = []
        photos = list(find_photos(path, passed_over))
        for words in passed_over:
            console.print(f"[yellow]Passed over:[/] {escape(words)}")
        outcomes = local.run(ws, chain, photos, title="collect", workers=workers, retry_failed=again, redo=yes)
        ws.remove_all_but("photos", set(Store(ws, PHOTOS).read(["path"])["path"].to_pylist()))
        made, dropped = outcomes.made["collect"], outcomes.dropped["collect"]
        console.print(
            f"{made} photographs collected, {dropped} could not be decoded, "
            f"{len(photos) - made - dropped - outcomes.failed['collect']} were there already, in {shown(ws.root)}/photos"
        )
        finish(outcomes, "authface filter")
