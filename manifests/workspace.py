"""The workspace: a directory that holds one data set. All its paths are made and committed here.

Paths are relative to the workspace and have forward slashes, as they are stored in the manifests.
Files are accessed through fsspec, so that a shared or object store can hold a workspace. Code that
needs real files, such as a training run, uses `Workspace.local_path`.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import socket
import uuid
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import fsspec
import psutil
from fsspec.implementations.local import LocalFileSystem

from manifests.lock import writer_lock
from manifests.settings import SETTINGS_FILE, Settings, load_settings
from manifests.support.errors import UserError
from manifests.support.files import (
    exclusive_access,
    explain_write_errors,
    link_new,
    sync_folder,
)
from manifests.support.fingerprint import short_hash
from manifests.support.parsing import MAX_TOML_BYTES
from manifests.support.text import strip_control

logger = logging.getLogger(__name__)

TEMP = ".tmp"
"""Folder of files that are being written."""
FORGETTING = ".forgetting.json"
"""Plan of a `forget` that is in progress or was interrupted."""
STRIP_FILE = "strip.jpg"
"""Overview of restored faces (degraded above restored) that `authface restore` writes."""
FOLDERS = ("photos", "faces", "manifests", "cache", "runs", "reports")

MAX_STEM_LENGTH = 200
"""File names may have 255 bytes; the rest is for the hash and the suffix."""
PICTURE_NAME = re.compile(r"(?P<stem>[A-Za-z0-9_-]+)-(?P<digest>[0-9a-f]{8})\.[a-z0-9]+")
"""Names of the files in `photos` and `faces`, see `Workspace.photo_path`."""
READ_BLOCK_BYTES = 1 << 20
FILES_OF_SYSTEMS = ("Thumbs.db", "desktop.ini")
"""Files that file managers leave in every folder that they show."""


class Workspace:
    """A directory with an `authface.toml`.

    Args:
        root: Path or fsspec URL of the directory.

    Raises:
        UserError: If the directory has no `authface.toml`.
    """

    def __init__(self, root: str | Path) -> None:
        self.fs, self.root = fsspec.core.url_to_fs(str(root))
        if not self.exists(SETTINGS_FILE):
            raise UserError(
                f"{root} is not a workspace: it has no {SETTINGS_FILE}; create one with "
                f"`authface init {root}`"
            )

    @classmethod
    def find(cls, option: str | Path | None) -> Workspace:
        """Find the workspace of a command.

        Args:
            option: The value of `--workspace`. Default: the environment variable
                AUTHFACE_WORKSPACE, else the nearest parent folder with an `authface.toml`.

        Raises:
            UserError: If no workspace is found.
        """
        root = option or os.environ.get("AUTHFACE_WORKSPACE")
        if root:
            return cls(root)
        current = Path.cwd()
        for folder in (current, *current.parents):
            if (folder / SETTINGS_FILE).is_file():
                return cls(folder)
        raise UserError(
            "no workspace in this folder or above it; pass -w DIR, set AUTHFACE_WORKSPACE, or "
            "create one with `authface init DIR`"
        )

    @classmethod
    def create(
        cls,
        root: str | Path,
        settings_toml: str,
        fill: Callable[[Workspace], None] = lambda workspace: None,
    ) -> Workspace:
        """Create the folders and write the settings.

        The settings come last: a directory without them is no workspace, so that creating it can
        be repeated after a crash.

        Args:
            root: Path or fsspec URL of the directory.
            settings_toml: Content of `authface.toml`.
            fill: Writes the first content of the workspace.

        Raises:
            UserError: If the directory is a workspace already.
        """
        fs, path = fsspec.core.url_to_fs(str(root))
        if fs.exists(f"{path}/{SETTINGS_FILE}"):
            raise UserError(
                f"{root} is a workspace already; edit its {SETTINGS_FILE}, or choose another "
                "directory"
            )
        settings_path = f"{path}/{SETTINGS_FILE}"
        with explain_write_errors(settings_path):
            for folder in FOLDERS:
                fs.makedirs(f"{path}/{folder}", exist_ok=True)
        workspace = cls.__new__(cls)  # __init__ requires the settings
        workspace.fs, workspace.root = fs, path
        fill(workspace)
        workspace.write_bytes(SETTINGS_FILE, settings_toml.encode())
        return workspace

    @cached_property
    def settings(self) -> Settings:
        """The settings in `authface.toml`."""
        content = self.read_bytes(SETTINGS_FILE, limit=MAX_TOML_BYTES + 1)
        return load_settings(content, f"{self.root}/{SETTINGS_FILE}")

    @property
    def weights_dir(self) -> str | None:
        """The setting `weights_dir`; a relative path starts at the workspace."""
        setting = self.settings.weights_dir
        return None if setting is None else str(Path(self.root, Path(setting).expanduser()))

    # Paths

    @staticmethod
    def photo_path(photo_id: str, sha256: str, suffix: str) -> str:
        """Path of a photograph's file.

        The name depends on the content, so an existing file never changes. Its hash also separates
        ids that differ only by case.

        Args:
            photo_id: Id of the photograph.
            sha256: Hash of the file.
            suffix: File name suffix with the dot.
        """
        return f"photos/{_picture_name(photo_id, sha256)}{suffix}"

    @staticmethod
    def crop_path(face_id: str, sha256: str, suffix: str = ".png") -> str:
        """Path of an aligned crop; the name depends on the content, as in `photo_path`.

        Args:
            face_id: Id of the face.
            sha256: Hash of the file.
            suffix: File name suffix with the dot.
        """
        return f"faces/{_picture_name(face_id, sha256)}{suffix}"

    @staticmethod
    def manifest_folder(name: str) -> str:
        """Folder of a manifest's parts."""
        return f"manifests/{name}"

    @property
    def is_local(self) -> bool:
        """Whether the workspace is on a local file system."""
        return isinstance(self.fs, LocalFileSystem)

    def local_path(self, path: str) -> Path:
        """Convert a path of the workspace to a path of the file system.

        Raises:
            UserError: If the workspace is not on a local file system.
        """
        if not self.is_local:
            raise UserError(
                f"{self.root} is not on a local file system, but this step needs real files; copy "
                "the workspace to a local disk"
            )
        return Path(self.root) / path

    def _full_path(self, path: str) -> str:
        return f"{self.root}/{path}"

    # Reading

    def exists(self, path: str) -> bool:
        """Whether a file or folder exists."""
        return self.fs.exists(self._full_path(path))

    def open(self, path: str) -> BinaryIO:
        """Open a file for reading bytes."""
        return self.fs.open(self._full_path(path), "rb")

    def read_bytes(self, path: str, limit: int | None = None) -> bytes:
        """Read a file.

        Args:
            path: The file to read.
            limit: Read at most this many bytes from its start. Default: the whole file.

        Returns:
            Its content.
        """
        return self.fs.cat_file(self._full_path(path), end=limit)

    def list_names(self, folder: str) -> list[str]:
        """List the names in a folder, sorted; a missing folder gives an empty list."""
        try:
            paths = self.fs.ls(self._full_path(folder), detail=False, refresh=True)
        except FileNotFoundError:
            return []
        return sorted(str(path).rsplit("/", 1)[-1] for path in paths)

    # Writing

    def write_bytes(self, path: str, data: bytes) -> None:
        """Commit a whole file.

        When the call returns the file is on the disk. After a crash it is complete or absent.

        Args:
            path: The file to write.
            data: Its content.

        Raises:
            UserError: If the disk is full or cannot be written.
        """
        with explain_write_errors(self._full_path(path)):
            if not self.is_local:
                self.fs.pipe_file(self._full_path(path), data)
                return
            temporary = self._write_temp(data)
            target = Path(self._full_path(path))
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(temporary, target)
            self._sync_folder(path)

    def create_exclusive(self, path: str, data: bytes) -> bool:
        """Write a file unless it exists.

        Args:
            path: The file to write.
            data: Its content.

        Returns:
            Whether this call wrote the file.

        Raises:
            UserError: If the disk is full or cannot be written.
        """
        full_path = self._full_path(path)
        try:
            with explain_write_errors(full_path):
                if self.is_local:
                    temporary = self._write_temp(data)
                    try:
                        is_new = link_new(temporary, Path(full_path))
                    finally:
                        temporary.unlink(missing_ok=True)
                    self._sync_folder(path)
                    return is_new
                with self.fs.open(full_path, "xb") as file:
                    file.write(data)
        except FileExistsError:
            return False
        return True

    def link(self, path: str, original: str, hard: bool) -> None:
        """Commit a link to an existing file.

        Args:
            path: The link to make.
            original: The existing file, a path of the file system.
            hard: Make a hard link; otherwise make a symbolic link.

        Raises:
            OSError: If the file system cannot make the link, such as a hard link to another one.
            UserError: If the workspace is not on a local file system, or if the disk is full.
        """
        target = self.local_path(path)
        with explain_write_errors(target):
            temporary = self._temp_path()
            if hard:
                os.link(os.path.realpath(original), temporary)
            else:
                temporary.symlink_to(os.path.abspath(original))
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(temporary, target)
            # os.replace does nothing if both names are hard links to the same file.
            temporary.unlink(missing_ok=True)
            self._sync_folder(path)

    def rename(self, old: str, new: str) -> None:
        """Rename a file and overwrite an existing one.

        A missing `old` is ignored: another process has renamed it.

        Args:
            old: The present path.
            new: The new path.
        """
        try:
            with explain_write_errors(self._full_path(new)):
                if self.is_local:
                    os.replace(self._full_path(old), self._full_path(new))
                    self._sync_folder(new)
                else:
                    self.fs.mv(self._full_path(old), self._full_path(new))
        except FileNotFoundError:
            return

    def remove(self, path: str) -> None:
        """Remove a file; a missing file is ignored."""
        try:
            self.fs.rm_file(self._full_path(path))
        except FileNotFoundError:
            return

    def remove_if_same(self, path: str, data: bytes) -> None:
        """Remove a file if its content is `data`. Processes of this host do so one at a time.

        Args:
            path: The file to remove.
            data: The expected content.
        """
        with self._exclusive_access():
            try:
                if self.read_bytes(path) == data:
                    self.remove(path)
            except FileNotFoundError:
                return

    def remove_unlisted(self, folder: str, keep: set[str], keep_ids: Collection[str] = ()) -> None:
        """Remove the files of `photos` or `faces` that no manifest row refers to.

        Only files that this workspace wrote are removed: their names contain a hash of their
        content. A warning names the others, which a person has put there.

        Args:
            folder: The folder to clean.
            keep: Paths of the files to keep.
            keep_ids: Photographs or faces whose files are kept too.
        """
        keep_stems = {_picture_stem(picture_id) for picture_id in keep_ids}
        foreign_names = []
        for name in self.list_names(folder):
            if f"{folder}/{name}" in keep:
                continue
            if name.rpartition("-")[0] in keep_stems:
                continue
            if self._is_own_picture(folder, name):
                self.remove(f"{folder}/{name}")
            elif not name.startswith(".") and name not in FILES_OF_SYSTEMS:
                foreign_names.append(name)
        if foreign_names:
            logger.warning(
                "%d files in %s are not from authface (%s%s); move them out of the workspace, and "
                "use `authface collect --path DIR` for photographs",
                len(foreign_names),
                self._full_path(folder),
                strip_control(foreign_names[0]),
                ", ..." if len(foreign_names) > 1 else "",
            )

    def _is_own_picture(self, folder: str, name: str) -> bool:
        """Whether a file in `photos` or `faces` has the name that this workspace gives it."""
        match = PICTURE_NAME.fullmatch(name)
        if match is None:
            return False
        path = f"{folder}/{name}"
        if self.is_local and self.local_path(path).is_symlink():
            return True  # The link can be removed: its target stays.
        try:
            digest = hashlib.sha256()
            with self.open(path) as file:
                while block := file.read(READ_BLOCK_BYTES):
                    digest.update(block)
        except OSError:
            return False
        return name.startswith(_picture_name(match["stem"], digest.hexdigest()))

    def empty_temp(self) -> None:
        """Remove unfinished files of this host's dead processes.

        Files of living processes are kept: a training run writes without holding the lock.
        """
        if not self.is_local:
            return
        for name in self.list_names(TEMP):
            host, _, pid = name.rpartition(".")[0].rpartition(".")
            is_pid = pid.isdecimal() and len(pid) < 10
            if host == socket.gethostname() and is_pid and not psutil.pid_exists(int(pid)):
                self.remove(f"{TEMP}/{name}")

    @contextmanager
    def _exclusive_access(self) -> Iterator[None]:
        """Lock the directory against other processes of this host, for a moment."""
        if not self.is_local:
            yield
            return
        with exclusive_access(self.root):
            yield

    def _temp_path(self) -> Path:
        folder = Path(self._full_path(TEMP))
        folder.mkdir(exist_ok=True)
        return folder / f"{socket.gethostname()}.{os.getpid()}.{uuid.uuid4().hex}"

    def _write_temp(self, data: bytes) -> Path:
        temporary = self._temp_path()
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        return temporary

    def _sync_folder(self, path: str) -> None:
        """Flush the folder of a file to the disk, so that a rename survives a crash."""
        sync_folder(Path(self._full_path(path)).parent)

    # Locking

    def lock(self, command: str) -> AbstractContextManager[None]:
        """Hold the workspace for writing, see `manifests.lock.writer_lock`.

        Raises:
            UserError: If another process writes, or a `forget` was interrupted.
        """
        if command != "forget":
            self.check_no_interrupted_forget()
        return writer_lock(self, command)

    def check_no_interrupted_forget(self) -> None:
        """Refuse to work on a workspace from which photographs are partly removed.

        Raises:
            UserError: If a `forget` was interrupted.
        """
        if self.exists(FORGETTING):
            raise UserError(
                f"a forget was interrupted in {self.root}; finish it with `authface forget --yes`"
            )


def _picture_stem(picture_id: str) -> str:
    """The id of a picture in file names; a very long id is shortened."""
    if len(picture_id) <= MAX_STEM_LENGTH:
        return picture_id
    return f"{picture_id[: MAX_STEM_LENGTH - 9]}-{short_hash(picture_id)}"


def _picture_name(picture_id: str, sha256: str) -> str:
    """Name of a picture without its suffix."""
    stem = _picture_stem(picture_id)
    return f"{stem}-{short_hash(stem + sha256)}"
