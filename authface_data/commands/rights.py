"""`authface licences` and `authface forget`: licence bases, credits, and removal on request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
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
from manifests.support.text import count_of, to_utf8

if TYPE_CHECKING:
    from authface_data.rights.forget import ForgetPlan, Preview
    from authface_data.rights.licences import LicenceCount
    from manifests.workspace import Workspace

MAX_SHOWN = 30
"""Largest number of ids or files that `forget` prints."""


def licences(
    credits: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write credits: FILE as Markdown (.md) and as HTML (.html). Default: none.",
        ),
    ] = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Count kept photographs by licence basis and source; with --credits, write attributions.

    ```
    authface licences
    authface licences --credits credits.md
    ```
    """
    from authface_data.rights.licences import count_licences
    from manifests.workspace import Workspace

    ws = Workspace.find(workspace)
    if credits is not None and (credits.is_dir() or not credits.name):
        raise UserError(f"--credits {credits} is a directory; use a file in it")
    counts = count_licences(ws)
    if as_json:
        print_json(counts)
    else:
        _print_counts(ws, counts)
    if credits is not None:
        _write_credits(ws, credits, quiet=as_json)


def _print_counts(ws: Workspace, counts: Sequence[LicenceCount]) -> None:
    from rich.table import Table

    from manifests.licence_policy import NO_BASIS

    table = Table(title=f"{escape(ws.root)}: kept photographs", title_justify="left")
    table.add_column("licence basis", overflow="fold")
    table.add_column("source")
    table.add_column("photographs", justify="right")
    table.add_column("faces", justify="right")
    for count in counts:
        table.add_row(
            escape(count.licence_basis),
            escape(count.source),
            f"{count.photos:,}",
            f"{count.faces:,}",
        )
    console.print(table)
    unknown = sum(count.faces for count in counts if count.licence_basis == NO_BASIS)
    if unknown:
        console.print(
            f"[yellow]Training refuses {count_of(unknown, 'face')}[/] without a licence basis; "
            "pass --allow-unknown-licence to use them"
        )


def _write_credits(ws: Workspace, path: Path, quiet: bool) -> None:
    """Write the credits as Markdown and as HTML next to each other."""
    from authface_data.rights.licences import credits_html, credits_markdown, list_credits
    from manifests.support.files import write_atomic

    credits = list_credits(ws)
    for suffix, text in ((".md", credits_markdown(credits)), (".html", credits_html(credits))):
        file = path.with_suffix(suffix)
        write_atomic(file, text)
        if not quiet:
            console.print(f"Credits of {count_of(len(credits), 'photograph')}: {quote_path(file)}")


def forget(
    ids: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="ID…",
            help="photo_ids, or face_ids to forget the faces' photographs. "
            "Put ids that begin with - after --.",
        ),
    ] = None,
    why: Annotated[
        str | None,
        typer.Option(
            help="Reason to store with the tombstone. Do not name a person in it. Default: none."
        ),
    ] = None,
    workspace: WorkspaceOption = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Remove photographs from every file of the workspace, permanently.

    Without --yes, only show what would be removed.

    ```
    authface forget us_abc123
    authface forget us_abc123 --why "the person objected" --yes
    ```
    """
    from authface_data.rights.forget import plan, preview, read_interrupted
    from manifests.workspace import Workspace

    ws = Workspace.find(workspace)
    with ws.lock("forget"):
        interrupted = read_interrupted(ws)
        if interrupted is not None:
            if not yes:
                raise UserError(
                    f"forgetting {count_of(len(interrupted.photo_ids), 'photograph')} was interrupted; "
                    "finish it with `authface forget --yes`"
                )
            _execute(ws, interrupted, as_json and not ids)
        if not ids:
            if interrupted is None:
                raise UserError("no ID was given; use authface forget ID… (photos.photo_id)")
            return

        forget_plan, already = plan(ws, list(dict.fromkeys(ids)), why)
        if yes:
            if forget_plan.photo_ids:
                _execute(ws, forget_plan, as_json)
            if already and not as_json:
                _print_already(already)
            return
        result = preview(ws, forget_plan, already)
        if as_json:
            print_json(result)
        elif result.photo_ids:
            _print_preview(result)
        else:
            _print_already(result.already)


def _print_already(ids: Sequence[str]) -> None:
    console.print(f"Forgotten earlier: {count_of(len(ids), 'photograph')}")


def _print_preview(preview: Preview) -> None:
    shown_ids = escape(", ".join(preview.photo_ids[:MAX_SHOWN]))
    console.print(
        f"{count_of(len(preview.photo_ids), 'photograph')} would be forgotten: {shown_ids}"
    )
    rows = ", ".join(f"{count} of {name}" for name, count in preview.rows.items())
    console.print(f"rows: {rows or 'none'}")
    for path, description in list(preview.files.items())[:MAX_SHOWN]:
        console.print(f"  {escape(to_utf8(path))}: {description}")
    if len(preview.files) > MAX_SHOWN:
        console.print(f"  and {len(preview.files) - MAX_SHOWN} more files (--json lists all)")
    _print_runs(preview.runs, preview.unreadable_runs)
    if preview.alike:
        console.print(
            "[yellow]Near-duplicates that would stay[/] unless you add their ids: "
            f"{escape(' '.join(preview.alike))}"
        )
    console.print("This cannot be undone. To do it, repeat the command with [bold]--yes[/]")


def _execute(ws: Workspace, forget_plan: ForgetPlan, as_json: bool) -> None:
    """Forget the photographs of a plan and print what was done."""
    from authface_data.rights.forget import execute

    result = execute(ws, forget_plan)
    if as_json:
        print_json({"photo_ids": forget_plan.photo_ids, **asdict(result)})
        return
    console.print(
        f"{count_of(len(forget_plan.photo_ids), 'photograph')} forgotten, never to be collected again."
    )
    for description, count in sorted(result.files.items()):
        console.print(f"  {count_of(count, 'file')}: {description}")
    _print_runs(result.runs, result.unreadable_runs)
    console.print("Next: [bold]authface report[/] (the old report was removed)")


def _print_runs(runs: Sequence[str], unreadable_runs: Sequence[str]) -> None:
    if runs:
        console.print(
            "[yellow]Models trained on these photographs, which they cannot forget:[/] "
            f"{escape(to_utf8(', '.join(runs)))}; train them again. Files outside the workspace "
            "are not cleaned"
        )
    if unreadable_runs:
        console.print(
            "[yellow]Runs that have moved or are gone[/], whose models may have been trained on "
            f"these photographs: {escape(to_utf8(', '.join(unreadable_runs)))}; find the models "
            "and train them again, or remove them"
        )
