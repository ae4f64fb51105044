"""A storm over both trainers: runs of two processes are killed and terminated, and resumed.

Each stage is trained once undisturbed, then again while torchrun and its processes receive signals
at seeded random moments. After each signal everything must end by itself, and the same command,
with `--resume`, must continue. The finished run must have the same bits as the undisturbed one.
"""

from __future__ import annotations

import random
import re
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import psutil
from commands import set_options
from processes import POLL_S, wait_until_ended

from authface_train.runs.checkpoint import list_steps
from manifests.run_folder import CHECKPOINTS, METRICS_FILE, is_finished, step_name

NUM_PROCESSES = 2
DEADLINE_S = 300.0
"""Longest duration of a run, and of the end of its processes after a signal."""
STAGES = ("prior", "restorer")
SAVED = re.compile(r"stopped after step (\d+) and saved")
# TensorBoard's files hold times; run.json holds the version and the base's path.
NOT_COMPARED = ("logs", "run.json", ".lock")


@dataclass
class TrainFigures:
    """Counts of a storm. Lists hold what must not happen."""

    launches: int = 0
    kills: int = 0
    terms: int = 0
    saved_after_term: int = 0
    resumes: int = 0
    completed: int = 0
    ended_before_signal: int = 0
    compared_files: int = 0
    longest_end_s: float = 0.0
    differing: list[str] = field(default_factory=list)
    tracebacks: list[str] = field(default_factory=list)
    hangs: list[str] = field(default_factory=list)
    left_over: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def faults(self) -> dict[str, list[str]]:
        """What must not happen, by name."""
        return {name: value for name, value in vars(self).items() if isinstance(value, list)}


@dataclass(frozen=True)
class Disturbance:
    """A signal at a moment.

    Attributes:
        number: SIGKILL or SIGTERM.
        target: "all" for torchrun and its processes, as of a machine that fails or of Slurm;
            "launcher" for torchrun alone; "rank" for one of its processes.
        after_steps: The signal is sent when this many steps more are recorded; None sends it while
            the processes start.
        delay_s: Time after that moment.
    """

    number: signal.Signals
    target: str
    after_steps: int | None
    delay_s: float


class Launched(Protocol):
    """The process of a launcher."""

    @property
    def pid(self) -> int:
        """Id of the process."""
        ...

    def wait(self, timeout_s: float) -> int | None:
        """Wait for its end; returns its exit code, or None if it is still running."""
        ...


Launch = Callable[[Sequence[object], Path], Launched]
"""Starts torchrun with an authface command; the folder receives one folder of output per process,
named `ranks`."""


@dataclass(frozen=True)
class Schedule:
    """Length of the runs and of the storm.

    Attributes:
        kills: Number of SIGKILLs over all stages.
        terms: Number of SIGTERMs over all stages.
        steps: Steps of a run.
        checkpoint_every: Steps between checkpoints.
        max_steps: Largest number of steps between two signals.
        start_s: Longest delay of a signal that is sent while the processes start.
        seed: Seed of the moments.
        stages: The stages to train.
    """

    kills: int
    terms: int
    steps: int = 60
    checkpoint_every: int = 7
    max_steps: int = 12
    start_s: float = 15.0
    seed: int = 1
    stages: tuple[str, ...] = STAGES


class TrainStorm:
    """Trains both stages undisturbed and in a storm, and compares the runs.

    Args:
        folder: Folder for the runs and the output of the processes.
        workspace: A filled workspace; its cache is written to.
        launch: Starts two processes.
        schedule: Length of the storm.
        show: Receives a line about each step of the storm.
    """

    def __init__(
        self,
        folder: Path,
        workspace: Path,
        launch: Launch,
        schedule: Schedule,
        show: Callable[[str], None],
    ) -> None:
        self.folder = folder
        self.workspace = workspace
        self.launch = launch
        self.schedule = schedule
        self.show = show
        self.figures = TrainFigures()

    def run(self) -> TrainFigures:
        """Run the storm and return its counts."""
        rng = random.Random(self.schedule.seed)
        disturbances = self._draw(rng)
        for index, stage in enumerate(self.schedule.stages):
            calm = self.folder / f"{stage}-calm"
            code, _ = self._train(stage, calm, None, rng)
            if code != 0:
                self.figures.errors.append(f"{stage}: the undisturbed run ended with {code}")
                continue
            self._storm(stage, calm, disturbances[index :: len(self.schedule.stages)], rng)
        return self.figures

    def _draw(self, rng: random.Random) -> list[Disturbance]:
        schedule = self.schedule
        numbers = [signal.SIGKILL] * schedule.kills + [signal.SIGTERM] * schedule.terms
        rng.shuffle(numbers)
        return [
            Disturbance(
                number,
                target=rng.choice(["all", "launcher", "rank"]),
                after_steps=None if rng.random() < 0.25 else rng.randint(1, schedule.max_steps),
                delay_s=rng.uniform(0, 0.3),
            )
            for number in numbers
        ]

    def _storm(
        self, stage: str, calm: Path, disturbances: list[Disturbance], rng: random.Random
    ) -> None:
        """Disturb runs of a stage until all signals are sent, then finish the last one."""
        number = 0
        remaining = list(disturbances)
        while True:
            run = self.folder / f"{stage}-{number}"
            disturbance = remaining[0] if remaining else None
            needs_steps = disturbance is not None and disturbance.after_steps is not None
            if needs_steps and _last_step(run) >= self.schedule.steps:
                disturbance = None
            self.figures.resumes += (run / METRICS_FILE).exists()
            code, was_sent = self._train(stage, run, disturbance, rng)
            if was_sent:
                remaining.pop(0)
                if not remaining or code is None or not is_finished(run):
                    continue
            elif code != 0:
                self.figures.errors.append(f"{run.name}: exit code {code} without a signal")
                return
            elif disturbance is not None:
                self.figures.ended_before_signal += 1
            self.figures.completed += 1
            self._compare(calm, run)
            if not remaining:
                return
            number += 1

    def _command(self, stage: str, run: Path) -> list[object]:
        """The command of a run, which is the same for its start and for its continuation."""
        schedule = self.schedule
        options: list[object] = ["--preset", "tiny", "--steps", schedule.steps, "--resume"]
        options += ["-w", self.workspace, "--output", run]
        options += set_options(
            f"checkpoint_every={schedule.checkpoint_every}",
            "checkpoint_in_background=true",
            "micro_batch=2",
            "workers=1",
        )
        if stage == "prior":
            changes = ("audit=false", "draw.every=20", "draw.steps=2", "ema_decay=0.9")
            return ["train-prior", *options, *set_options(*changes)]
        changes = ("facial.discriminator_only_steps=0", "validation.every=0")
        prior = self.folder / "prior-calm"
        return ["train-restore", *options, "--prior", prior, *set_options(*changes)]

    def _train(
        self, stage: str, run: Path, disturbance: Disturbance | None, rng: random.Random
    ) -> tuple[int | None, bool]:
        """Start or continue a run, and disturb it.

        Returns:
            The exit code of the launcher, or None if it hangs; and whether the signal was sent.
        """
        self.figures.launches += 1
        output = self.folder / "output" / f"{self.figures.launches:03d}"
        first_step = _last_step(run)
        launched = self.launch(self._command(stage, run), output)
        processes = Processes(launched.pid)
        was_sent = False
        if disturbance is not None:
            was_sent = self._wait_and_send(disturbance, launched, processes, run, first_step, rng)
        started = time.monotonic()
        code = self._wait_for_end(launched, processes)
        seconds = time.monotonic() - started
        if was_sent:
            self.figures.longest_end_s = max(self.figures.longest_end_s, seconds)
        name = f"{run.name} ({output.name})"
        texts = [
            path.read_text(errors="replace") for path in sorted(output.rglob("ranks/**/*.log"))
        ]
        self._read_output(name, texts, disturbance if was_sent else None)
        self.show(
            f"{name}: {_describe(disturbance) if was_sent else 'undisturbed'}, "
            f"step {_last_step(run)}, exit code {code}, {seconds:.1f} s to the end"
        )
        return code, was_sent

    def _wait_and_send(
        self,
        disturbance: Disturbance,
        launched: Launched,
        processes: Processes,
        run: Path,
        first_step: int,
        rng: random.Random,
    ) -> bool:
        """Wait for the moment of a signal and send it. Returns whether it was sent."""
        deadline = time.monotonic() + DEADLINE_S
        delay_s = disturbance.delay_s
        if disturbance.after_steps is None:
            delay_s = rng.uniform(0.1, self.schedule.start_s)
        else:
            target = first_step + disturbance.after_steps
            while _last_step(run) < min(target, self.schedule.steps):
                processes.update()
                if launched.wait(POLL_S) is not None or time.monotonic() > deadline:
                    return False
        while delay_s > 0:
            processes.update()
            if launched.wait(POLL_S) is not None:
                return False
            delay_s -= POLL_S
        processes.update()
        if not processes.send(disturbance, rng):
            return False
        self.figures.kills += disturbance.number == signal.SIGKILL
        self.figures.terms += disturbance.number == signal.SIGTERM
        return True

    def _wait_for_end(self, launched: Launched, processes: Processes) -> int | None:
        """Wait until the launcher and all its processes have ended."""
        deadline = time.monotonic() + DEADLINE_S
        code = None
        while code is None and time.monotonic() < deadline:
            processes.update()
            code = launched.wait(POLL_S)
        if code is None:
            self.figures.hangs.append(f"launch {self.figures.launches}")
        timeout_s = max(1.0, min(60.0, deadline - time.monotonic()))
        for process in wait_until_ended(processes.known.values(), timeout_s):
            self.figures.left_over.append(f"launch {self.figures.launches}: {process}")
            with suppress(psutil.Error):
                process.kill()
        return code

    def _read_output(
        self, name: str, texts: Sequence[str], disturbance: Disturbance | None
    ) -> None:
        for text in texts:
            if "Traceback" in text:
                lines = text[text.index("Traceback") :].splitlines()
                self.figures.tracebacks.append(f"{name}: {lines[-1][:300]}")
        if disturbance is not None and disturbance.number == signal.SIGTERM:
            self.figures.saved_after_term += any(SAVED.search(text) for text in texts)

    def _compare(self, calm: Path, run: Path) -> None:
        """Compare the files of two finished runs."""
        expected = read_files(calm)
        actual = read_files(run)
        # Runs keep the two newest checkpoints: the last one, which both have, and one before it,
        # which in a run that was stopped may be of the step where it stopped.
        kept = [set(list_steps(folder / CHECKPOINTS)) for folder in (calm, run)]
        stopped_at = {step_name(step) for step in kept[0] ^ kept[1] if step < self.schedule.steps}
        self.figures.compared_files += len(expected)
        for name in sorted(expected.keys() | actual.keys()):
            if stopped_at & set(Path(name).parts):
                continue
            if expected.get(name) != actual.get(name):
                self.figures.differing.append(f"{run.name}: {name}")


class Processes:
    """A launcher and all processes that it and they have started.

    Args:
        pid: Process of the launcher.
    """

    def __init__(self, pid: int) -> None:
        self.launcher = psutil.Process(pid)
        self.known: dict[int, psutil.Process] = {pid: self.launcher}

    def update(self) -> None:
        """Find new processes."""
        for process in list(self.known.values()):
            with suppress(psutil.Error):
                for child in process.children():
                    self.known.setdefault(child.pid, child)

    def ranks(self) -> list[psutil.Process]:
        """The training processes."""
        with suppress(psutil.Error):
            children = self.launcher.children()
            return [child for child in children if "authface" in " ".join(child.cmdline())]
        return []

    def send(self, disturbance: Disturbance, rng: random.Random) -> bool:
        """Send a signal. Returns whether a process received it."""
        targets = [self.launcher]
        if disturbance.target == "all":
            targets = list(self.known.values())
        elif disturbance.target == "rank":
            targets = rng.sample(self.ranks(), 1) if self.ranks() else [self.launcher]
        sent = False
        for process in targets:
            with suppress(psutil.Error):
                process.send_signal(disturbance.number)
                sent = True
        return sent


def _last_step(run: Path) -> int:
    """Number of steps that the metrics of a run record."""
    with suppress(OSError):
        last_line = (run / METRICS_FILE).read_text().splitlines()[-1:]
        step = last_line[0].split(",")[0] if last_line else ""
        return int(step) if step.isdigit() else 0
    return 0


def _describe(disturbance: Disturbance | None) -> str:
    assert disturbance is not None
    moment = "at the start" if disturbance.after_steps is None else "in training"
    return f"{disturbance.number.name} to {disturbance.target} {moment}"


def read_files(run: Path) -> dict[str, bytes]:
    """Content of the files of a finished run by name: model, checkpoints, metrics, previews."""
    return {
        str(path.relative_to(run)): path.read_bytes()
        for path in run.rglob("*")
        if path.is_file() and path.relative_to(run).parts[0] not in NOT_COMPARED
    }
