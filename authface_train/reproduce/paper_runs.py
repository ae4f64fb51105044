"""The paper's tables at the paper's scale: commands in order, what they will take, and their running."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.table import Table

from authface_train.presets import card_of
from authface_train.reproduce.rows import ABLATIONS, Row
from manifests.support.console import console, print_json, run_command
from manifests.support.errors import AuthfaceError
from manifests.support.fingerprint import short_hash

Which = Literal["table1", "table2", "table3", "table4", "table5", "timestep"]
DRAWN, STUDIED = 1000, 20  # pictures of a prior for Table 3, pairs of Table 5
PAPER3 = (
    "The paper's, of drawn samples (FID / HPSv2): no prompts, pretrained 95.13 / .2637; semantic tags 62.90 / .2712; "
    "semantic and photographic tags 51.09 / .2903"
)


@dataclass(frozen=True)
class Given:
    """What the runs need: a workspace with the training faces, SDXL, and a test set (clean, fid may be None).

    output: everything lies there under paper/, apart by preset and test set. more: words for the trainers.
    """

    workspace: Path
    base: str
    preset: str
    output: Path
    degraded: Path
    clean: Path | None
    fid: Path | None
    test_set: str | None
    steps: int | None
    more: tuple[str, ...]

    @property
    def root(self) -> Path:
        return (
            self.output
            / "paper"
            / (self.preset if self.steps is None else f"{self.preset}-{self.steps}-steps")
        )

    @property
    def tested(self) -> Path:
        """Of this test set: what is restored and scored of two is not mixed."""
        return self.root / f"{self.test_set or 'test'}-{short_hash(str(self.degraded))}"


@dataclass(frozen=True)
class Step:
    """One command, the folder that it makes, and the file that says that just this command has ended well."""

    words: tuple[str, ...]
    makes: Path
    mark: Path

    @property
    def trains(self) -> bool:
        return self.words[0] in ("train-prior", "train-restore")

    @property
    def done(self) -> bool:
        return self.mark.is_file()


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
        words = [
            "study",
            "create",
            "--a",
            f"time-aware={_results(given, 'd')}",
            "--b",
            f"none={_results(given, 'b')}",
        ]
        folder = given.tested / "table5"
        made.append(
            _step(
                given,
                [*words, "--degraded", given.degraded, "--count", STUDIED, "--output", folder],
                folder,
            )
        )
    return made


def _table3(given: Given, tags: str) -> list[Step]:
    folder = given.root / "drawn" / tags
    prior = [] if tags == "none" else [_prior(given, tags)]
    model = given.base if tags == "none" else _model(given, f"prior-{tags}")
    count = DRAWN if given.steps is None else 2
    drawing = [
        "reproduce",
        "draw",
        "--model",
        model,
        "--count",
        count,
        "--output",
        folder,
        "-w",
        given.workspace,
    ]
    scores = given.tested / "table3" / tags
    fid = [
        "evaluate",
        "--restored",
        f"{tags}={folder}",
        "--fid-reference",
        given.degraded,
        "--metrics",
        "fid,niqe",
    ]
    scoring = _step(
        given, [*fid, "--allow-missing", "-w", given.workspace, "--output", scores], scores
    )
    return [*prior, _step(given, drawing, folder), scoring]


def _prior(given: Given, tags: str) -> Step:
    folder = _model(given, f"prior-{tags}")
    return _step(
        given,
        [
            *_training("train-prior", given),
            "--base",
            given.base,
            "--tags",
            tags,
            "--output",
            folder,
        ],
        folder,
    )


def _restorer(given: Given, row: Row) -> Step:
    folder = _model(given, f"restorer-{row.name}")
    on = (
        ["--base", given.base]
        if row.base == "generic"
        else ["--prior", _model(given, "prior-both")]
    )
    of_row = [
        "--facial-weight",
        row.weight,
        "--set",
        f"facial.m={row.m}",
        "--set",
        f"facial.s={row.s}",
    ]
    return _step(
        given, [*_training("train-restore", given), *on, *of_row, "--output", folder], folder
    )


def _training(command: str, given: Given) -> list[object]:
    words: list[object] = [command, "-w", given.workspace, "--preset", given.preset]
    if given.steps is not None:
        words += ["--steps", given.steps]
    return [*words, *given.more]


def _restore(given: Given, name: str) -> Step:
    folder = _results(given, name)
    words = [
        "restore",
        "--model",
        _model(given, f"restorer-{name}"),
        "--input",
        given.degraded,
        "--output",
        folder,
    ]
    few = ["--steps", 2] if given.steps is not None else []
    return _step(given, [*words, *few, "-w", given.workspace], folder)


def _evaluate(given: Given, which: str, rows: Iterable[str]) -> Step:
    folder = given.tested / which
    words: list[object] = [
        "evaluate",
        "--degraded",
        given.degraded,
        "--allow-missing",
        "-w",
        given.workspace,
    ]
    for name in rows:
        words += ["--restored", f"row {name}={_results(given, name)}"]
    for option, value in (
        ("--reference", given.clean),
        ("--fid-reference", given.fid),
        ("--set", given.test_set),
    ):
        if value is not None:
            words += [option, value]
    return _step(given, [*words, "--output", folder], folder)


def _model(given: Given, name: str) -> Path:
    return given.root / "models" / name


def _results(given: Given, name: str) -> Path:
    return given.tested / "restored" / name


def _step(given: Given, words: Iterable[object], makes: Path) -> Step:
    text = tuple(map(str, words))
    return Step(text, makes, given.root / "done" / short_hash(json.dumps(text)))


def show(plan: list[Step], given: Given, as_json: bool) -> bool:
    """Print the commands with what each training run takes, from its dry run. Returns whether all fit here."""
    found = [_dry_run(step, given) if step.trains and not step.done else None for step in plan]
    if as_json:
        told = [
            {"command": step.words, "done": step.done, "plan": of}
            for step, of in zip(plan, found, strict=True)
        ]
        print_json(told)
        return all(of["fits"] for of in found if of)
    table = Table("command", "hours", "GB a card", "disk GB", "fits")
    for step, of in zip(plan, found, strict=True):
        row = ["", "", "", "is done" if step.done else ""]
        if of:
            hours = "?" if of["hours"] is None else f"{of['hours']:.1f}"
            memory = f"{of['memory_total_gb']:.1f} of {of['memory_there_gb']:.1f}"
            row = [hours, memory, f"{of['disk_gb']:.1f}", "yes" if of["fits"] else "no"]
        table.add_row(_short(step), *row)
    console.print(table)
    all_hours, all_disk = (
        sum(of[name] or 0 for of in found if of) for name in ("hours", "disk_gb")
    )
    console.print(
        f"Training: {all_hours:.1f} hours and {all_disk:.1f} GB in all; restoring and scoring come on top"
    )
    return all(of["fits"] for of in found if of)


def _dry_run(step: Step, given: Given) -> dict[str, Any]:
    """A restorer's prior may not be there yet: SDXL's own U-Net, which is as large, stands for it."""
    words = list(step.words)
    if (
        "--prior" in words
        and not Path(words[words.index("--prior") + 1], "model_index.json").exists()
    ):
        place = words.index("--prior")
        words[place : place + 2] = ["--base", given.base]
    done = subprocess.run(
        [*launcher(given), *words, "--dry-run", "--json"], stdout=subprocess.PIPE, text=True
    )
    if done.returncode not in (0, 4):
        failure = AuthfaceError(
            f"the dry run of `authface {_short(step)}` ended with code {done.returncode}: see above"
        )
        failure.exit_code = done.returncode
        raise failure
    return json.loads(done.stdout)


def launcher(given: Given) -> list[str]:
    """What starts a trainer: a process for each card of the preset."""
    card = card_of(given.preset)
    if card is None or card.count == 1:
        return [sys.executable, "-P", "-m", "cli"]
    return [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc_per_node",
        str(card.count),
        "-m",
        "cli",
    ]


def _short(step: Step) -> str:
    """The command and what it makes."""
    return f"{step.words[0]} → {'/'.join(step.makes.parts[-2:])}"


def run(plan: list[Step], given: Given) -> None:
    """Each command that is not done; a training run that was begun goes on."""
    for step in plan:
        if step.done:
            continue
        if step.trains:
            resume = ["--resume"] if (step.makes / "run.json").is_file() else []
            run_command(*step.words, *resume, launcher=launcher(given))
        else:
            run_command(*step.words)
        step.mark.parent.mkdir(parents=True, exist_ok=True)
        step.mark.write_text(shlex.join(step.words))


def report(which: Which, given: Given) -> str:
    """Ours from the evaluations' summaries, beside what the paper prints. Empty where nothing was scored."""
    if which == "table3":
        lines = ["| captions | FID | NIQE |", "|---|---|---|"]
        for tags in ("none", "semantic", "both"):
            of = _means(given.tested / "table3" / tags)[tags]
            lines.append(f"| {tags} | {_number(of, 'fid')} | {_number(of, 'niqe')} |")
        return "\n".join([*lines, "", f"{PAPER3}."])
    if which not in ("table1", "table2", "table4"):
        return ""
    table = (given.tested / which / "table.md").read_text()
    return f"{table}\n{ABLATIONS[which].printed}." if which in ABLATIONS else table


def _means(folder: Path) -> dict[str, dict[str, float]]:
    return json.loads((folder / "summary.json").read_text())["methods"]


def _number(of: dict[str, float], name: str) -> str:
    return f"{of[name]:.2f}" if name in of else "-"
