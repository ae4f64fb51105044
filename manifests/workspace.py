"""The workspace: one directory that holds one data set. Every path in it is made, read and committed here.

Paths handed around are relative, with forward slashes, as they stand in the manifests. fsspec lies underneath, so that
a shared or object store can hold a workspace; what needs a real file (a trainer's run) asks for `local`.
"""

from __future__ import annotations

import fcntl
import os
import socket
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import fsspec
import psutil
from fsspec.implementations.local import LocalFileSystem

from manifests.lock import writer_lock
from manifests.settings import SETTINGS_FILE, Settings, load_settings
from manifests.support.errors import UserError
from manifests.support.fingerprint import short_hash

TEMP = ".tmp"
FORGETTING = ".forgetting.json"
FOLDERS = ("photos", "faces", "manifests", "cache", "runs", "reports")


class Workspace:
    """A directory with `authface.toml` in it. Raises UserError where there is none."""

    def __init__(self, root: str | Path):
        self.fs, self.root = fsspec.core.url_to_fs(str(root))
        if not self.exists(SETTINGS_FILE):
            raise UserError(
                f"{root} is no workspace (no {SETTINGS_FILE}): make one with `authface init {root}`"
            )

    @classmethod
    def find(cls, option: str | Path | None) -> Workspace:
        """The workspace named by `--workspace`, else by AUTHFACE_WORKSPACE, else the nearest parent folder that is one."""
        named = option or os.environ.get("AUTHFACE_WORKSPACE")
        if named:
            return cls(named)
        here = Path.cwd()
        for folder in (here, *here.parents):
            if (folder / SETTINGS_FILE).is_file():
                return cls(folder)
        raise UserError(
            "no workspace here: name one with -w DIR or AUTHFACE_WORKSPACE, or make one with `authface init DIR`"
        )

    @classmethod
    def create(cls, root: str | Path, settings_toml: str) -> Workspace:
        """Make the folders and write the settings. Raises UserError where a workspace is already."""
        fs, path = fsspec.core.url_to_fs(str(root))
        if fs.exists(f"{path}/{SETTINGS_FILE}"):
            raise UserError(
                f"{root} is a workspace already: edit {SETTINGS_FILE} there, or choose another directory"
            )
        for folder in FOLDERS:
            fs.makedirs(f"{path}/{folder}", exist_ok=True)
        fs.pipe_file(f"{path}/{SETTINGS_FILE}", settings_toml.encode())
        return cls(root)

    @cached_property
    def settings(self) -> Settings:
        return load_settings(self.read_bytes(SETTINGS_FILE), f"{self.root}/{SETTINGS_FILE}")

    @property
    def weights_dir(self) -> str | None:
        """The setting of that name; a relative one begins at the workspace."""
        named = self.settings.weights_dir
        return None if named is None else str(Path(self.root, Path(named).expanduser()))

    # What lies where

    @staticmethod
    def photo_path(photo_id: str, sha256: str, suffix: str) -> str:
        """Where a photograph is kept, named by its content, so that a file that is there never changes.

        The hash also tells ids apart that differ only by case.
        """
        return f"photos/{photo_id}-{short_hash(photo_id + sha256)}{suffix}"

    @staticmethod
    def crop_path(face_id: str, sha256: str, suffix: str = ".png") -> str:
        """Where an aligned crop is kept, likewise."""
        return f"faces/{face_id}-{short_hash(face_id + sha256)}{suffix}"

    @staticmethod
    def manifest_folder(name: str) -> str:
        return f"manifests/{name}"

    # Files

    @property
    def is_local(self) -> bool:
        return isinstance(self.fs, LocalFileSystem)

    def local(self, path: str) -> Path:
        """The real file behind a path. Raises UserError where the workspace is not on a file system."""
        if not self.is_local:
            raise UserError(
                f"{self.root} is not on a local file system, and this step needs real files"
            )
        return Path(self.root) / path

    def _full(self, path: str) -> str:
        return f"{self.root}/{path}"

    def exists(self, path: str) -> bool:
        return self.fs.exists(self._full(path))

    def open(self, path: str) -> IO[Any]:
        """Open for reading bytes."""
        return self.fs.open(self._full(path), "rb")

    def read_bytes(self, path: str) -> bytes:
        return self.fs.cat_file(self._full(path))

    def list(self, folder: str) -> list[str]:
        """The names in a folder, sorted; empty where there is no such folder."""
        try:
            found = self.fs.ls(self._full(folder), detail=False, refresh=True)
        except FileNotFoundError:
            return []
        return sorted(str(name).rsplit("/", 1)[-1] for name in found)

    def remove(self, path: str) -> None:
        """Remove a file; not there is fine."""
        try:
            self.fs.rm_file(self._full(path))
        except FileNotFoundError:
            return

    def remove_unlisted(self, folder: str, paths: set[str]) -> None:
        """Remove the files of a folder that no row names any more."""
        for name in self.list(folder):
            if f"{folder}/{name}" not in paths:
                self.remove(f"{folder}/{name}")

    def rename(self, old: str, new: str) -> None:
        """Rename a file within the workspace, over whatever is there; a lost race (old is gone) is fine."""
        try:
            if self.is_local:
                os.replace(self._full(old), self._full(new))
                self._sync_folder(new)
            else:
                self.fs.mv(self._full(old), self._full(new))
        except FileNotFoundError:
            return

    def write_bytes(self, path: str, data: bytes) -> None:
        """Commit a whole file: afterwards it is there in full and on the disk, or, after a crash, not at all."""
        if not self.is_local:
            self.fs.pipe_file(self._full(path), data)
            return
        temp = self._write_temp(data)
        target = Path(self._full(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(temp, target)
        self._sync_folder(path)

    def link(self, path: str, original: str, hard: bool) -> None:
        """Commit a name for a file that is there already: a hard link, or a symbolic link that leaves it where it is.

        Raises OSError where the file system cannot (a hard link across two), UserError where the workspace is on none.
        """
        target, temp = self.local(path), self._temp()
        if hard:
            os.link(os.path.realpath(original), temp)
        else:
            temp.symlink_to(os.path.abspath(original))
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(temp, target)
        temp.unlink(missing_ok=True)  # renaming onto another name of the same file leaves both
        self._sync_folder(path)

    def create_exclusive(self, path: str, data: bytes) -> bool:
        """Write a file only if there is none: True if this call made it."""
        try:
            if self.is_local:
                temp = self._write_temp(data)
                try:
                    os.link(temp, self._full(path))
                finally:
                    temp.unlink(missing_ok=True)
            else:
                with self.fs.open(self._full(path), "xb") as file:
                    file.write(data)
        except FileExistsError:
            return False
        return True

    def remove_if_same(self, path: str, data: bytes) -> None:
        """Remove a file whose content is still `data`; one process at a time looks and removes."""
        with self._alone():
            try:
                if self.read_bytes(path) == data:
                    self.remove(path)
            except FileNotFoundError:
                return

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the directory itself locked against other processes of this host, for a moment."""
        if not self.is_local:
            yield
            return
        handle = os.open(self.root, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def _temp(self) -> Path:
        """A new name in the folder of half-written files."""
        folder = Path(self._full(TEMP))
        folder.mkdir(exist_ok=True)
        return folder / f"{socket.gethostname()}.{os.getpid()}.{uuid.uuid4().hex}"

    def _write_temp(self, data: bytes) -> Path:
        temp = self._temp()
        with temp.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        return temp

    def _sync_folder(self, path: str) -> None:
        handle = os.open(Path(self._full(path)).parent, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def empty_temp(self) -> None:
        """Throw away half-written files of this host's killed processes. Trainers, which hold no lock, may be writing."""
        if not self.is_local:
            return
        for name in self.list(TEMP):
            host, _, rest = name.rpartition(".")[0].rpartition(".")
            if host == socket.gethostname() and rest.isdigit() and not psutil.pid_exists(int(rest)):
                self.remove(f"{TEMP}/{name}")

    # Writing

    def lock(self, command: str) -> AbstractContextManager[None]:
        """Hold the workspace for writing; see lock.py. Raises UserError while something is half forgotten."""
        if command != "forget":
            self.check_no_interrupted_forget()
        return writer_lock(self, command)

    def check_no_interrupted_forget(self) -> None:
        """Raises UserError where a `forget` was interrupted: nothing may build on what is on its way out."""
        if self.exists(FORGETTING):
            raise UserError(
                f"a forget was interrupted in {self.root}: finish it with `authface forget --yes`"
            )
