"""What happens inside one worker, be it this process or another."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import threading
from collections.abc import Mapping, Sequence
from multiprocessing import connection, parent_process
from multiprocessing.queues import SimpleQueue
from typing import Any

from authface_data.engine.stage import Chain, Failed, Item, LinkTo, Result, Rows, Stage, WritePixels
from manifests.support.errors import AuthfaceError, UserError
from manifests.workspace import Workspace

# One unit of work: a row, its key, and which stages of the chain it still needs.
Task = tuple[str, Mapping[str, Any], tuple[int, ...]]
# (key, index of the stage, result)
Outcome = tuple[str, int, Result]

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h

_chain: Chain | None = None
_write_pixels: WritePixels | None = None
_broken: Exception | None = None


def start(chain: Chain, workspace: Workspace, device: str) -> None:
    """Load the chain's models in this process."""
    global _chain, _write_pixels

    def write_pixels(path: str, data: bytes | LinkTo) -> None:
        try:
            if isinstance(data, LinkTo):
                workspace.link(path, data.file, data.hard)
            else:
                workspace.write_bytes(path, data)
        except OSError as error:
            if error.errno == errno.EXDEV:
                raise UserError(
                    "a hard link cannot lead to another file system: take --files copy or reference"
                ) from error
            # A full or unwritable disk is no row's fault.
            raise UserError(f"cannot write {workspace.root}/{path}: {error.strerror}") from error

    _chain, _write_pixels = chain, write_pixels
    for stage in chain.stages:
        stage.setup(device)


def start_process(chain: Chain, root: str, hand_out: SimpleQueue[str], threads: int) -> None:
    """The same as the first thing in a process of its own. What goes wrong is told by the first `run`."""
    global _broken
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the command's to handle
    threading.Thread(target=_die_with_parent, daemon=True).start()
    for name in (
        "OMP_NUM_THREADS",
        "OPENCV_FOR_THREADS_NUM",
    ):  # read when torch and OpenCV are imported, in setup
        os.environ[name] = str(threads)
    keep_memory()
    try:
        start(chain, Workspace(root), hand_out.get())
    except Exception as error:
        _broken = error


def keep_memory() -> None:
    """Have glibc keep what pictures leave behind: giving it back and asking anew costs a third of decoding."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return  # another C library
    for option in (M_TRIM_THRESHOLD, M_MMAP_THRESHOLD):
        mallopt(option, 1 << 30)


def _die_with_parent() -> None:
    """A killed command must not leave workers behind."""
    parent = parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)


def run(tasks: Sequence[Task]) -> list[Outcome]:
    """Take tasks through the chain: one outcome per task and stage. Never raises for a bad row."""
    if _broken is not None:
        raise _broken
    assert _chain is not None
    assert _write_pixels is not None
    outcomes: list[Outcome] = []
    items = {key: Item(key, row, _chain.open_picture(row)) for key, row, _ in tasks}
    for index, stage in enumerate(_chain.stages):
        batch = [items[key] for key, _, wanted in tasks if index in wanted]
        for at in range(0, len(batch), stage.batch_size):
            piece = batch[at : at + stage.batch_size]
            for item, result in zip(piece, _guarded(stage, piece, _write_pixels), strict=True):
                outcomes.append((item.key, index, result))
    return outcomes


def _guarded(stage: Stage, batch: list[Item], write_pixels: WritePixels) -> list[Result]:
    """Run a batch; where it raises, row by row, so that one bad row fails alone."""
    try:
        results = list(stage.process(batch, write_pixels))
        if len(results) != len(batch):
            raise RuntimeError(
                f"stage {stage.name} gave {len(results)} results for {len(batch)} inputs"
            )
        return [_checked(stage, item, result) for item, result in zip(batch, results, strict=True)]
    except AuthfaceError:
        raise  # missing weights, a wrong setting: no row's fault
    except Exception as error:
        if len(batch) > 1:
            return [_guarded(stage, [item], write_pixels)[0] for item in batch]
        return [Failed(f"{type(error).__name__}: {error}"[:500])]


def _checked(stage: Stage, item: Item, result: Result) -> Result:
    if isinstance(result, Rows):
        for row in result.rows:
            if row[stage.gives.source] != item.key:
                raise RuntimeError(
                    f"stage {stage.name} gave a row of {row[stage.gives.source]} for {item.key}"
                )
    return result
