"""The local engine: runs stages in this process or in worker processes and commits results."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from typing import Any

from authface_data.engine import worker
from authface_data.engine.plan import StagePlan, plan_stage, remove_outdated
from authface_data.engine.stage import Chain, Dropped, Failed, Result, Rows, Stage, verdict_gate
from authface_data.engine.worker import Outcome, Task
from manifests.schema import VERDICTS
from manifests.store import Store
from manifests.support.errors import PartialFailureError, UserError
from manifests.support.progress import ProgressBar
from manifests.verdicts import verdict_row
from manifests.workspace import Workspace

COMMIT_ROWS = 256
COMMIT_INTERVAL_S = 10.0
MAX_CHUNK_TASKS = 8
MIN_TASKS_PER_WORKER = 16
MAX_READ_ERRORS = 50
"""The run stops when this many files in a row could not be read: their drive is away."""

FetchInputs = Callable[[list[Task]], Iterator[Task | None]]
"""Yields every task once its input is available, perhaps with more columns in its row.

None means that no further task is available yet.
"""

ReportOutcomes = Callable[[list[Outcome]], None]


@dataclass
class Outcomes:
    """Counts of a run by stage name.

    Attributes:
        processed: Inputs that gave rows, or an empty list of them.
        dropped: Inputs that the stage refused.
        failed: Inputs that raised an exception.
        seconds: Duration of the run.
    """

    processed: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    def add(self, stage: Stage, result: Result) -> None:
        """Count one result.

        Args:
            stage: The stage that gave it.
            result: The result.
        """
        if isinstance(result, Rows):
            self.processed[stage.name] += 1
        elif isinstance(result, Dropped):
            self.dropped[stage.name] += 1
        else:
            self.failed[stage.name] += 1

    def rate(self, stage: Stage) -> float:
        """Inputs of a stage per second."""
        name = stage.name
        count = self.processed[name] + self.dropped[name] + self.failed[name]
        return count / max(self.seconds, 1e-9)


def run_chain(
    workspace: Workspace,
    chain: Chain,
    inputs: Sequence[tuple[str, Mapping[str, Any]]],
    *,
    title: str,
    workers: int | None = None,
    retry_failed: bool = False,
    redo: bool = False,
    fetch: FetchInputs | None = None,
) -> Outcomes:
    """Take every input through the stages that it still needs, and remove outdated results.

    If the run is interrupted, the rows in progress are lost; committed ones are not repeated.

    Args:
        workspace: The workspace to read and write.
        chain: The stages.
        inputs: Pairs of key and input row.
        title: Description of the progress bar.
        workers: Number of worker processes; 1 works in this process. Default: one per GPU for
            chains that use GPUs, else by the number of cores and tasks.
        retry_failed: Process failed inputs again.
        redo: Process stale inputs again. Their results were made with other settings, or from an
            input that has changed since.
        fetch: Makes inputs available that must be fetched first, such as downloads.

    Returns:
        Counts of what was done in this run.

    Raises:
        UserError: If inputs are stale and `redo` is false.
        PartialFailureError: If many files in a row could not be read.
    """
    plans = [plan_stage(workspace, stage, inputs) for stage in chain.stages]
    if not redo:
        _refuse_stale(plans)

    outcomes = Outcomes()
    tasks = _list_tasks(inputs, plans, retry_failed)
    if tasks:
        fingerprints = [plan.fingerprints for plan in plans]
        committer = _Committer(workspace, chain, fingerprints, outcomes)
        read_errors = _ReadErrors()
        started = time.monotonic()
        try:
            unit = f"{chain.stages[0].subject}s"
            with ProgressBar(title, total=len(tasks), unit=unit) as progress:

                def report(new_outcomes: list[Outcome]) -> None:
                    for outcome in new_outcomes:
                        committer.add(outcome)
                        read_errors.add(outcome.result)
                    progress.advance(len({outcome.key for outcome in new_outcomes}))

                _run_tasks(workspace, chain, tasks, workers=workers, fetch=fetch, report=report)
        finally:
            committer.commit()
            outcomes.seconds = time.monotonic() - started

    for plan in plans:
        remove_outdated(workspace, plan)
    return outcomes


def _refuse_stale(plans: Sequence[StagePlan]) -> None:
    stale = [f"{len(plan.stale)} of {plan.stage.name}" for plan in plans if plan.stale]
    if stale:
        raise UserError(
            f"{', '.join(stale)} were made with other settings, or their source has changed; "
            "pass --yes to make them again, or restore the settings"
        )


def _list_tasks(
    inputs: Sequence[tuple[str, Mapping[str, Any]]],
    plans: Sequence[StagePlan],
    retry_failed: bool,
) -> list[Task]:
    """One task per input that at least one stage has to process."""
    keys_by_stage = []
    for plan in plans:
        retried = plan.failed if retry_failed else []
        keys_by_stage.append({*plan.new, *plan.stale, *retried})

    tasks = []
    for key, row in inputs:
        stage_indices = tuple(index for index, keys in enumerate(keys_by_stage) if key in keys)
        if stage_indices:
            tasks.append(Task(key, row, stage_indices))
    return tasks


class _Committer:
    """Collects outcomes and commits them in groups.

    Rows are committed before verdicts, so that a kill in between repeats work but loses none.
    """

    def __init__(
        self,
        workspace: Workspace,
        chain: Chain,
        fingerprints: Sequence[Mapping[str, str]],
        outcomes: Outcomes,
    ) -> None:
        self.chain = chain
        self.fingerprints = fingerprints
        self.outcomes = outcomes
        self._row_stores = [Store(workspace, stage.manifest) for stage in chain.stages]
        self._verdict_store = Store(workspace, VERDICTS)
        self._rows: list[list[dict]] = [[] for _ in chain.stages]
        self._verdicts: list[dict] = []
        self._last_commit = time.monotonic()

    def add(self, outcome: Outcome) -> None:
        stage = self.chain.stages[outcome.stage_index]
        fingerprint = self.fingerprints[outcome.stage_index][outcome.key]
        result = outcome.result
        self.outcomes.add(stage, result)
        if isinstance(result, Rows) and result.rows:
            rows = [{**row, "fingerprint": fingerprint} for row in result.rows]
            self._rows[outcome.stage_index] += rows
        else:
            self._verdicts.append(_verdict(stage, outcome.key, result, fingerprint))

        num_waiting = len(self._verdicts) + sum(map(len, self._rows))
        seconds = time.monotonic() - self._last_commit
        if num_waiting >= COMMIT_ROWS or seconds > COMMIT_INTERVAL_S:
            self.commit()

    def commit(self) -> None:
        # The lists are emptied before they are written: if an interruption comes during the write,
        # the commit at the end of the run must not write the rows a second time.
        for index, store in enumerate(self._row_stores):
            rows = self._rows[index]
            self._rows[index] = []
            store.append(rows)
        verdicts = self._verdicts
        self._verdicts = []
        self._verdict_store.append(verdicts)
        self._last_commit = time.monotonic()


class _ReadErrors:
    """Stops a run when file after file cannot be read, as when a drive is unplugged."""

    def __init__(self) -> None:
        self._in_a_row = 0

    def add(self, result: Result) -> None:
        """Count a result. Raises PartialFailureError at `MAX_READ_ERRORS` in a row."""
        if not isinstance(result, Failed) or not result.is_read_error:
            self._in_a_row = 0
            return
        self._in_a_row += 1
        if self._in_a_row >= MAX_READ_ERRORS:
            raise PartialFailureError(
                f"{MAX_READ_ERRORS} files in a row could not be read (last: {result.message}); "
                "check that their drive is connected, then run the command again with "
                "--retry failed"
            )


def _verdict(stage: Stage, key: str, result: Result, fingerprint: str) -> dict:
    """The verdict on an input that gave no rows."""
    gate = verdict_gate(stage)
    if isinstance(result, Failed):
        return verdict_row(
            stage.subject, key, gate, "failed", fingerprint=fingerprint, reason=result.message
        )
    if isinstance(result, Dropped):
        return verdict_row(
            stage.subject,
            key,
            gate,
            "dropped",
            fingerprint=fingerprint,
            reason=result.reason,
            value=result.value,
            threshold=result.threshold,
        )
    return verdict_row(
        stage.subject, key, gate, "dropped", fingerprint=fingerprint, reason="nothing_found"
    )


def _run_tasks(
    workspace: Workspace,
    chain: Chain,
    tasks: list[Task],
    *,
    workers: int | None,
    fetch: FetchInputs | None,
    report: ReportOutcomes,
) -> None:
    devices = _choose_devices(chain, workers, len(tasks))
    if fetch is None:
        chunks = _chunk_tasks(tasks, _chunk_size(chain, len(tasks), len(devices)))
    else:
        chunks = _chunk_tasks(fetch(tasks), size=1)
    try:
        if len(devices) == 1:
            worker.load_chain(chain, workspace, devices[0])
            for chunk in chunks:
                report(worker.run_tasks(chunk))
        else:
            _WorkerProcesses(chain, workspace, devices, report).run(chunks)
    finally:
        chunks.close()  # Cancels inputs that are still being fetched.


def _choose_devices(chain: Chain, workers: int | None, num_tasks: int) -> list[str]:
    """One device per worker. A single worker is this process: starting others takes seconds."""
    num_gpus = 0
    if any(stage.uses_gpu for stage in chain.stages):
        import torch

        num_gpus = torch.cuda.device_count()
    if num_gpus:
        gpus = [f"cuda:{index}" for index in range(num_gpus)]
        return gpus[: workers or num_gpus]
    worthwhile_workers = max(1, min(os.cpu_count() or 1, num_tasks // MIN_TASKS_PER_WORKER))
    return ["cpu"] * (workers or worthwhile_workers)


def _chunk_size(chain: Chain, num_tasks: int, num_workers: int) -> int:
    """Tasks that a worker gets at once: at least a batch, but few enough to keep all busy."""
    max_batch_size = max(stage.batch_size for stage in chain.stages)
    return max(max_batch_size, min(MAX_CHUNK_TASKS, num_tasks // (4 * num_workers)), 1)


def _chunk_tasks(tasks: Iterable[Task | None], size: int) -> Generator[list[Task], None, None]:
    """Group tasks into chunks of `size`.

    A None in the tasks ends a chunk early, so a chunk may be short or empty: no further task is
    available yet.
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


class _WorkerProcesses:
    """Runs chunks of tasks in worker processes and survives workers that die.

    Args:
        chain: The stages.
        workspace: The workspace of the results.
        devices: One device per worker process.
        report: Called in this process with the outcomes of every finished chunk.
    """

    def __init__(
        self, chain: Chain, workspace: Workspace, devices: list[str], report: ReportOutcomes
    ) -> None:
        self.chain = chain
        self.workspace = workspace
        self.devices = devices
        self.report = report

    def run(self, chunks: Iterator[list[Task]]) -> None:
        """Run all chunks.

        When a worker dies, the tasks in progress are run again one by one, in one process as long
        as it lives. A task whose worker dies again is recorded as failed.
        """
        while suspects := self._run_until_crash(chunks, self.devices, 2 * len(self.devices)):
            one_by_one = iter([[task] for task in suspects])
            while culprits := self._run_until_crash(one_by_one, self.devices[:1], 1):
                for task in culprits:
                    failure = Failed("its worker process died: out of memory, or no answer in time")
                    self.report([Outcome(task.key, index, failure) for index in task.stage_indices])

    def _run_until_crash(
        self, chunks: Iterator[list[Task]], devices: list[str], max_running: int
    ) -> list[Task]:
        """Run chunks in new worker processes.

        Args:
            chunks: The chunks to run; those that are not started are left in it.
            devices: One device per worker process.
            max_running: Number of chunks that are in progress at once at most.

        Returns:
            The tasks that were in progress when a worker died, or [] if all chunks are done.
        """
        context = multiprocessing.get_context("spawn")
        device_queue = context.SimpleQueue()
        for device in devices:
            device_queue.put(device)
        num_threads = max(1, (os.cpu_count() or 1) // len(devices))
        submitted: list[list[Task]] = []
        with ProcessPoolExecutor(
            len(devices),
            mp_context=context,
            initializer=worker.initialize_process,
            initargs=(self.chain, self.workspace.root, device_queue, num_threads),
        ) as pool:
            try:
                self._feed(pool, chunks, max_running, submitted)
            except BrokenProcessPool:
                return [task for chunk in submitted for task in chunk]
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                for process in multiprocessing.active_children():
                    process.terminate()
                raise
        return []

    def _feed(
        self,
        pool: ProcessPoolExecutor,
        chunks: Iterator[list[Task]],
        max_running: int,
        submitted: list[list[Task]],
    ) -> None:
        """Keep the pool supplied with chunks until all are done.

        Args:
            pool: The worker processes.
            chunks: The chunks to run.
            max_running: Number of chunks that are in the pool at once at most.
            submitted: Updated in place: the chunks that are in the pool.
        """
        running: dict[Future, list[Task]] = {}
        has_more = True
        while has_more or running:
            while has_more and len(running) < max_running:
                chunk = next(chunks, None)
                has_more = chunk is not None
                if not chunk:
                    break
                submitted.append(chunk)
                # A submit may start a process. This process alone handles Ctrl-C, and a process
                # that is still starting would not ignore it yet.
                signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
                try:
                    running[pool.submit(worker.run_tasks, chunk)] = chunk
                finally:
                    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})

            # With room in the pool, only collect what is done and look for the next chunk.
            has_room = has_more and len(running) < max_running
            done, _ = wait(running, timeout=0 if has_room else None, return_when=FIRST_COMPLETED)
            for future in done:
                outcomes = future.result()
                submitted.remove(running.pop(future))
                self.report(outcomes)
