"""`authface licences` and `authface forget`: by what right photographs are here, and how they go."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
from manifests.support.errors import UserError
from manifests.support.text import to_utf8

if TYPE_CHECKING:
    from authface_data.rights.forget import Order
    from manifests.workspace import Workspace

MOST_SHOWN = 30


def licences(
    credits: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write attribution: FILE as Markdown (.md) and as HTML (.html)."
        ),
    ] = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Kept photographs by licence basis and source; with --credits, whom to thank for them."""
    from authface_data.rights import licences as rights
    from manifests.workspace import Workspace

    ws = Workspace.find(workspace)
    if credits is not None and (credits.is_dir() or not credits.name):
        raise UserError(f"--credits {credits} is a directory: name the file to write")
    found = rights.counts(ws)
    if as_json:
        print_json(found)
    else:
        from rich.table import Table

        table = Table(title=f"{ws.root}: kept photographs", title_justify="left")
        table.add_column("licence basis", overflow="fold")
        table.add_column("source")
        table.add_column("photographs", justify="right")
        table.add_column("faces", justify="right")
        for count in found:
            table.add_row(
                escape(count.licence_basis), count.source, f"{count.photos:,}", f"{count.faces:,}"
            )
        console.print(table)
        unknown = sum(count.faces for count in found if count.licence_basis == rights.NO_BASIS)
        if unknown:
            console.print(
                f"[yellow]Training refuses {unknown} faces[/] that have no licence basis (or --allow-unknown-licence)"
            )
    if credits is not None:
        made = rights.credits(ws)
        for suffix, text in ((".md", rights.markdown(made)), (".html", rights.html(made))):
            file = credits.with_suffix(suffix)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, "utf-8")
            if not as_json:
                console.print(f"Credits of {len(made)} photographs: {quote_path(file)}")


def forget(
    ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="ID…", help="Photographs (or faces: their photographs)."),
    ] = None,
    why: Annotated[
        str | None, typer.Option(help="Kept with the tombstone; name nobody in it.")
    ] = None,
    workspace: WorkspaceOption = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Take photographs out everywhere, for good. Says what would go; --yes does it. Ids that begin with - come after --."""
    from authface_data.rights import forget as right
    from manifests.workspace import Workspace

    ws = Workspace.find(workspace)
    with ws.lock("forget"):
        unfinished = right.interrupted(ws)
        if unfinished is not None and yes:
            _act(ws, unfinished, as_json and not ids)
        elif unfinished is not None:
            raise UserError(
                f"a forget of {len(unfinished.photo_ids)} photographs was interrupted: finish it with --yes"
            )
        if not ids:
            if unfinished is None:
                raise UserError("say what to forget: authface forget ID… (photos.photo_id)")
            return
        made, already = right.order(ws, list(dict.fromkeys(ids)), why)
        if yes:
            if made.photo_ids:
                _act(ws, made, as_json)
            if already and not as_json:
                console.print(f"{len(already)} were forgotten already")
            return
        found = right.look(ws, made, already)
        if as_json:
            print_json(found)
            return
        if not found.photo_ids:
            console.print(f"{len(found.already)} were forgotten already")
            return
        console.print(
            f"{len(found.photo_ids)} photographs would be forgotten: {escape(', '.join(found.photo_ids[:MOST_SHOWN]))}"
        )
        console.print(
            "rows: "
            + (", ".join(f"{count} of {name}" for name, count in found.rows.items()) or "none")
        )
        for path, what in list(found.files.items())[:MOST_SHOWN]:
            console.print(f"  {escape(to_utf8(path))}: {what}")
        if len(found.files) > MOST_SHOWN:
            console.print(f"  and {len(found.files) - MOST_SHOWN} more files (--json names all)")
        _say_runs(found.runs)
        if found.alike:
            console.print(
                f"[yellow]Near-duplicates that would stay[/] unless you name them too: {escape(' '.join(found.alike))}"
            )
        console.print("This cannot be undone. To do it: the same with [bold]--yes[/]")


def _act(ws: Workspace, made: Order, as_json: bool) -> None:
    from authface_data.rights import forget as right

    done, runs = right.act(ws, made)
    if as_json:
        print_json({"photo_ids": made.photo_ids, "files": done, "runs": runs})
        return
    what = ", ".join(f"{count} files: {what}" for what, count in sorted(done.items()))
    console.print(
        f"{len(made.photo_ids)} photographs forgotten{f'; {what}' if what else ''}. They will not be collected again."
    )
    _say_runs(runs)
    console.print("Next: [bold]authface report[/] (the old one is gone)")


def _say_runs(runs: list[str]) -> None:
    if runs:
        console.print(
            f"[yellow]Models that learnt from them, and cannot forget:[/] {escape(', '.join(runs))}: train them anew"
        )
