"""`authface init`, `status`, `explain`, `report` and `migrate`: create and inspect workspaces."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

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
    from authface_data.report.explain import Explanation, FaceExplanation
    from authface_data.report.status import Status
    from manifests.decisions import DecisionSource


def init(
    directory: Annotated[
        str, typer.Argument(metavar="DIR", help="Directory to create, or s3://BUCKET/NAME.")
    ],
    preset: Annotated[
        WorkspacePreset,
        typer.Option(
            help="Preset that authface.toml starts from. embedded: only weights from the package "
            "index."
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
    """Show all data about a face or photograph.

    This is its source, measurements, verdicts, captions, decisions and training runs.

    ```
    authface explain own_1f2e3d4c
    ```
    """
    from authface_data.report import explain as report
    from manifests.support.text import to_utf8
    from manifests.workspace import Workspace

    explanation = report.explain(Workspace.find(workspace), to_utf8(id))
    if as_json:
        print_json(explanation)
    else:
        _print_explanation(explanation)


def _print_explanation(explanation: Explanation) -> None:
    photo = explanation.photo
    if photo is not None:
        _print_photo(photo)
    for verdict in explanation.verdicts:
        _print_verdict(verdict)
    for face in explanation.faces:
        _print_face(face)
    if explanation.runs:
        console.print(f"Training runs that used it: {escape(', '.join(explanation.runs))}")
    if explanation.unreadable_runs:
        folders = escape(", ".join(explanation.unreadable_runs))
        console.print(f"Runs that have moved or are gone, which may have used it: {folders}")
    if not explanation.runs and not explanation.unreadable_runs:
        console.print("No training run has used it.")


def _print_photo(photo: Mapping[str, Any]) -> None:
    from manifests.licence_policy import basis_label, photographer_label

    console.print(f"[bold]Photograph {escape(photo['photo_id'])}[/]")
    size = f"{photo['width']} x {photo['height']} px"
    camera = _describe_camera(photo["camera_make"], photo["camera_model"])
    _print_facts("picture", photo["path"], size, photo["description"], camera, photo["lens"])
    _print_facts("source", photo["source"], photo["source_url"])
    photographer = photographer_label(photo["photographer_name"])
    _print_facts("credit", photographer, photo["photographer_url"])
    basis = basis_label(photo["licence_basis"])
    _print_facts("licence", photo["licence"], basis, photo["terms_date"])


def _describe_camera(make: str | None, model: str | None) -> str:
    """Maker and model; many cameras repeat their maker in the model ("Canon EOS 5D")."""
    if make and model and model.casefold().startswith(make.split()[0].casefold()):
        return model
    return " ".join(part for part in (make, model) if part)


def _print_face(explanation: FaceExplanation) -> None:
    from authface_data.gates import RESERVED_NAMES

    face = explanation.face
    states = {True: "[green]kept[/]", False: "[red]dropped[/]", None: "not gated yet"}
    console.print(f"\n[bold]Face {escape(face['face_id'])}[/]: {states[explanation.kept]}")
    _print_geometry(face)
    _print_scores(explanation)
    # Verdicts of the user's gates come first, and among them those that dropped the face.
    for verdict in sorted(
        explanation.verdicts,
        key=lambda row: (row["gate"] in RESERVED_NAMES, row["verdict"] == "kept"),
    ):
        _print_verdict(verdict)
    for caption in explanation.captions:
        _print_facts(f"caption by {caption['captioner']}", caption["caption"])
    for decision in explanation.decisions:
        _print_decision(decision)
    in_force = explanation.decision
    if in_force is not None:
        _print_source("decision in force", in_force.decision, in_force.source)
    for family, source in explanation.edited_tags.items():
        _print_source(f"{family} in force", "edited", source)


def _print_geometry(face: Mapping[str, Any]) -> None:
    score = "" if face["score"] is None else f"score {face['score']:.3f}"
    _print_facts("detected by", face["detector"], score, f"landmarks by {face['landmark_backend']}")

    angles = ", ".join(f"{name} {face[name + '_deg']:.0f}°" for name in ("yaw", "pitch", "roll"))
    hidden = [
        region.replace("_", " ")
        for region in ("left_eye", "right_eye", "mouth")
        if not face[f"{region}_visible"]
    ]
    visibility = f"not visible: {', '.join(hidden)}" if hidden else "eyes and mouth visible"
    _print_facts("pose", angles, visibility)

    size = f"{face['crop_size_px']} px from {face['qsize_px']:.0f} px"
    upscaled = "upscaled" if face["upscaled"] else ""
    padding = f"{100 * face['pad_fraction']:.1f} % padding" if face["pad_fraction"] else ""
    _print_facts("crop", face["crop_path"], size, upscaled, padding)


def _print_scores(explanation: FaceExplanation) -> None:
    from rich.table import Table

    if not explanation.scores:
        return
    table = Table(
        "metric", "value", "version", "device", box=None, pad_edge=False, padding=(0, 2, 0, 0)
    )
    for row in sorted(explanation.scores, key=lambda row: row["metric"]):
        labels = [escape(row[name] or "") for name in ("metric", "metric_version", "device")]
        table.add_row(labels[0], f"{row['value']:.4g}", *labels[1:])
    console.print(table)


def _print_verdict(row: Mapping[str, Any]) -> None:
    colour = {"kept": "green", "dropped": "red", "failed": "yellow"}[row["verdict"]]
    reason = f": {row['reason']}" if row["reason"] else ""
    value = "" if row["value"] is None else f" (measured {row['value']:.4g})"
    text = escape(reason + value)
    console.print(f"  [{colour}]{row['verdict']}[/] at {escape(row['gate'])}{text}")


def _print_decision(row: Mapping[str, Any]) -> None:
    from manifests.captions import caption_text

    tags = caption_text([*(row["semantic_tags"] or []), *(row["photographic_tags"] or [])])
    reviewer = f"{row['reviewer']}, {row['decided_at']:%d %B %Y}"
    _print_facts(reviewer, row["decision"] or "tags edited", row["reason"], row["note"], tags)


def _print_source(name: str, value: str, source: DecisionSource) -> None:
    """Print a decision with the face that it was made about, unless it is the face itself."""
    relation = source.describe_relation()
    if not relation:
        return
    decided = f"by {source.reviewer}, {source.decided_at:%d %B %Y, %H:%M} UTC"
    photo = f"photograph {source.photo_id}" if source.photo_id else ""
    _print_facts(name, value, relation, decided, f"face {source.face_id}", photo)


def _print_facts(name: str, *facts: object) -> None:
    """Print the known facts on one line, or nothing if all are unknown."""
    text = " · ".join(str(fact) for fact in facts if fact not in (None, ""))
    if text:
        console.print(f"  {escape(name)}: {escape(text)}")


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
