"""`authface doctor`: what is installed, what is missing, and the state of a workspace."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import typer
from rich.markup import escape
from typer.core import TyperGroup

from manifests.support.console import (
    JsonOption,
    WorkspaceOption,
    console,
    leaf_commands,
    print_json,
)
from manifests.support.errors import PartialFailureError
from manifests.support.extras import install_command, missing_modules, required_extras
from manifests.support.text import count_of

if TYPE_CHECKING:
    from authface_data.doctor.installation import Installation
    from authface_data.doctor.weight_files import WeightState
    from authface_data.doctor.workspace_check import WorkspaceCheck
    from manifests.workspace import Workspace


@dataclass(frozen=True)
class CommandState:
    """Whether a command can run now.

    Attributes:
        command: Name of the command.
        ready: Whether everything that it always needs is installed.
        note: What is missing, or "".
    """

    command: str
    ready: bool
    note: str


def doctor(
    context: typer.Context, workspace: WorkspaceOption = None, as_json: JsonOption = False
) -> None:
    """Show what is installed, what is missing, and what is wrong with a workspace.

    It lists Python, the extras, GPUs, weights, disk space and keys (never their values), and for
    each command whether it can run now. In a workspace, or with -w, it also looks for missing and
    damaged files and names the command that repairs them.

    ```
    authface doctor
    authface doctor -w faces --json
    ```
    """
    from authface_data.doctor import weight_files
    from authface_data.doctor.installation import inspect_installation
    from authface_data.doctor.workspace_check import check_workspace
    from authface_data.weights import user_folder

    ws = _find_workspace(workspace)
    installation = inspect_installation()
    weights_dir = None if ws is None else ws.settings.weights_dir
    weights = weight_files.inspect_presets()
    weights["evaluate"] = weight_files.inspect_evaluation(weights_dir)
    used = "paper"
    if ws is not None:
        used = "this workspace"
        weights[used] = weight_files.inspect_weights(ws.settings)
    commands = _command_states(context, installation, [*weights[used], *weights["evaluate"]])
    check = None if ws is None else check_workspace(ws)

    if as_json:
        print_json(
            {
                "installation": asdict(installation),
                "weights": weights,
                "commands": commands,
                "workspace": check,
            }
        )
    else:
        _print_installation(installation)
        _print_weights(
            weights,
            str(user_folder(weights_dir)),
            with_files=not installation.missing["data"],
        )
        _print_commands(commands)
        if check is not None:
            _print_workspace(check)
    if check is not None and check.problems:
        raise PartialFailureError(
            f"{count_of(len(check.problems), 'problem')} in {check.workspace}"
        )


def _find_workspace(option: str | None) -> Workspace | None:
    """The workspace of the option or of this folder, or None outside of one."""
    from manifests.workspace import NoWorkspaceError, Workspace

    try:
        return Workspace.find(option)
    except NoWorkspaceError:
        return None


def _command_states(
    context: typer.Context, installation: Installation, weights: Sequence[WeightState]
) -> list[CommandState]:
    from authface_data.doctor.weight_files import count_missing

    states = []
    group = context.find_root().command
    assert isinstance(group, TyperGroup)
    for name, command in leaf_commands(group):
        always, sometimes = required_extras(command.callback)
        missing = [extra for extra in always if installation.missing[extra]]
        partly = [extra for extra in sometimes if installation.missing[extra]]
        num_files = count_missing(weights, name)
        note = ""
        if missing:
            note = f"needs authface[{','.join(missing)}]"
        elif partly:
            note = f"in part; the rest needs authface[{','.join(partly)}]"
        elif num_files:
            note = f"{count_of(num_files, 'file')} of weights to download, see above"
        states.append(CommandState(name, not missing, note))
    return states


def _print_installation(installation: Installation) -> None:
    from authface_data.doctor.installation import KEYS

    console.print(f"[bold]authface {installation.authface}[/], Python {installation.python}")
    for extra, modules in installation.missing.items():
        state = f"[yellow]missing:[/] {', '.join(modules)}" if modules else "[green]installed[/]"
        console.print(f"  authface\\[{extra}]: {state}")
    console.print(f"  {installation.cores} cores, {installation.memory_gb:.0f} GB of memory")
    for gpu in installation.gpus:
        console.print(f"  GPU: {escape(gpu.name)}, {gpu.memory_gb:.0f} GB")
    if not installation.gpus:
        reason = "torch is not installed"
        if installation.torch is not None:
            reason = f"torch {installation.torch} finds none"
        console.print(f"  no CUDA GPU ({escape(reason)}); everything runs on the CPU")
    console.print(
        f"  cache: {escape(installation.cache)}, {installation.cache_free_gb:.0f} GB free"
    )
    for name, is_set in installation.keys.items():
        state = "[green]set[/]" if is_set else "not set"
        console.print(f"  {name}: {state} ({escape(KEYS[name])})")


def _print_weights(weights: dict[str, list[WeightState]], folder: str, *, with_files: bool) -> None:
    """Print the weights of each preset.

    Args:
        weights: The weights by preset or workspace.
        folder: Where a user puts files that cannot be downloaded.
        with_files: Whether to list the files, or only to count them.
    """
    any_missing = False
    for group, states in weights.items():
        num_missing = sum(state.found is None for state in states)
        any_missing |= num_missing > 0
        title = group if group in ("evaluate", "this workspace") else f"preset {group}"
        summary = f"{num_missing} of {len(states)} missing" if num_missing else "all found"
        console.print(f"\n[bold]Weights of {title}:[/] {summary}")
        for state in states if with_files else ():
            if state.found is not None:
                console.print(f"  [green]found[/] {escape(state.file)}: {escape(state.found)}")
            else:
                source = state.source if "://" in state.source else f"the package {state.source}"
                console.print(f"  [yellow]missing[/] {escape(state.file)}: from {escape(source)}")
    if any_missing:
        console.print(
            "\nCommands download missing weights when they need them. Without a network, put the "
            f"files into {escape(folder)}, and models of the Hugging Face hub into "
            "DIR/OWNER/NAME, with weights_dir = DIR in authface.toml"
        )


def _print_commands(commands: Iterable[CommandState]) -> None:
    from rich.table import Table

    table = Table("command", "can run now", "", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for state in commands:
        ready = "[green]yes[/]" if state.ready else "[red]no[/]"
        table.add_row(state.command, ready, escape(state.note))
    console.print()
    console.print(table)
    missing = [extra for extra in ("data", "train", "serve") if missing_modules(extra)]
    if missing:
        console.print(
            f"To install what is missing: [bold]{escape(install_command(','.join(missing)))}[/]"
        )


def _print_workspace(check: WorkspaceCheck) -> None:
    rows = ", ".join(f"{count:,} {name}" for name, count in check.rows.items())
    console.print(f"\n[bold]{escape(check.workspace)}[/]: {rows}")
    console.print(f"  {check.files_read:,} of {count_of(check.files, 'picture')} read")
    if not check.problems:
        console.print("  [green]no problems[/]")
    for problem in check.problems:
        console.print(f"  [red]{escape(problem.what)}[/]")
        if problem.repair:
            console.print(f"    to repair: [bold]{escape(problem.repair)}[/]")
