"""Asking the sources again: what has vanished there becomes a suggestion to forget it here."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterator

import httpx
import pyarrow as pa
import pyarrow.compute as pc

from authface_data.http.download import GONE_STATUS_CODES
from authface_data.http.hosts import AllowedHosts, HostRefused, RequestPacer, guarded_client
from manifests.schema import PHOTOS, VERDICTS
from manifests.store import Store
from manifests.support.console import console
from manifests.support.fingerprint import fingerprint
from manifests.verdicts import verdict_row
from manifests.workspace import Workspace

GATE = "collect:refresh"
MOST_SHOWN = 20


def suggest(ws: Workspace, ids: list[str], asked: set[str] | None = None) -> None:
    """Record that photographs are gone at their source, and say how to forget them. asked: of which the former word falls."""
    mark = fingerprint(gate=GATE)
    reason = "vanished at its source: forget it?"
    store = Store(ws, VERDICTS)
    old = pa.array(sorted({*(asked or ()), *ids}), pa.string())
    add = store.table(
        [
            verdict_row("photo", photo_id, GATE, "dropped", fingerprint=mark, reason=reason)
            for photo_id in ids
        ]
    )
    store.compact(
        lambda part: pc.and_(pc.equal(part["gate"], GATE), pc.is_in(part["id"], old)), add
    )
    if ids:
        some = " ".join(shlex.quote(photo_id) for photo_id in ids[:MOST_SHOWN])
        more = (
            f" (and {len(ids) - MOST_SHOWN} more: authface status)" if len(ids) > MOST_SHOWN else ""
        )
        console.print(f"{len(ids)} photographs have vanished at their source. To take them out:")
        console.print(f"  [bold]authface forget -- {some}[/]{more}")


def vanished_urls(ws: Workspace, source: str, hosts: AllowedHosts) -> tuple[list[str], set[str]]:
    """(ids whose file the source has no more, all ids asked), of photographs whose `download_location` is their file's URL.

    The file's first byte is asked for. A server that is busy or cannot be reached says nothing.
    """
    settings = ws.settings.collect
    pace = RequestPacer(settings.photos_per_second)
    gone, asked = [], set()
    with guarded_client(
        hosts,
        connect_timeout_s=settings.connect_timeout_s,
        read_timeout_s=settings.read_timeout_s,
        connections=2,
    ) as client:
        for photo_id, url in _files(ws, source):
            asked.add(photo_id)
            if not hosts.is_user_host(httpx.URL(url).host):
                pace.wait(source)
            if _is_gone(client, url):
                gone.append(photo_id)
    return gone, asked


def _files(ws: Workspace, source: str) -> Iterator[tuple[str, str]]:
    for row in Store(ws, PHOTOS).read(["photo_id", "source", "download_location"]).to_pylist():
        if row["source"] == source and row["download_location"]:
            yield row["photo_id"], row["download_location"]


def _is_gone(client: httpx.Client, url: str) -> bool:
    query = "&" if "?" in url else "?"
    for asked in (
        url,
        f"{url}{query}fit=max",
    ):  # the image server finds some photographs only with a query
        try:
            with client.stream("GET", asked, headers={"Range": "bytes=0-0"}) as answer:
                if answer.status_code not in GONE_STATUS_CODES:
                    return False
        except (httpx.HTTPError, HostRefused):
            return False
    return True


def vanished_files(ws: Workspace) -> tuple[list[str], set[str]]:
    """The same of photographs that are only referred to: those whose original is no longer there, or is another file by now."""
    rows = Store(ws, PHOTOS).read(["photo_id", "path", "bytes", "sha256"]).to_pylist()
    linked = [row for row in rows if ws.local(row["path"]).is_symlink()]
    return [row["photo_id"] for row in linked if _has_changed(ws, row)], {
        row["photo_id"] for row in linked
    }


def _has_changed(ws: Workspace, row: dict) -> bool:
    path = ws.local(row["path"])
    if not path.exists() or path.stat().st_size != row["bytes"]:
        return True
    return hashlib.sha256(path.read_bytes()).hexdigest() != row["sha256"]
