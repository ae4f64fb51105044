"""Chunks of tasks: what a worker gets at once."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator

from authface_data.engine.stage import Chain
from authface_data.engine.worker import Outcome, Task

MAX_CHUNK_TASKS = 8

FetchInputs = Callable[[list[Task]], Iterator[Task | None]]
"""Yields every task once its input is available, perhaps with more columns in its row.

None means that no further task is available yet.
"""

ReportOutcomes = Callable[[list[Outcome]], None]


def make_chunks(
    chain: Chain, tasks: list[Task], fetch: FetchInputs | None, num_workers: int
) -> Generator[list[Task], None, None]:
    """Group the tasks of a run into chunks. Closing the generator cancels what is being fetched.

    Args:
        chain: The stages.
        tasks: All tasks.
        fetch: Makes the inputs available, if they must be fetched; then a chunk is one task.
        num_workers: Number of workers.
    """
    if fetch is not None:
        return group_tasks(fetch(tasks), size=1)
    return group_tasks(tasks, _chunk_size(chain, len(tasks), num_workers))


def _chunk_size(chain: Chain, num_tasks: int, num_workers: int) -> int:
    """Tasks that a worker gets at once: at least a batch, but few enough to keep all busy."""
    max_batch_size = max(stage.batch_size for stage in chain.stages)
    return max(max_batch_size, min(MAX_CHUNK_TASKS, num_tasks // (4 * num_workers)), 1)


def group_tasks(tasks: Iterable[Task | None], size: int) -> Generator[list[Task], None, None]:
    """Group tasks into chunks of `size`.

    Args:
        tasks: The tasks. A None among them ends a chunk early, so that a chunk may be short or
            empty: no further task is available yet.
        size: Tasks per chunk.
    """
    chunk: list[Task] = []
    tasks = iter(tasks)
    try:
        for task in tasks:
            if task is not None:
                chunk.append(task)
            if task is None or len(chunk) == size:
                yield chunk
                chunk = []
        if chunk:
            yield chunk
    finally:
        if isinstance(tasks, Generator):
            tasks.close()
