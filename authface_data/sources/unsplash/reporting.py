"""What is owed to Unsplash after a download, and what more it tells: reports, details, and what has vanished there."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import pyarrow.compute as pc
from rich.markup import escape
from rich.progress import track

from authface_data.sources.refresh import suggest
from authface_data.sources.unsplash.client import LimitReached, NotReportable, UnsplashApi
from authface_data.sources.unsplash.listings import PREFIX
from authface_data.sources.unsplash.responses import Details, Exif, Location, Position
from manifests.schema import PHOTOS
from manifests.store import Store
from manifests.support.console import console
from manifests.support.errors import AuthfaceError
from manifests.support.text import to_utf8
from manifests.workspace import Workspace

SOURCE = "unsplash"
REPORTED, ASKED = "cache/unsplash/reported", "cache/unsplash/refreshed.json"
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
                    updates.add(
                        {
                            **row,
                            "download_location": None,
                            "note": "its download could not be reported",
                        }
                    )
                    continue
                made += 1
            updates.add(
                {
                    **row,
                    "download_reported_at": datetime.fromisoformat(ws.read_bytes(mark).decode()),
                }
            )
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
        except NotReportable as error:
            ws.remove(mark)
            console.print(f"[yellow]{row['photo_id']}:[/] {escape(str(error))}")
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
                console.print(f"[yellow]{row['photo_id']}:[/] {escape(str(error))}")
                continue
            if details is None:
                gone.append(row["photo_id"])
            else:
                updates.add(
                    {**row, **_columns(row, details, store_place), "details_at": datetime.now(UTC)}
                )
    return gone


def ask_again(ws: Workspace, api: UnsplashApi) -> tuple[int, int]:
    """Ask for every photograph again, and suggest to forget what is gone. Returns (how many were asked, how many are gone).

    Who was asked is remembered until all were, so that an hour without requests, or Ctrl-C, costs no work.
    """
    before: set[str] = set(json.loads(ws.read_bytes(ASKED))) if ws.exists(ASKED) else set()
    asked: set[str] = set()
    gone: list[str] = []
    ids = sorted(row["photo_id"] for row in _own(ws))
    try:
        for photo_id in _tracked([one for one in ids if one not in before], "refresh"):
            if not api.has(photo_id.removeprefix(PREFIX)):
                gone.append(photo_id)
            asked.add(photo_id)
    finally:
        suggest(ws, gone, asked)
        ws.write_bytes(ASKED, json.dumps(sorted(before | asked)).encode())
    ws.remove(ASKED)
    return len(asked), len(gone)


def _own(ws: Workspace, lacking: str | None = None) -> list[dict[str, Any]]:
    """Rows of this source; of those, the ones where a column is null."""
    table = Store(ws, PHOTOS).read()
    table = table.filter(pc.equal(table["source"], SOURCE))
    return (table if lacking is None else table.filter(pc.is_null(table[lacking]))).to_pylist()


def _tracked(rows: list[Any], words: str) -> Iterable[Any]:
    return track(rows, description=words, console=console) if rows else rows


def _columns(row: dict[str, Any], details: Details, store_place: bool) -> dict[str, Any]:
    """The file's own EXIF stands over what Unsplash says of it."""

    def number(value: Any) -> float | None:
        try:
            top, _, bottom = str(value).partition("/")  # exposure times are fractions
            made = float(top) / float(bottom or 1)
        except (ValueError, ZeroDivisionError):
            return None
        return made if abs(made) < 1e9 else None

    exif, place = details.exif or Exif(), details.location or Location()
    position = place.position or Position()
    iso = number(exif.iso)
    said: dict[str, Any] = {
        "camera_make": to_utf8(exif.make) if exif.make else None,
        "camera_model": to_utf8(exif.model) if exif.model else None,
        "exposure_s": number(exif.exposure_time),
        "aperture": number(exif.aperture),
        "focal_length_mm": number(exif.focal_length),
        "iso": None if iso is None else int(iso),
    }
    columns = {name: value for name, value in said.items() if row[name] is None}
    columns["source_tags"] = [to_utf8(tag.title) for tag in details.tags or [] if tag.title]
    if store_place:
        name = to_utf8(place.name) if place.name else None
        columns |= {"place": name, "latitude": position.latitude, "longitude": position.longitude}
    return columns
