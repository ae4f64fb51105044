"""One writer at a time: a lock file that names its holder."""

from __future__ import annotations

import json
import os
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psutil

from manifests.support.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from manifests.workspace import Workspace

LOCK = ".lock"


def _started(pid: int) -> float | None:
    """When the process began (seconds since the epoch), or None where no such process runs."""
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.Error:
        return None


def _is_stale(holder: dict) -> bool:
    """Whether the holder ran on this host and is gone. A process id given to another process since does not count."""
    if holder.get("host") != socket.gethostname():
        return False
    started = _started(int(holder["pid"]))
    return started is None or abs(started - float(holder["started"])) > 1


@contextmanager
def writer_lock(workspace: Workspace, command: str) -> Iterator[None]:
    """Hold the workspace for writing.

    A lock left by a dead process of this host is taken over. Raises UserError, naming host, process and command,
    where a live process (or one of another host) holds it.
    """
    pid = os.getpid()
    holder = {
        "host": socket.gethostname(),
        "pid": pid,
        "started": _started(pid),
        "command": command,
    }
    mine = json.dumps(holder).encode()
    while not workspace.create_exclusive(LOCK, mine):
        try:
            theirs = workspace.read_bytes(LOCK)
        except FileNotFoundError:
            continue  # released between the two looks
        try:
            holder = json.loads(theirs)
        except ValueError:
            raise UserError(
                f"{workspace.root}/{LOCK} cannot be read: remove it if nothing is writing there"
            ) from None
        if not _is_stale(holder):
            raise UserError(
                f"{workspace.root} is being written by `authface {holder['command']}` (process {holder['pid']} on "
                f"{holder['host']}): wait for it, or remove {LOCK} there if that machine is gone"
            )
        workspace.remove_if_same(LOCK, theirs)
    try:
        workspace.empty_temp()
        yield
    finally:
        workspace.remove_if_same(LOCK, mine)
