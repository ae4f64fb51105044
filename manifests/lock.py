"""One writer at a time: a lock file in the workspace that names its holder."""

from __future__ import annotations

import json
import os
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psutil
from pydantic import BaseModel, Field, ValidationError

from manifests.support.errors import UserError
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


@contextmanager
def writer_lock(workspace: Workspace, command: str) -> Iterator[None]:
    """Hold the workspace for writing.

    A lock left behind by a dead process of this host is taken over.

    Args:
        workspace: The workspace to lock.
        command: The authface command, for the message to another writer.

    Raises:
        UserError: If a living process, or one of another host, holds the lock.
    """
    pid = os.getpid()
    own_lock = json.dumps(
        {
            "host": socket.gethostname(),
            "pid": pid,
            "started": _start_time(pid),
            "command": command,
        }
    ).encode()
    while not workspace.create_exclusive(LOCK, own_lock):
        _remove_stale_lock(workspace)
    try:
        workspace.empty_temp()
        yield
    finally:
        workspace.remove_if_same(LOCK, own_lock)


def _remove_stale_lock(workspace: Workspace) -> None:
    """Remove the present lock, or raise if its holder may be alive."""
    try:
        lock = workspace.read_bytes(LOCK, limit=MAX_LOCK_BYTES)
    except FileNotFoundError:
        return  # The holder has released it in the meantime.
    except OSError as error:
        raise _unreadable(workspace, error.strerror or str(error)) from error
    try:
        holder = _parse_holder(lock)
    except ValueError as error:
        raise _unreadable(workspace, str(error)) from error
    if not _is_stale(holder):
        raise UserError(
            f"{workspace.root} is being written by `authface {excerpt(holder.command)}` "
            f"(process {holder.pid} on {excerpt(holder.host)}); wait for it, or remove {LOCK} "
            "there if that machine has stopped"
        )
    workspace.remove_if_same(LOCK, lock)


def _unreadable(workspace: Workspace, reason: str) -> UserError:
    return UserError(
        f"{workspace.root}/{LOCK} cannot be read ({excerpt(reason)}); remove it if no command is "
        "writing there"
    )


def _parse_holder(lock: bytes) -> _Holder:
    """Parse the content of a lock file. Raises ValueError if it has another form."""
    try:
        return _Holder.model_validate(parse_json_object(lock))
    except ValidationError as error:
        raise ValueError("it does not name a process") from error


def _is_stale(holder: _Holder) -> bool:
    """Whether the holder ran on this host and has ended.

    The start time tells the holder from a later process with the same id.
    """
    if holder.host != socket.gethostname():
        return False
    started = _start_time(holder.pid)
    return started is None or abs(started - holder.started) > MAX_START_DIFFERENCE_S


def _start_time(pid: int) -> float | None:
    """Start time of a process in seconds since the epoch, or None if it does not run."""
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.Error:
        return None
