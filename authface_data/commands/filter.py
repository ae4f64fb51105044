"""`authface filter`: detect, align and score faces, find duplicates, and apply the gates."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from authface_data.commands.engine import (
    AddressOption,
    EngineOption,
    WorkersOption,
    make_engine,
)
from authface_data.commands.outcome import finish_stages
from manifests.support.console import (
    JsonOption,
    RetryOption,
    WorkspaceOption,
    YesOption,
    console,
    parse_retry,
    print_json,
    quote_path,
)
from manifests.support.errors import UserError
from manifests.support.extras import require_extras, sometimes_needs
from manifests.support.options import DetectorName, LandmarksName, complete_metrics
from manifests.support.text import count_of

if TYPE_CHECKING:
    from authface_data.filter_faces import FilterSummary
    from authface_data.what_if import Change, GateCosts
    from manifests.workspace import Workspace

MAX_EXAMPLES = 5
"""Largest number of ids in a line of output."""


@sometimes_needs("data")
def filter(
    detector: Annotated[
        DetectorName | None, typer.Option(help="Face detector. Default: filter.detector.")
    ] = None,
    landmarks: Annotated[
        LandmarksName | None, typer.Option(help="Landmarks. Default: filter.landmarks.")
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(
            metavar="512|1024|2048",
            help="Side of the aligned crops in pixels. Default: filter.size.",
        ),
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,...",
            help="Metrics of image quality by pyiqa's names. Default: filter.metrics.",
            autocompletion=complete_metrics,
        ),
    ] = None,
    exclude_hashes: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Keep out the pictures whose hashes are in FILE, for example a test set. "
            "Remembered for later runs. `authface hashes` writes such a file. Default: none.",
        ),
    ] = None,
    regate: Annotated[
        bool, typer.Option("--regate", help="Only apply the gates again, to stored scores.")
    ] = False,
    what_if: Annotated[
        str | None,
        typer.Option(
            metavar='"METRIC>=X"|all',
            help="Only show which faces another threshold would keep or drop, or with `all`, "
            "how many faces each gate drops.",
        ),
    ] = None,
    workspace: WorkspaceOption = None,
    retry: RetryOption = None,
    engine: EngineOption = "local",
    address: AddressOption = None,
    workers: WorkersOption = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Detect, align and score faces, find duplicates, and decide which faces are kept.

    Options override the section [filter] of authface.toml.

    ```
    authface filter
    authface filter --regate
    authface filter --what-if "sharpness>=0.4"
    authface filter --what-if all
    ```
    """
    retry_failed = parse_retry(retry)
    chosen_engine = make_engine(engine, address, workers)
    has_measure_option = any(option is not None for option in (detector, landmarks, size, metrics))
    if regate and has_measure_option:
        raise UserError(
            "--regate uses stored scores; remove --detector, --landmarks, --size and --metrics"
        )
    if as_json and what_if is None and not regate:
        raise UserError("--json is only valid with --regate and --what-if")
    other_options = (regate, has_measure_option, exclude_hashes, retry_failed, workers, yes)
    if what_if is not None and any(other_options):
        raise UserError("--what-if can only be combined with --json")

    from authface_data.duplicates import add_exclusions
    from authface_data.filter_faces import measure_faces, stored_metrics, summarise
    from authface_data.gates import apply_gates, check_gates
    from manifests.names import QUALITY_MEASURES
    from manifests.settings import override
    from manifests.workspace import Workspace

    ws = Workspace.find(workspace)
    if what_if is not None:
        _show_what_if(ws, what_if, as_json)
        return
    if not regate:
        require_extras("data", purpose="measuring faces")

    with ws.lock("filter"):
        settings = override(
            ws.settings.filter,
            detector=detector,
            landmarks=landmarks,
            size=size,
            metrics=_split(metrics),
        )
        if exclude_hashes is not None:
            added = add_exclusions(ws, exclude_hashes)
            if not as_json:
                hashes = count_of(added, "new hash", "new hashes")
                console.print(f"{hashes} added to the exclusions")

        if regate:
            stored = stored_metrics(ws)
            if not stored:
                raise UserError(
                    "no scores are stored yet; run `authface filter` first, without --regate"
                )
            check_gates(ws.settings.gates, stored)
            summary = summarise(ws, apply_gates(ws, ws.settings.gates))
            if as_json:
                print_json(summary)
            else:
                _print_summary(summary)
            return

        check_gates(ws.settings.gates, [*QUALITY_MEASURES, *settings.metrics])
        measured = measure_faces(
            ws, settings, engine=chosen_engine, retry_failed=retry_failed, redo=yes
        )
        if measured.photos_per_s is not None:
            console.print(f"faces: {measured.photos_per_s:.2f} photographs/s")
        if measured.faces_per_s is not None:
            console.print(f"scores: {measured.faces_per_s:.2f} faces/s")
        _move_decisions(ws)

        summary = summarise(ws, apply_gates(ws, ws.settings.gates))
        _print_summary(summary)
        finish_stages(
            measured.outcomes, "authface caption" if summary.kept_faces else "authface report"
        )


def _split(names: str | None) -> list[str] | None:
    """Comma-separated names as a list; None stays None."""
    if names is None:
        return None
    return [name.strip() for name in names.split(",") if name.strip()]


def _move_decisions(ws: Workspace) -> None:
    """Move decisions of people to the new ids of faces that were detected again."""
    from authface_data.review.follow_faces import follow_faces

    moved, lost = follow_faces(ws)
    if moved:
        console.print(
            f"{count_of(moved, 'decision')} of people moved to the new ids of their faces"
        )
    if lost:
        console.print(
            f"[yellow]{count_of(len(lost), 'face')} with decisions not detected again:[/] "
            f"{_examples(lost)}"
        )


def _show_what_if(ws: Workspace, condition: str, as_json: bool) -> None:
    from authface_data.filter_faces import stored_metrics
    from authface_data.what_if import gate_costs, what_if

    if condition.strip() == "all":
        costs = gate_costs(ws)
        if as_json:
            print_json(costs)
        else:
            _print_gate_costs(costs)
        return

    change = what_if(ws, condition, stored_metrics(ws))
    if as_json:
        print_json(change)
    else:
        _print_change(change, ws)


def _print_gate_costs(costs: GateCosts) -> None:
    from rich.table import Table

    table = Table(title="Faces that each gate drops", title_justify="left")
    for name in ("gate", "keeps"):
        table.add_column(name)
    for name in ("dropped", "by it alone"):
        table.add_column(name, justify="right")
    for gate in costs.gates:
        table.add_row(escape(gate.gate), escape(gate.rule), f"{gate.dropped:,}", f"{gate.only:,}")
    console.print(table)
    decided = f"; {count_of(costs.decided, 'face')} decided by people" if costs.decided else ""
    console.print(f"{costs.kept:,} of {count_of(costs.faces, 'face')} kept{decided}")


def _print_change(change: Change, ws: Workspace) -> None:
    gate = f"gate {', '.join(change.replaced)}" if change.replaced else "a new gate"
    console.print(
        f"With {escape(change.asked)} ({escape(gate)}): {count_of(change.kept_then, 'face')} kept "
        f"instead of {change.kept_now}"
    )
    if change.lost:
        console.print(f"  {len(change.lost)} dropped: {_examples(change.lost)}")
    if change.gained:
        console.print(f"  {len(change.gained)} kept again: {_examples(change.gained)}")
    if change.picture:
        console.print(f"Faces that change: {quote_path(f'{ws.root}/{change.picture}')}")
        console.print(
            "Next: set the threshold in authface.toml, then run [bold]authface filter --regate[/]"
        )


def _print_summary(summary: FilterSummary) -> None:
    console.print(
        f"{summary.kept_faces:,} of {count_of(summary.faces, 'face')} kept, "
        f"in {summary.kept_photos:,} of {count_of(summary.photos, 'photograph')}"
    )
    if summary.duplicate_photos:
        console.print(
            f"{count_of(summary.duplicate_photos, 'duplicate')} of other photographs "
            "(reason duplicate_of:ID)"
        )
    if summary.duplicate_faces:
        console.print(
            f"{count_of(summary.duplicate_faces, 'duplicate')} of other faces "
            "(reason duplicate_face_of:ID)"
        )
    if summary.possible_minors:
        console.print(
            f"[yellow]{count_of(summary.possible_minors, 'face')} may be of minors:[/] check them; "
            "`authface review sheet` shows them first"
        )
    if summary.failed:
        console.print(
            f"[yellow]{summary.failed} could not be measured:[/] `authface status` shows why; "
            "try again with `authface filter --retry failed`"
        )


def _examples(ids: Sequence[str]) -> str:
    """The first ids, and how many more there are, as escaped text."""
    text = escape(", ".join(ids[:MAX_EXAMPLES]))
    more = len(ids) - MAX_EXAMPLES
    return f"{text} and {more} others" if more > 0 else text
