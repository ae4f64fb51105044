"""Files of the workspace that rows name but that are gone.

Files vanish when a folder is cleaned up by hand, a disk is restored in part, or the originals of
linked photographs (`--files reference`) are moved. Every command that needs such files checks them
here before it starts.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from manifests.schema import FACES, PHOTOS, Manifest
from manifests.store import Store
from manifests.support.errors import UserError
from manifests.support.text import count_of
from manifests.workspace import Workspace

KeyT = TypeVar("KeyT", str, int)

PATH_COLUMNS = {PHOTOS.name: "path", FACES.name: "crop_path"}
"""Manifest -> the column with the path of a row's file, for the manifests that have files."""

MAX_SINGLE_CHECKS = 1000
"""Up to so many files on a disk are looked for one by one: a folder may have a million names."""
MAX_NAMED = 3
"""Number of ids that a message names."""


@dataclass(frozen=True)
class MissingFiles:
    """What a workspace lacks.

    Attributes:
        photo_ids: Photographs without a file, those with a broken link included.
        broken_links: Photographs that are links to an original that is gone.
        face_ids: Faces without a crop.
    """

    photo_ids: list[str]
    broken_links: list[str]
    face_ids: list[str]


def find_missing_files(workspace: Workspace) -> MissingFiles:
    """Compare the rows of `photos` and `faces` with the files of the workspace."""
    photo_paths = _paths_by_id(workspace, PHOTOS)
    absent = find_missing_keys(workspace, photo_paths)
    all_missing = find_missing_keys(workspace, photo_paths, count_broken_links=True)
    crop_paths = _paths_by_id(workspace, FACES)
    return MissingFiles(
        photo_ids=sorted(all_missing),
        broken_links=sorted(all_missing - absent),
        face_ids=sorted(find_missing_keys(workspace, crop_paths)),
    )


def find_missing_keys(
    workspace: Workspace, paths: Mapping[KeyT, str | None], *, count_broken_links: bool = False
) -> set[KeyT]:
    """Find the keys whose file is missing. Every folder is listed once, unless there are few paths.

    Args:
        workspace: The workspace.
        paths: Key -> path in the workspace; a key without a path is never missing.
        count_broken_links: Whether a link to an original that is gone counts as missing.

    Returns:
        The keys whose file is missing.
    """
    if workspace.is_local and len(paths) <= MAX_SINGLE_CHECKS:
        is_present = os.path.exists if count_broken_links else os.path.lexists
        return {
            key
            for key, path in paths.items()
            if path and not is_present(workspace.local_path(path))
        }

    present: dict[str, set[str]] = {}
    missing = set()
    for key, path in paths.items():
        if not path:
            continue
        folder, _, name = path.rpartition("/")
        if folder not in present:
            present[folder] = set(workspace.list_names(folder))
            if count_broken_links:
                present[folder] -= _broken_links(workspace, folder)
        if name not in present[folder]:
            missing.add(key)
    return missing


def require_crops(workspace: Workspace, crop_paths: Mapping[str, str]) -> None:
    """Check that the crops of faces exist.

    Args:
        workspace: The workspace.
        crop_paths: face_id -> path of the crop.

    Raises:
        UserError: If a crop is missing. The message names faces and the command that repairs.
    """
    message = describe_missing_crops(workspace, crop_paths)
    if message is not None:
        raise UserError(message)


def describe_missing_crops(workspace: Workspace, crop_paths: Mapping[str, str]) -> str | None:
    """Name the faces whose crop is missing, and the command that repairs.

    Args:
        workspace: The workspace.
        crop_paths: face_id -> path of the crop.

    Returns:
        One line, or None if no crop is missing.
    """
    face_ids = find_missing_keys(workspace, crop_paths)
    if not face_ids:
        return None
    faces = Store(workspace, FACES).read(["face_id", "photo_id"]).to_pylist()
    photo_ids = {face["photo_id"] for face in faces if face["face_id"] in face_ids}
    photo_paths = _paths_by_id(workspace, PHOTOS)
    lost_photo_ids = photo_ids - photo_paths.keys()
    lost_photo_ids |= photo_ids & find_missing_keys(workspace, photo_paths, count_broken_links=True)
    problem = f"the crops of {count_of(len(face_ids), 'face')} are missing ({name_some(face_ids)})"
    if lost_photo_ids:
        return (
            f"{problem}, and so are {len(lost_photo_ids)} of their photographs "
            f"({name_some(lost_photo_ids)}); offer these again with `authface collect`, then run "
            "`authface filter`"
        )
    return f"{problem}; run `authface filter` to make them again"


def require_photo_rows(face_photo_ids: Iterable[str], known_photo_ids: Collection[str]) -> None:
    """Check that the photographs of faces have rows. Rows vanish with a damaged part of `photos`.

    Args:
        face_photo_ids: Photographs of faces.
        known_photo_ids: Photographs that have a row.

    Raises:
        UserError: If a photograph of a face has no row.
    """
    unknown = {photo_id for photo_id in face_photo_ids if photo_id not in known_photo_ids}
    if unknown:
        raise UserError(
            f"no row in the manifest photos for {count_of(len(unknown), 'photograph')} of faces "
            f"({name_some(unknown)}); offer them again with `authface collect`"
        )


def remove_unlisted_photos(workspace: Workspace) -> None:
    """Remove the files in `photos` that no row refers to, such as those that a kill left behind.

    Files of photographs that have faces are kept: their rows were lost with a damaged part.

    Args:
        workspace: The workspace to write.
    """
    paths = _paths_by_id(workspace, PHOTOS)
    face_photo_ids = Store(workspace, FACES).distinct("photo_id")
    workspace.remove_unlisted(
        "photos", {path for path in paths.values() if path}, face_photo_ids - paths.keys()
    )


def name_some(ids: Collection[str]) -> str:
    """The first ids in order, and how many more there are, such as "a, b, c and 4 more"."""
    text = ", ".join(sorted(ids)[:MAX_NAMED])
    num_more = len(ids) - MAX_NAMED
    return f"{text} and {num_more} more" if num_more > 0 else text


def _paths_by_id(workspace: Workspace, manifest: Manifest) -> dict[str, str | None]:
    """Key -> path of the file, for every row of a manifest that has files."""
    key = manifest.key[0]
    column = PATH_COLUMNS[manifest.name]
    rows = Store(workspace, manifest).read([key, column])
    return dict(zip(rows[key].to_pylist(), rows[column].to_pylist(), strict=True))


def _broken_links(workspace: Workspace, folder: str) -> set[str]:
    """Names of the links in a folder whose target is gone."""
    if not workspace.is_local or not workspace.exists(folder):
        return set()
    with os.scandir(workspace.local_path(folder)) as entries:
        return {
            entry.name for entry in entries if entry.is_symlink() and not os.path.exists(entry.path)
        }
