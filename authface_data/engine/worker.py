"""The part of the engine that runs inside a worker: the main process or a worker process."""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import signal
import sys
import warnings
from collections.abc import Mapping, Sequence
from multiprocessing.queues import SimpleQueue
from typing import Any, NamedTuple

from authface_data.engine.stage import (
    Chain,
    Failed,
    FileLink,
    Item,
    Result,
    Rows,
    Stage,
    WritePixels,
)
from authface_data.images.open import PictureReadError, limit_memory
from manifests.support.child_process import exit_with_parent
from manifests.support.errors import AuthfaceError, UserError
from manifests.support.time_limit import TimeLimitError, time_limit
from manifests.workspace import Workspace

logger = logging.getLogger(__name__)


class Task(NamedTuple):
    """One input and the stages of the chain that it still needs.

    Attributes:
        key: The photo_id or face_id.
        row: The input row.
        stage_indices: Indices of the stages to run.
    """

    key: str
    row: Mapping[str, Any]
    stage_indices: tuple[int, ...]


class Outcome(NamedTuple):
    """The result of one stage for one input."""

    key: str
    stage_index: int
    result: Result


# Parameters of mallopt, from malloc.h.
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3

MAX_MESSAGE_LENGTH = 500
WARNINGS_COLUMN = "warnings"
"""Column of a manifest that receives the warnings of libraries."""

# The state of this process, set once by `load_chain` or `initialize_process`.
_chain: Chain | None = None
_write_pixels: WritePixels | None = None
_file_seconds = 0.0
_setup_error: Exception | None = None
_is_worker_process = False


def load_chain(chain: Chain, workspace: Workspace, device: str) -> None:
    """Load the chain's models in this process.

    Args:
        chain: The stages to run.
        workspace: Where pictures are written.
        device: A torch device, "cpu" or "cuda:0".
    """
    global _chain, _write_pixels, _file_seconds

    def write_pixels(path: str, data: bytes | FileLink) -> None:
        try:
            if isinstance(data, FileLink):
                workspace.link(path, data.file, data.hard)
            else:
                workspace.write_bytes(path, data)
        except OSError as error:
            if error.errno == errno.EXDEV:
                raise UserError(
                    "cannot make a hard link to another file system; use --files copy or reference"
                ) from error
            # A full or read-only disk stops the command: it is not a failure of the row.
            raise UserError(f"cannot write {workspace.root}/{path}: {error.strerror}") from error

    limits = workspace.settings.limits
    limit_memory(limits.picture_gb)
    _file_seconds = limits.file_seconds
    _chain = chain
    _write_pixels = write_pixels
    for stage in chain.stages:
        stage.setup(device)


def initialize_process(
    chains: SimpleQueue[Chain], root: str, num_threads: int, environment: Mapping[str, str]
) -> None:
    """Prepare a worker process of the local engine, see `initialize_worker`.

    Args:
        chains: The stages to run, once per worker; the process takes one of them.
        root: Root of the workspace.
        num_threads: Threads that numerical libraries may use.
        environment: The environment of the main process. That of the server process that this one
            is forked from may be older.
    """
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # The main process handles Ctrl-C.
    exit_with_parent()
    initialize_worker(chains.get(), root, num_threads)


def initialize_worker(chain: Chain, root: str, num_threads: int) -> None:
    """Prepare this process to run tasks. The first call of `run_tasks` raises what goes wrong here.

    Args:
        chain: The stages to run.
        root: Root of the workspace.
        num_threads: Threads that numerical libraries may use.
    """
    global _setup_error, _is_worker_process
    _is_worker_process = True
    limit_threads(num_threads)
    keep_freed_memory()
    try:
        load_chain(chain, Workspace(root), "cpu")
    except Exception as error:
        _setup_error = error


def limit_threads(count: int) -> None:
    """Limit the threads of torch and OpenCV, whether they are imported already or later."""
    for name in ("OMP_NUM_THREADS", "OPENCV_FOR_THREADS_NUM"):
        os.environ[name] = str(count)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(count)
    if "cv2" in sys.modules:
        sys.modules["cv2"].setNumThreads(count)


def keep_freed_memory() -> None:
    """Make glibc keep freed memory for the next picture.

    By default it returns large blocks to the system, and requesting them again takes a third of the
    decoding time.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return  # The C library is not glibc.
    for option in (M_TRIM_THRESHOLD, M_MMAP_THRESHOLD):
        mallopt(option, 1 << 30)


def run_tasks(tasks: Sequence[Task]) -> list[Outcome]:
    """Take tasks through the chain.

    An exception that one row causes becomes a `Failed` outcome. Errors that concern every row, such
    as missing weights or a full disk, are raised.

    Returns:
        One outcome per task and stage.
    """
    if _setup_error is not None:
        raise _setup_error
    assert _chain is not None
    assert _write_pixels is not None
    outcomes: list[Outcome] = []
    items = {task.key: Item(task.key, task.row, _chain.open_picture(task.row)) for task in tasks}
    for stage_index, stage in enumerate(_chain.stages):
        stage_items = [items[task.key] for task in tasks if stage_index in task.stage_indices]
        for start in range(0, len(stage_items), stage.batch_size):
            batch = stage_items[start : start + stage.batch_size]
            results = _process_batch(stage, batch, _write_pixels)
            for item, result in zip(batch, results, strict=True):
                outcomes.append(Outcome(item.key, stage_index, result))
    return outcomes


def _process_batch(stage: Stage, batch: list[Item], write_pixels: WritePixels) -> list[Result]:
    """Process a batch; if it raises, process its items one by one, so that only bad ones fail."""
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            results = _process_in_time(stage, batch, write_pixels)
        _check_results(stage, batch, results)
    except AuthfaceError:
        raise  # Missing weights or a wrong setting concern every row.
    except (Exception, TimeLimitError) as error:
        if len(batch) > 1:
            return [_process_batch(stage, [item], write_pixels)[0] for item in batch]
        return [_failure(error)]

    messages = list(dict.fromkeys(" ".join(str(warning.message).split()) for warning in caught))
    if messages:
        _note_warnings(stage, results, "; ".join(messages)[:MAX_MESSAGE_LENGTH])
    return results


def _process_in_time(stage: Stage, batch: list[Item], write_pixels: WritePixels) -> list[Result]:
    """Process a batch within the time limit of its files.

    Only photographs are files from outside. Other inputs are the workspace's own crops, and a
    captioner may need minutes for one.
    """
    if stage.subject != "photo":
        return list(stage.process(batch, write_pixels))
    with time_limit(_file_seconds * len(batch), ends_process=_is_worker_process):
        return list(stage.process(batch, write_pixels))


def _failure(error: BaseException) -> Failed:
    if isinstance(error, TimeLimitError):
        return Failed(f"took longer than {_file_seconds:g} s (limits.file_seconds)")
    if isinstance(error, PictureReadError):
        return Failed(str(error)[:MAX_MESSAGE_LENGTH], is_read_error=True)
    return Failed(f"{type(error).__name__}: {error}"[:MAX_MESSAGE_LENGTH])


def _note_warnings(stage: Stage, results: Sequence[Result], text: str) -> None:
    """Store warnings in the rows of a manifest with such a column, and log them otherwise."""
    has_column = WARNINGS_COLUMN in stage.manifest.schema.names
    for result in results:
        if has_column and isinstance(result, Rows):
            for row in result.rows:
                row[WARNINGS_COLUMN] = text
    if not has_column:
        logger.debug("%s: %s", stage.name, text)


def _check_results(stage: Stage, batch: list[Item], results: Sequence[Result]) -> None:
    """Raise if a stage breaks its contract: one result per item, rows of that item only."""
    if len(results) != len(batch):
        raise RuntimeError(
            f"stage {stage.name} gave {len(results)} results for {len(batch)} inputs"
        )
    input_column = stage.manifest.input_column
    for item, result in zip(batch, results, strict=True):
        rows = result.rows if isinstance(result, Rows) else []
        for row in rows:
            if row[input_column] != item.key:
                raise RuntimeError(
                    f"stage {stage.name} gave a row of {row[input_column]} for {item.key}"
                )
