"""One writer at a time: a lock file that names its holder, in a workspace or in a run folder."""

from __future__ import annotations

import json
import os
import socket
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import psutil
from pydantic import BaseModel, Field, ValidationError

from manifests.support.errors import UserError
from manifests.support.files import exclusive_access, explain_write_errors, link_new
from manifests.support.parsing import parse_json_object
from manifests.support.text import excerpt

if TYPE_CHECKING:
    from collections.abc import Iterator

    from manifests.workspace import Workspace

LOCK = ".lock"

MAX_LOCK_BYTES = 10_000
MAX_START_DIFFERENCE_S = 1.0


class _Holder(BaseModel):
    """The process that a lock file names."""

    host: str
    pid: int = Field(gt=0, lt=2**31)
    started: float
    """Start time in seconds since the epoch."""
    command: str
    slurm_job: str = ""
    """Id of the Slurm job, or "" outside of Slurm."""
    slurm_restarts: int = 0
    """How often Slurm had requeued that job."""


class LockableFolder(Protocol):
    """The operations of a folder that a lock needs. `Workspace` describes them."""

    @property
    def root(self) -> str:
        """Path or URL of the folder."""
        ...

    def create_exclusive(self, path: str, data: bytes) -> bool:
        """Write a file unless it exists. Returns whether it was written."""
        ...

    def read_bytes(self, path: str, limit: int | None = None) -> bytes:
        """Read a file up to a number of bytes."""
        ...

    def remove_if_same(self, path: str, data: bytes) -> None:
        """Remove a file if its content is `data`."""
        ...


class LocalFolder:
    """A folder of the local file system that can be locked.

    Args:
        folder: The folder; it must exist while it is locked.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def root(self) -> str:
        """Path of the folder."""
        return str(self.folder)

    def create_exclusive(self, path: str, data: bytes) -> bool:
        """Write a file unless it exists, see `Workspace.create_exclusive`."""
        target = self.folder / path
        temporary = self.folder / f".writing-{os.getpid()}{path}"
        with explain_write_errors(target):
            try:
                temporary.write_bytes(data)
                return link_new(temporary, target)
            except FileNotFoundError:
                # The holder of the lock removes the temporary files of others.
                if not target.exists():
                    raise
                return False
            finally:
                temporary.unlink(missing_ok=True)

    def read_bytes(self, path: str, limit: int | None = None) -> bytes:
        """Read a file up to a number of bytes."""
        with (self.folder / path).open("rb") as file:
            return file.read(-1 if limit is None else limit)

    def remove_if_same(self, path: str, data: bytes) -> None:
        """Remove a file if its content is `data`. Processes of this host do so one at a time."""
        target = self.folder / path
        # The folder may have been removed in the meantime.
        with suppress(FileNotFoundError), exclusive_access(self.folder):
            if target.read_bytes() == data:
                target.unlink()


class WriterLock:
    """The right to write to a folder.

    A lock left behind by a dead process of this host is taken over, and that of another host if
    Slurm has requeued its job since: Slurm ends a job before it starts it again.

    Args:
        folder: The folder to lock.
        command: The authface command, for the message to another writer.
    """

    def __init__(self, folder: LockableFolder, command: str) -> None:
        self.folder = folder
        self.command = command
        self._content: bytes | None = None

    def acquire(self) -> None:
        """Take the lock; do nothing if this object holds it.

        Raises:
            UserError: If a living process, or one of another host, holds the lock.
        """
        if self._content is not None:
            return
        pid = os.getpid()
        holder = {
            "host": socket.gethostname(),
            "pid": pid,
            "started": _start_time(pid),
            "command": self.command,
            "slurm_job": _slurm_job(),
            "slurm_restarts": _slurm_restarts(),
        }
        content = json.dumps(holder).encode()
        while not self.folder.create_exclusive(LOCK, content):
            _remove_stale_lock(self.folder)
        self._content = content

    def release(self) -> None:
        """Free the lock; do nothing if this object does not hold it."""
        if self._content is not None:
            self.folder.remove_if_same(LOCK, self._content)
            self._content = None


@contextmanager
def writer_lock(workspace: Workspace, command: str) -> Iterator[None]:
    """Hold the workspace for writing, see `WriterLock`.

    Args:
        workspace: The workspace to lock.
        command: The authface command, for the message to another writer.

    Raises:
        UserError: If a living process, or one of another host, holds the lock.
    """
    lock = WriterLock(workspace, command)
    lock.acquire()
    try:
        workspace.empty_temp()
        yield
    finally:
        lock.release()


def _remove_stale_lock(folder: LockableFolder) -> None:
    """Remove the present lock, or raise if its holder may be alive."""
    try:
        lock = folder.read_bytes(LOCK, limit=MAX_LOCK_BYTES)
    except FileNotFoundError:
        return  # The holder has released it in the meantime.
    except OSError as error:
        raise _unreadable(folder, error.strerror or str(error)) from error
    try:
        holder = _parse_holder(lock)
    except ValueError as error:
        raise _unreadable(folder, str(error)) from error
    if not _is_stale(holder):
        raise UserError(
            f"{folder.root} is being written by `authface {excerpt(holder.command)}` "
            f"(process {holder.pid} on {excerpt(holder.host)}); wait for it, or remove {LOCK} "
            "there if that machine has stopped"
        )
    folder.remove_if_same(LOCK, lock)


def _unreadable(folder: LockableFolder, reason: str) -> UserError:
    return UserError(
        f"{folder.root}/{LOCK} cannot be read ({excerpt(reason)}); remove it if no command is "
        "writing there"
    )


def _parse_holder(lock: bytes) -> _Holder:
    """Parse the content of a lock file. Raises ValueError if it has another form."""
    try:
        return _Holder.model_validate(parse_json_object(lock))
    except ValidationError as error:
        raise ValueError("it does not name a process") from error


def _is_stale(holder: _Holder) -> bool:
    """Whether the holder has ended: on this host, or as an earlier start of this Slurm job.

    The start time tells the holder from a later process with the same id.
    """
    if holder.host != socket.gethostname():
        is_same_job = holder.slurm_job != "" and holder.slurm_job == _slurm_job()
        return is_same_job and holder.slurm_restarts < _slurm_restarts()
    started = _start_time(holder.pid)
    return started is None or abs(started - holder.started) > MAX_START_DIFFERENCE_S


def _slurm_job() -> str:
    return os.environ.get("SLURM_JOB_ID", "")


def _slurm_restarts() -> int:
    restarts = os.environ.get("SLURM_RESTART_COUNT", "")
    return int(restarts) if restarts.isdecimal() else 0


def _start_time(pid: int) -> float | None:
    """Start time of a process in seconds since the epoch, or None if it does not run."""
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.Error:
        return None
