"""Photographs that vanished at their source, and linked originals that are lost: their records."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from urllib.parse import urlsplit

import httpx
import pyarrow as pa
import pyarrow.compute as pc

from authface_data.http.download import GONE_STATUS_CODES
from authface_data.http.hosts import AllowedHosts, HostRefused, RequestPacer, guarded_client
from authface_data.http.transport import total_timeout
from manifests.schema import PHOTOS, VERDICTS
from manifests.store import Store
from manifests.support.fingerprint import fingerprint
from manifests.verdicts import Verdict, verdict_row
from manifests.workspace import Workspace

GATE = "collect:refresh"
LOOK_UP_TIMEOUT_S = 60.0
"""Longest duration of one request."""
REASON = "vanished at its source: forget it?"


def record_vanished(
    workspace: Workspace, vanished: Collection[str], checked: Collection[str] = ()
) -> None:
    """Record which photographs vanished at their source.

    Args:
        workspace: The workspace.
        vanished: Ids of the photographs that vanished.
        checked: Ids of all photographs that were looked up; earlier records of these are removed.
    """
    _record(workspace, "dropped", dict.fromkeys(vanished, REASON), checked)


def record_lost_originals(
    workspace: Workspace, reasons: Mapping[str, str], checked: Collection[str]
) -> None:
    """Record which linked photographs have lost their original; it may come back.

    Args:
        workspace: The workspace.
        reasons: Id of a photograph -> what happened to its original.
        checked: Ids of all photographs that were looked up; earlier records of these are removed.
    """
    _record(workspace, "failed", reasons, checked)


def _record(
    workspace: Workspace, verdict: Verdict, reasons: Mapping[str, str], checked: Collection[str]
) -> None:
    """Replace the records of the photographs that were looked up."""
    gate_fingerprint = fingerprint(gate=GATE)
    store = Store(workspace, VERDICTS)
    outdated_ids = pa.array(sorted({*checked, *reasons}), pa.string())
    new_verdicts = store.table(
        [
            verdict_row("photo", photo_id, GATE, verdict, fingerprint=gate_fingerprint, reason=text)
            for photo_id, text in reasons.items()
        ]
    )

    def is_outdated(part: pa.Table) -> pa.Array:
        return pc.and_(pc.equal(part["gate"], GATE), pc.is_in(part["id"], outdated_ids))

    store.compact(is_outdated, new_verdicts)


def find_vanished_urls(
    workspace: Workspace, source: str, hosts: AllowedHosts
) -> tuple[set[str], list[str]]:
    """Find photographs whose file is no longer at the URL of their `download_location`.

    Only the first byte of each file is requested. If a server is busy or cannot be reached, its
    photographs count as present.

    Args:
        workspace: The workspace.
        source: Name of the source whose photographs are looked up.
        hosts: The hosts that may be contacted.

    Returns:
        Ids of the photographs that were looked up, and ids of the vanished ones.
    """
    settings = workspace.settings.collect
    pacer = RequestPacer(settings.photos_per_second)
    checked: set[str] = set()
    vanished: list[str] = []
    client = guarded_client(
        hosts,
        connect_timeout_s=settings.connect_timeout_s,
        read_timeout_s=settings.read_timeout_s,
        connections=2,
    )
    with client:
        for photo_id, url in _download_locations(workspace, source):
            checked.add(photo_id)
            if not hosts.is_user_host(urlsplit(url).hostname or ""):
                pacer.wait(source)
            if _is_gone(client, url):
                vanished.append(photo_id)
    return checked, vanished


def _download_locations(workspace: Workspace, source: str) -> Iterator[tuple[str, str]]:
    """Ids and URLs of the photographs of a source."""
    photos = Store(workspace, PHOTOS).read(["photo_id", "source", "download_location"])
    for row in photos.to_pylist():
        if row["source"] == source and row["download_location"]:
            yield row["photo_id"], row["download_location"]


def _is_gone(client: httpx.Client, url: str) -> bool:
    # Unsplash's image server finds some photographs only if the URL has a query.
    separator = "&" if "?" in url else "?"
    for variant in (url, f"{url}{separator}fit=max"):
        try:
            with (
                total_timeout(LOOK_UP_TIMEOUT_S),
                client.stream("GET", variant, headers={"Range": "bytes=0-0"}) as response,
            ):
                if response.status_code not in GONE_STATUS_CODES:
                    return False
        except (httpx.HTTPError, HostRefused):
            return False
    return True
