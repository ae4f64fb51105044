"""What the sources of files share: the search for image files, their options and the collection."""

from __future__ import annotations

import logging
import os
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from authface_data.engine.run import run_chain
from authface_data.engine.stage import Chain, expected_fingerprints
from authface_data.images.open import IMAGE_SUFFIXES
from authface_data.sources.file_digests import FileDigests
from authface_data.sources.image_files import (
    ImageFile,
    TableReader,
    find_image_files,
    path_text,
)
from authface_data.sources.linked_files import check_links, read_links, repair_links
from authface_data.sources.protocol import (
    CollectReport,
    LicensedOptions,
    PhotoInput,
    RefreshReport,
    RunOptions,
    SourceOptions,
)
from authface_data.sources.refresh import record_lost_originals
from authface_data.sources.skipped_files import describe_skipped, store_skipped
from authface_data.sources.stage import CollectStage, FileMode, open_file
from authface_data.sources.stored_photos import COLLECT_GATE, StoredPhotos
from manifests.missing_files import remove_unlisted_photos
from manifests.schema import VERDICTS
from manifests.store import Store
from manifests.support.errors import PartialFailureError, UserError
from manifests.support.progress import ProgressBar
from manifests.support.text import count_of
from manifests.tombstones import Tombstones
from manifests.workspace import Workspace

logger = logging.getLogger(__name__)

MIN_FILES_WITH_PROGRESS = 1000
"""Fewer files are read without a progress bar."""
SAVE_INTERVAL_S = 30.0
"""How often the digests of a large folder are stored while it is read."""


@dataclass(frozen=True)
class SourceFile:
    """An image file of a source.

    Attributes:
        path: Where it is.
        relative_path: Path within the source's folder, with forward slashes.
        size: Number of bytes.
        mtime_ns: Time of the last change.
        sha256: Hash of the content, or None if the file cannot be read or is too large.
    """

    path: Path
    relative_path: str
    size: int
    mtime_ns: int
    sha256: str | None


class FileOptions(LicensedOptions):
    """Options of the sources of files."""

    path: Path
    """The folder that holds the photographs."""
    files: FileMode = "copy"
    """How the workspace keeps the files."""


class FileSource(ABC):
    """Base of the sources whose photographs are files in a folder.

    Args:
        workspace: The workspace to fill.
        options: Where the photographs are, and how they are kept.
    """

    name: ClassVar[str]
    options_model: ClassVar[type[SourceOptions]] = FileOptions
    requires_licence_basis: ClassVar[bool] = False
    """Refuse the collection if a photograph has no licence basis, instead of a warning."""

    def __init__(self, workspace: Workspace, options: FileOptions) -> None:
        self.workspace = workspace
        self.options = options
        self.skipped: list[str] = []
        """Messages about files, folders and metadata that `photos` could not use."""
        self.ignored: Counter[str] = Counter()
        """Suffix -> number of files that are no pictures."""
        self.superseded_ids: set[str] = set()
        """Ids under which files failed that could not be read, and can be read now."""
        self.notes: list[str] = []
        """Further results, one line each."""
        self.digests = FileDigests(workspace)
        self._tombstones = Tombstones(workspace)

    @abstractmethod
    def describe_photos(self) -> Iterator[PhotoInput]:
        """Describe each image file of the folder."""

    def table_reader(self) -> TableReader | None:
        """Reads the tables of each folder while the files are listed."""
        return None

    @cached_property
    def files(self) -> list[SourceFile]:
        """The image files of the folder, all read once; messages about others go to `skipped`.

        Raises:
            UserError: If there is no such folder, or if it is in the workspace.
        """
        self._check_outside_workspace()
        image_files = list(
            find_image_files(
                self.options.path,
                self.skipped,
                tables=self.table_reader(),
                ignored=self.ignored,
                exclude=self._local_root(),
            )
        )
        files = []
        last_save = time.monotonic()
        has_progress = len(image_files) >= MIN_FILES_WITH_PROGRESS
        with ProgressBar("read", len(image_files), "files", enabled=has_progress) as progress:
            for image_file in image_files:
                file = self._read(image_file)
                if file is not None:
                    files.append(file)
                if time.monotonic() - last_save > SAVE_INTERVAL_S:
                    self.digests.save(self._tombstones.contains)
                    last_save = time.monotonic()
                progress.advance()
        return files

    def _read(self, image_file: ImageFile) -> SourceFile | None:
        """Look up or compute the digest of a file. None if the file was removed meanwhile."""
        path = image_file.path
        sha256 = None
        # The collect stage drops larger files, and reading one could take hours.
        memory_limit_bytes = self.workspace.settings.limits.picture_gb * 1e9
        try:
            status = path.stat()
        except OSError as error:
            self.skipped.append(f"{path_text(path)} cannot be read: {error.strerror}")
            return None
        try:
            if status.st_size <= memory_limit_bytes:
                sha256 = self.digests.digest(path).sha256
        except FileNotFoundError:
            self.skipped.append(f"{path_text(path)} was removed while the folder was read")
            return None
        except OSError as error:
            # The collect stage records the failure.
            logger.debug("%s cannot be read: %s", path_text(path), error.strerror)
        return SourceFile(
            path, image_file.relative_path, status.st_size, status.st_mtime_ns, sha256
        )

    @cached_property
    def stored(self) -> StoredPhotos:
        """What earlier collections have stored."""
        return StoredPhotos(self.workspace, self.digests)

    def photos(self) -> Iterator[PhotoInput]:
        """Describe the photographs of the folder; messages about unusable files go to `skipped`."""
        is_empty = True
        for photo in self.describe_photos():
            is_empty = False
            yield photo
        if is_empty:
            folder = path_text(self.options.path)
            message = f"no pictures in {folder}; supported: {', '.join(IMAGE_SUFFIXES)}"
            if self.ignored:
                message += f". Skipped: {describe_skipped(self.ignored)}"
            raise UserError(message)

    def collect(self, run: RunOptions) -> CollectReport:
        """Bring the photographs of the folder into the workspace."""
        if self.options.files != "copy" and not self.workspace.is_local:
            raise UserError(
                f"--files {self.options.files} needs a workspace in a folder: an object store has "
                "no links; use --files copy"
            )
        links_files = self.options.files == "reference"
        files = self.files if os.path.isdir(self.options.path) else []
        store_skipped(self.workspace, self.options.path, self.ignored)
        repaired = self._repair_links(files) if links_files else set()
        offered = list(self.photos())
        self._remember_digests(offered)
        for message in self.skipped:
            logger.warning("skipped: %s", message)
        known = [photo for photo in offered if not self._tombstones.contains(photo.photo_id)]
        # A repaired photograph is as it was; its licence basis need not be given again.
        photos = [photo for photo in known if photo.photo_id not in repaired]
        unlicensed = self._without_licence_basis(photos)

        stage = CollectStage(
            self.name,
            self.options.licence_basis,
            file_mode=self.options.files,
            store_place=self.workspace.settings.collect.store_place,
            tombstones=self._tombstones,
        )
        photos = self._keep_earlier_fingerprints(stage, photos)
        outcomes = run_chain(
            self.workspace,
            Chain([stage], open_file),
            [(photo.photo_id, photo.as_row()) for photo in photos],
            title="collect",
            engine=run.engine,
            retry_failed=run.retry_failed,
            redo=run.redo,
        )
        self._remove_superseded_failures()
        remove_unlisted_photos(self.workspace)

        report = CollectReport(
            collected=outcomes.processed[stage.name],
            rejected=outcomes.dropped[stage.name],
            failed=outcomes.failed[stage.name],
            forgotten=len(offered) - len(known),
            without_licence_basis=len(unlicensed),
            notes=self.notes,
        )
        report.already_present = len(known) - report.collected - report.rejected - report.failed
        if repaired:
            report.notes.append(f"{len(repaired)} links repaired")
        if self.ignored:
            report.notes.append(f"skipped: {describe_skipped(self.ignored)}")
        if links_files:
            refreshed = self.refresh(self.workspace, wait=True)
            report.notes += refreshed.notes
            report.error = refreshed.error
        return report

    def _local_root(self) -> Path | None:
        return self.workspace.local_path("") if self.workspace.is_local else None

    def _check_outside_workspace(self) -> None:
        root = self._local_root()
        if root is not None:
            folder = Path(os.path.realpath(self.options.path))
            if folder.is_relative_to(os.path.realpath(root)):
                raise UserError(
                    f"--path {path_text(self.options.path)} is inside the workspace, which holds "
                    "what was collected; give the folder of the original photographs"
                )

    def _repair_links(self, files: list[SourceFile]) -> set[str]:
        """Link photographs anew whose originals are lost, if the folder has the same content.

        Returns their ids. Raises PartialFailureError if originals are missing and the folder has no
        pictures at all.
        """
        check = check_links(read_links(self.workspace), self.digests)
        if check.missing and not files:
            raise PartialFailureError(
                f"{path_text(self.options.path)} has no pictures, and {check.missing_message()}"
            )
        contents = {file.path: file.sha256 for file in files if file.sha256 is not None}
        return repair_links(self.workspace, [*check.missing, *check.changed], contents)

    def _remember_digests(self, photos: list[PhotoInput]) -> None:
        """Store the digests of the folder's files, with the ids of their photographs."""
        for photo in photos:
            assert photo.file is not None
            self.digests.set_photo_id(Path(photo.file), photo.photo_id)
        self.digests.save(self._tombstones.contains, self.options.path)

    def _keep_earlier_fingerprints(
        self, stage: CollectStage, photos: list[PhotoInput]
    ) -> list[PhotoInput]:
        """Recognise results of earlier versions of authface, which are up to date too."""
        earlier = expected_fingerprints(
            stage,
            [(photo.photo_id, {"fingerprint": photo.earlier_fingerprint}) for photo in photos],
        )
        kept = []
        for photo in photos:
            result = self.stored.results.get(photo.photo_id)
            if result is not None and result.fingerprint == earlier[photo.photo_id]:
                assert photo.file is not None
                if self.stored.has_content(photo.photo_id, Path(photo.file)):
                    photo = replace(photo, fingerprint=photo.earlier_fingerprint)
            kept.append(photo)
        return kept

    def _remove_superseded_failures(self) -> None:
        """Remove failures of files that could not be read and have other ids now."""
        if not self.superseded_ids:
            return
        ids = pa.array(sorted(self.superseded_ids), pa.string())

        def is_superseded(part: pa.Table) -> pa.Array:
            return pc.and_(pc.equal(part["gate"], COLLECT_GATE), pc.is_in(part["id"], ids))

        Store(self.workspace, VERDICTS).compact(is_superseded)

    def _without_licence_basis(self, photos: list[PhotoInput]) -> list[PhotoInput]:
        if self.options.licence_basis is not None:
            return []
        unlicensed = [photo for photo in photos if not photo.columns.get("licence_basis")]
        if unlicensed and self.requires_licence_basis:
            raise UserError(
                f"--licence-basis is required for --source {self.name}: {len(unlicensed)} of "
                f"{count_of(len(photos), 'photograph')} without licence_basis in a sidecar file (first: "
                f"{path_text(unlicensed[0].name)}); give own, public-domain or other:TEXT"
            )
        return unlicensed

    @classmethod
    def refresh(cls, workspace: Workspace, wait: bool) -> RefreshReport:
        """Look up which linked originals are missing or have changed, and record them."""
        check = check_links(read_links(workspace), FileDigests(workspace))
        record_lost_originals(workspace, check.reasons(), check.checked)
        error = PartialFailureError(check.missing_message()) if check.missing else None
        notes = [check.changed_message()] if check.changed else []
        return RefreshReport(len(check.checked), [], error, notes=notes)
