"""The report: one self-contained HTML file about everything in a workspace."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc

from authface_data.captions import coverage
from authface_data.images.encode import data_uri
from authface_data.measurements import Measurements, read_measurements
from authface_data.report import curves
from authface_data.report.anatomy import (
    draw_aligned_crop,
    draw_detection,
    find_largest_face,
    list_facts,
)
from authface_data.report.balance import (
    MIN_SHARE,
    Facet,
    count_groups,
    list_underrepresented,
)
from authface_data.report.cards import (
    JPEG_QUALITY,
    ShownFace,
    ShownScore,
    photo_title,
    read_shown_faces,
    thumbnail_uri,
)
from authface_data.report.reasons import Reason, describe_reason, describe_verdict
from authface_data.report.status import Status, collect_status, describe_run
from manifests.captions import current_captions
from manifests.missing_files import find_missing_keys, require_crops, require_photo_rows
from manifests.run_folder import AUDIT, AUDIT_FILE, METRICS_FILE, WorkspaceRun, list_runs
from manifests.schema import FACES, PHOTOS, SCORES, VERDICTS
from manifests.store import RowFilter, Store, match_encoded
from manifests.support import html_page
from manifests.support.errors import UserError
from manifests.verdicts import ANY_FACE, find_kept
from manifests.workspace import STRIP_FILE, Workspace

REPORT_FILE = "reports/report.html"
MAX_CARDS = 120
"""Number of faces that a contact sheet shows."""
MAX_GROUPS = 12
"""Number of under-represented groups that the report lists."""
SCORE_SCHEMA = pa.schema([SCORES.schema.field(name) for name in ("face_id", "metric", "value")])
STRIP_PX = 2048
"""Longest side of the overviews of restored faces."""


@dataclass(frozen=True)
class RunView:
    """A training run in the report.

    Attributes:
        name: Name of the run folder.
        state: Stage, steps and whether the run is finished.
        untrained: Whether the model is a small random one.
        curves: The curves of its metrics.
    """

    name: str
    state: str
    untrained: bool
    curves: list[curves.Curve]


@dataclass(frozen=True)
class LostPhoto:
    """A photograph that was dropped or failed."""

    photo_id: str
    title: str
    reason: Reason


@dataclass(frozen=True)
class DropCount:
    """How many photographs or faces were dropped, or failed, for one reason.

    Attributes:
        subject: "photo" or "face".
        verdict: "dropped" or "failed".
        reason: The reason.
        count: Number of rows.
        percent: The count relative to the most frequent reason.
    """

    subject: str
    verdict: str
    reason: Reason
    count: int
    percent: float


@dataclass(frozen=True)
class Anatomy:
    """How one face was processed: two pictures as data URIs, and the facts about the face."""

    detection: str
    crop: str
    facts: list[str]
    scores: list[ShownScore]


def write_report(workspace: Workspace) -> list[Facet]:
    """Write the report to `REPORT_FILE` in the workspace.

    Returns:
        The composition of the data set, which the report shows.

    Raises:
        UserError: If the crop of a kept face that the report shows is missing.
    """
    workspace.check_no_interrupted_forget()
    measurements = read_measurements(workspace)
    is_kept = find_kept(workspace, pa.chunked_array([measurements.face_ids]))
    kept_ids = measurements.face_ids.filter(pa.array(is_kept))
    captions = current_captions(workspace)
    facets = count_groups(measurements, is_kept, captions)
    faces = Store(workspace, FACES).read(["face_id", "photo_id", "crop_path"])
    photo_ids = Store(workspace, PHOTOS).read(["photo_id"])["photo_id"].combine_chunks()
    has_no_row = pc.invert(pc.is_in(faces["photo_id"], photo_ids))
    require_photo_rows(faces["photo_id"].filter(has_no_row).to_pylist(), ())
    kept = faces.filter(pc.is_in(faces["face_id"], kept_ids))
    dropped = faces.filter(pc.invert(pc.is_in(faces["face_id"], kept_ids)))
    shown_kept = _paths_of_first(kept)
    shown_dropped = _paths_of_first(dropped)
    require_crops(workspace, shown_kept)
    # A dropped face is shown without a picture if its crop is missing.
    paths = shown_kept | shown_dropped
    pictured_ids = paths.keys() - find_missing_keys(workspace, paths)
    largest = find_largest_face(workspace)
    face_ids = [*paths]
    if largest is not None and largest not in paths:
        face_ids.append(largest)
    scores = _scores_of(measurements, face_ids)
    del measurements  # it takes the most memory

    status = collect_status(workspace)
    lost = _read_lost_photos(workspace)
    num_unknown = pc.sum(pc.invert(pc.is_in(lost["id"], photo_ids))).as_py() or 0
    shown = read_shown_faces(workspace, face_ids, pictured_ids, captions=captions, scores=scores)
    caption_rows = captions.find(kept_ids)
    captions = captions.take(caption_rows[caption_rows >= 0])
    page = html_page.render_page(
        "authface_data.report",
        "page.html.jinja",
        created=f"{datetime.now(UTC):%d %B %Y, %H:%M} UTC",
        status=status,
        drop_counts=_count_drops(status),
        num_photos=len(photo_ids) + num_unknown,
        num_faces=faces.num_rows,
        kept=[shown[face_id].card for face_id in shown_kept],
        num_kept=kept.num_rows,
        dropped=[shown[face_id].card for face_id in shown_dropped],
        num_dropped=dropped.num_rows,
        lost_photos=_list_lost_photos(workspace, lost.slice(0, MAX_CARDS)),
        max_contradictions=MAX_CARDS,
        anatomy=None if largest is None else _draw_anatomy(workspace, shown[largest]),
        balance=facets,
        underrepresented=list_underrepresented(facets),
        max_groups=MAX_GROUPS,
        min_percent=round(100 * MIN_SHARE),
        coverage=coverage.count_facets_of(captions),
        contradictions=coverage.count_contradictions(workspace),
        runs=_view_runs(workspace),
        strips=_read_strips(workspace),
        plot={"width": curves.WIDTH, "height": curves.HEIGHT, "left": curves.LEFT},
    )
    workspace.write_bytes(REPORT_FILE, page.encode())
    return facets


def _paths_of_first(faces: pa.Table) -> dict[str, str]:
    """face_id -> path of the crop, of the first `MAX_CARDS` faces."""
    first = faces.slice(0, MAX_CARDS)
    return dict(zip(first["face_id"].to_pylist(), first["crop_path"].to_pylist(), strict=True))


def _scores_of(measurements: Measurements, face_ids: Sequence[str]) -> pa.Table:
    """The known scores of some faces, as rows with face_id, metric and value."""
    rows = pc.index_in(pa.array(face_ids, pa.string()), measurements.face_ids)
    tables = [pa.table({"face_id": [], "metric": [], "value": []}, SCORE_SCHEMA)]
    for metric in measurements.metrics:
        values = pa.array(measurements.values_of(metric), from_pandas=True).take(rows)
        metrics = pa.repeat(metric, len(face_ids))
        tables.append(pa.table([pa.array(face_ids), metrics, values], schema=SCORE_SCHEMA))
    return pa.concat_tables(tables).drop_null()


def _draw_anatomy(workspace: Workspace, shown: ShownFace) -> Anatomy:
    """The anatomy of a face; its text is not part of the pictures, so that it can be read aloud."""
    detection = draw_detection(workspace, shown.photo, shown.face)
    crop = draw_aligned_crop(workspace, shown.face)
    return Anatomy(
        detection=data_uri(detection, quality=JPEG_QUALITY),
        crop=data_uri(crop, quality=JPEG_QUALITY),
        facts=[fact.removeprefix("-").strip() for fact in list_facts(shown)],
        scores=shown.card.scores,
    )


def _count_drops(status: Status) -> list[DropCount]:
    """The counts of the status in a photographer's words."""
    counts = []
    for verdict, by_subject in (("dropped", status.dropped), ("failed", status.failed)):
        for subject, by_reason in by_subject.items():
            most = max(by_reason.values())
            for rule, count in by_reason.items():
                reason = Reason(describe_reason(rule.partition(": ")[2]), rule)
                counts.append(DropCount(subject, verdict, reason, count, 100 * count / most))
    return counts


def _read_lost_photos(workspace: Workspace) -> pa.Table:
    """The verdicts that dropped or failed a photograph, with what describes them."""
    encoded = ["gate", "verdict", "reason"]
    verdicts = Store(workspace, VERDICTS).read(
        ["id", *encoded, "value", "threshold"], RowFilter.equal("subject", "photo"), encoded
    )
    is_lost = match_encoded(verdicts["verdict"], lambda values: pc.not_equal(values, "kept"))
    is_lost &= match_encoded(verdicts["gate"], lambda values: pc.not_equal(values, ANY_FACE))
    return verdicts.filter(pa.array(is_lost))


def _list_lost_photos(workspace: Workspace, lost: pa.Table) -> list[LostPhoto]:
    rows = lost.to_pylist()
    of_photos = RowFilter.is_in("photo_id", [row["id"] for row in rows])
    photos = Store(workspace, PHOTOS).read(["photo_id", "description"], of_photos).to_pylist()
    photo_of_id = {photo["photo_id"]: photo for photo in photos}
    return [
        LostPhoto(row["id"], photo_title(photo_of_id.get(row["id"])), describe_verdict(row))
        for row in rows
    ]


def _view_runs(workspace: Workspace) -> list[RunView]:
    views = []
    for run in list_runs(workspace):
        state = describe_run(run)
        if state is not None:
            views.append(RunView(run.name, state, _is_untrained(run), _draw_curves(run)))
    return views


def _is_untrained(run: WorkspaceRun) -> bool:
    """Whether a model was made for a trial; False if its notes are damaged."""
    try:
        return bool(run.read_notes().get("untrained"))
    except UserError:
        return False


def _draw_curves(run: WorkspaceRun) -> list[curves.Curve]:
    drawn = []
    metrics = run.read_file(METRICS_FILE)
    if metrics is not None:
        drawn += curves.metric_curves(metrics)
    audit = run.read_file(f"{AUDIT}/{AUDIT_FILE}")
    if audit is not None:
        drawn += curves.audit_curves(audit)
    return drawn


def _read_strips(workspace: Workspace) -> list[dict[str, str]]:
    """The overviews that `authface restore` left in folders of `reports/`."""
    strips = []
    for name in workspace.list_names("reports"):
        path = f"reports/{name}/{STRIP_FILE}"
        if workspace.exists(path):
            strips.append({"name": name, "picture": thumbnail_uri(workspace, path, STRIP_PX)})
    return strips
