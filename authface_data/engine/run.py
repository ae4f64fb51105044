"""Runs the stages of a chain over inputs: skips finished work, commits results, records failures.

Where the stages run is the choice of an engine: on this machine, see `local`, or on the machines of
a Ray cluster, see `ray`. The rows are the same.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from authface_data.engine import local
from authface_data.engine.chunks import FetchInputs, ReportOutcomes
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
MAX_READ_ERRORS = 50
"""The run stops when this many files in a row could not be read: their drive is away."""


@dataclass(frozen=True)
class Engine:
    """Where the stages of a command run.

    Attributes:
        name: "local" for this machine, "ray" for a Ray cluster.
        workers: Number of workers; with the local engine, 1 works in this process. Default: by the
            number of cores and tasks.
        address: Address of the Ray cluster. Default: the environment variable RAY_ADDRESS, else
            a cluster on this machine, which ends with the command.
    """

    name: Literal["local", "ray"] = "local"
    workers: int | None = None
    address: str | None = None

    def run_tasks(
        self,
        workspace: Workspace,
        chain: Chain,
        tasks: list[Task],
        *,
        fetch: FetchInputs | None,
        report: ReportOutcomes,
    ) -> None:
        """Take all tasks through the chain.

        Args:
            workspace: The workspace of the results.
            chain: The stages.
            tasks: The tasks.
            fetch: Makes inputs available that must be fetched first.
            report: Called in this process with the outcomes of every finished chunk.

        Raises:
            MissingResourceError: If Ray is needed and not installed.
            UserError: If the Ray cluster cannot be used.
        """
        if self.name == "ray":
            from authface_data.engine import ray

            ray.run_tasks(
                workspace,
                chain,
                tasks,
                workers=self.workers,
                address=self.address,
                fetch=fetch,
                report=report,
            )
        else:
            local.run_tasks(
                workspace, chain, tasks, workers=self.workers, fetch=fetch, report=report
            )


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
    engine: Engine | None = None,
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
        engine: Where the stages run. Default: on this machine.
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

                chosen = engine or Engine()
                chosen.run_tasks(workspace, chain, tasks, fetch=fetch, report=report)
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
