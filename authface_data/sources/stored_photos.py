"""What the workspace already holds of a source's files, so that a photograph keeps its id."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import pyarrow.compute as pc

from authface_data.sources.file_digests import FileDigests
from authface_data.sources.linked_files import read_links
from manifests.schema import PHOTOS, VERDICTS
from manifests.store import Store
from manifests.workspace import Workspace

COLLECT_GATE = "collect"


class StoredResult(NamedTuple):
    """The result of an earlier collection of one photograph."""

    fingerprint: str
    sha256: str | None
    """Hash of the photograph's file; None if it was dropped or failed."""


class StoredPhotos:
    """The results of earlier collections.

    Args:
        workspace: The workspace to read.
        digests: The digests of files.
    """

    def __init__(self, workspace: Workspace, digests: FileDigests) -> None:
        self.digests = digests
        self.results: dict[str, StoredResult] = {}
        """photo_id -> result."""
        self.linked_ids: dict[str, str] = {}
        """Path of an original -> id of the photograph that is a link to it."""

        verdicts = Store(workspace, VERDICTS).read(["id", "gate", "fingerprint"])
        verdicts = verdicts.filter(pc.equal(verdicts["gate"], COLLECT_GATE))
        for row in verdicts.to_pylist():
            self.results[row["id"]] = StoredResult(row["fingerprint"], None)
        photos = Store(workspace, PHOTOS).read(["photo_id", "fingerprint", "sha256"])
        for row in photos.to_pylist():
            self.results[row["photo_id"]] = StoredResult(row["fingerprint"], row["sha256"])
        for link in read_links(workspace):
            self.linked_ids[str(link.original)] = link.photo_id

    def __contains__(self, photo_id: object) -> bool:
        return photo_id in self.results

    def linked_id(self, path: Path) -> str | None:
        """Id of the photograph that is a link to a file, or None."""
        return self.linked_ids.get(os.path.abspath(path))

    def has_content(self, photo_id: str, path: Path) -> bool:
        """Whether a photograph that was collected has the content of a file.

        Args:
            photo_id: Id of the photograph.
            path: The file.

        Returns:
            False if the file cannot be read. True for a photograph that was dropped or failed,
            whose content is not known.
        """
        stored = self.results.get(photo_id)
        if stored is None:
            return False
        if stored.sha256 is None:
            return True
        try:
            # The workspace keeps copies without the place where they were taken.
            if stored.sha256 == self.digests.digest(path).sha256:
                return True
            return stored.sha256 == self.digests.blanked_sha256(path)
        except (OSError, ValueError):  # also a file whose metadata is refused
            return False
