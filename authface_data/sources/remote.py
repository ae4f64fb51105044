"""Photographs behind URLs: the disk is looked at, previews are judged, files come in and go through the collecting stage."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from authface_data.engine import local
from authface_data.engine.stage import Chain
from authface_data.engine.worker import Task
from authface_data.http.download import Downloaded, Downloader, DownloadJob, DownloadRefused
from authface_data.http.hosts import AllowedHosts
from authface_data.sources.refusals import METADATA, PREVIEW, Refusals
from authface_data.sources.stage import CollectStage, open_file
from authface_data.sources.unsplash.preview import PreviewGate
from manifests.schema import PHOTOS, VERDICTS
from manifests.store import Store
from manifests.support.console import console
from manifests.support.errors import UserError
from manifests.support.fingerprint import fingerprint, short_hash
from manifests.tombstones import Tombstones
from manifests.workspace import Workspace

DOWNLOADS = "cache/downloads"
CHUNK = 1000
# An original JPEG of a camera; replaced by what this workspace's own photographs of the source take.
USUAL_BYTES_PER_PX = 0.45
# Refusals that other settings would lift.
BY_SETTINGS = ("too_large", "host_not_allowed", "not_https", "private_address")


@dataclass(frozen=True)
class Candidate:
    """A photograph that may be downloaded. columns: of `photos`, as its source tells them, `licence_basis` among them."""

    photo_id: str
    url: str
    width: int
    height: int
    columns: dict[str, Any]


@dataclass(frozen=True)
class Rejected:
    """A photograph that its source's own words rule out, with the reason."""

    photo_id: str
    reason: str
    value: float | None = None
    threshold: float | None = None


class Flush:
    """The source is about to wait: what was gathered can be downloaded meanwhile."""


Offer = Candidate | Rejected | Flush


@dataclass
class Tally:
    """What became of the photographs that a source offered."""

    collected: int = 0
    already: int = 0
    refused: int = 0
    failed: int = 0
    forgotten: int = 0
    bytes: int = 0
    seconds: float = 0.0

    def words(self) -> str:
        refused = f"{self.refused} refused (see authface status), " if self.refused else ""
        forgotten = (
            f"{self.forgotten} not taken since they were forgotten, " if self.forgotten else ""
        )
        speed = (
            f" ({self.bytes / 1e6:.1f} MB, {self.collected / self.seconds:.1f}/s)"
            if self.seconds and self.collected
            else ""
        )
        return f"{self.collected} photographs collected{speed}, {refused}{forgotten}{self.already} were there already"


class RemoteCollector:
    """Takes a source's offers into the workspace, in chunks, each committed before the next is begun."""

    def __init__(
        self,
        workspace: Workspace,
        source: str,
        hosts: AllowedHosts,
        *,
        max_photos: int | None = None,
        face_gate: bool = False,
        retry_failed: bool = False,
        workers: int | None = None,
    ):
        self.ws, self.source, self.hosts = workspace, source, hosts
        self.settings = workspace.settings.collect
        self.workers, self.retry_failed = workers, retry_failed
        self.left = max_photos
        self.tally = Tally()
        self._counted: set[str] = set()
        self.refusals = Refusals(workspace)
        self.preview = PreviewGate(workspace, hosts, self.refusals) if face_gate else None
        self.tombstones = Tombstones(workspace)
        self.folder = workspace.local(DOWNLOADS)
        self.folder.mkdir(parents=True, exist_ok=True)
        photos = (
            Store(workspace, PHOTOS)
            .read(["photo_id", "source", "bytes", "width", "height"])
            .to_pandas()
        )
        self.have: set[str] = set(photos["photo_id"])
        own = photos[photos["source"] == source]
        pixels = float((own["width"] * own["height"]).sum())
        self.bytes_per_px = (
            float(own["bytes"].sum()) / pixels if len(own) >= 20 else USUAL_BYTES_PER_PX
        )
        self.settled = self._judged()

    def _judged(self) -> set[str]:
        """Photographs that were downloaded and refused before, or failed, or whose preview was refused: not asked for again."""
        told = Store(self.ws, VERDICTS).read_pandas(
            ["id", "gate", "verdict", "threshold", "reason"]
        )
        own = told[
            (told["gate"] == CollectStage.name)
            & ~told["reason"].str.startswith(BY_SETTINGS, na=False)
        ]
        settled = set(own["id"] if not self.retry_failed else own[own["verdict"] != "failed"]["id"])
        if self.preview:
            seen = told[(told["gate"] == PREVIEW) & (told["threshold"] == self.preview.least_score)]
            settled |= set(seen["id"])
        return settled

    def take(self, offers: Iterable[Offer], after_chunk=lambda: None) -> Tally:
        """Collect what is offered, until it ends or `max_photos` of the offered are in the workspace.

        after_chunk: called when a chunk is committed. Raises UserError where the disk is too small.
        """
        batch: dict[str, Candidate] = {}

        def chunk() -> None:
            if batch:
                self._collect(list(batch.values()))
                batch.clear()
                after_chunk()

        try:
            for offer in offers:
                if isinstance(offer, Flush):
                    chunk()
                    continue
                if self.tombstones.holds(offer.photo_id):
                    self.tally.forgotten += 1
                    continue
                if offer.photo_id in self.have:
                    self._have(offer)
                elif isinstance(offer, Rejected):
                    self.refusals.refuse(
                        offer.photo_id, METADATA, offer.reason, offer.value, offer.threshold
                    )
                elif offer.photo_id not in self.settled:
                    batch[offer.photo_id] = offer
                if len(batch) >= (CHUNK if self.left is None else min(CHUNK, max(self.left, 1))):
                    chunk()
                if self.left is not None and self.left <= 0:
                    break
            chunk()
        finally:
            self.refusals.settle()
            self.tally.refused += self.refusals.count[METADATA] + self.refusals.count[PREVIEW]
        for name in self.ws.list(DOWNLOADS):
            if not name.endswith((".part", ".json")):
                self.ws.remove(f"{DOWNLOADS}/{name}")
        self.ws.remove_unlisted(
            "photos", set(Store(self.ws, PHOTOS).read(["path"])["path"].to_pylist())
        )
        return self.tally

    def _have(self, offer: Candidate | Rejected) -> None:
        """Count a photograph that is in the workspace, once; one that would be turned away today stays, uncounted."""
        if isinstance(offer, Candidate) and offer.photo_id not in self._counted:
            self._counted.add(offer.photo_id)
            self.tally.already += 1
            self.left = None if self.left is None else self.left - 1

    def _collect(self, candidates: list[Candidate]) -> None:
        for candidate in candidates:
            self.refusals.passed(candidate.photo_id, METADATA)
        if self.preview:
            candidates = self.preview.kept(candidates)
            self.refusals.commit()
        for candidate in candidates:
            self.refusals.passed(candidate.photo_id, PREVIEW)
        if not candidates:
            return
        self._check_disk(candidates)
        stage = CollectStage(
            self.source, store_place=self.settings.store_place, tombstones=self.tombstones
        )
        inputs = [(candidate.photo_id, self._row(candidate)) for candidate in candidates]
        outcomes = local.run_chain(
            self.ws,
            Chain([stage], open_file),
            inputs,
            title="download",
            workers=self.workers,
            retry_failed=self.retry_failed,
            redo=True,
            fetch=self._arrive,
        )
        ids = {candidate.photo_id for candidate in candidates}
        made = set(Store(self.ws, PHOTOS).read(["photo_id"])["photo_id"].to_pylist()) & ids
        self.have |= made
        self.settled |= ids - made
        self._counted |= made
        self.tally.collected += outcomes.processed[stage.name]
        self.tally.refused += outcomes.dropped[stage.name]
        self.tally.failed += outcomes.failed[stage.name]
        self.tally.seconds += outcomes.seconds
        if self.left is not None:
            self.left -= outcomes.processed[stage.name]
        for key, row in inputs:
            (self.folder / download_name(key, row["url"])).unlink(missing_ok=True)

    def _row(self, candidate: Candidate) -> dict[str, Any]:
        parts = urlsplit(candidate.url)
        name = PurePosixPath(parts.path).name or candidate.photo_id
        settings = [
            self.settings.max_megabytes,
            sorted(self.settings.allowed_hosts),
        ]  # what a refusal may rest on
        mark = fingerprint(file=f"{parts.hostname}{parts.path}", settings=settings)
        return {"name": name, "mark": mark, "url": candidate.url, "ours": True, **candidate.columns}

    def _arrive(self, tasks: list[Task]) -> Iterator[Task | None]:
        by_key = {key: (row, wanted) for key, row, wanted in tasks}
        jobs = [
            DownloadJob(key, row["url"], self.folder / download_name(key, row["url"]))
            for key, row, _ in tasks
        ]
        with Downloader(self.settings, self.hosts) as downloader:
            for result in downloader.fetch_all(jobs, yield_while_waiting=True):
                if result is None:
                    yield None
                    continue
                row, wanted = by_key[result.job.key]
                if isinstance(result, Downloaded):
                    self.tally.bytes += result.bytes
                    came = {"file": str(result.job.target)}
                elif isinstance(result, DownloadRefused):
                    came = {"refused": result.reason}
                else:
                    came = {"failed": result.message}
                yield result.job.key, {**row, **came}, wanted

    def _check_disk(self, candidates: list[Candidate]) -> None:
        expected = (
            sum(candidate.width * candidate.height for candidate in candidates) * self.bytes_per_px
        )
        free = shutil.disk_usage(self.folder).free
        console.print(
            f"{len(candidates)} to download, about {expected / 1e9:.2f} GB; {free / 1e9:.0f} GB of disk are free"
        )
        reserve = self.settings.keep_free_gb * 1e9
        if expected + reserve > free:
            raise UserError(
                f"not enough disk: about {expected / 1e9:.1f} GB would come, {free / 1e9:.1f} GB are free and "
                f"{self.settings.keep_free_gb:g} GB of them are to stay so (collect.keep_free_gb): make room or take fewer "
                "with --max-photos"
            )


def download_name(photo_id: str, url: str) -> str:
    """The name of a file on its way. The hash also tells ids apart that differ only by case."""
    return f"{photo_id}-{short_hash(photo_id + url)}"
