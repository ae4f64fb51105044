"""`authface init`, `status`, `explain`, `report` and `migrate`: create and inspect workspaces."""

from __future__ import annotations

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
from manifests.support.options import WorkspacePreset
from manifests.support.text import count_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from authface_data.report.balance import UnderrepresentedGroup
    from authface_data.report.status import Status


def init(
    directory: Annotated[
        str, typer.Argument(metavar="DIR", help="Directory to create, or s3://BUCKET/NAME.")
    ],
    preset: Annotated[
        WorkspacePreset,
        typer.Option(
            help="Preset that authface.toml starts from. `embedded` uses only weights from the "
            "package index."
        ),
    ] = "paper",
) -> None:
    """Create a workspace: the directory of one data set.

    ```
    authface init faces
    authface init faces --preset embedded
    ```
    """
    from manifests.schema import MANIFESTS
    from manifests.settings import preset_text
    from manifests.store import Store
    from manifests.workspace import Workspace

    def write_empty_manifests(ws: Workspace) -> None:
        # An empty part lets pandas and DuckDB open every manifest from the start.
        for manifest in MANIFESTS.values():
            store = Store(ws, manifest)
            store.compact(add=store.table([]))

    ws = Workspace.create(directory, preset_text(preset), write_empty_manifests)
    console.print(
        f"Created {quote_path(ws.root)} from the preset {preset}; its settings are in authface.toml"
    )
    console.print(
        f"Next: [bold]authface collect -w {quote_path(directory)} --source folder --path DIR "
        "--licence-basis own[/]"
    )


def status(workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Count rows and kept faces, list why others were dropped, and name the next command.

    ```
    authface status
    authface status -w faces --json
    ```
    """
    from authface_data.report.status import collect_status
    from manifests.workspace import Workspace

    result = collect_status(Workspace.find(workspace))
    if as_json:
        print_json(result)
    else:
        _print_status(result)


def _print_status(status: Status) -> None:
    from rich.table import Table

    from authface_data.sources.skipped_files import describe_skipped

    table = Table(title=escape(status.workspace), title_justify="left")
    table.add_column("manifest")
    table.add_column("rows", justify="right")
    for name, count in status.rows.items():
        table.add_row(name, f"{count:,}")
    console.print(table)
    console.print(
        f"[bold]{count_of(status.kept_faces, 'face')}[/] kept, in "
        f"{count_of(status.kept_photos, 'photograph')}; "
        f"{status.captioned:,} captioned"
    )
    for title, reasons_by_subject in (("Dropped", status.dropped), ("Failed", status.failed)):
        if reasons_by_subject:
            _print_reasons(title, reasons_by_subject)
    if status.skipped_files:
        console.print(f"Files that were skipped: {escape(describe_skipped(status.skipped_files))}")
    for name, description in status.runs.items():
        console.print(f"run {escape(name)}: {escape(description)}")
    console.print(f"Next: [bold]{status.next}[/]")


def _print_reasons(title: str, reasons_by_subject: Mapping[str, Mapping[str, int]]) -> None:
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    table.add_column("subject")
    table.add_column("gate: reason")
    table.add_column("count", justify="right")
    for subject, reasons in reasons_by_subject.items():
        for reason, count in reasons.items():
            table.add_row(subject, escape(reason), f"{count:,}")
    console.print(table)


def explain(
    id: Annotated[str, typer.Argument(metavar="ID", help="A face_id or a photo_id.")],
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show why a face or photograph is kept or dropped, and what is known about it.

    It shows the source, measurements, captions, decisions and training runs. `--json` prints all
    columns.

    ```
    authface explain fs_1f2e3d4c
    ```
    """
    from authface_data.commands.explanation import print_explanation
    from authface_data.report import explain as report
    from manifests.support.text import to_utf8
    from manifests.workspace import Workspace

    ws = Workspace.find(workspace)
    explanation = report.explain(ws, to_utf8(id))
    if as_json:
        print_json(explanation)
    else:
        print_explanation(explanation, ws.settings.gates)


def report(workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Write one self-contained HTML file about the whole workspace.

    It has counts, reasons, the balance of groups, contact sheets with credits, captions, training
    curves and restored faces.

    ```
    authface report
    ```
    """
    from authface_data.captions.coverage import count_contradictions, count_facets
    from authface_data.report.balance import list_underrepresented
    from authface_data.report.page import REPORT_FILE, write_report
    from manifests.workspace import Workspace

    ws = Workspace.find(workspace)
    facets = write_report(ws)
    groups = list_underrepresented(facets)
    if as_json:
        print_json(
            {
                "report": f"{ws.root}/{REPORT_FILE}",
                "balance": facets,
                "missing": [str(group) for group in groups],
                "coverage": count_facets(ws),
                "contradictions": count_contradictions(ws),
            }
        )
        return
    if groups:
        _print_underrepresented(groups)
    console.print(f"Report: {quote_path(ws.root)}/{REPORT_FILE}")


def _print_underrepresented(groups: list[UnderrepresentedGroup]) -> None:
    from rich.table import Table

    from authface_data.report.balance import MIN_SHARE

    title = f"Under-represented groups (fewer than {100 * MIN_SHARE:.0f} % of the kept faces)"
    table = Table(title=title, title_justify="left")
    table.add_column("group")
    table.add_column("kept faces", justify="right")
    table.add_column("share", justify="right")
    for group in groups:
        share = f"{100 * group.kept / group.total:.1f} %"
        table.add_row(escape(group.group), f"{group.kept} of {group.total}", share)
    console.print(table)


def migrate(workspace: WorkspaceOption = None, yes: YesOption = False) -> None:
    """Rewrite manifests of an older authface in the present format, after copying them.

    ```
    authface migrate
    authface migrate --yes
    ```
    """
    from manifests import migrate as migration
    from manifests.workspace import Workspace

    ws = Workspace.find(workspace)
    with ws.lock("migrate"):
        parts = migration.count_outdated_parts(ws)
        if not parts:
            console.print("Every manifest is up to date.")
        elif not yes:
            counts = ", ".join(
                f"{count_of(count, 'part')} of {name}" for name, count in parts.items()
            )
            console.print(f"{counts} would be copied and rewritten; pass --yes to do so")
        else:
            copies = migration.migrate(ws)
            console.print(
                f"{count_of(sum(parts.values()), 'part')} rewritten; copies of the former are in "
                f"{quote_path(ws.root)}/{copies}"
            )
