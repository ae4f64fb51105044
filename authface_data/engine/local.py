"""The local engine: worker processes for CPU work, one owner per GPU, commits while it runs."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from typing import Any

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from authface_data.engine import worker
from authface_data.engine.plan import plan, settle
from authface_data.engine.stage import Chain, Dropped, Failed, Rows, Stage, ledger_gate
from authface_data.engine.worker import Outcome, Task
from manifests.schema import VERDICTS
from manifests.store import Store
from manifests.support.errors import UserError
from manifests.verdicts import verdict_row
from manifests.workspace import Workspace

COMMIT_ROWS, COMMIT_SECONDS = 256, 10.0
TASKS_PER_UNIT = 8

# Brings tasks in as they get ready, each once, its row perhaps changed; None: nothing is ready yet.
Arrive = Callable[[list[Task]], Iterator[Task | None]]


@dataclass
class Outcomes:
    """What a run did, per stage name: inputs that gave rows, were dropped, failed; and the time it took."""

    made: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    def add(self, stage: Stage, result: object) -> None:
        kind = (
            self.made
            if isinstance(result, Rows)
            else self.dropped
            if isinstance(result, Dropped)
            else self.failed
        )
        kind[stage.name] += 1

    def rate(self, stage: Stage) -> float:
        """Inputs per second."""
        name = stage.name
        return (self.made[name] + self.dropped[name] + self.failed[name]) / max(self.seconds, 1e-9)


def run(
    workspace: Workspace,
    chain: Chain,
    inputs: Sequence[tuple[str, dict[str, Any]]],
    *,
    title: str,
    workers: int | None = None,
    retry_failed: bool = False,
    redo: bool = False,
    arrive: Arrive | None = None,
) -> Outcomes:
    """Bring every input (key, row) through every stage that it still needs, and settle the manifests.

    redo: also make again what other settings made; without it, stale inputs are a UserError that counts them.
    workers: processes; 1 works in this process; None chooses by cores and work.
    arrive: where inputs must be fetched first.
    Interrupted at any moment it loses the rows in flight; what it committed is not repeated.
    """
    plans = [plan(workspace, stage, inputs) for stage in chain.stages]
    stale = {p.stage.name: len(p.stale) for p in plans if p.stale}
    if stale and not redo:
        what = ", ".join(f"{count} of {name}" for name, count in stale.items())
        raise UserError(
            f"{what} were made with other settings (or their source has changed) and would be made again: "
            "pass --yes, or set them back"
        )
    todo = {p.stage.name: {*p.new, *p.stale, *(p.failed if retry_failed else [])} for p in plans}
    tasks: list[Task] = []
    for key, row in inputs:
        wanted = tuple(i for i, stage in enumerate(chain.stages) if key in todo[stage.name])
        if wanted:
            tasks.append((key, row, wanted))
    outcomes = Outcomes()
    if tasks:
        committer = _Committer(workspace, chain, [p.fingerprints for p in plans], outcomes)
        started = time.monotonic()
        try:
            _work(workspace, chain, tasks, arrive, title, workers, committer)
        finally:
            committer.commit()
            outcomes.seconds = time.monotonic() - started
    for done in plans:
        settle(workspace, done)
    return outcomes


class _Committer:
    """Gathers outcomes and commits them: rows first, then verdicts, so that a kill between repeats but never loses."""

    def __init__(
        self,
        workspace: Workspace,
        chain: Chain,
        fingerprints: list[dict[str, str]],
        outcomes: Outcomes,
    ):
        self.chain, self.fingerprints, self.outcomes = chain, fingerprints, outcomes
        self.stores = [Store(workspace, stage.gives) for stage in chain.stages]
        self.verdict_store = Store(workspace, VERDICTS)
        self.rows: dict[int, list[dict]] = {index: [] for index in range(len(chain.stages))}
        self.verdicts: list[dict] = []
        self.last = time.monotonic()

    def add(self, outcome: Outcome) -> None:
        key, index, result = outcome
        stage, mark = self.chain.stages[index], self.fingerprints[index][key]
        self.outcomes.add(stage, result)
        gate, subject = ledger_gate(stage), stage.subject
        if isinstance(result, Failed):
            self.verdicts.append(verdict_row(subject, key, gate, "failed", mark, result.message))
        elif isinstance(result, Dropped):
            row = verdict_row(
                subject, key, gate, "dropped", mark, result.reason, result.value, result.threshold
            )
            self.verdicts.append(row)
        elif not result.rows:
            self.verdicts.append(verdict_row(subject, key, gate, "dropped", mark, "nothing_found"))
        else:
            self.rows[index] += [{**row, "fingerprint": mark} for row in result.rows]
        waiting = len(self.verdicts) + sum(map(len, self.rows.values()))
        if waiting >= COMMIT_ROWS or time.monotonic() - self.last > COMMIT_SECONDS:
            self.commit()

    def commit(self) -> None:
        # Taken out first: an interruption in the middle must not commit them a second time.
        for index, store in enumerate(self.stores):
            rows, self.rows[index] = self.rows[index], []
            store.append(rows)
        verdicts, self.verdicts = self.verdicts, []
        self.verdict_store.append(verdicts)
        self.last = time.monotonic()


def _work(
    workspace: Workspace,
    chain: Chain,
    tasks: list[Task],
    arrive: Arrive | None,
    title: str,
    workers: int | None,
    committer: _Committer,
) -> None:
    devices = _devices(chain, workers, len(tasks))
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    started = time.monotonic()
    with Progress(*columns) as progress:
        bar = progress.add_task(title, total=len(tasks), rate="")
        finished = 0

        def took(outcomes: list[Outcome]) -> None:
            nonlocal finished
            for outcome in outcomes:
                committer.add(outcome)
            finished += len({key for key, _, _ in outcomes})
            rate = finished / max(time.monotonic() - started, 1e-9)
            progress.update(bar, completed=finished, rate=f"{rate:.2f}/s")

        size = 1 if arrive else _unit_size(chain, len(tasks), len(devices))
        units = _units(arrive(tasks) if arrive else tasks, size)
        try:
            if len(devices) == 1:
                worker.start(chain, workspace, devices[0])
                for unit in units:
                    took(worker.run(unit))
            else:
                _in_processes(chain, workspace, units, devices, took)
        finally:
            units.close()  # what is still on its way is abandoned


def _devices(chain: Chain, workers: int | None, tasks: int) -> list[str]:
    """One entry per worker. One worker is this process itself: with little to do, starting others costs more."""
    cards = 0
    if any(stage.uses_gpu for stage in chain.stages):
        import torch

        cards = torch.cuda.device_count()
    if cards:
        return [f"cuda:{index}" for index in range(cards)][: workers or cards]
    return ["cpu"] * (workers or max(1, min(os.cpu_count() or 1, tasks // 16)))


def _unit_size(chain: Chain, tasks: int, workers: int) -> int:
    """Tasks handed over at once: at least a batch, but small enough that every worker has some."""
    batch = max(stage.batch_size for stage in chain.stages)
    return max(batch, min(TASKS_PER_UNIT, tasks // (4 * workers)), 1)


def _units(tasks: Iterable[Task | None], size: int) -> Generator[list[Task], None, None]:
    """Tasks in lists of `size`, the last of what is left; an empty or short one while nothing more is ready."""
    unit: list[Task] = []
    tasks = iter(tasks)
    try:
        for task in tasks:
            if task is not None:
                unit.append(task)
            if task is None or len(unit) == size:
                yield unit
                unit = []
        if unit:
            yield unit
    finally:
        if isinstance(tasks, Generator):
            tasks.close()


def _in_processes(
    chain: Chain,
    workspace: Workspace,
    units: Iterator[list[Task]],
    devices: list[str],
    took: Callable[[list[Outcome]], None],
) -> None:
    """Work in a pool. Rows in the hands of a worker that died are run again one by one; one that kills again is failed."""
    while suspects := _pool_run(chain, workspace, units, devices, took):
        for task in [task for unit in suspects for task in unit]:
            if _pool_run(chain, workspace, iter([[task]]), devices[:1], took):
                key, _, wanted = task
                took(
                    [
                        (key, index, Failed("its worker process died (out of memory?)"))
                        for index in wanted
                    ]
                )


def _pool_run(
    chain: Chain,
    workspace: Workspace,
    units: Iterator[list[Task]],
    devices: list[str],
    took: Callable[[list[Outcome]], None],
) -> list[list[Task]]:
    """Run units in fresh worker processes, to the last. Where a worker dies: the units that were in hand; others wait."""
    context = multiprocessing.get_context("spawn")
    hand_out = context.SimpleQueue()
    for device in devices:
        hand_out.put(device)
    threads = max(1, (os.cpu_count() or 1) // len(devices))
    in_hand: list[list[Task]] = []
    running: dict[Future, list[Task]] = {}
    with ProcessPoolExecutor(
        len(devices),
        mp_context=context,
        initializer=worker.start_process,
        initargs=(chain, workspace.root, hand_out, threads),
    ) as pool:
        try:
            more = True
            while more or running:
                while more and len(running) < 2 * len(devices):
                    unit = next(units, None)
                    more = unit is not None
                    if not unit:
                        break
                    in_hand.append(unit)
                    # Ctrl-C is this process's to handle: one that is just being started must not see it.
                    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
                    try:
                        running[pool.submit(worker.run, unit)] = unit
                    finally:
                        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
                for future in wait(
                    running,
                    timeout=0 if more and len(running) < 2 * len(devices) else None,
                    return_when=FIRST_COMPLETED,
                ).done:
                    outcomes = future.result()
                    in_hand.remove(running.pop(future))
                    took(outcomes)
        except BrokenProcessPool:
            return in_hand
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                process.terminate()
            raise
    return []
