"""The report: one self-contained HTML file about everything in a workspace."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from jinja2 import Environment, PackageLoader, Template, select_autoescape

from authface_data.captions import coverage
from authface_data.images.encode import data_uri
from authface_data.report import curves
from authface_data.report.anatomy import draw_largest_face
from authface_data.report.balance import list_underrepresented, measure_balance
from authface_data.report.cards import JPEG_QUALITY, make_cards, photo_title, thumbnail_uri
from authface_data.report.status import collect_status, describe_run
from manifests.missing_files import find_missing_keys, require_crops, require_photo_rows
from manifests.run_folder import AUDIT, AUDIT_FILE, METRICS_FILE, WorkspaceRun, list_runs
from manifests.schema import FACES, PHOTOS, VERDICTS
from manifests.store import Store
from manifests.support.errors import UserError
from manifests.verdicts import ANY_FACE, kept_faces
from manifests.workspace import STRIP_FILE, Workspace

REPORT_FILE = "reports/report.html"
MAX_CARDS = 120
"""Number of faces that a contact sheet shows."""
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
    reason: str


def write_report(workspace: Workspace) -> str:
    """Write the report.

    Returns:
        The path of the report in the workspace.

    Raises:
        UserError: If the crop of a kept face that the report shows is missing.
    """
    workspace.check_no_interrupted_forget()
    photos = {row["photo_id"]: row for row in Store(workspace, PHOTOS).read().to_pylist()}
    faces = Store(workspace, FACES).read().to_pylist()
    require_photo_rows((face["photo_id"] for face in faces), photos)
    verdicts = Store(workspace, VERDICTS).read().to_pylist()
    lost_photos = _list_lost_photos(photos, verdicts)
    unknown_photos = [photo for photo in lost_photos if photo.photo_id not in photos]

    kept_ids = set(kept_faces(workspace, [])["face_id"])
    kept = [face["face_id"] for face in faces if face["face_id"] in kept_ids]
    dropped = [face["face_id"] for face in faces if face["face_id"] not in kept_ids]
    crop_paths = {face["face_id"]: face["crop_path"] for face in faces}
    require_crops(workspace, {face_id: crop_paths[face_id] for face_id in kept[:MAX_CARDS]})
    # A dropped face is shown without a picture if its crop is missing.
    pictured_ids = {*kept[:MAX_CARDS], *dropped[:MAX_CARDS]}
    pictured_ids -= find_missing_keys(workspace, crop_paths)
    cards = make_cards(workspace, photos, faces, verdicts, pictured_ids)

    anatomy = draw_largest_face(workspace)
    facets = measure_balance(workspace)
    page = _load_template().render(
        created=f"{datetime.now(UTC):%d %B %Y, %H:%M} UTC",
        status=collect_status(workspace),
        num_photos=len(photos) + len(unknown_photos),
        num_faces=len(faces),
        kept=[cards[face_id] for face_id in kept],
        dropped=[cards[face_id] for face_id in dropped],
        max_cards=MAX_CARDS,
        lost_photos=lost_photos,
        anatomy="" if anatomy is None else data_uri(anatomy, quality=JPEG_QUALITY),
        balance=facets,
        underrepresented=list_underrepresented(facets),
        coverage=coverage.count_facets(workspace, kept_ids),
        contradictions=coverage.count_contradictions(workspace),
        runs=_view_runs(workspace),
        strips=_read_strips(workspace),
        plot={"width": curves.WIDTH, "height": curves.HEIGHT, "left": curves.LEFT},
    )
    workspace.write_bytes(REPORT_FILE, page.encode())
    return REPORT_FILE


def _load_template() -> Template:
    environment = Environment(
        loader=PackageLoader("authface_data.report", "."),
        autoescape=select_autoescape(default=True),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.jinja")


def _list_lost_photos(
    photos: Mapping[str, dict[str, Any]], verdicts: Sequence[dict[str, Any]]
) -> list[LostPhoto]:
    lost_photos = []
    for row in verdicts:
        is_lost = row["subject"] == "photo" and row["verdict"] != "kept"
        if is_lost and row["gate"] != ANY_FACE:
            title = photo_title(photos.get(row["id"]))
            lost_photos.append(LostPhoto(row["id"], title, row["reason"]))
    return lost_photos


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
