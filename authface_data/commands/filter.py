"""`authface filter`: faces are found, measured, aligned and judged."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from authface_data.commands.outcome import finish
from manifests.support.console import (
    JsonOption,
    RetryOption,
    WorkersOption,
    WorkspaceOption,
    YesOption,
    console,
    parse_retry,
    print_json,
    quote_path,
)
from manifests.support.errors import UserError
from manifests.support.fingerprint import fingerprint

EXAMPLES = 5

if TYPE_CHECKING:
    from authface_data.engine.local import Outcomes
    from authface_data.gates import Judgement
    from manifests.settings import Filter
    from manifests.workspace import Workspace


def filter(
    detector: Annotated[str | None, typer.Option(help="retinaface | retinaface-mobile")] = None,
    landmarks: Annotated[str | None, typer.Option(help="dlib | retinaface5")] = None,
    size: Annotated[
        int | None, typer.Option(help="Side of the crops: 512 | 1024 | 2048 px.")
    ] = None,
    metrics: Annotated[
        str | None, typer.Option(help="IQA metrics by pyiqa's names, with commas.")
    ] = None,
    exclude_hashes: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Hashes of pictures to keep out, a test set's say; remembered (`authface hashes`).",
        ),
    ] = None,
    regate: Annotated[
        bool, typer.Option("--regate", help="Only decide again, from stored scores.")
    ] = False,
    what_if: Annotated[
        str | None,
        typer.Option(
            metavar='"METRIC>=X"', help="Only show what another threshold would change, with faces."
        ),
    ] = None,
    workspace: WorkspaceOption = None,
    retry: RetryOption = None,
    workers: WorkersOption = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Detect, measure and align faces, find duplicates, decide what is kept. Options stand over `[filter]` in authface.toml."""
    again = parse_retry(retry)
    from authface_data import gates
    from authface_data.quality import MEASURES
    from manifests.workspace import Workspace

    ws = Workspace.find(workspace)
    given = {"detector": detector, "landmarks": landmarks, "size": size}
    if metrics is not None:
        given["metrics"] = [name.strip() for name in metrics.split(",") if name.strip()]  # type: ignore[assignment]
    given = {name: value for name, value in given.items() if value is not None}
    if regate and given:
        raise UserError(
            "--regate decides from stored scores: it takes no other option of measuring"
        )
    if what_if is not None:
        if regate or given or exclude_hashes or again or workers or yes:
            raise UserError("--what-if changes nothing: it takes no other option but --json")
        _say_what_if(ws, what_if, as_json)
        return
    if as_json:
        raise UserError("--json goes with --what-if")
    with ws.lock("filter"):
        settings = with_options(ws.settings.filter, given)
        if exclude_hashes is not None:
            from authface_data.duplicates import keep_exclusions

            console.print(
                f"{keep_exclusions(ws, exclude_hashes)} new hashes are kept out from now on"
            )
        stored = stored_metrics(ws)
        if regate:
            if not stored:
                raise UserError("nothing is scored yet: `authface filter` first, without --regate")
            gates.check(ws.settings.gates, stored)
            _say(ws, gates.decide(ws, ws.settings.gates))
            return
        gates.check(ws.settings.gates, [*MEASURES, *settings.metrics])
        if unknown := [metric for metric in settings.metrics if metric not in {*MEASURES, *stored}]:
            from authface_data.quality import iqa

            iqa.check(unknown)
        outcomes = measure(ws, settings, workers, again, yes)
        _follow(ws)
        kept = _say(ws, gates.decide(ws, ws.settings.gates))
        finish(outcomes, "authface caption" if kept else "authface report")


def with_options(settings: Filter, given: dict) -> Filter:
    """The settings with the options over them. Raises UserError for a value that no setting may have."""
    from pydantic import ValidationError

    try:
        return type(settings).model_validate({**settings.model_dump(), **given})
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(
            f"--{first['loc'][0]}: {first['msg'].lower()} (it is {first['input']!r})"
        ) from error


def stored_metrics(ws: Workspace) -> list[str]:
    """The metrics that the workspace has scores of."""
    from manifests.schema import SCORES
    from manifests.store import Store

    return sorted(Store(ws, SCORES).distinct("metric"))


def measure(
    ws: Workspace, settings: Filter, workers: int | None, again: bool, redo: bool
) -> Outcomes:
    """Faces of every photo, then scores of every face. Returns both runs' outcomes as one."""
    from authface_data.engine import local
    from authface_data.engine.stage import Chain
    from authface_data.faces.orphans import remove_orphans
    from authface_data.faces.stage import FacesStage
    from authface_data.images.open import PictureReader
    from authface_data.quality import MEASURES
    from authface_data.quality.stage import ScoreStage
    from manifests.schema import FACES, PHOTOS
    from manifests.store import Store

    photos = (
        Store(ws, PHOTOS)
        .read(["photo_id", "path", "sha256", "aligned", "landmarks68_px"])
        .to_pylist()
    )
    if not photos:
        raise UserError("there are no photographs yet: `authface collect` first")
    weights_dir = ws.weights_dir
    stage = FacesStage(
        settings.detector,
        settings.landmarks,
        settings.size,
        settings.min_detector_score,
        settings.detect_long_side_px,
        weights_dir,
        settings.crop_format,
    )
    options: dict[str, Any] = {"workers": workers, "retry_failed": again, "redo": redo}
    inputs = [(row["photo_id"], {**row, "mark": mark_of(row)}) for row in photos]
    outcomes = local.run(
        ws, Chain([stage], PictureReader(ws, "path")), inputs, title="faces", **options
    )
    remove_orphans(ws)
    faces = Store(ws, FACES).read(["face_id", "crop_path", "crop_sha256", "quad_px"]).to_pylist()
    stages = [
        ScoreStage(metric, weights_dir) for metric in dict.fromkeys([*MEASURES, *settings.metrics])
    ]
    inputs = [(row["face_id"], row) for row in faces]
    scored = local.run(
        ws, Chain(stages, PictureReader(ws, "crop_path")), inputs, title="scores", **options
    )
    if outcomes.seconds:
        console.print(f"faces: {outcomes.rate(stage):.2f} photographs/s")
    if scored.seconds:
        console.print(f"scores: {max(scored.rate(stage) for stage in stages):.2f} faces/s")
    for mine, theirs in (
        (outcomes.made, scored.made),
        (outcomes.dropped, scored.dropped),
        (outcomes.failed, scored.failed),
    ):
        mine.update(theirs)
    return outcomes


def mark_of(photo: dict[str, Any]) -> str:
    """What of a photograph its faces depend on: the file, and what its source says of an aligned picture."""
    if not photo["aligned"]:
        return str(photo["sha256"])
    return fingerprint(sha256=photo["sha256"], landmarks=photo["landmarks68_px"])


def _follow(ws: Workspace) -> None:
    """Decisions of people go on to the faces that are there now; those that cannot are listed."""
    from authface_data.review.follow_faces import follow_faces

    followed, lost = follow_faces(ws)
    if followed:
        console.print(f"{followed} decisions of people followed their faces to new ids")
    if lost:
        more = f" and {len(lost) - EXAMPLES} others" if len(lost) > EXAMPLES else ""
        console.print(
            f"[yellow]{len(lost)} decided faces are no longer found:[/] {', '.join(lost[:EXAMPLES])}{more}"
        )


def _say_what_if(ws: Workspace, asked: str, as_json: bool) -> None:
    from authface_data.what_if import what_if

    change = what_if(ws, asked, stored_metrics(ws))
    if as_json:
        print_json(change)
        return
    gate = f"gate {', '.join(change.replaced)}" if change.replaced else "a new gate"
    console.print(
        f"With {escape(change.asked)} ({escape(gate)}): {change.kept_then} faces kept, now {change.kept_now}"
    )
    for ids, word in ((change.lost, "dropped"), (change.gained, "kept again")):
        if ids:
            more = f" and {len(ids) - EXAMPLES} others" if len(ids) > EXAMPLES else ""
            console.print(f"  {len(ids)} {word}: {', '.join(ids[:EXAMPLES])}{more}")
    if change.picture:
        console.print(f"Look at them: {quote_path(ws.root)}/{change.picture}")
        console.print(
            "Next: set the threshold in authface.toml, then [bold]authface filter --regate[/]"
        )


def _say(ws: Workspace, judgement: Judgement) -> int:
    """Print what is kept, and what could not be judged. Returns the number of kept faces."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    from authface_data.gates import DUPLICATES, by_stage
    from manifests.schema import PHOTOS, VERDICTS
    from manifests.store import Store
    from manifests.verdicts import POSSIBLE_MINOR

    kept, faces = judgement.in_the_set, len(judgement.measured)
    in_photos = len(judgement.measured.photo_ids.filter(np.asarray(kept)).unique())
    photos = Store(ws, PHOTOS).read(["photo_id"]).num_rows
    console.print(
        f"{int(kept.sum())} of {faces} faces kept, in {in_photos} of {photos} photographs"
    )
    gates = pa.concat_tables(judgement.tables)
    dropped = pc.and_(pc.equal(gates["verdict"], "dropped"), pc.equal(gates["subject"], "photo"))
    if same := pc.sum(pc.and_(dropped, pc.equal(gates["gate"], DUPLICATES))).as_py():
        console.print(f"{same} photographs are duplicates of others (reason duplicate_of:ID)")
    if flagged := pc.sum(pc.equal(gates["gate"], POSSIBLE_MINOR)).as_py():
        console.print(
            f"[yellow]{flagged} faces may be of minors:[/] `authface review sheet` shows them first"
        )
    told = pa.concat_tables([gates, Store(ws, VERDICTS).read(gates.column_names, by_stage)])
    failed = told.filter(pc.equal(told["verdict"], "failed"))["id"].unique()
    if len(failed):
        console.print(
            f"[yellow]{len(failed)} could not be judged or measured:[/] `authface status` says why, `authface filter` goes on"
        )
    return int(kept.sum())
