"""New processes of the local engine.

They are forked from a server process that has imported the libraries of the stages, so that many
workers take no longer to start than one, and share the memory of the libraries. Where the system
has no such server they are started afresh.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from multiprocessing.context import ForkServerContext, SpawnContext

from authface_data.engine.stage import Stage

Context = ForkServerContext | SpawnContext
HAS_SERVER = "forkserver" in multiprocessing.get_all_start_methods()


def process_context(stages: Iterable[Stage]) -> Context:
    """The context for processes that run stages.

    The server starts with the first process and imports the libraries of the stages that were named
    until then. It ends with this process.
    """
    share_libraries(stages)
    if HAS_SERVER:
        return multiprocessing.get_context("forkserver")
    return multiprocessing.get_context("spawn")


_shared: dict[str, None] = {}


def share_libraries(stages: Iterable[Stage]) -> None:
    """Let the server import the libraries of stages; later calls add to earlier ones."""
    for stage in stages:
        _shared.update(dict.fromkeys([type(stage).__module__, *stage.libraries]))
    if HAS_SERVER:
        multiprocessing.get_context("forkserver").set_forkserver_preload(list(_shared))


@contextmanager
def without_interrupt() -> Iterator[None]:
    """Start processes that Ctrl-C does not reach: the main process handles it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
