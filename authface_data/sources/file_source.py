"""What the sources of files share: the search for image files, their options and the collection."""

from __future__ import annotations

import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, NamedTuple

from authface_data.engine import local
from authface_data.engine.stage import Chain
from authface_data.images.open import IMAGE_SUFFIXES
from authface_data.sources.protocol import (
    CollectReport,
    LicensedOptions,
    PhotoInput,
    RefreshReport,
    RunOptions,
    SourceOptions,
)
from authface_data.sources.refresh import find_vanished_files, record_vanished
from authface_data.sources.sidecars import Sidecars
from authface_data.sources.stage import CollectStage, FileMode, open_file
from manifests.schema import PHOTOS
from manifests.settings import SETTINGS_FILE
from manifests.store import Store
from manifests.support.errors import UserError
from manifests.tombstones import Tombstones
from manifests.workspace import Workspace

logger = logging.getLogger(__name__)


class ImageFile(NamedTuple):
    """An image file below a folder."""

    path: Path
    relative_path: str
    """Path within the folder, with forward slashes."""


def find_image_files(
    folder: Path, skipped: list[str], sidecars: Sidecars | None = None
) -> Iterator[ImageFile]:
    """Find the image files below a folder, in order of path.

    Links are followed, but no file or folder is visited twice. Hidden files and folders that are
    workspaces are left out.

    Args:
        folder: The folder to search.
        skipped: Receives a message for each folder that cannot be read.
        sidecars: Reads the CSV files of each folder before its images are yielded.

    Yields:
        The image files.

    Raises:
        UserError: If there is no such folder.
    """
    if not folder.is_dir():
        raise UserError(
            f"{folder} is no folder; --path takes the folder that holds the photographs"
        )

    visited_folders: set[str] = set()
    linked_files: set[Path] = set()
    real_top = Path(os.path.realpath(folder))
    tree = os.walk(folder, followlinks=True, onerror=lambda error: skipped.append(str(error)))
    for parent, subfolders, names in tree:
        real_parent = os.path.realpath(parent)
        if real_parent in visited_folders or SETTINGS_FILE in names:
            subfolders.clear()
            continue
        visited_folders.add(real_parent)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        if sidecars is not None:
            sidecars.read_tables(Path(parent), names)

        for name in sorted(names):
            path = Path(parent, name)
            if not _is_image_file(path):
                continue
            if path.is_symlink():
                target = Path(os.path.realpath(path))
                # A target below the folder is found under its own name.
                if target in linked_files or target.is_relative_to(real_top):
                    continue
                linked_files.add(target)
            yield ImageFile(path, path.relative_to(folder).as_posix())


def _is_image_file(path: Path) -> bool:
    is_hidden = path.name.startswith(".")
    return not is_hidden and path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()


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

    @abstractmethod
    def describe_photos(self) -> Iterator[PhotoInput]:
        """Describe each image file of the folder."""

    def photos(self) -> Iterator[PhotoInput]:
        """Describe the photographs of the folder; messages about unusable files go to `skipped`."""
        is_empty = True
        for photo in self.describe_photos():
            is_empty = False
            yield photo
        if is_empty:
            suffixes = ", ".join(IMAGE_SUFFIXES)
            raise UserError(f"no pictures in {self.options.path}; supported: {suffixes}")

    def collect(self, run: RunOptions) -> CollectReport:
        """Bring the photographs of the folder into the workspace."""
        tombstones = Tombstones(self.workspace)
        offered = list(self.photos())
        photos = [photo for photo in offered if not tombstones.contains(photo.photo_id)]
        for message in self.skipped:
            logger.warning("skipped: %s", message)
        unlicensed = self._without_licence_basis(photos)

        stage = CollectStage(
            self.name,
            self.options.licence_basis,
            file_mode=self.options.files,
            store_place=self.workspace.settings.collect.store_place,
            tombstones=tombstones,
        )
        outcomes = local.run_chain(
            self.workspace,
            Chain([stage], open_file),
            [(photo.photo_id, photo.as_row()) for photo in photos],
            title="collect",
            workers=run.workers,
            retry_failed=run.retry_failed,
            redo=run.redo,
        )
        stored_paths = Store(self.workspace, PHOTOS).read(["path"])["path"].to_pylist()
        self.workspace.remove_unlisted("photos", set(stored_paths))

        report = CollectReport(
            collected=outcomes.processed[stage.name],
            rejected=outcomes.dropped[stage.name],
            failed=outcomes.failed[stage.name],
            forgotten=len(offered) - len(photos),
            without_licence_basis=len(unlicensed),
        )
        report.already_present = len(photos) - report.collected - report.rejected - report.failed
        if self.options.files == "reference":
            report.vanished = self.refresh(self.workspace, wait=True).vanished
        return report

    def _without_licence_basis(self, photos: list[PhotoInput]) -> list[PhotoInput]:
        if self.options.licence_basis is not None:
            return []
        unlicensed = [photo for photo in photos if not photo.columns.get("licence_basis")]
        if unlicensed and self.requires_licence_basis:
            raise UserError(
                f"--licence-basis is required for --source {self.name}: {len(unlicensed)} of "
                f"{len(photos)} photographs have no licence_basis in a sidecar file (first: "
                f"{unlicensed[0].name}); give own, public-domain or other:TEXT"
            )
        return unlicensed

    @classmethod
    def refresh(cls, workspace: Workspace, wait: bool) -> RefreshReport:
        """Look up which linked originals were removed or changed."""
        checked, vanished = find_vanished_files(workspace)
        record_vanished(workspace, vanished, checked)
        return RefreshReport(len(checked), vanished)
