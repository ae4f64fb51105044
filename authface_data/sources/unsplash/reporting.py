"""What follows the downloads: reports to Unsplash, details of photographs, and vanished ones."""

from __future__ import annotations

import json
import logging
import time
from datetime import UTC, datetime
from typing import Any

import pyarrow.compute as pc

from authface_data.sources.protocol import RefreshReport
from authface_data.sources.refresh import record_vanished
from authface_data.sources.unsplash.client import LimitReached, NotReportable, UnsplashApi
from authface_data.sources.unsplash.responses import Details, Exif, Location, Position, parse_number
from authface_data.sources.unsplash.stored_names import PHOTO_ID_PREFIX
from manifests.schema import PHOTOS
from manifests.store import Store
from manifests.support.errors import AuthfaceError
from manifests.support.parsing import parse_json
from manifests.support.progress import track
from manifests.support.text import to_utf8
from manifests.workspace import Workspace

logger = logging.getLogger(__name__)

SOURCE = "unsplash"
REPORTS_FOLDER = "cache/unsplash/reported"
REFRESHED_FILE = "cache/unsplash/refreshed.json"
COMMIT_ROWS = 64
COMMIT_INTERVAL_S = 5.0

PhotoRow = dict[str, Any]


class _RowUpdates:
    """Commits changed rows of the photos manifest a few at a time. Use as a context manager."""

    def __init__(self, workspace: Workspace) -> None:
        self.store = Store(workspace, PHOTOS)
        self._rows: list[PhotoRow] = []
        self._last_commit_s = time.monotonic()

    def __enter__(self) -> _RowUpdates:
        return self

    def __exit__(self, *_: object) -> None:
        self.commit()
        self.store.compact()

    def add(self, row: PhotoRow) -> None:
        row.pop("created_at", None)
        self._rows.append(row)
        is_due = time.monotonic() - self._last_commit_s > COMMIT_INTERVAL_S
        if len(self._rows) >= COMMIT_ROWS or is_due:
            self.commit()

    def commit(self) -> None:
        rows = self._rows
        self._rows = []
        self.store.append(rows)
        self._last_commit_s = time.monotonic()


def report_downloads(workspace: Workspace, api: UnsplashApi) -> int:
    """Report every download that was not reported yet, each once.

    A marker file is written at the last moment before each request, and removed only if Unsplash
    certainly did not count it. A download is therefore not reported twice, even after a kill.

    Args:
        workspace: The workspace.
        api: The API.

    Returns:
        The number of downloads reported by this call.

    Raises:
        RateLimitReached: If no request is left and the user does not want to wait.
    """
    num_reported = 0
    with _RowUpdates(workspace) as updates:
        for row in _read_photos(workspace, missing="download_reported_at"):
            if not row["download_location"]:
                continue
            marker = f"{REPORTS_FOLDER}/{row['photo_id']}-{row['sha256'][:8]}"
            if not workspace.exists(marker):
                if not _report(workspace, api, row, marker):
                    note = "its download could not be reported"
                    updates.add({**row, "download_location": None, "note": note})
                    continue
                num_reported += 1
            reported_at = _parse_time(workspace.read_bytes(marker))
            updates.add({**row, "download_reported_at": reported_at})

    for name in workspace.list_names(REPORTS_FOLDER):
        workspace.remove(f"{REPORTS_FOLDER}/{name}")
    return num_reported


def _parse_time(marker: bytes) -> datetime:
    """The time in a marker file; the present time if the file is damaged."""
    try:
        return datetime.fromisoformat(marker.decode())
    except ValueError:
        return datetime.now(UTC)


def _report(workspace: Workspace, api: UnsplashApi, row: PhotoRow, marker: str) -> bool:
    """Report one download. Returns False if it cannot be reported."""
    while True:
        api.rate_limiter.before_request()
        workspace.create_exclusive(marker, datetime.now(UTC).isoformat().encode())
        try:
            api.report_download(row["download_location"])
            return True
        except LimitReached:
            workspace.remove(marker)
        except NotReportable as error:
            workspace.remove(marker)
            logger.warning("%s: its download cannot be reported: %s", row["photo_id"], error)
            return False
        except AuthfaceError:
            workspace.remove(marker)
            raise


def fetch_details(workspace: Workspace, api: UnsplashApi, store_place: bool) -> list[str]:
    """Fetch camera data, tags and optionally the place of every photograph that lacks them.

    Args:
        workspace: The workspace.
        api: The API.
        store_place: Store the place too.

    Returns:
        Ids of the photographs that no longer exist.

    Raises:
        RateLimitReached: If no request is left and the user does not want to wait.
    """
    vanished = []
    with _RowUpdates(workspace) as updates:
        rows = _read_photos(workspace, missing="details_at")
        for row in track(rows, "details"):
            try:
                details = api.fetch_details(row["photo_id"].removeprefix(PHOTO_ID_PREFIX))
            except ValueError as error:
                logger.warning("%s: %s", row["photo_id"], error)
                continue
            if details is None:
                vanished.append(row["photo_id"])
            else:
                columns = _detail_columns(row, details, store_place)
                updates.add({**row, **columns, "details_at": datetime.now(UTC)})
    return vanished


def find_vanished(workspace: Workspace, api: UnsplashApi) -> RefreshReport:
    """Look up every photograph again and record those that no longer exist.

    The ids that were looked up are kept until all are done, so that a run that ends early loses
    nothing.

    Args:
        workspace: The workspace.
        api: The API.

    Returns:
        Which photographs vanished, and why the lookup ended early, if it did.
    """
    done_before: set[str] = set()
    if workspace.exists(REFRESHED_FILE):
        done_before = _parse_ids(workspace.read_bytes(REFRESHED_FILE))
    photo_ids = sorted(row["photo_id"] for row in _read_photos(workspace))
    pending = [photo_id for photo_id in photo_ids if photo_id not in done_before]

    checked: set[str] = set()
    vanished: list[str] = []
    error: AuthfaceError | None = None
    try:
        for photo_id in track(pending, "refresh"):
            if not api.exists(photo_id.removeprefix(PHOTO_ID_PREFIX)):
                vanished.append(photo_id)
            checked.add(photo_id)
    except AuthfaceError as exception:
        error = exception
    finally:
        record_vanished(workspace, vanished, checked)
        done = sorted(done_before | checked)
        workspace.write_bytes(REFRESHED_FILE, json.dumps(done).encode())
    if error is None:
        workspace.remove(REFRESHED_FILE)
    return RefreshReport(len(checked), vanished, error)


def _parse_ids(content: bytes) -> set[str]:
    """The ids that were looked up; none if the file is damaged: all are looked up again."""
    try:
        ids = parse_json(content)
    except ValueError:
        return set()
    return {str(photo_id) for photo_id in ids} if isinstance(ids, list) else set()


def _read_photos(workspace: Workspace, missing: str | None = None) -> list[PhotoRow]:
    """Rows of this source; with `missing`, only those whose column of that name is null."""
    table = Store(workspace, PHOTOS).read()
    table = table.filter(pc.equal(table["source"], SOURCE))
    if missing is not None:
        table = table.filter(pc.is_null(table[missing]))
    return table.to_pylist()


def _detail_columns(row: PhotoRow, details: Details, store_place: bool) -> PhotoRow:
    """Columns from the details. Camera data of the file itself take precedence."""
    exif = details.exif or Exif()
    location = details.location or Location()
    position = location.position or Position()
    iso = parse_number(exif.iso)
    camera = {
        "camera_make": to_utf8(exif.make) if exif.make else None,
        "camera_model": to_utf8(exif.model) if exif.model else None,
        "exposure_s": parse_number(exif.exposure_time),
        "aperture": parse_number(exif.aperture),
        "focal_length_mm": parse_number(exif.focal_length),
        "iso": None if iso is None else int(iso),
    }

    columns: PhotoRow = {name: value for name, value in camera.items() if row[name] is None}
    columns["source_tags"] = [to_utf8(tag.title) for tag in details.tags or [] if tag.title]
    if store_place:
        columns["place"] = to_utf8(location.name) if location.name else None
        columns["latitude"] = position.latitude
        columns["longitude"] = position.longitude
    return columns
