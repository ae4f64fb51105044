"""The paper's tables at the paper's scale: commands in order, what they will take, and their running."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.table import Table

from authface_train.reproduce.rows import ABLATIONS, Row
from manifests.command_line import console, run_command
from manifests.errors import AuthfaceError, UserMistake

Which = Literal["table1", "table2", "table3", "table4", "table5", "timestep"]
DRAWN = 1000  # pictures of a prior for Table 3


@dataclass(frozen=True)
class Given:
    """What the runs need: a workspace with the training faces, SDXL, and a test set (clean may be None). more: for `--set`."""

    workspace: Path
    base: str
    preset: str
    output: Path
    degraded: Path
    clean: Path | None
    test_set: str | None
    steps: int | None
    more: tuple[str, ...]


@dataclass(frozen=True)
class Step:
    """One command, and the file that says that it is done."""

    words: tuple[str, ...]
    makes: Path

    @property
    def trains(self) -> bool:
        return self.words[0] in ("train-prior", "train-restore")


def steps(which: Which, given: Given) -> list[Step]:
    """The commands of a table, in order; those of one that another table has made already will be skipped."""
    if which == "table3":
        return [step for tags in ("none", "semantic", "both") for step in _table3(given, tags)]
    rows = {
        "table1": ("d",), "timestep": ("d",), "table5": ("d", "b"), "table2": ("a", "b", "c", "d"),
        "table4": tuple(ABLATIONS["table4"].rows),
    }[which]  # fmt: skip
    known = ABLATIONS["table4"].rows if which == "table4" else ABLATIONS["table2"].rows
    made = [_prior(given, "both")]
    for name in rows:
        made += [_restorer(given, known[name]), _restore(given, name)]
    if which in ("table1", "table2", "table4"):
        made.append(_evaluate(given, which, rows))
    if which == "table5":
        words = ["study", "create", "--a", f"time-aware={_results(given, 'd')}", "--b", f"none={_results(given, 'b')}"]
        folder = given.output / "table5"
        made.append(_step([*words, "--degraded", given.degraded, "--output", folder], folder / "study.html"))
    return made


def _table3(given: Given, tags: str) -> list[Step]:
    folder = given.output / "drawn" / tags
    prior = [] if tags == "none" else [_prior(given, tags)]
    model = given.base if tags == "none" else str(_model(given, f"prior-{tags}"))
    words = ["reproduce", "draw", "--model", model, "--count", str(DRAWN if given.steps is None else 2)]
    drawing = _step([*words, "--output", folder, "-w", given.workspace], folder / "captions.csv")
    scores = given.output / "table3" / tags
    if given.clean is None:
        raise UserMistake("Table 3's FID is a distance to clean faces: --reference DIR")
    fid = ["evaluate", "--restored", f"{tags}={folder}", "--fid-reference", given.clean, "--metrics", "fid,niqe"]
    return [*prior, drawing, _step([*fid, "--allow-missing", "--output", scores], scores / "summary.json")]


def _prior(given: Given, tags: str) -> Step:
    folder = _model(given, f"prior-{tags}")
    return _step([*_training("train-prior", given), "--base", given.base, "--tags", tags, "--output", folder], _index(folder))


def _restorer(given: Given, row: Row) -> Step:
    folder = _model(given, f"restorer-{row.name}")
    on = ["--base", given.base] if row.base == "generic" else ["--prior", _model(given, "prior-both")]
    of_row = ["--facial-weight", row.weight, "--set", f"facial.m={row.m}", "--set", f"facial.s={row.s}"]
    return _step([*_training("train-restore", given), *on, *of_row, "--output", folder], _index(folder))


def _training(command: str, given: Given) -> list[object]:
    words: list[object] = [command, "-w", given.workspace, "--preset", given.preset]
    if given.steps is not None:
        words += ["--steps", given.steps]
    return [*words, *(word for change in given.more for word in ("--set", change))]


def _restore(given: Given, name: str) -> Step:
    folder = _results(given, name)
    words = ["restore", "--model", _model(given, f"restorer-{name}"), "--input", given.degraded, "--output", folder]
    return _step([*words, *(["--steps", 2] if given.steps is not None else [])], folder / "restored.parquet")


def _evaluate(given: Given, which: str, rows: Iterable[str]) -> Step:
    words: list[object] = ["evaluate", "--degraded", given.degraded, "--allow-missing", "--output", given.output / which]
    for name in rows:
        words += ["--restored", f"{name}={_results(given, name)}"]
    if given.clean is not None:
        words += ["--reference", given.clean]
    if given.test_set is not None:
        words += ["--set", given.test_set]
    return _step(words, given.output / which / "summary.json")


def _model(given: Given, name: str) -> Path:
    return given.output / "models" / name


def _results(given: Given, name: str) -> Path:
    return given.output / "restored" / name


def _index(folder: Path) -> Path:
    return folder / "model_index.json"


def _step(words: Iterable[object], makes: Path) -> Step:
    return Step(tuple(map(str, words)), makes)


def show(plan: list[Step], given: Given) -> bool:
    """Print the commands with what each training run takes, from its dry run. Returns whether all fit here."""
    table = Table("command", "hours", "GB a card", "disk GB", "fits")
    hours, disk, fits = 0.0, 0.0, True
    for step in plan:
        if step.makes.exists():
            table.add_row(_short(step), "", "", "", "is done")
        elif not step.trains:
            table.add_row(_short(step), "", "", "", "")
        else:
            found = _dry_run(step, given)
            fits &= found["fits"]
            hours += found["hours"] or 0
            disk += found["disk_gb"]
            told = "?" if found["hours"] is None else f"{found['hours']:.1f}"
            table.add_row(
                _short(step), told, f"{found['memory_total_gb']:.1f} of {found['memory_there_gb']:.1f}",
                f"{found['disk_gb']:.1f}", "yes" if found["fits"] else "no",
            )  # fmt: skip
    console.print(table)
    console.print(f"Training: {hours:.1f} hours and {disk:.1f} GB in all; restoring and scoring come on top")
    return fits


def _dry_run(step: Step, given: Given) -> dict[str, Any]:
    """A restorer's prior may not be there yet: SDXL's own U-Net, which is as large, stands for it."""
    words = list(step.words)
    if "--prior" in words and not Path(words[words.index("--prior") + 1], "model_index.json").exists():
        place = words.index("--prior")
        words[place : place + 2] = ["--base", given.base]
    done = subprocess.run([sys.executable, "-P", "-m", "cli", *words, "--dry-run", "--json"], stdout=subprocess.PIPE, text=True)
    if done.returncode not in (0, 4):
        failure = AuthfaceError(f"the dry run of `authface {_short(step)}` ended with code {done.returncode}: see above")
        failure.exit_code = done.returncode
        raise failure
    return json.loads(done.stdout)


def _short(step: Step) -> str:
    """The command and what it makes."""
    return f"{step.words[0]} → {'/'.join(step.makes.parent.parts[-2:])}"


def run(plan: list[Step]) -> None:
    """Each command that is not done; a training run that was begun goes on."""
    for step in plan:
        if not step.makes.exists():
            begun = step.trains and (step.makes.parent / "run.json").is_file()
            run_command(*step.words, *(["--resume"] if begun else []))
