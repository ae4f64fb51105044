"""Collection of photographs behind URLs: gates, disk space, download and the collect stage."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Protocol
from urllib.parse import urlsplit

from authface_data.engine.run import run_chain
from authface_data.engine.stage import Chain
from authface_data.engine.worker import Task
from authface_data.http.download import (
    Downloaded,
    Downloader,
    DownloadJob,
    DownloadRefused,
    DownloadResult,
)
from authface_data.http.hosts import AllowedHosts
from authface_data.sources.protocol import (
    CollectReport,
    Flush,
    Offer,
    PhotoInput,
    RejectedPhoto,
    RunOptions,
    SourceOptions,
)
from authface_data.sources.rejections import METADATA_GATE, PREVIEW_GATE, RejectionLog
from authface_data.sources.stage import CollectStage, open_file
from manifests.missing_files import find_missing_keys, remove_unlisted_photos
from manifests.schema import PHOTOS, VERDICTS
from manifests.settings import Collect
from manifests.store import Store
from manifests.support.errors import UserError
from manifests.support.fingerprint import fingerprint, short_hash
from manifests.tombstones import Tombstones
from manifests.workspace import Workspace

logger = logging.getLogger(__name__)

DOWNLOADS_FOLDER = "cache/downloads"
CHUNK_PHOTOS = 1000
DEFAULT_BYTES_PER_PX = 0.45
"""Size of a camera's JPEG; a workspace with enough photographs uses its average instead."""
MIN_PHOTOS_FOR_AVERAGE = 20

SETTINGS_DEPENDENT_REASONS = ("too_large", "host_not_allowed", "not_https", "private_address")
"""Beginnings of reasons that other settings would lift: these photographs are tried again."""


@dataclass(frozen=True)
class SizeFilter:
    """The smallest photographs worth a download."""

    min_megapixels: float
    min_long_side_px: int


class RemoteOptions(SourceOptions):
    """Options of the sources on the web. None takes the value of `authface.toml`."""

    max_photos: int | None = None
    """Stop when this many of the photographs that the source offers are in the workspace."""
    min_megapixels: float | None = None
    min_long_side: int | None = None
    """Shortest longer side, px."""
    face_gate: bool | None = None
    """Download a photograph only if its preview shows a face."""
    plan: bool = False
    """Estimate the collection instead."""

    def size_filter(self, settings: Collect) -> SizeFilter:
        """The size filter of these options, completed by the workspace's settings.

        Args:
            settings: Section `collect` of the settings.
        """
        megapixels = self.min_megapixels
        long_side_px = self.min_long_side
        return SizeFilter(
            settings.min_megapixels if megapixels is None else megapixels,
            settings.min_long_side_px if long_side_px is None else long_side_px,
        )

    def uses_face_gate(self, settings: Collect) -> bool:
        """Whether previews are checked for faces.

        Args:
            settings: Section `collect` of the settings.
        """
        return settings.face_gate if self.face_gate is None else self.face_gate


class PhotoGate(Protocol):
    """Rejects photographs by a preview, before the full file is downloaded."""

    threshold: float
    """Recorded with each rejection; a rejection with another threshold is not final."""

    def rejections(self, photos: Sequence[PhotoInput]) -> Iterator[RejectedPhoto]:
        """Yield the photographs that do not pass."""
        ...


class RemoteCollector:
    """Brings the photographs that a source offers into the workspace, in chunks.

    Each chunk is committed before the next one starts.

    Args:
        workspace: The workspace to fill.
        source: Name of the source.
        hosts: The hosts that files may come from.
        run: Workers and retries.
        max_photos: Stop when this many of the offered photographs are in the workspace.
        preview_gate: Checks photographs before their download, if given.
    """

    def __init__(
        self,
        workspace: Workspace,
        source: str,
        hosts: AllowedHosts,
        run: RunOptions,
        *,
        max_photos: int | None = None,
        preview_gate: PhotoGate | None = None,
    ) -> None:
        self.workspace = workspace
        self.source = source
        self.hosts = hosts
        self.run = run
        self.preview_gate = preview_gate
        self.settings = workspace.settings.collect
        self.report = CollectReport()

        self._remaining = max_photos
        self._counted: set[str] = set()
        self._rejections = RejectionLog(workspace)
        self._tombstones = Tombstones(workspace)
        self._download_folder = workspace.local_cache.local_path(DOWNLOADS_FOLDER)
        self._download_folder.mkdir(parents=True, exist_ok=True)

        photos = Store(workspace, PHOTOS).read_pandas(
            ["photo_id", "source", "path", "bytes", "width", "height"]
        )
        paths = dict(zip(photos["photo_id"], photos["path"], strict=True))
        self._present: set[str] = set(paths) - find_missing_keys(workspace, paths)
        self._decided = self._load_decided()
        self._bytes_per_px = DEFAULT_BYTES_PER_PX
        from_source = photos[photos["source"] == source]
        if len(from_source) >= MIN_PHOTOS_FOR_AVERAGE:
            pixels = float((from_source["width"] * from_source["height"]).sum())
            self._bytes_per_px = float(from_source["bytes"].sum()) / pixels

    def _load_decided(self) -> set[str]:
        """Ids of photographs that were rejected or failed before and are not downloaded again."""
        verdicts = Store(self.workspace, VERDICTS).read_pandas(
            ["id", "gate", "verdict", "threshold", "reason"]
        )
        of_stage = verdicts[verdicts["gate"] == CollectStage.name]
        depends_on_settings = of_stage["reason"].str.startswith(
            SETTINGS_DEPENDENT_REASONS, na=False
        )
        final = of_stage[~depends_on_settings]
        if self.run.retry_failed:
            final = final[final["verdict"] != "failed"]
        decided = set(final["id"])

        if self.preview_gate is not None:
            is_same_gate = (verdicts["gate"] == PREVIEW_GATE) & (
                verdicts["threshold"] == self.preview_gate.threshold
            )
            decided |= set(verdicts[is_same_gate]["id"])
        return decided

    def collect(
        self, offers: Iterable[Offer], after_chunk: Callable[[], None] = lambda: None
    ) -> CollectReport:
        """Collect until the offers end or `max_photos` of them are in the workspace.

        Args:
            offers: The photographs that the source offers and the ones that it rejects.
            after_chunk: Called after each committed chunk.

        Returns:
            What became of the photographs.

        Raises:
            UserError: If there is not enough disk space.
        """
        chunk: dict[str, PhotoInput] = {}

        def collect_chunk() -> None:
            if chunk:
                self._collect_chunk(list(chunk.values()))
                chunk.clear()
                after_chunk()

        try:
            for offer in offers:
                if isinstance(offer, Flush):
                    collect_chunk()
                    continue
                if self._tombstones.contains(offer.photo_id):
                    self.report.forgotten += 1
                    continue
                self._accept(offer, chunk)
                if len(chunk) >= self._chunk_size():
                    collect_chunk()
                if self._remaining is not None and self._remaining <= 0:
                    break
            collect_chunk()
        finally:
            self._rejections.finish()
            self.report.rejected += self._rejections.counts.total()
        self._remove_leftovers()
        return self.report

    def _accept(self, offer: PhotoInput | RejectedPhoto, chunk: dict[str, PhotoInput]) -> None:
        """Count, record or queue one offer."""
        if offer.photo_id in self._present:
            self._count_existing(offer)
        elif isinstance(offer, RejectedPhoto):
            self._rejections.add(METADATA_GATE, offer)
        elif offer.photo_id not in self._decided:
            chunk[offer.photo_id] = offer

    def _count_existing(self, offer: PhotoInput | RejectedPhoto) -> None:
        """Count a photograph that is in the workspace, once.

        A photograph that would be rejected today stays in the workspace, but is not counted.
        """
        if isinstance(offer, PhotoInput) and offer.photo_id not in self._counted:
            self._counted.add(offer.photo_id)
            self.report.already_present += 1
            if self._remaining is not None:
                self._remaining -= 1

    def _chunk_size(self) -> int:
        if self._remaining is None:
            return CHUNK_PHOTOS
        return min(CHUNK_PHOTOS, max(self._remaining, 1))

    def _collect_chunk(self, photos: list[PhotoInput]) -> None:
        for photo in photos:
            self._rejections.mark_passed(METADATA_GATE, photo.photo_id)
        photos = self._pass_preview_gate(photos)
        if not photos:
            return
        self._check_disk_space(photos)

        stage = CollectStage(
            self.source, store_place=self.settings.store_place, tombstones=self._tombstones
        )
        prepared = [self._prepare(photo) for photo in photos]
        outcomes = run_chain(
            self.workspace,
            Chain([stage], open_file),
            [(photo.photo_id, photo.as_row()) for photo in prepared],
            title="download",
            engine=self.run.engine,
            retry_failed=self.run.retry_failed,
            redo=True,
            fetch=self._fetch,
        )

        ids = {photo.photo_id for photo in photos}
        stored_ids = Store(self.workspace, PHOTOS).read(["photo_id"])["photo_id"].to_pylist()
        collected = ids & set(stored_ids)
        self._present |= collected
        self._counted |= collected
        self._decided |= ids - collected

        processed = outcomes.processed[stage.name]
        self.report.collected += processed
        self.report.rejected += outcomes.dropped[stage.name]
        self.report.failed += outcomes.failed[stage.name]
        self.report.seconds += outcomes.seconds
        if self._remaining is not None:
            self._remaining -= processed
        for photo in photos:
            self._download_job(photo).target.unlink(missing_ok=True)

    def _pass_preview_gate(self, photos: list[PhotoInput]) -> list[PhotoInput]:
        """The photographs that pass the gate; the rejections of the others are committed."""
        rejected_ids: set[str] = set()
        if self.preview_gate is not None:
            for rejected in self.preview_gate.rejections(photos):
                self._rejections.add(PREVIEW_GATE, rejected)
                rejected_ids.add(rejected.photo_id)
            self._rejections.commit()

        passed = [photo for photo in photos if photo.photo_id not in rejected_ids]
        for photo in passed:
            self._rejections.mark_passed(PREVIEW_GATE, photo.photo_id)
        return passed

    def _prepare(self, photo: PhotoInput) -> PhotoInput:
        """Add name and fingerprint, which includes the settings that may reject the download."""
        parts = urlsplit(photo.url or "")
        settings = [self.settings.max_megabytes, sorted(self.settings.allowed_hosts)]
        return replace(
            photo,
            name=PurePosixPath(parts.path).name or photo.photo_id,
            fingerprint=fingerprint(file=f"{parts.hostname}{parts.path}", settings=settings),
            is_temporary=True,
        )

    def _fetch(self, tasks: list[Task]) -> Iterator[Task | None]:
        """Download the photographs of the tasks; yields each task when its download has ended."""
        tasks_by_id = {task.key: task for task in tasks}
        jobs = [self._download_job(task.row["photo"]) for task in tasks]
        with Downloader(self.settings, self.hosts) as downloader:
            for result in downloader.fetch_all(jobs, yield_while_waiting=True):
                if result is None:
                    yield None
                    continue
                task = tasks_by_id[result.job.key]
                photo = self._with_result(task.row["photo"], result)
                yield task._replace(row=photo.as_row())

    def _with_result(self, photo: PhotoInput, result: DownloadResult) -> PhotoInput:
        if isinstance(result, Downloaded):
            self.report.downloaded_bytes += result.bytes
            return replace(photo, file=str(result.job.target))
        if isinstance(result, DownloadRefused):
            return replace(photo, rejection=result.reason)
        return replace(photo, failure=result.message)

    def _download_job(self, photo: PhotoInput) -> DownloadJob:
        url = photo.url or ""
        target = self._download_folder / download_name(photo.photo_id, url)
        return DownloadJob(photo.photo_id, url, target)

    def _check_disk_space(self, photos: list[PhotoInput]) -> None:
        pixels = sum(photo.width * photo.height for photo in photos)
        expected_bytes = pixels * self._bytes_per_px
        free_bytes = shutil.disk_usage(self._download_folder).free
        logger.info(
            "%d photographs to download, about %.2f GB; %.0f GB of disk are free",
            len(photos),
            expected_bytes / 1e9,
            free_bytes / 1e9,
        )
        reserve_gb = self.settings.keep_free_gb
        if expected_bytes + reserve_gb * 1e9 > free_bytes:
            raise UserError(
                f"not enough disk space: the download needs about {expected_bytes / 1e9:.1f} GB "
                f"and {reserve_gb:g} GB must stay free (collect.keep_free_gb), but only "
                f"{free_bytes / 1e9:.1f} GB are free; free some space or use a smaller --max-photos"
            )

    def _remove_leftovers(self) -> None:
        """Remove finished downloads and photographs that belong to no row."""
        downloads = self.workspace.local_cache
        for name in downloads.list_names(DOWNLOADS_FOLDER):
            if not name.endswith((".part", ".json")):
                downloads.remove(f"{DOWNLOADS_FOLDER}/{name}")
        remove_unlisted_photos(self.workspace)


def download_name(photo_id: str, url: str) -> str:
    """The name of a file during its download.

    Args:
        photo_id: The photograph.
        url: Its URL.

    Returns:
        The id and a hash, which keeps ids apart that differ only by case.
    """
    return f"{photo_id}-{short_hash(photo_id + url)}"
