"""`authface tags`: what the captions say, and a tag renamed or removed in all of them, as a decision."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from manifests.support.console import JsonOption, WorkspaceOption, console, print_json
from manifests.support.errors import UserError
from manifests.decisions import TAG_ID_PREFIX

if TYPE_CHECKING:
    from manifests.workspace import Workspace

MOST_TAGS = 12

app = typer.Typer(
    invoke_without_command=True,
    help="What captions say, by facet; rename or remove a tag in all of them.",
)

TagArgument = Annotated[
    str, typer.Argument(metavar="TAG", help="The tag as it stands in captions.")
]
ReviewerOption = Annotated[str, typer.Option(metavar="NAME", help="Whose decision it is.")]
NoteOption = Annotated[str | None, typer.Option(help="Why.")]


@app.callback()
def tags(
    context: typer.Context, workspace: WorkspaceOption = None, as_json: JsonOption = False
) -> None:
    """Count the tags of the captions in use, per facet, and what contradicted the picture."""
    if context.invoked_subcommand is not None:
        context.obj = workspace
        return
    from authface_data.captions.coverage import count_contradictions, count_facets
    from manifests.decisions import tag_decisions
    from manifests.workspace import Workspace

    ws = Workspace.find(workspace)
    facets, wrong, decided = count_facets(ws), count_contradictions(ws), tag_decisions(ws)
    if as_json:
        print_json({"facets": facets, "contradictions": wrong, "decisions": decided})
        return
    if not facets or not facets[0].of:
        raise UserError("no face has a caption yet: `authface caption` first")
    from rich.table import Table

    table = Table(
        "facet", "faces", "tags", title=f"{facets[0].of} captions in use", title_justify="left"
    )
    for facet in facets:
        shown = ", ".join(f"{escape(tag)} {count}" for tag, count in facet.tags[:MOST_TAGS])
        more = f", and {len(facet.tags) - MOST_TAGS} others" if len(facet.tags) > MOST_TAGS else ""
        table.add_row(facet.facet, str(facet.faces), shown + more)
    console.print(table)
    for one in wrong[:MOST_TAGS]:
        console.print(
            f"{one.captioner} said {escape(one.tag)}, against {escape(one.against)}: {one.count}"
        )
    for decision in decided:
        what = f"renamed to {escape(decision.renamed_to)}" if decision.renamed_to else "removed"
        console.print(f"{escape(decision.tag)}: {what} ({decision.decided_at:%d %B %Y})")


@app.command()
def rename(
    context: typer.Context,
    tag: TagArgument,
    to: Annotated[str, typer.Argument(metavar="NEW", help="What it is called from now on.")],
    reviewer: ReviewerOption = "owner",
    note: NoteOption = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Rename a tag in every caption, those to come as well; captioners' rows stay as they are."""
    new = _words(to)
    if new == _tag(tag):
        raise UserError(f"{new!r} is what it is called already")
    _decide(context, workspace, tag, "drop", new, reviewer, note)


@app.command()
def remove(
    context: typer.Context,
    tag: TagArgument,
    reviewer: ReviewerOption = "owner",
    note: NoteOption = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Remove a tag from every caption, those to come as well; captioners' rows stay as they are."""
    _decide(context, workspace, tag, "drop", None, reviewer, note)


@app.command()
def restore(
    context: typer.Context,
    tag: TagArgument,
    reviewer: ReviewerOption = "owner",
    note: NoteOption = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Take back what was decided about a tag."""
    _decide(context, workspace, tag, "keep", None, reviewer, note)


def _decide(
    context: typer.Context,
    workspace: object,
    tag: str,
    decision: str,
    renamed_to: str | None,
    reviewer: str,
    note: str | None,
) -> None:
    from datetime import UTC, datetime

    from manifests.schema import DECISIONS
    from manifests.store import Store
    from manifests.support.text import to_utf8
    from manifests.decisions import tag_decisions
    from manifests.workspace import Workspace

    ws = Workspace.find(workspace or context.obj)  # type: ignore[arg-type]
    asked = _tag(tag)
    with ws.lock("tags"):
        before = _count(ws, asked)
        if decision == "keep":
            if asked not in {one.tag for one in tag_decisions(ws)}:
                raise UserError(
                    f"nothing is decided about {asked!r} (`authface tags` lists what is)"
                )
        elif not before:
            raise UserError(
                f"no caption in use has the tag {asked!r} (`authface tags` counts those there are)"
            )
        row = {
            "id": f"{TAG_ID_PREFIX}{asked}",
            "reviewer": to_utf8(reviewer) or "owner",
            "decision": decision,
            "renamed_to": renamed_to,
            "note": to_utf8(note) if note else None,
            "decided_at": datetime.now(UTC),
            "fingerprint": "",
        }
        Store(ws, DECISIONS).append([row])
        done = (
            "is as captioners said it"
            if decision == "keep"
            else f"is {renamed_to}"
            if renamed_to
            else "is gone"
        )
        faces = _count(ws, asked) if decision == "keep" else before
        console.print(
            f"{escape(asked)} {escape(done)}, in {faces} captions. Next: [bold]authface tags[/]"
        )


def _tag(text: str) -> str:
    """A tag as it is looked for: in lower case."""
    return _words(text).lower()


def _words(text: str) -> str:
    """A tag as it is written. Raises UserError for what can be none."""
    from manifests.support.text import to_utf8

    tag = " ".join(to_utf8(text).split())
    if not tag or "," in tag:
        raise UserError(f"{text!r} is no tag: some words without a comma")
    return tag


def _count(ws: Workspace, tag: str) -> int:
    from manifests.captions import current_tags

    return sum(
        tag in map(str.lower, [*semantic, *other]) for semantic, other in current_tags(ws).values()
    )
