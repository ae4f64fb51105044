"""A storm: commands on hostile files that are killed with SIGKILL again and again.

Each command runs undisturbed in one workspace. In a second workspace it is killed at random moments
and run again until it completes; then both must hold the same. Every input must end as exactly one
row or verdict, and no output may contain a traceback or a raw escape code.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from hostile_files import HostileFile, write_hostile_files
from storm_accounts import (
    Account,
    account_captions,
    account_collected,
    account_degraded,
    account_faces,
)
from storm_steps import MODEL_PX, STEPS, Side, Step, offered_to
from workspace_state import differences, read_files, read_state

from manifests.support.errors import AuthfaceError

STORM_PROCESS = Path(__file__).with_name("storm_process.py")
CONTROL_CHARACTERS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e]")
FAKE_GHOSTSCRIPT = """#!/bin/sh
[ "$1" = "--version" ] || echo "$@" >> "{marker}"
echo 10.0
"""
START_S = 0.4
"""Earliest moment of a kill: before, Python itself is starting."""
START_SHARE = 0.1
"""Share of a run in which a command that continues has not yet reached new work."""
WORKER_SHARE = 0.25
"""Share of the kills of a command with workers that hit a worker first, besides its first kill."""
WORKER_KILL_S = (0.2, 4.0)
"""When a worker process is killed, in seconds after the workers were started."""
MAX_WORKER_START_S = 20.0
MAX_WORKER_END_S = 10.0
POLL_S = 0.1
ATTEMPTS = 4
"""Attempts to kill a command that ends sooner than expected."""


@dataclass
class Figures:
    """The counts of a storm.

    Attributes:
        inputs: Files that were offered, and inputs of the later stages.
        files: Files that were offered to `collect`.
        rows: Inputs with a row.
        dropped: Inputs that were refused, with a reason.
        failed: Inputs whose processing failed, with a reason.
        skipped: Files that were counted by suffix.
        commands: Commands that ran to their end.
        kills: Processes that were killed with SIGKILL.
        worker_kills: Those of them that were worker processes.
        lost: Inputs with neither a row nor a verdict.
        doubled: Inputs with two results.
        tracebacks: Outputs with a traceback.
        hangs: Commands that exceeded their time limit.
        escapes: Outputs with a raw control character.
        executed: Files whose content was executed.
        differences: Results that differ from those of the undisturbed run.
        wrong: Files with another result than their kind requires.
        errors: Commands that ended with an unexpected exit code.
        slowest_s: Longest time of one file in one stage.
        slowest: That file and stage.
        peak_mb: Largest resident memory of a process that worked on files.
        seconds: Duration of the storm.
    """

    inputs: int = 0
    files: int = 0
    rows: int = 0
    dropped: int = 0
    failed: int = 0
    skipped: int = 0
    commands: int = 0
    kills: int = 0
    worker_kills: int = 0
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    tracebacks: list[str] = field(default_factory=list)
    hangs: list[str] = field(default_factory=list)
    escapes: list[str] = field(default_factory=list)
    executed: list[str] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    slowest_s: float = 0.0
    slowest: str = ""
    peak_mb: float = 0.0
    seconds: float = 0.0

    def faults(self) -> dict[str, list[str]]:
        """The lists that must be empty, by name."""
        return {name: value for name, value in vars(self).items() if isinstance(value, list)}

    def add(self, account: Account, title: str, are_files: bool) -> None:
        """Add the account of a command."""
        self.inputs += account.inputs
        self.files += account.inputs if are_files else 0
        self.rows += account.rows
        self.dropped += account.dropped
        self.failed += account.failed
        self.skipped += account.skipped
        self.lost += [f"{title}: {name}" for name in account.lost]
        self.doubled += [f"{title}: {name}" for name in account.doubled]
        self.wrong += [f"{title}: {name}" for name in account.wrong]


@dataclass(frozen=True)
class Ended:
    """A command that ended, by itself or killed.

    Attributes:
        code: Its exit code, negative for a signal.
        output: Both its streams.
        seconds: Its duration.
        num_operations: Its write operations; 0 if it was killed.
    """

    code: int
    output: str
    seconds: float
    num_operations: int


class Storm:
    """Runs the storm. `figures` holds its counts.

    Args:
        folder: A new folder for everything.
        num_files: Files of the corpus.
        num_kills: Kills over all commands.
        seed: Seed of the corpus and of the kills.
        deadline_s: Time limit of a command.
        show: Receives lines about the progress.
        only: Names of the steps to run. Default: all.
        kills_workers: Kill worker processes too. What they were processing is then processed again
            one by one, which takes a minute.
    """

    def __init__(
        self,
        folder: Path,
        *,
        num_files: int,
        num_kills: int,
        seed: int,
        deadline_s: float = 600,
        show: Callable[[str], None] = lambda line: None,
        only: tuple[str, ...] = (),
        kills_workers: bool = True,
    ) -> None:
        self.folder = folder
        self.num_files = num_files
        self.num_kills = num_kills
        self.rng = random.Random(seed)
        self.seed = seed
        self.deadline_s = deadline_s
        self.show = show
        self.steps = [step for step in STEPS if not only or step.name in only]
        self.kills_workers = kills_workers
        self.figures = Figures()
        self.marker = folder / "marker"
        self.log = folder / "log.jsonl"
        self.sessions: set[int] = set()
        self.differing: set[str] = set()

    def run(self) -> Figures:
        """Write the corpus and run every step in both workspaces."""
        started = time.monotonic()
        corpus = self.folder / "corpus"
        files = write_hostile_files(corpus, self.num_files, self.seed, self.marker)
        before = corpus_digest(corpus)
        self.show(f"{len(files)} files written in {time.monotonic() - started:.0f} s")
        self._write_ghostscript()
        model = self.folder / "model"
        if any(step.name == "restore" for step in self.steps):
            save_model(model)
        calm, stormy = (Side(self.folder / name, corpus, model) for name in ("calm", "storm"))
        for side in (calm, stormy):
            side.output.mkdir(parents=True)

        kills = self._share_kills()
        missed = 0
        for step in self.steps:
            planned = kills[step.name]
            if planned:
                planned += missed
            killed = self._run_step(step, calm, stormy, files, planned)
            if planned:
                # What a command's killed runs have done may leave too little for another kill.
                missed = max(0, planned - killed)
        if corpus_digest(corpus) != before:
            self.figures.differences.append("a file of the corpus was changed")
        self._check_processes()
        self._read_log()
        if self.marker.exists():
            self.figures.executed += self.marker.read_text(errors="replace").splitlines()
        self.figures.seconds = time.monotonic() - started
        return self.figures

    def _share_kills(self) -> dict[str, int]:
        """Number of kills of each step: one for each as far as they suffice, the rest by weight."""
        steps = sorted((step for step in self.steps if step.kills), key=lambda step: -step.kills)
        kills = {step.name: 0 for step in self.steps}
        for step in steps[: self.num_kills]:
            kills[step.name] = 1
        left = self.num_kills - sum(kills.values())
        total = sum(step.kills for step in steps) or 1
        shares = [int(step.kills * left / total) for step in steps]
        for index, step in enumerate(steps):
            kills[step.name] += shares[index] + (index < left - sum(shares))
        return kills

    def _run_step(
        self, step: Step, calm: Side, stormy: Side, files: list[HostileFile], num_kills: int
    ) -> int:
        """Run a step on both sides; returns the number of processes that were killed."""
        try:
            for side in (calm, stormy) if step.prepare else ():
                step.prepare(side)
        except (OSError, LookupError) as error:
            self.figures.errors.append(f"{step.name}: not prepared: {error!r}")
            return 0
        undisturbed = self._start(step, calm).finish()
        self._check(step, undisturbed)

        killed = 0
        kills_workers = self.kills_workers and step.has_workers
        share = min(1.0, 2 / max(num_kills, 1)) if step.has_workers else 1.0
        while killed < num_kills:
            hits = 0
            if kills_workers and (not killed or self.rng.random() < WORKER_SHARE):
                hits = self._kill_worker_and_command(step, stormy)
            hits = hits or self._kill(step, stormy, undisturbed, share)
            if not hits and not killed:
                self.figures.errors.append(f"{step.name}: it ends too soon to be killed")
            if not hits:
                break
            killed += hits
        completed = undisturbed
        if killed or step.kills:
            running = self._start(step, stormy)
            if killed and kills_workers:
                killed += self._kill_worker(running)
            completed = running.finish()
            self._check(step, completed)
        self.figures.kills += killed
        self._account(step, stormy, files, completed)
        self._compare(step, calm, stormy)
        self.show(
            f"{step.name}: {undisturbed.seconds:.1f} s, {undisturbed.num_operations} operations, "
            f"{killed} kills, exit codes {undisturbed.code} and {completed.code}"
        )
        return killed

    def _kill(self, step: Step, side: Side, undisturbed: Ended, share: float) -> int:
        """Start a command and kill it at a random moment.

        Args:
            step: The command.
            side: The arrangement in the storm.
            undisturbed: The same command in the other arrangement.
            share: The part of the undisturbed run, from its start, after which it is killed.

        Returns:
            The number of processes that were killed: 0 if the command always ends sooner.
        """
        for attempt in range(ATTEMPTS):
            by_operation = undisturbed.num_operations and self.rng.random() < 0.5 and not attempt
            if by_operation:
                last = max(round(share * undisturbed.num_operations), 1)
                ended = self._start(step, side, self.rng.randint(1, last)).finish()
                hits = int(ended.code == -signal.SIGKILL)
            else:
                latest = min(0.95, share + START_SHARE) * undisturbed.seconds * 0.5**attempt
                moment = self.rng.uniform(min(START_S, latest), latest)
                running = self._start(step, side)
                hits = 0 if running.wait(moment) else running.kill()
                ended = running.finish()
            self._scan(step, ended)
            if hits:
                return hits
        return 0

    def _kill_worker_and_command(self, step: Step, side: Side) -> int:
        """Start a command, kill one of its workers and then itself, and return the number killed.

        It returns 0 if the command ends without having started workers.
        """
        running = self._start(step, side)
        hits = self._kill_worker(running)
        if not running.wait(self.rng.uniform(*WORKER_KILL_S)):
            hits += running.kill()
        self._scan(step, running.finish())
        return hits

    def _kill_worker(self, running: Running) -> int:
        """Kill a worker process of a command; returns 0 if it ends without having started any."""
        deadline = time.monotonic() + MAX_WORKER_START_S
        while not running.wait(POLL_S) and time.monotonic() < deadline:
            if not list(running.workers()):
                continue
            running.wait(self.rng.uniform(*WORKER_KILL_S))
            with suppress(IndexError, psutil.NoSuchProcess):
                self.rng.choice(list(running.workers())).kill()
                self.figures.worker_kills += 1
                return 1
            return 0
        return 0

    def _start(self, step: Step, side: Side, stop: int = 0) -> Running:
        running = Running(
            list(map(str, step.arguments(side))),
            side.folder,
            {**self.environment, "STORM_STOP": str(stop)},
            self.deadline_s,
        )
        self.sessions.add(running.process.pid)
        return running

    @property
    def environment(self) -> dict[str, str]:
        """The environment of the commands: no network, and a Ghostscript that notes its calls."""
        return {
            **os.environ,
            "PATH": f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "STORM_LOG": str(self.log),
            "HF_HUB_OFFLINE": "1",
            "TRANSFORMERS_OFFLINE": "1",
            "COLUMNS": "200",
        }

    def _write_ghostscript(self) -> None:
        """Pillow runs `gs` for PostScript; ours writes the marker file instead."""
        path = self.folder / "bin" / "gs"
        path.parent.mkdir()
        path.write_text(FAKE_GHOSTSCRIPT.format(marker=self.marker))
        path.chmod(0o755)

    # Checks

    def _scan(self, step: Step, ended: Ended) -> None:
        """Look for tracebacks and raw control characters in an output."""
        if "Traceback" in ended.output or ended.code == 1:
            lines = [line for line in ended.output.splitlines() if line.strip()]
            self.figures.tracebacks.append(f"{step.name}: {' | '.join(lines[-3:])[-600:]}")
        control = CONTROL_CHARACTERS.search(ended.output)
        if control is not None:
            line = ended.output[max(control.start() - 60, 0) : control.end() + 40]
            self.figures.escapes.append(f"{step.name}: {line!r}")

    def _check(self, step: Step, ended: Ended) -> None:
        """Check a command that was not killed."""
        self._scan(step, ended)
        self.figures.commands += 1
        if ended.code == -signal.SIGKILL:
            self.figures.hangs.append(f"{step.name}: more than {self.deadline_s:.0f} s")
        elif ended.code not in step.codes and ended.code != 1:
            lines = [line for line in ended.output.splitlines() if line.strip()]
            last = " | ".join(lines[-2:])[-400:]
            self.figures.errors.append(f"{step.name}: exit code {ended.code}: {last}")

    def _account(self, step: Step, side: Side, files: list[HostileFile], completed: Ended) -> None:
        root = side.workspace
        try:
            if step.collects is not None:
                offered = offered_to(step, side, files)
                folder = side.corpus / step.collects
                account = account_collected(root, folder, offered, completed.output)
            elif step.name == "filter":
                account = account_faces(root)
            elif step.name == "caption":
                account = account_captions(root)
            elif step.name == "degrade":
                account = account_degraded(side.part(1), side.output / "degraded", completed.output)
            else:
                return
        except (AuthfaceError, OSError, ValueError, KeyError) as error:
            self.figures.errors.append(f"{step.name}: no account: {error!r}"[:300])
            return
        self.figures.add(account, step.name, are_files=step.collects is not None)

    def _compare(self, step: Step, calm: Side, stormy: Side) -> None:
        """Compare the workspaces and the outputs of both sides after a step."""
        states = [
            {
                **(read_state(side.workspace) if side.workspace.exists() else {}),
                **{name: read_files(side.folder / name) for name in step.outputs},
            }
            for side in (calm, stormy)
        ]
        for name, text in differences(*states).items():
            if name not in self.differing:  # The later steps would only repeat it.
                self.differing.add(name)
                self.figures.differences.append(f"{step.name}: {name}: {text}")

    def _check_processes(self) -> None:
        """Workers must end with their command, also when it is killed."""
        deadline = time.monotonic() + 20
        while remaining := [pid for pid in psutil.pids() if session_of(pid) in self.sessions]:
            if time.monotonic() > deadline:
                self.figures.hangs.append(f"{len(remaining)} processes did not end")
                break
            time.sleep(0.2)

    def _read_log(self) -> None:
        """Find the slowest file and the largest memory of the processes that worked on files."""
        for line in self.log.read_text().splitlines():
            entry = json.loads(line)
            if "stage" not in entry:
                continue
            self.figures.peak_mb = max(self.figures.peak_mb, entry["peak_kb"] / 1024)
            if entry["seconds"] > self.figures.slowest_s:
                self.figures.slowest_s = entry["seconds"]
                self.figures.slowest = f"{entry['stage']} {entry['keys'][0]}"


class Running:
    """A command that runs in a new session.

    Args:
        arguments: The command and its arguments.
        folder: The working directory.
        environment: Its environment, with the variables of storm_process.py.
        deadline_s: Time after which it is killed.
    """

    def __init__(
        self, arguments: list[str], folder: Path, environment: dict[str, str], deadline_s: float
    ) -> None:
        self.log = Path(environment["STORM_LOG"])
        self.deadline_s = deadline_s
        self.started = time.monotonic()
        self.output_path = self.log.with_name(f"output-{time.monotonic_ns()}")
        with self.output_path.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-P", STORM_PROCESS, *arguments],
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env=environment,
                start_new_session=True,
            )

    def wait(self, seconds: float) -> bool:
        """Wait for some seconds and return whether the command has ended."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def workers(self) -> Iterator[psutil.Process]:
        """Its worker processes, which a server process has forked."""
        with suppress(psutil.Error):
            for child in psutil.Process(self.process.pid).children():
                with suppress(psutil.Error):
                    if any("forkserver" in argument for argument in child.cmdline()):
                        yield from child.children()

    def kill(self) -> int:
        """Kill it with SIGKILL, and return whether it was still running."""
        if self.process.poll() is not None:
            return 0
        self.process.send_signal(signal.SIGKILL)
        return 1

    def finish(self) -> Ended:
        """Wait for its end. After the time limit its session is killed."""
        if not self.wait(self.deadline_s):
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        seconds = time.monotonic() - self.started
        self._wait_for_workers()
        output = self.output_path.read_bytes().decode("utf-8", "replace")
        self.output_path.unlink()
        return Ended(self.process.returncode, output, seconds, self._num_operations())

    def _wait_for_workers(self) -> None:
        """Wait until the workers of a killed command have ended.

        A temporary file that one of them is writing stays until the next command starts.
        """
        deadline = time.monotonic() + MAX_WORKER_END_S
        while time.monotonic() < deadline:
            if all(session_of(pid) != self.process.pid for pid in psutil.pids()):
                return
            time.sleep(POLL_S)

    def _num_operations(self) -> int:
        """Operations by the last line of the log, which a killed command does not write."""
        if self.process.returncode < 0 or not self.log.exists():
            return 0
        last = json.loads(self.log.read_text().splitlines()[-1])
        return int(last.get("operations", 0)) if last["pid"] == self.process.pid else 0


def save_model(folder: Path) -> None:
    """Save a tiny restorer, in a new process: the storm itself does not load torch."""
    script = (
        "import sys; from pathlib import Path; from tiny_restorer import save_tiny_restorer; "
        "save_tiny_restorer(Path(sys.argv[1]), int(sys.argv[2]))"
    )
    subprocess.run(
        [sys.executable, "-c", script, folder, str(MODEL_PX)],
        env={**os.environ, "PYTHONPATH": str(STORM_PROCESS.parent)},
        capture_output=True,
        check=True,
    )


def session_of(pid: int) -> int:
    """The session of a process, or -1 if it has ended."""
    try:
        return os.getsid(pid)
    except (ProcessLookupError, PermissionError):
        return -1


def corpus_digest(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of change of every file: the commands must not touch them."""
    return {
        str(path.relative_to(folder)): (path.lstat().st_size, path.lstat().st_mtime_ns)
        for path in folder.rglob("*")
        if not path.is_dir()
    }
