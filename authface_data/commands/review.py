"""`authface review`: export faces for review by people, import their decisions, compare them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.markup import escape

from manifests.support.console import (
    CommandGroup,
    JsonOption,
    WorkspaceOption,
    YesOption,
    console,
    print_json,
    quote_path,
)
from manifests.support.errors import UserError
from manifests.support.text import count_of

if TYPE_CHECKING:
    from rich.table import Table

    from authface_data.review.agreement import GateAgreement, ReviewerAgreement
    from authface_data.review.faces import ReviewFaces
    from authface_data.review.import_table import ReviewedFace, ReviewTable
    from manifests.workspace import Workspace

app = typer.Typer(
    cls=CommandGroup,
    no_args_is_help=True,
    help="Review faces by hand. A person's decision overrides the gates.",
)
DEFAULT_PAGE = "reports/review.html"
WORKBOOK_SUFFIX = ".xlsx"
OTHER_FORMATS = (".ods", ".numbers", ".xls", ".xlsb", ".xlsm")
"""Suffixes of tables that `review export` cannot write."""
MAX_SHOWN = 30
"""Largest number of rows that `review import` prints."""

AllOption = Annotated[bool, typer.Option("--all", help="Every face (the default).")]
NearOption = Annotated[
    int | None,
    typer.Option(
        "--near-threshold",
        min=1,
        metavar="N",
        help="The N faces nearest to a threshold. Default: --all.",
    ),
]
SampleOption = Annotated[
    int | None,
    typer.Option(
        "--sample",
        min=1,
        metavar="N",
        help="N random faces, the same ones each time. Default: --all.",
    ),
]


@app.command()
def export(
    csv: Annotated[
        Path,
        typer.Option(
            "--csv", metavar="FILE", help="The table to write: a CSV file, or a workbook (.xlsx)."
        ),
    ],
    separator: Annotated[
        Literal[",", ";", "tab"] | None,
        typer.Option(
            help="Character between the columns of a CSV file: the one that your spreadsheet's "
            "language uses. Default: a comma.",
        ),
    ] = None,
    near_threshold: NearOption = None,
    sample: SampleOption = None,
    everything: AllOption = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Write a table for review in any spreadsheet, with the worst faces first.

    A workbook (.xlsx) opens in columns everywhere. It needs the extra `authface[xlsx]`.

    Reviewers fill in the columns decision, rating, reason and note, and edit the tags.

    ```
    authface review export --csv review.csv
    authface review export --csv review.xlsx --near-threshold 200
    ```
    """
    from manifests.workspace import Workspace

    _check_table_format(csv, separator)
    if csv.exists():
        raise UserError(
            f"{csv} already exists and may hold decisions; choose another file or remove it"
        )
    ws = Workspace.find(workspace)
    faces = _select_faces(ws, near_threshold, sample, everything)
    # The table has no pictures: faces whose crop is lost can be dropped with it.
    missing = faces.describe_missing_crops(ws)
    if missing is not None:
        console.print(f"[yellow]Warning:[/] {escape(missing)}")
    _write(csv, _table_content(csv, faces, separator))
    console.print(
        f"{count_of(len(faces), 'face')} written to {quote_path(csv)}; "
        "fill in the column decision: keep, drop or unsure"
    )
    console.print(f"Next: [bold]authface review import {quote_path(csv)} --reviewer NAME[/]")


@app.command(name="import")
def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A reviewed table.")],
    reviewer: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Reviewer of the rows whose reviewer column is empty. Required if there are any.",
        ),
    ] = None,
    workspace: WorkspaceOption = None,
    yes: YesOption = False,
) -> None:
    """Import a reviewed table: show the changes, and record them with --yes.

    If any row has a mistake, nothing is imported.

    ```
    authface review import review.csv --reviewer anna
    authface review import review.csv --reviewer anna --yes
    ```
    """
    from datetime import UTC, datetime

    from authface_data.review.import_table import read_review_table, record_reviews
    from authface_data.review.table_file import read_limited
    from manifests.support.text import to_utf8
    from manifests.workspace import Workspace

    ws = Workspace.find(workspace)
    reviewer_name = to_utf8(reviewer or "")
    data = read_limited(file)

    if not yes:
        table = read_review_table(ws, data, reviewer_name)
        _print_changes(table)
        if table.new:
            console.print("Nothing has been recorded yet; add [bold]--yes[/] to record it")
        return

    with ws.lock("review import"):
        table = read_review_table(ws, data, reviewer_name)
        _print_changes(table)
        if table.new:
            record_reviews(ws, table.new, datetime.now(UTC))
            console.print(
                f"{count_of(len(table.new), 'decision')} recorded. Next: [bold]authface filter --regate[/]"
            )


@app.command()
def sheet(
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help=f"Page to write. Default: {DEFAULT_PAGE}.")
    ] = None,
    near_threshold: NearOption = None,
    sample: SampleOption = None,
    everything: AllOption = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Write one HTML page for review in any browser, without a network connection.

    It has keyboard shortcuts, zoom and tag editing, and it saves the same table as `review export`.

    ```
    authface review sheet
    authface review sheet --sample 200 --output review.html
    ```
    """
    from authface_data.review.sheet import render_page
    from manifests.workspace import Workspace

    ws = Workspace.find(workspace)
    faces = _select_faces(ws, near_threshold, sample, everything)
    page = render_page(ws, faces)
    if output is None:
        ws.write_bytes(DEFAULT_PAGE, page)
    else:
        _write(output, [page])
    path = f"{ws.root}/{DEFAULT_PAGE}" if output is None else output
    console.print(
        f"{count_of(len(faces), 'face')}, {len(page) / 1e6:.1f} MB: open {quote_path(path)} in a browser; "
        "press ? for the keyboard shortcuts"
    )
    console.print("Next: save the table from the page, then [bold]authface review import FILE[/]")


@app.command()
def agreement(workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Compare gates with people and people with each other, and suggest thresholds.

    ```
    authface review agreement
    ```
    """
    from authface_data.review.agreement import measure_agreement
    from manifests.workspace import Workspace

    result = measure_agreement(Workspace.find(workspace))
    if as_json:
        print_json(result)
        return
    if not result.decided:
        raise UserError(
            "no face has been decided yet; "
            "run `authface review sheet`, then `authface review import`"
        )

    console.print(
        f"{count_of(result.decided, 'face')} decided by people; "
        f"reviewers contradict each other on {len(result.disputed)}"
    )
    console.print(_gate_table(result.gates))
    if result.reviewers:
        console.print(_reviewer_table(result.reviewers))


def _gate_table(gates: Sequence[GateAgreement]) -> Table:
    from rich.table import Table

    table = Table(title="Gates compared with people", title_justify="left")
    table.add_column("gate")
    for heading in ("drops", "precision", "recall", "agreement", "best threshold"):
        table.add_column(heading, justify="right")
    for gate in gates:
        name = gate.gate
        if gate.threshold is not None:
            name += f": {gate.metric} {gate.op} {gate.threshold:g}"
        best = ""
        if gate.best is not None:
            best = f"{gate.best:.4g} ({_percent(gate.best_agreement)})"
        table.add_row(
            escape(name),
            f"{gate.dropped} of {gate.faces}",
            f"{_percent(gate.precision)} ({gate.both})",
            _percent(gate.recall),
            _percent(gate.agreement),
            best,
        )
    return table


def _reviewer_table(pairs: Sequence[ReviewerAgreement]) -> Table:
    from rich.table import Table

    table = Table(title="Reviewers compared with each other", title_justify="left")
    table.add_column("reviewers")
    for heading in ("faces", "agreement", "Cohen's kappa"):
        table.add_column(heading, justify="right")
    for pair in pairs:
        kappa = "undefined" if pair.kappa is None else f"{pair.kappa:.2f}"
        table.add_row(
            escape(f"{pair.one}, {pair.other}"), str(pair.faces), _percent(pair.agreement), kappa
        )
    return table


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.0f} %"


def _select_faces(
    ws: Workspace, near_threshold: int | None, sample: int | None, everything: bool
) -> ReviewFaces:
    from authface_data.review.faces import faces_to_review

    if sum((near_threshold is not None, sample is not None, everything)) > 1:
        raise UserError("use only one of --all, --near-threshold and --sample")
    faces = faces_to_review(ws, near_threshold, sample)
    if not faces:
        raise UserError("no faces to review; run `authface filter` first")
    return faces


def _check_table_format(path: Path, separator: str | None) -> None:
    """Raise UserError for a format that cannot be written, before faces are read."""
    suffix = path.suffix.lower()
    if suffix in OTHER_FORMATS:
        raise UserError(f"cannot write a table as {suffix}; use a name that ends in .csv or .xlsx")
    if suffix == WORKBOOK_SUFFIX and separator is not None:
        raise UserError("--separator is only valid for a CSV file; remove it for .xlsx")


def _table_content(path: Path, faces: ReviewFaces, separator: str | None) -> Iterable[bytes]:
    """The pieces of the table of the faces in the format that the name of the file states."""
    if path.suffix.lower() == WORKBOOK_SUFFIX:
        from authface_data.review.workbook import write_workbook

        return [write_workbook(faces)]
    from authface_data.review.table import csv_pieces

    return csv_pieces(faces, "\t" if separator == "tab" else separator or ",")


def _write(path: Path, pieces: Iterable[bytes]) -> None:
    from manifests.support.files import atomic_path

    if path.is_dir() or not path.parent.is_dir():
        raise UserError(f"cannot write {path}; choose a file in an existing directory")
    try:
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            file.writelines(pieces)
    except FileNotFoundError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; choose another file") from error


def _print_changes(table: ReviewTable) -> None:
    """Print what the table would change."""
    console.print(
        f"{count_of(len(table.new), 'row')} with changes; "
        f"{table.already_imported} already imported, {table.empty} empty"
    )
    for face in table.new[:MAX_SHOWN]:
        console.print(f"  {escape(face.face_id)}: {escape(_describe(face))}")
    if len(table.new) > MAX_SHOWN:
        console.print(f"  and {len(table.new) - MAX_SHOWN} more")
    if not table.new:
        console.print("Nothing to record.")


def _describe(face: ReviewedFace) -> str:
    """The changes of one row, such as "dropped → keep; note: fine (anna)"."""
    changes = []
    if face.decision:
        changes.append(f"{face.previous or 'undecided'} → {face.decision}")
    if face.rating:
        changes.append(f"rated {face.rating}")
    for name, tags in (("semantic", face.semantic_tags), ("photographic", face.photographic_tags)):
        if tags is not None:
            changes.append(f"{name} tags: {', '.join(tags) or 'none'}")
    for name, text in (("reason", face.reason), ("note", face.note)):
        if text:
            changes.append(f"{name}: {text}")
    return f"{'; '.join(changes)} ({face.reviewer})"
