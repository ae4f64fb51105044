"""The paper's tables at the paper's scale: plans, estimates and runs a sequence of commands."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from authface_train.evaluation.image_pairs import find_pictures
from authface_train.evaluation.prompts import PROMPTS_FILE
from authface_train.evaluation.summary import decimals
from authface_train.models.sdxl import is_on_this_machine
from authface_train.models.sdxl_config import PIPELINE_FILES
from authface_train.presets import card_of
from authface_train.reproduce.rows import ABLATIONS, TABLE2_ROWS, TABLE4_ROWS, Row
from authface_train.runs.training_run import COMMANDS
from manifests.run_folder import is_finished, read_run
from manifests.support.console import run_command
from manifests.support.errors import AuthfaceError, MissingResourceError
from manifests.support.files import write_atomic
from manifests.support.fingerprint import short_hash
from manifests.workspace import Workspace

NUM_SAMPLES = 1000
"""Images that a prior generates for Table 3."""
NUM_STUDY_PAIRS = 20
"""Pairs of Table 5."""
NUM_RANKED_PROMPTS = 10
"""Prompts of Table 3 whose images people rank."""
SOURCES = {"prior": "portraits", "restorer": "ffhq"}
"""Training faces of each stage in the paper; setting `source`."""
ONE_PROCESS = [sys.executable, "-P", "-m", "cli"]
"""The command that starts authface in one process."""
ROWS_OF_TABLE = {
    "table1": ("d",),
    "table2": ("a", "b", "c", "d"),
    "table4": tuple(TABLE4_ROWS),
    "table5": ("d", "b"),
    "timestep": ("d",),
}
TABLE3_TAGS = ("none", "semantic", "both")
PAPER_TABLE3 = (
    "The paper's, of drawn samples (FID / HPSv2): no prompts, pretrained 95.13 / .2637; "
    "semantic tags 62.90 / .2712; semantic and photographic tags 51.09 / .2903"
)


@dataclass(frozen=True, kw_only=True)
class PaperRequest:
    """Models, data and options for the paper's tables.

    Attributes:
        workspace: Workspace with the training faces.
        base: SDXL, hub id or folder.
        preset: Preset of the trainers.
        output: Folder of all results, with a sub-folder per preset and test set.
        degraded: Degraded faces of the test set; None for Table 3, which restores nothing.
        clean: Clean faces of the test set, or None.
        fid_reference: Real faces that FID is measured against. None uses the clean faces.
        test_set: Name of the test set, or None.
        steps: Steps of each training run, for a short trial. None uses the preset's.
        changes: Settings of the trainers as KEY=VALUE. Those of one stage begin with `prior.` or
            `restorer.`; the others are for both.
        allow_unknown_licence: Train on faces without a licence basis.
    """

    workspace: Path
    base: str
    preset: str
    output: Path
    degraded: Path | None
    clean: Path | None
    fid_reference: Path | None
    test_set: str | None
    steps: int | None
    changes: tuple[str, ...]
    allow_unknown_licence: bool

    @property
    def root(self) -> Path:
        """Folder of the models and of everything made with them."""
        name = self.preset if self.steps is None else f"{self.preset}-{self.steps}-steps"
        return self.output / "paper" / name

    @property
    def real_faces(self) -> Path | None:
        """The real faces that FID is measured against, never the degraded ones."""
        return self.fid_reference or self.clean

    @property
    def test_folder(self) -> Path:
        """Folder of the results on this test set."""
        faces = self.degraded or self.real_faces
        return self.root / f"{self.test_set or 'test'}-{short_hash(str(faces))}"

    def model(self, name: str) -> Path:
        """Folder of a trained model."""
        return self.root / "models" / name

    def restored(self, row: str) -> Path:
        """Folder of the faces that a row has restored."""
        return self.test_folder / "restored" / row


@dataclass(frozen=True)
class PlannedCommand:
    """One command of a plan.

    Attributes:
        arguments: The command line without `authface`.
        folder: Output folder of the command.
        done_file: File that is written when the command has succeeded, named by a hash of it.
    """

    arguments: tuple[str, ...]
    folder: Path
    done_file: Path

    @property
    def trains(self) -> bool:
        """Whether the command trains a model."""
        return self.arguments[0] in ("train-prior", "train-restore")

    @property
    def is_done(self) -> bool:
        """Whether the command has succeeded before."""
        return self.done_file.is_file()

    @property
    def label(self) -> str:
        """Short text for messages, such as "train-prior → models/prior-both"."""
        return f"{self.arguments[0]} → {'/'.join(self.folder.parts[-2:])}"


# Planning


def plan_commands(table: str, request: PaperRequest) -> list[PlannedCommand]:
    """List the commands of a table in order. Commands that several tables need are run once.

    Args:
        table: "table1" to "table5" or "timestep".
        request: The request.
    """
    if table == "table3":
        of_tags = [command for tags in TABLE3_TAGS for command in _table3_commands(request, tags)]
        return [*of_tags, _create_ranking(request)]

    known_rows = TABLE4_ROWS if table == "table4" else TABLE2_ROWS
    rows = ROWS_OF_TABLE[table]
    commands = [_train_prior(request, "both")]
    for name in rows:
        commands += [_train_restorer(request, known_rows[name]), _restore(request, name)]
    if table in ("table1", "table2", "table4"):
        commands.append(_evaluate(request, table, rows))
    if table == "table5":
        commands.append(_create_study(request))
    return commands


def _make_command(
    request: PaperRequest, arguments: Iterable[object], folder: Path
) -> PlannedCommand:
    text = tuple(map(str, arguments))
    done_file = request.root / "done" / short_hash(json.dumps(text))
    return PlannedCommand(text, folder, done_file)


def _trainer_arguments(stage: str, request: PaperRequest) -> list[object]:
    """The command of a trainer with its source and the requested settings."""
    arguments: list[object] = [COMMANDS[stage], "-w", request.workspace, "--preset", request.preset]
    if request.steps is not None:
        arguments += ["--steps", request.steps]
    for change in _settings_of(stage, request):
        arguments += ["--set", change]
    if request.allow_unknown_licence:
        arguments.append("--allow-unknown-licence")
    return arguments


def _settings_of(stage: str, request: PaperRequest) -> list[str]:
    """The settings of a stage as KEY=VALUE; a later one replaces an earlier one."""
    settings = [f"source={SOURCES[stage]}"]
    for change in request.changes:
        prefix, _, rest = change.partition(".")
        if prefix == stage:
            settings.append(rest)
        elif prefix not in SOURCES:
            settings.append(change)
    return settings


def _train_prior(request: PaperRequest, tags: str) -> PlannedCommand:
    folder = request.model(f"prior-{tags}")
    arguments = _trainer_arguments("prior", request)
    arguments += ["--base", request.base, "--tags", tags, "--output", folder]
    return _make_command(request, arguments, folder)


def _train_restorer(request: PaperRequest, row: Row) -> PlannedCommand:
    folder = request.model(f"restorer-{row.name}")
    arguments = _trainer_arguments("restorer", request)
    if row.base == "generic":
        arguments += ["--base", request.base]
    else:
        arguments += ["--prior", request.model("prior-both")]
    arguments += ["--facial-weight", row.weight]
    arguments += ["--set", f"facial.m={row.m}", "--set", f"facial.s={row.s}"]
    if row.timestep_conditioning:
        arguments += ["--set", "facial.timestep_conditioning=true"]
    return _make_command(request, [*arguments, "--output", folder], folder)


def _restore(request: PaperRequest, row: str) -> PlannedCommand:
    folder = request.restored(row)
    arguments: list[object] = ["restore", "--model", request.model(f"restorer-{row}")]
    arguments += ["--input", request.degraded, "--output", folder, "--aligned"]
    if request.steps is not None:
        arguments += ["--steps", 2]
    return _make_command(request, [*arguments, "-w", request.workspace], folder)


def _evaluate(request: PaperRequest, table: str, rows: Iterable[str]) -> PlannedCommand:
    folder = request.test_folder / table
    arguments: list[object] = ["evaluate", "--degraded", request.degraded, "--allow-missing"]
    arguments += ["-w", request.workspace]
    for row in rows:
        arguments += ["--restored", f"row {row}={request.restored(row)}"]
    for option, value in (
        ("--reference", request.clean),
        ("--fid-reference", request.fid_reference),
        ("--set", request.test_set),
    ):
        if value is not None:
            arguments += [option, value]
    return _make_command(request, [*arguments, "--output", folder], folder)


def _create_study(request: PaperRequest) -> PlannedCommand:
    folder = request.test_folder / "table5"
    arguments: list[object] = ["study", "create"]
    arguments += ["--a", f"time-aware={request.restored('d')}"]
    arguments += ["--b", f"none={request.restored('b')}"]
    assert request.degraded is not None
    count = min(NUM_STUDY_PAIRS, len(find_pictures(request.degraded)))
    arguments += ["--degraded", request.degraded, "--count", count]
    return _make_command(request, [*arguments, "--output", folder], folder)


def _create_ranking(request: PaperRequest) -> PlannedCommand:
    """The page on which people rank the images of the three priors, prompt by prompt."""
    folder = request.test_folder / "table3" / "ranking"
    arguments: list[object] = ["study", "create-ranking"]
    for tags in TABLE3_TAGS:
        arguments += ["--method", f"{tags}={_drawn(request, tags)}"]
    arguments += ["--prompts", _drawn(request, TABLE3_TAGS[-1]) / PROMPTS_FILE]
    arguments += ["--count", NUM_RANKED_PROMPTS]
    return _make_command(request, [*arguments, "--output", folder], folder)


def _drawn(request: PaperRequest, tags: str) -> Path:
    """Folder of the images that the prior of a tag family has generated."""
    return request.root / "drawn" / tags


def _table3_commands(request: PaperRequest, tags: str) -> list[PlannedCommand]:
    """Train a prior on captions of a tag family, generate images and score them.

    For "none" no prior is trained: the images are SDXL's.
    """
    commands = []
    model: str | Path = request.base
    if tags != "none":
        commands.append(_train_prior(request, tags))
        model = request.model(f"prior-{tags}")

    samples = _drawn(request, tags)
    count = NUM_SAMPLES if request.steps is None else 2
    draw: list[object] = ["reproduce", "draw", "--model", model, "--count", count]
    draw += ["--output", samples, "-w", request.workspace]
    commands.append(_make_command(request, draw, samples))

    scores = request.test_folder / "table3" / tags
    evaluate: list[object] = ["evaluate", "--restored", f"{tags}={samples}"]
    evaluate += ["--fid-reference", request.real_faces, "--metrics", "fid,hpsv2,niqe"]
    evaluate += ["--allow-missing", "-w", request.workspace, "--output", scores]
    commands.append(_make_command(request, evaluate, scores))
    return commands


# Cost


def dry_runs(
    commands: Iterable[PlannedCommand], request: PaperRequest
) -> list[dict[str, Any] | None]:
    """Start the dry run of each training command that is not done.

    Args:
        commands: The commands of `plan_commands`.
        request: The request.

    Returns:
        For each command the JSON of its dry run, or None if it trains nothing or is done.
    """
    return [
        _dry_run(command, request) if command.trains and not command.is_done else None
        for command in commands
    ]


def _dry_run(command: PlannedCommand, request: PaperRequest) -> dict[str, Any]:
    arguments = list(command.arguments)
    if "--prior" in arguments:
        index = arguments.index("--prior")
        if not is_finished(Path(arguments[index + 1])):
            # The prior is not trained yet. SDXL's own U-Net, which has the same size, replaces it.
            arguments[index : index + 2] = ["--base", request.base]
    launcher = trainer_launcher(request.preset)
    if not has_base(request):
        # The plan comes from the architecture of the base, in one process.
        launcher = ONE_PROCESS
    completed = subprocess.run(
        [*launcher, *arguments, "--dry-run", "--json"], capture_output=True, text=True
    )
    if not completed.stdout.startswith("{"):
        raise _dry_run_error(command, completed)
    plan: dict[str, Any] = json.loads(completed.stdout)
    return plan


def _dry_run_error(
    command: PlannedCommand, completed: subprocess.CompletedProcess[str]
) -> AuthfaceError:
    """The error of a dry run that failed: the trainer's own line, without torchrun's report."""
    lines = [line for line in completed.stderr.splitlines() if line.startswith("authface: ")]
    reason = lines[0].removeprefix("authface: ") if lines else completed.stderr.strip()[-500:]
    if reason.startswith("--source"):
        stage = "prior" if command.arguments[0] == COMMANDS["prior"] else "restorer"
        reason += f" (with `authface reproduce`: --set {stage}.source=...)"
    error = AuthfaceError(f"the dry run of `authface {command.label}` failed: {reason}")
    # torchrun ends with 1 and reports the exit code of the process that failed.
    reported = re.search(r"exitcode\s*:\s*(\d+)", completed.stderr)
    error.exit_code = int(reported[1]) if reported else completed.returncode
    return error


def has_base(request: PaperRequest) -> bool:
    """Whether the SDXL that the trainers start from is on this machine."""
    return is_on_this_machine(request.base, Workspace(request.workspace).weights_dir)


def missing_base_error(request: PaperRequest) -> MissingResourceError:
    """The error for a base that is not on this machine: its source and its place."""
    weights_dir = Workspace(request.workspace).weights_dir
    place = f"{weights_dir}/{request.base}" if weights_dir else "a folder, and pass --base DIR"
    return MissingResourceError(
        f"the weights of {request.base} are not on this machine, and the plan is made without "
        f"them; training downloads them from the Hugging Face hub, or put {PIPELINE_FILES} into "
        f"{place}"
    )


def trainer_launcher(preset: str) -> list[str]:
    """The command that starts a trainer with one process per GPU of the preset."""
    card = card_of(preset)
    if card is None or card.count == 1:
        return ONE_PROCESS
    launcher = [sys.executable, "-m", "torch.distributed.run"]
    return [*launcher, "--nproc_per_node", str(card.count), "-m", "cli"]


# Running


def run_commands(commands: Iterable[PlannedCommand], request: PaperRequest) -> None:
    """Run each command that is not done. Interrupted training runs are resumed.

    Args:
        commands: The commands of `plan_commands`.
        request: The request.
    """
    for command in commands:
        if command.is_done:
            continue
        if command.trains:
            resume = [] if read_run(command.folder) is None else ["--resume"]
            run_command(*command.arguments, *resume, launcher=trainer_launcher(request.preset))
        else:
            run_command(*command.arguments)
        write_atomic(command.done_file, shlex.join(command.arguments))


def report(table: str, request: PaperRequest) -> str:
    """Format our results and the paper's in Markdown, from the summaries of the evaluations.

    Args:
        table: "table1" to "table5" or "timestep".
        request: The request.

    Returns:
        The table, or "" for "table5" and "timestep".
    """
    if table == "table3":
        return _table3_report(request)
    if table not in ("table1", "table2", "table4"):
        return ""
    markdown = (request.test_folder / table / "table.md").read_text("utf-8")
    return f"{markdown}\n{ABLATIONS[table].paper_note}." if table in ABLATIONS else markdown


def _table3_report(request: PaperRequest) -> str:
    lines = ["| captions | FID | HPSv2 | NIQE |", "|---|---|---|---|"]
    for tags in TABLE3_TAGS:
        summary = request.test_folder / "table3" / tags / "summary.json"
        means = json.loads(summary.read_text("utf-8"))["methods"][tags]
        cells = [_format_mean(means, name) for name in ("fid", "hpsv2", "niqe")]
        lines.append(f"| {tags} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", f"{PAPER_TABLE3}."])


def _format_mean(means: dict[str, float], metric: str) -> str:
    return f"{means[metric]:.{decimals(metric)}f}" if metric in means else "-"
