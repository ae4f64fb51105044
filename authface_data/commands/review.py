"""`authface review`: faces out to people as a table or a page, decisions back in, and how far all agree."""

from __future__ import annotations

import os
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

if TYPE_CHECKING:
    from authface_data.review.faces import ReviewFace
    from authface_data.review.import_table import Reading, ReviewedFace
    from manifests.workspace import Workspace

app = typer.Typer(
    no_args_is_help=True,
    help="Faces out to people, their decisions back in: they have the last word.",
)
MOST_SHOWN = 30

AllOption = Annotated[bool, typer.Option("--all", help="Every face (the default).")]
NearOption = Annotated[
    int | None,
    typer.Option("--near-threshold", min=1, metavar="N", help="The N nearest to a threshold."),
]
SampleOption = Annotated[
    int | None,
    typer.Option("--sample", min=1, metavar="N", help="N drawn at random, the same each time."),
]


@app.command()
def export(
    csv: Annotated[Path, typer.Option("--csv", metavar="FILE", help="The table to write.")],
    near_threshold: NearOption = None,
    sample: SampleOption = None,
    everything: AllOption = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Write a table for review, for any spreadsheet: worst and doubtful first; fill in decision, note, tags."""
    from authface_data.review.table import to_csv
    from manifests.workspace import Workspace

    if csv.exists():
        raise UserError(
            f"{csv} is there already, and may hold somebody's decisions: name another file, or remove it"
        )
    faces = _faces(Workspace.find(workspace), near_threshold, sample, everything)
    _write(csv, to_csv(faces))
    console.print(
        f"{len(faces)} faces in {quote_path(csv)}: fill in decision (keep, drop, unsure), and what else you see"
    )
    console.print(f"Next: [bold]authface review import {quote_path(csv)} --reviewer NAME[/]")


@app.command(name="import")
def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A reviewed table.")],
    reviewer: Annotated[
        str | None, typer.Option(metavar="NAME", help="Whose decisions, where the column is empty.")
    ] = None,
    workspace: WorkspaceOption = None,
    yes: YesOption = False,
) -> None:
    """Take a reviewed table in: first only shown, with --yes recorded; all of it or nothing."""
    from datetime import UTC, datetime

    from authface_data.review.import_table import read_table, record
    from manifests.support.text import to_utf8
    from manifests.workspace import Workspace

    ws = Workspace.find(workspace)
    who = to_utf8(reviewer or "")
    try:
        data = file.read_bytes()
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from error
    if not yes:
        if _show(read_table(ws, data, who)):
            console.print("Nothing is recorded yet: pass [bold]--yes[/]")
        return
    with ws.lock("review import"):
        reading = read_table(ws, data, who)
        if _show(reading):
            record(ws, reading.said, datetime.now(UTC))
            console.print(
                f"{len(reading.said)} decisions recorded. Next: [bold]authface filter --regate[/]"
            )


@app.command()
def sheet(
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Default: reports/review.html.")
    ] = None,
    near_threshold: NearOption = None,
    sample: SampleOption = None,
    everything: AllOption = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Write one HTML page to review in any browser, offline: keyboard, zoom, tags; it saves the same table."""
    from authface_data.review.sheet import page
    from manifests.workspace import Workspace

    ws = Workspace.find(workspace)
    faces = _faces(ws, near_threshold, sample, everything)
    data = page(ws, faces)
    if output is None:
        ws.write_bytes("reports/review.html", data)
    else:
        _write(output, data)
    where = f"{ws.root}/reports/review.html" if output is None else output
    console.print(
        f"{len(faces)} faces, {len(data) / 1e6:.1f} MB: open {quote_path(where)} in a browser; ? shows the keys"
    )
    console.print("Next: save the table from the page, then [bold]authface review import FILE[/]")


@app.command()
def agreement(workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """How far the gates agree with people, and people with each other; the thresholds that would match them best."""
    from authface_data.review.agreement import agreement as compare
    from manifests.workspace import Workspace

    found = compare(Workspace.find(workspace))
    if as_json:
        print_json(found)
        return
    if not found.decided:
        raise UserError(
            "nobody has decided anything yet: `authface review sheet`, then `authface review import`"
        )
    from rich.table import Table

    console.print(
        f"{found.decided} faces decided by people, {len(found.disputed)} of them disputed"
    )
    table = Table(title="Gates against people", title_justify="left")
    for name in (
        "gate",
        "drops",
        "of these people too (precision)",
        "of people's drops (recall)",
        "agrees",
        "best threshold",
    ):
        table.add_column(name, justify="left" if name == "gate" else "right")
    for one in found.gates:
        asks = "" if one.threshold is None else f": {one.metric} {one.op} {one.threshold:g}"
        best = "" if one.best is None else f"{one.best:.4g} ({_percent(one.best_agreement)})"
        table.add_row(
            escape(one.gate + asks),
            f"{one.dropped} of {one.faces}",
            f"{one.both}, {_percent(one.precision)}",
            _percent(one.recall),
            _percent(one.agreement),
            best,
        )
    console.print(table)
    if found.reviewers:
        table = Table(
            "reviewers",
            "faces",
            "agree",
            "Cohen's kappa",
            title="People among each other",
            title_justify="left",
        )
        for pair in found.reviewers:
            value = "not defined" if pair.kappa is None else f"{pair.kappa:.2f}"
            table.add_row(
                escape(f"{pair.one}, {pair.other}"),
                str(pair.faces),
                _percent(pair.agreement),
                value,
            )
        console.print(table)


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.0f} %"


def _faces(
    ws: Workspace, near_threshold: int | None, sample: int | None, everything: bool
) -> list[ReviewFace]:
    from authface_data.review.faces import faces_to_review

    if sum((near_threshold is not None, sample is not None, everything)) > 1:
        raise UserError("--all, --near-threshold and --sample exclude each other")
    faces = faces_to_review(ws, near_threshold, sample)
    if not faces:
        raise UserError("there are no judged faces to review: `authface filter` first")
    return faces


def _write(path: Path, data: bytes) -> None:
    if path.is_dir() or not path.parent.is_dir():
        raise UserError(f"{path}: name a file in a directory that is there")
    temp = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temp.write_bytes(data)
        os.replace(temp, path)
    except FileNotFoundError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from error


def _show(reading: Reading) -> bool:
    """What the table would change, as a diff. Whether that is anything."""
    console.print(
        f"{len(reading.said)} rows say something new; {reading.known} were imported before, {reading.silent} are empty"
    )
    for one in reading.said[:MOST_SHOWN]:
        console.print(f"  {escape(one.id)}: {escape(_diff(one))}")
    if len(reading.said) > MOST_SHOWN:
        console.print(f"  and {len(reading.said) - MOST_SHOWN} others")
    if not reading.said:
        console.print("Nothing new to record.")
    return bool(reading.said)


def _diff(one: ReviewedFace) -> str:
    parts = []
    if one.decision:
        parts.append(f"{one.before or 'undecided'} → {one.decision}")
    if one.rating:
        parts.append(f"rated {one.rating}")
    for name, tags in (("semantic", one.semantic_tags), ("photographic", one.photographic_tags)):
        if tags is not None:
            parts.append(f"{name} tags: {', '.join(tags) or 'none'}")
    parts += [
        f"{name}: {text}" for name, text in (("reason", one.reason), ("note", one.note)) if text
    ]
    return f"{'; '.join(parts)} ({one.reviewer})"
