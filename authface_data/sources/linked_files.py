"""Photographs that are links to their originals (`--files reference`): lost and repaired links."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from authface_data.sources.file_digests import FileDigests
from authface_data.sources.image_files import path_text
from manifests.schema import PHOTOS
from manifests.store import Store
from manifests.workspace import Workspace

MISSING = "its original is missing (drive unplugged or folder moved?)"
CHANGED = "its original has changed since it was collected"


@dataclass(frozen=True)
class LinkedPhoto:
    """A photograph whose file in the workspace is a link.

    Attributes:
        photo_id: Its id.
        source: Name of its source.
        path: Path of the link in the workspace.
        original: Where the link leads to.
        sha256: Hash of the original when it was collected.
    """

    photo_id: str
    source: str
    path: str
    original: Path
    sha256: str


@dataclass(frozen=True)
class LinkCheck:
    """The linked photographs of a workspace, and those whose original is not as it was.

    Attributes:
        checked: Ids of all linked photographs.
        missing: Those whose original is missing or cannot be read.
        changed: Those whose original has another content now.
    """

    checked: set[str] = field(default_factory=set)
    missing: list[LinkedPhoto] = field(default_factory=list)
    changed: list[LinkedPhoto] = field(default_factory=list)

    def reasons(self) -> dict[str, str]:
        """Id of each lost photograph -> what happened to its original."""
        missing = {photo.photo_id: MISSING for photo in self.missing}
        return missing | {photo.photo_id: CHANGED for photo in self.changed}

    def missing_message(self) -> str:
        """How many originals are missing, and how to repair the links."""
        first = self.missing[0]
        return (
            f"the originals of {len(self.missing)} linked photographs are missing (first: "
            f"{path_text(first.original)}): is a drive unplugged, or was the folder moved? Plug it "
            f"in, or run `authface collect --source {first.source} --path NEW_FOLDER --files "
            "reference` with the present folder"
        )

    def changed_message(self) -> str:
        """How many originals have changed."""
        return (
            f"the originals of {len(self.changed)} linked photographs have changed since they were "
            f"collected (first: {path_text(self.changed[0].original)}); `authface status` counts "
            "them, and collecting their folder again takes the new pictures"
        )


def read_links(workspace: Workspace) -> list[LinkedPhoto]:
    """Read which photographs of a workspace are links to an original."""
    if not workspace.is_local:
        return []
    links = []
    columns = ["photo_id", "source", "path", "sha256"]
    for row in Store(workspace, PHOTOS).read(columns).to_pylist():
        link = workspace.local_path(row["path"])
        if link.is_symlink():
            links.append(LinkedPhoto(original=Path(os.readlink(link)), **row))
    return links


def check_links(links: Collection[LinkedPhoto], digests: FileDigests) -> LinkCheck:
    """Look up whether the originals of linked photographs are still there.

    Args:
        links: The linked photographs.
        digests: The digests of files, which save reading an original again.
    """
    check = LinkCheck()
    for photo in links:
        check.checked.add(photo.photo_id)
        try:
            sha256 = digests.digest(photo.original).sha256
        except OSError:
            check.missing.append(photo)
            continue
        if sha256 != photo.sha256:
            check.changed.append(photo)
    return check


def repair_links(
    workspace: Workspace, lost: Collection[LinkedPhoto], files: Mapping[Path, str]
) -> set[str]:
    """Link photographs to files with the content of their lost originals.

    Of several files with the same content, the one whose path ends most like that of the original
    is taken.

    Args:
        workspace: The workspace.
        lost: Photographs whose original is missing or has changed.
        files: Path -> SHA-256 of the files that may take the place of originals.

    Returns:
        Ids of the photographs whose links were repaired.
    """
    paths_by_content: dict[str, list[Path]] = {}
    for path, sha256 in files.items():
        paths_by_content.setdefault(sha256, []).append(path)

    repaired = set()
    for photo in lost:
        paths = paths_by_content.get(photo.sha256)
        if paths:
            best = max(paths, key=lambda path: _common_end(path, photo.original))
            workspace.link(photo.path, str(best), hard=False)
            repaired.add(photo.photo_id)
    return repaired


def _common_end(path: Path, other: Path) -> int:
    """Number of names that two paths have in common at their ends."""
    pairs = zip(reversed(path.parts), reversed(other.parts), strict=False)
    num_common = 0
    for name, other_name in pairs:
        if name != other_name:
            break
        num_common += 1
    return num_common
