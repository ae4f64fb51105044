"""What is owed to Unsplash after a download, and what more it tells: reports, details, and what has vanished there."""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import pyarrow.compute as pc
from rich.progress import track

from authface_data.sources.unsplash_api import Details, ForeignLocation, LimitReached, UnsplashApi
from authface_data.sources.unsplash_listing import PREFIX
from manifests.command_line import console
from manifests.errors import AuthfaceError
from manifests.schema import PHOTOS
from manifests.store import Store
from manifests.workspace import Workspace

SOURCE = "unsplash"
REPORTED = "cache/unsplash/reported"
COMMIT_ROWS, COMMIT_SECONDS = 64, 5.0


class _Updates:
    """Changed rows of `photos`, committed a few at a time; the later supersedes the earlier."""

    def __init__(self, workspace: Workspace):
        self.store = Store(workspace, PHOTOS)
        self.rows: list[dict[str, Any]] = []
        self.last = time.monotonic()

    def __enter__(self) -> _Updates:
        return self

    def add(self, row: dict[str, Any]) -> None:
        row.pop("created_at", None)
        self.rows.append(row)
        if len(self.rows) >= COMMIT_ROWS or time.monotonic() - self.last > COMMIT_SECONDS:
            self.commit()

    def commit(self) -> None:
        rows, self.rows = self.rows, []
        self.store.append(rows)
        self.last = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self.commit()
        self.store.compact()


def report_downloads(ws: Workspace, api: UnsplashApi) -> int:
    """Report every download that was not reported yet, each once. Returns how many.

    A mark is made on the disk at the last moment before the request, and taken back only where Unsplash surely did not count
    it: killed in between, a download is not reported a second time.
    """
    ws.local(REPORTED).mkdir(parents=True, exist_ok=True)
    made = 0
    with _Updates(ws) as updates:
        for row in _own(ws, lacking="download_reported_at"):
            if not row["download_location"]:
                continue
            mark = f"{REPORTED}/{row['photo_id']}-{row['sha256'][:8]}"
            if not ws.exists(mark):
                if not _report(ws, api, row, mark):
                    updates.add({**row, "download_location": None, "note": "its download could not be reported"})
                    continue
                made += 1
            updates.add({**row, "download_reported_at": datetime.fromisoformat(ws.read_bytes(mark).decode())})
    for name in ws.list(REPORTED):
        ws.remove(f"{REPORTED}/{name}")
    return made


def _report(ws: Workspace, api: UnsplashApi, row: dict[str, Any], mark: str) -> bool:
    """Report one download under its mark. False where its location is none of the API's."""
    while True:
        api.budget.before_request()
        ws.create_exclusive(mark, datetime.now(UTC).isoformat().encode())
        try:
            api.report_download(row["download_location"])
            return True
        except LimitReached:
            ws.remove(mark)
        except ForeignLocation as error:
            ws.remove(mark)
            console.print(f"[yellow]{row['photo_id']}:[/] {error}")
            return False
        except AuthfaceError:
            ws.remove(mark)
            raise


def fetch_details(ws: Workspace, api: UnsplashApi, store_place: bool) -> list[str]:
    """Camera, tags and, where asked for, place of every photograph that lacks them. Returns the ids of those that are gone."""
    gone = []
    with _Updates(ws) as updates:
        for row in _tracked(_own(ws, lacking="details_at"), "details"):
            try:
                details = api.details(row["photo_id"].removeprefix(PREFIX))
            except ValueError as error:
                console.print(f"[yellow]{row['photo_id']}:[/] {error}")
                continue
            if details is None:
                gone.append(row["photo_id"])
            else:
                updates.add({**row, **_columns(row, details, store_place), "details_at": datetime.now(UTC)})
    return gone


def vanished(ws: Workspace, api: UnsplashApi) -> tuple[list[str], set[str]]:
    """(ids of the photographs that Unsplash has no more, all ids asked)."""
    ids = [row["photo_id"] for row in _own(ws)]
    gone = [photo_id for photo_id in _tracked(ids, "refresh") if not api.has(photo_id.removeprefix(PREFIX))]
    return gone, set(ids)


def _own(ws: Workspace, lacking: str | None = None) -> list[dict[str, Any]]:
    """Rows of this source; of those, the ones where a column is null."""
    table = Store(ws, PHOTOS).read()
    table = table.filter(pc.equal(table["source"], SOURCE))
    return (table if lacking is None else table.filter(pc.is_null(table[lacking]))).to_pylist()


def _tracked(rows: list[Any], words: str) -> Iterable[Any]:
    return track(rows, description=words) if rows else rows


def _columns(row: dict[str, Any], details: Details, store_place: bool) -> dict[str, Any]:
    """The file's own EXIF stands over what Unsplash says of it."""

    def number(value: Any) -> float | None:
        try:
            top, _, bottom = str(value).partition("/")  # exposure times are fractions
            return float(top) / float(bottom or 1)
        except (ValueError, ZeroDivisionError):
            return None

    exif = details.exif
    iso = number(exif.iso)
    said: dict[str, Any] = {
        "camera_make": exif.make,
        "camera_model": exif.model,
        "exposure_s": number(exif.exposure_time),
        "aperture": number(exif.aperture),
        "focal_length_mm": number(exif.focal_length),
        "iso": None if iso is None else int(iso),
    }
    columns = {name: value for name, value in said.items() if row[name] is None}
    columns["source_tags"] = [tag.title for tag in details.tags if tag.title]
    if store_place:
        place = details.location
        columns |= {"place": place.name, "latitude": place.position.latitude, "longitude": place.position.longitude}
    return columns
