"""One writer at a time: a lock file that names its holder, in a workspace or in a run folder.

The lock is a lease: its holder renews it from a thread. Processes of the holder's host see whether
the holder lives; other hosts take the lock over once it has not been renewed for some minutes. A
holder that was suspended so long that another host took over writes nothing more: every commit
checks the lease first.
"""

from __future__ import annotations

import os
import socket
import threading
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import psutil
from pydantic import BaseModel, Field, ValidationError

from manifests.support.errors import UserError
from manifests.support.files import (
    exclusive_access,
    explain_write_errors,
    link_new,
    write_atomic,
)
from manifests.support.parsing import parse_json_object
from manifests.support.text import excerpt

LOCK = ".lock"

MAX_LOCK_BYTES = 10_000
MAX_START_DIFFERENCE_S = 1.0

LEASE_S = 120.0
"""How long a lock holds after it was renewed."""
RENEW_INTERVAL_S = 20.0
CLOCK_TOLERANCE_S = 60.0
"""How far the clocks of hosts may differ: another host waits so much longer."""
SETTLE_S = 1.0
"""File systems between hosts may let two of them take over the same lock within a moment."""
MACHINE_ID_FILE = Path("/etc/machine-id")


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
    machine: str | None = None
    """Tells hosts of the same name apart. Locks of earlier versions lack it, and a lease."""
    owner: str = ""
    """Random, so that no two locks are equal."""
    expires: float | None = None
    """End of the lease in seconds since the epoch."""


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

    def replace_if_same(self, path: str, old: bytes, new: bytes) -> bool:
        """Replace a file if its content is `old`. Returns whether it was replaced."""
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

    def replace_if_same(self, path: str, old: bytes, new: bytes) -> bool:
        """Replace a file if its content is `old`, see `Workspace.replace_if_same`."""
        target = self.folder / path
        # The folder may have been removed in the meantime.
        with (
            explain_write_errors(target),
            suppress(FileNotFoundError),
            exclusive_access(self.folder),
        ):
            if target.read_bytes() == old:
                write_atomic(target, new)
                return True
        return False

    def remove_if_same(self, path: str, data: bytes) -> None:
        """Remove a file if its content is `data`. Processes of this host do so one at a time."""
        target = self.folder / path
        # The folder may have been removed in the meantime.
        with suppress(FileNotFoundError), exclusive_access(self.folder):
            if target.read_bytes() == data:
                target.unlink()


class WriterLock:
    """The right to write to a folder.

    A lock left behind by a dead process of this host is taken over, and that of another host if its
    lease has expired, or if Slurm has requeued its job since: Slurm ends a job before it starts it
    again.

    Args:
        folder: The folder to lock.
        command: The authface command, for the message to another writer.
    """

    def __init__(self, folder: LockableFolder, command: str) -> None:
        self.folder = folder
        self.command = command
        self._content: bytes | None = None
        self._expires = 0.0
        self._pid = 0
        self._is_lost = False
        self._mutex = threading.Lock()
        self._released = threading.Event()

    def acquire(self) -> None:
        """Take the lock; do nothing if this object holds it.

        Raises:
            UserError: If a living process, or one of another host, holds the lock.
        """
        if self._content is not None:
            return
        expires = time.time() + LEASE_S
        content = self._describe_holder(expires)
        while not self.folder.create_exclusive(LOCK, content):
            if _take_over(self.folder, content):
                break
        self._content = content
        self._expires = expires
        self._pid = os.getpid()
        self._is_lost = False
        self._released.clear()
        threading.Thread(target=self._renew_regularly, name="lock", daemon=True).start()

    def release(self) -> None:
        """Free the lock; do nothing if this object does not hold it."""
        self._released.set()
        with self._mutex:
            if self._content is not None:
                self.folder.remove_if_same(LOCK, self._content)
                self._content = None

    def check(self) -> None:
        """Check that this object still holds the lock; call it before every commit.

        A forked process has a copy of this object but does not hold the lock.

        Raises:
            UserError: If another host has taken the lock over, or if it was removed.
        """
        if self._pid != os.getpid():
            return
        if self._is_lost or time.time() > self._expires - LEASE_S / 2:
            self.renew()

    def renew(self) -> None:
        """Extend the lease.

        Raises:
            UserError: If another host has taken the lock over, or if it was removed.
        """
        with self._mutex:
            if self._content is None:
                return
            expires = time.time() + LEASE_S
            content = self._describe_holder(expires)
            if self._is_lost or not self.folder.replace_if_same(LOCK, self._content, content):
                self._is_lost = True
                raise UserError(
                    f"the lock of {self.folder.root} was taken over or removed while this command "
                    "was suspended or cut off; nothing more was written. Run the command again"
                )
            self._content = content
            self._expires = expires

    def _renew_regularly(self) -> None:
        while not self._released.wait(RENEW_INTERVAL_S):
            # The next `check` raises what goes wrong here.
            with suppress(Exception):
                self.renew()

    def _describe_holder(self, expires: float) -> bytes:
        """The content of a lock of this process."""
        pid = os.getpid()
        holder = _Holder(
            host=socket.gethostname(),
            pid=pid,
            started=_start_time(pid) or 0.0,
            command=self.command,
            slurm_job=_slurm_job(),
            slurm_restarts=_slurm_restarts(),
            machine=_machine_id(),
            owner=uuid.uuid4().hex,
            expires=expires,
        )
        return holder.model_dump_json().encode()


def _take_over(folder: LockableFolder, content: bytes) -> bool:
    """Replace the present lock, or raise if its holder may be alive.

    Args:
        folder: The locked folder.
        content: The new lock.

    Returns:
        Whether the lock was replaced; it may have been released or taken over in the meantime.
    """
    try:
        lock = folder.read_bytes(LOCK, limit=MAX_LOCK_BYTES)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise _unreadable(folder, error.strerror or str(error)) from error
    try:
        holder = _parse_holder(lock)
    except ValueError as error:
        raise _unreadable(folder, str(error)) from error
    if not _is_stale(holder):
        raise UserError(
            f"{folder.root} is being written by `authface {excerpt(holder.command)}` "
            f"(process {holder.pid} on {excerpt(holder.host)}); {_describe_wait(holder)}"
        )
    if not folder.replace_if_same(LOCK, lock, content):
        return False
    if _is_of_this_host(holder):
        return True
    time.sleep(SETTLE_S)
    with suppress(FileNotFoundError):
        return folder.read_bytes(LOCK) == content
    return False


def _describe_wait(holder: _Holder) -> str:
    """What to do about a lock whose holder may be alive."""
    if _is_of_this_host(holder):
        return "wait for it"
    if holder.expires is None:
        return f"wait for it, or remove {LOCK} there if that machine has stopped"
    remaining_s = holder.expires + CLOCK_TOLERANCE_S - time.time()
    return (
        f"wait for it, or run the command again in {remaining_s:.0f} s if that machine has stopped"
    )


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
    """Whether the holder has ended, or has not renewed its lease.

    On this host, the start time tells the holder from a later process with the same id.
    """
    if _is_of_this_host(holder):
        started = _start_time(holder.pid)
        return started is None or abs(started - holder.started) > MAX_START_DIFFERENCE_S
    is_same_job = holder.slurm_job != "" and holder.slurm_job == _slurm_job()
    if is_same_job and holder.slurm_restarts < _slurm_restarts():
        return True
    return holder.expires is not None and time.time() > holder.expires + CLOCK_TOLERANCE_S


def _is_of_this_host(holder: _Holder) -> bool:
    return holder.host == socket.gethostname() and holder.machine in (None, _machine_id())


def _machine_id() -> str:
    """The id of this machine, or "" if it has none."""
    try:
        return MACHINE_ID_FILE.read_text(encoding="utf-8")[:64].strip()
    except (OSError, UnicodeDecodeError):
        return ""


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
