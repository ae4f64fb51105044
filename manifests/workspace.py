"""The workspace: a directory that holds one data set. All its paths are made and committed here.

Paths are relative to the workspace and have forward slashes, as they are stored in the manifests.
A workspace is a folder, or lies in an object store (`manifests.object_store`). Code that needs
files of the file system uses `Workspace.local_path`, or `Workspace.local_cache` for files that can
be computed again.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
import socket
import uuid
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import psutil
from fsspec.implementations.local import LocalFileSystem

from manifests.lock import LOCK, WriterLock
from manifests.object_store import ObjectStore, is_url
from manifests.settings import SETTINGS_FILE, Settings, load_settings
from manifests.support.cache_folder import cache_dir
from manifests.support.errors import UserError
from manifests.support.files import (
    append_line,
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
TOMBSTONES_FOLDER = "manifests/tombstones"
LOCAL_CACHES = "workspaces"
"""Folder of the cache with the local caches of workspaces in object stores."""
FOLDERS = ("photos", "faces", "manifests", "cache", "runs", "reports")

MAX_STEM_LENGTH = 200
"""File names may have 255 bytes; the rest is for the hash and the suffix."""
PICTURE_NAME = re.compile(r"(?P<stem>[A-Za-z0-9_-]+)-(?P<digest>[0-9a-f]{8})\.[a-z0-9]+")
"""Names of the files in `photos` and `faces`, see `Workspace.photo_path`."""
READ_BLOCK_BYTES = 1 << 20
FILES_OF_SYSTEMS = ("Thumbs.db", "desktop.ini")
"""Files that file managers leave in every folder that they show."""


class NoWorkspaceError(UserError):
    """No workspace is given, and neither this folder nor a parent is one."""


class Workspace:
    """A directory with an `authface.toml`.

    Args:
        root: Path of the directory, or its URL in an object store.

    Attributes:
        root: The absolute path, or the URL without a slash at its end.

    Raises:
        UserError: If the directory has no `authface.toml`.
        MissingResourceError: If an object store cannot be reached, or s3fs is missing.
    """

    def __init__(self, root: str | Path) -> None:
        self._open(root)
        if not self.exists(SETTINGS_FILE):
            if self._store is not None:
                self._store.check_bucket()
            raise UserError(
                f"{root} is not a workspace: it has no {SETTINGS_FILE}; create one with "
                f"`authface init {root}`"
            )

    def _open(self, root: str | Path) -> None:
        self._fs = LocalFileSystem()
        self._store: ObjectStore | None = None
        self._lock: WriterLock | None = None
        if is_url(str(root)):
            self._store = ObjectStore(str(root))
            self.root = self._store.root
        else:
            self.root = LocalFileSystem._strip_protocol(str(root))

    @classmethod
    def _without_settings(cls, root: str | Path) -> Workspace:
        """A directory that is used like a workspace but has no settings."""
        workspace = cls.__new__(cls)  # __init__ requires the settings
        workspace._open(root)
        return workspace

    def __getstate__(self) -> dict[str, object]:
        """The state for another process, which does not hold the lock."""
        return {**self.__dict__, "_lock": None}

    @classmethod
    def find(cls, option: str | Path | None) -> Workspace:
        """Find the workspace of a command.

        Args:
            option: The value of `--workspace`. Default: the environment variable
                AUTHFACE_WORKSPACE, else the nearest parent folder with an `authface.toml`.

        Raises:
            NoWorkspaceError: If none is given and none is found.
            UserError: If the given one is not a workspace.
        """
        root = option or os.environ.get("AUTHFACE_WORKSPACE")
        if root:
            return cls(root)
        current = Path.cwd()
        for folder in (current, *current.parents):
            if (folder / SETTINGS_FILE).is_file():
                return cls(folder)
        raise NoWorkspaceError(
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
            root: Path of the directory, or its URL in an object store.
            settings_toml: Content of `authface.toml`.
            fill: Writes the first content of the workspace.

        Raises:
            UserError: If the directory is a workspace already, or if the object store cannot hold
                one.
        """
        workspace = cls._without_settings(root)
        if workspace._store is not None:
            workspace._store.check_bucket()
        if workspace.exists(SETTINGS_FILE):
            raise UserError(
                f"{root} is a workspace already; edit its {SETTINGS_FILE}, or choose another "
                "directory"
            )
        if workspace._store is not None:
            workspace._store.check_conditional_writes()
        else:
            with explain_write_errors(f"{workspace.root}/{SETTINGS_FILE}"):
                for folder in FOLDERS:
                    workspace.local_path(folder).mkdir(parents=True, exist_ok=True)
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
        """The setting `weights_dir`; a relative path starts at the workspace.

        Raises:
            UserError: If it is relative and the workspace is in an object store.
        """
        setting = self.settings.weights_dir
        if setting is None:
            return None
        folder = Path(setting).expanduser()
        if not self.is_local and not folder.is_absolute():
            raise UserError(
                f"weights_dir is relative in {self.root}/{SETTINGS_FILE}; give the absolute path "
                "of a folder that every machine has"
            )
        return str(Path(self.root, folder))

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
        """Whether the workspace is a folder of the file system."""
        return self._store is None

    def local_path(self, path: str) -> Path:
        """Convert a path of the workspace to a path of the file system.

        Raises:
            UserError: If the workspace is in an object store.
        """
        if not self.is_local:
            raise UserError(
                f"{self.root} is in an object store, but this step needs files on a disk; copy the "
                "workspace to a folder (`aws s3 sync`) and use that"
            )
        return Path(self.root) / path

    @cached_property
    def local_cache(self) -> Workspace:
        """Where files are kept that must be on a disk and can be computed again.

        This is the workspace itself if it is a folder. Otherwise it is a folder in the cache of
        this machine. That folder is emptied if photographs have been forgotten since its last use.
        """
        if self.is_local:
            return self
        folder = self._local_cache_folder()
        state = short_hash(" ".join(self.list_names(TOMBSTONES_FOLDER)))
        for other in folder.glob("*"):
            if other.name != state:
                shutil.rmtree(other, ignore_errors=True)
        (folder / state).mkdir(parents=True, exist_ok=True)
        return self._without_settings(folder / state)

    def remove_local_cache(self) -> None:
        """Remove what this machine has cached of a workspace in an object store."""
        if not self.is_local:
            shutil.rmtree(self._local_cache_folder(), ignore_errors=True)
            self.__dict__.pop("local_cache", None)

    def _local_cache_folder(self) -> Path:
        name = re.sub(r"[^A-Za-z0-9.-]+", "-", self.root)[-MAX_STEM_LENGTH:]
        return cache_dir() / LOCAL_CACHES / f"{name}-{short_hash(self.root)}"

    def _full_path(self, path: str) -> str:
        return f"{self.root}/{path}"

    # Reading

    def exists(self, path: str) -> bool:
        """Whether a file or folder exists."""
        if self._store is not None:
            return self._store.exists(path)
        return self._fs.exists(self._full_path(path))

    def open(self, path: str) -> BinaryIO:
        """Open a file for reading bytes."""
        if self._store is not None:
            return self._store.open(path)
        return self._fs.open(self._full_path(path), "rb")

    def read_bytes(self, path: str, limit: int | None = None) -> bytes:
        """Read a file.

        Args:
            path: The file to read.
            limit: Read at most this many bytes from its start. Default: the whole file.

        Returns:
            Its content.
        """
        if self._store is not None:
            return self._store.read_bytes(path, limit)
        return self._fs.cat_file(self._full_path(path), end=limit)

    def list_names(self, folder: str) -> list[str]:
        """List the names in a folder, sorted; a missing folder gives an empty list."""
        if self._store is not None:
            return self._store.list_names(folder)
        try:
            return sorted(os.listdir(self._full_path(folder)))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def size(self, path: str) -> int:
        """The size of a file in bytes."""
        if self._store is not None:
            return self._store.size(path)
        return os.path.getsize(self._full_path(path))

    def walk(self) -> Iterator[str]:
        """The path of every file, except those that this process is writing.

        The folders of the workspace may be links to another disk. Other links to folders are not
        followed: what they lead to does not belong to the workspace.
        """
        if self._store is not None:
            yield from self._store.list_paths()
            return
        root = self.local_path("")
        own_files = f"{TEMP}/{_temp_prefix()}"
        linked_folders = [root / name for name in FOLDERS if (root / name).is_symlink()]
        for top in [root, *linked_folders]:
            for parent, _, names in os.walk(top):
                folder = Path(parent).relative_to(root)
                paths = [(folder / name).as_posix() for name in sorted(names)]
                yield from (path for path in paths if not path.startswith(own_files))

    # Writing

    def write_bytes(self, path: str, data: bytes) -> None:
        """Commit a whole file.

        When the call returns the file is on the disk, or in the object store. After a crash it is
        complete or absent.

        Args:
            path: The file to write.
            data: Its content.

        Raises:
            UserError: If the disk is full or cannot be written, or if the lock was lost.
        """
        self._check_lock(path)
        if self._store is not None:
            self._store.write_bytes(path, data)
            return
        with explain_write_errors(self._full_path(path)):
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
        self._check_lock(path)
        if self._store is not None:
            return self._store.create_exclusive(path, data)
        target = Path(self._full_path(path))
        with explain_write_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = self._write_temp(data)
            try:
                is_new = link_new(temporary, target)
            finally:
                temporary.unlink(missing_ok=True)
            self._sync_folder(path)
            return is_new

    def replace_if_same(self, path: str, old: bytes, new: bytes) -> bool:
        """Replace a file if its content is `old`. Processes of this host do so one at a time.

        Args:
            path: The file to replace.
            old: The expected content.
            new: The new content.

        Returns:
            Whether the file was replaced.
        """
        if self._store is not None:
            return self._store.replace_if_same(path, old, new)
        target = Path(self._full_path(path))
        with explain_write_errors(target), exclusive_access(self.root):
            try:
                if target.read_bytes() != old:
                    return False
            except FileNotFoundError:
                return False
            os.replace(self._write_temp(new), target)
            return True

    def append_line(self, path: str, line: str) -> None:
        """Append a line to a text file. Several processes may do so at once, without the lock.

        Args:
            path: The file; it is created if it is missing.
            line: The line, without a line break.
        """
        if self._store is None:
            append_line(self.local_path(path), line)
            return
        data = f"{line}\n".encode()
        while not self._store.create_exclusive(path, data):
            present = self._store.read_bytes(path)
            if self._store.replace_if_same(path, present, present + data):
                return

    def link(self, path: str, original: str, hard: bool) -> None:
        """Commit a link to an existing file.

        Args:
            path: The link to make.
            original: The existing file, a path of the file system.
            hard: Make a hard link; otherwise make a symbolic link.

        Raises:
            OSError: If the file system cannot make the link, such as a hard link to another one.
            UserError: If the workspace is in an object store, or if the disk is full.
        """
        self._check_lock(path)
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

        A missing `old` is ignored: another process has renamed it. An object store copies the file
        and then removes `old`; after a crash in between there are both, and the call can be
        repeated.

        Args:
            old: The present path.
            new: The new path.
        """
        self._check_lock(new)
        try:
            if self._store is not None:
                self._store.copy(old, new)
                self._store.remove(old)
                return
            with explain_write_errors(self._full_path(new)):
                os.replace(self._full_path(old), self._full_path(new))
                self._sync_folder(new)
        except FileNotFoundError:
            return

    def remove(self, path: str) -> None:
        """Remove a file; a missing file is ignored."""
        self._check_lock(path)
        if self._store is not None:
            self._store.remove(path)
            return
        try:
            self._fs.rm_file(self._full_path(path))
        except FileNotFoundError:
            return

    def remove_if_same(self, path: str, data: bytes) -> None:
        """Remove a file if its content is `data`. Processes of this host do so one at a time.

        Args:
            path: The file to remove.
            data: The expected content.
        """
        if self._store is not None:
            self._store.remove_if_same(path, data)
            return
        with exclusive_access(self.root), suppress(FileNotFoundError):
            if self.read_bytes(path) == data:
                self.remove(path)

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
        for path in self.list_dead_temp():
            self.remove(path)

    def list_dead_temp(self) -> list[str]:
        """Paths of the unfinished files of this host's dead processes."""
        if not self.is_local:
            return []
        paths = []
        for name in self.list_names(TEMP):
            host, _, pid = name.rpartition(".")[0].rpartition(".")
            is_pid = pid.isdecimal() and len(pid) < 10
            if host == socket.gethostname() and is_pid and not psutil.pid_exists(int(pid)):
                paths.append(f"{TEMP}/{name}")
        return paths

    def _temp_path(self) -> Path:
        folder = Path(self._full_path(TEMP))
        folder.mkdir(exist_ok=True)
        return folder / f"{_temp_prefix()}{uuid.uuid4().hex}"

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

    @contextmanager
    def lock(self, command: str) -> Iterator[None]:
        """Hold the workspace for writing, see `manifests.lock.WriterLock`.

        Args:
            command: The authface command, for the message to another writer.

        Raises:
            UserError: If another process writes, or a `forget` was interrupted.
        """
        if command != "forget":
            self.check_no_interrupted_forget()
        lock = WriterLock(self, command)
        lock.acquire()
        self._lock = lock
        try:
            self.empty_temp()
            yield
        finally:
            self._lock = None
            lock.release()

    def _check_lock(self, path: str) -> None:
        """Refuse to write if this object has held the lock and lost it to another host."""
        if self._lock is not None and path != LOCK:
            self._lock.check()

    def check_no_interrupted_forget(self) -> None:
        """Refuse to work on a workspace from which photographs are partly removed.

        Raises:
            UserError: If a `forget` was interrupted.
        """
        if self.exists(FORGETTING):
            raise UserError(
                f"a forget was interrupted in {self.root}; finish it with `authface forget --yes`"
            )


def _temp_prefix() -> str:
    """What the names of the unfinished files of this process begin with."""
    return f"{socket.gethostname()}.{os.getpid()}."


def _picture_stem(picture_id: str) -> str:
    """The id of a picture in file names; a very long id is shortened."""
    if len(picture_id) <= MAX_STEM_LENGTH:
        return picture_id
    return f"{picture_id[: MAX_STEM_LENGTH - 9]}-{short_hash(picture_id)}"


def _picture_name(picture_id: str, sha256: str) -> str:
    """Name of a picture without its suffix."""
    stem = _picture_stem(picture_id)
    return f"{stem}-{short_hash(stem + sha256)}"
