"""`authface tags`: counts the tags of captions, and renames or removes a tag in all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from manifests.support.console import JsonOption, WorkspaceOption, console, print_json
from manifests.support.errors import UserError
from manifests.support.text import count_of

if TYPE_CHECKING:
    from authface_data.captions.coverage import FacetCount
    from manifests.workspace import Workspace

MAX_LISTED = 12

app = typer.Typer(invoke_without_command=True)

TagArgument = Annotated[str, typer.Argument(metavar="TAG", help="The tag as captions contain it.")]
ReviewerOption = Annotated[str, typer.Option(metavar="NAME", help="Who decides.")]
NoteOption = Annotated[str | None, typer.Option(help="The reason. Default: none.")]


@app.callback()
def tags(
    context: typer.Context, workspace: WorkspaceOption = None, as_json: JsonOption = False
) -> None:
    """Count the tags of the captions in use by facet, and the tags that contradict the picture.

    ```
    authface tags
    authface tags rename "long hairs" "long hair"
    ```
    """
    if context.invoked_subcommand is not None:
        context.obj = workspace
        return
    from authface_data.captions.coverage import count_contradictions, count_facets
    from manifests.decisions import tag_decisions
    from manifests.workspace import Workspace

    ws = Workspace.find(workspace)
    facets = count_facets(ws)
    contradictions = count_contradictions(ws)
    decisions = tag_decisions(ws)
    if as_json:
        print_json({"facets": facets, "contradictions": contradictions, "decisions": decisions})
        return
    if not facets or not facets[0].of:
        raise UserError("no face has a caption yet; run `authface caption` first")

    _print_facets(facets)
    for contradiction in contradictions[:MAX_LISTED]:
        console.print(
            f"{contradiction.captioner}: “{escape(contradiction.tag)}” contradicts "
            f"“{escape(contradiction.against)}” in {count_of(contradiction.count, 'caption')}"
        )
    for decision in decisions:
        change = f"renamed to {escape(decision.renamed_to)}" if decision.renamed_to else "removed"
        console.print(f"{escape(decision.tag)}: {change} ({decision.decided_at:%d %B %Y})")


def _print_facets(facets: list[FacetCount]) -> None:
    from rich.table import Table

    title = f"{count_of(facets[0].of, 'caption')} in use"
    table = Table("facet", "faces", "tags", title=title, title_justify="left")
    for facet in facets:
        listed = ", ".join(f"{escape(tag)} {count}" for tag, count in facet.tags[:MAX_LISTED])
        hidden_count = len(facet.tags) - MAX_LISTED
        if hidden_count > 0:
            listed += f", and {hidden_count} others"
        table.add_row(facet.title, str(facet.faces), listed)
    console.print(table)


@app.command()
def rename(
    context: typer.Context,
    tag: TagArgument,
    new_tag: Annotated[str, typer.Argument(metavar="NEW", help="The new tag.")],
    reviewer: ReviewerOption = "owner",
    note: NoteOption = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Rename a tag in all present and future captions. Captioners' rows stay unchanged.

    ```
    authface tags rename "long hairs" "long hair"
    ```
    """
    from authface_data.captions.tag_edits import rename_tag

    ws = _find_workspace(context, workspace)
    with ws.lock("tags"):
        count = rename_tag(ws, tag, new_tag, reviewer=reviewer, note=note)
    _print_change(tag, f"renamed to {escape(new_tag)}", count)


@app.command()
def remove(
    context: typer.Context,
    tag: TagArgument,
    reviewer: ReviewerOption = "owner",
    note: NoteOption = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Remove a tag from all present and future captions. Captioners' rows stay unchanged.

    ```
    authface tags remove smiling --note "wrong for every second face"
    ```
    """
    from authface_data.captions.tag_edits import remove_tag

    ws = _find_workspace(context, workspace)
    with ws.lock("tags"):
        count = remove_tag(ws, tag, reviewer=reviewer, note=note)
    _print_change(tag, "removed", count)


@app.command()
def restore(
    context: typer.Context,
    tag: TagArgument,
    reviewer: ReviewerOption = "owner",
    note: NoteOption = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Withdraw the decision about a tag.

    ```
    authface tags restore smiling
    ```
    """
    from authface_data.captions.tag_edits import restore_tag

    ws = _find_workspace(context, workspace)
    with ws.lock("tags"):
        count = restore_tag(ws, tag, reviewer=reviewer, note=note)
    _print_change(tag, "restored", count)


def _find_workspace(context: typer.Context, option: str | None) -> Workspace:
    """Find the workspace of the option after the subcommand, or else of the one before it."""
    from manifests.workspace import Workspace

    return Workspace.find(option or context.obj)


def _print_change(tag: str, change: str, count: int) -> None:
    console.print(
        f"{escape(tag)}: {change} in {count_of(count, 'caption')}. Next: [bold]authface tags[/]"
    )
