"""Command lines that several tests use, as lists of arguments of `authface`."""

import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path


def set_options(*changes: str) -> list[str]:
    """`--set` options of the trainers, one per "key=value"."""
    return [argument for change in changes for argument in ("--set", change)]


def init_workspace(workspace: Path) -> list[object]:
    """`authface init` of a workspace of the preset `embedded`."""
    return ["init", workspace, "--preset", "embedded"]


def collect_folder(workspace: Path, folder: Path, *options: object) -> list[object]:
    """`authface collect` of a folder of the tester's own photographs."""
    return collect_files("folder", workspace, folder, *options)


def collect_files(source: str, workspace: Path, folder: Path, *options: object) -> list[object]:
    """`authface collect` from a source that reads files; the licence basis is `own`.

    Args:
        source: The name of the source, for example "folder" or "authface-hq".
        workspace: The workspace.
        folder: The folder of the files.
        options: Further options of the command.

    Returns:
        The arguments of the command.
    """
    location = ["--source", source, "--path", folder, "--licence-basis", "own"]
    return ["collect", "-w", workspace, *location, *options]


class CommandRunner:
    """Replaces `run_command`: runs commands in this process and records their names.

    Starting processes would take longer than the work of the commands.

    Args:
        authface_here: The fixture that runs a command in this process.

    Attributes:
        names: Names of the commands that were run.
    """

    def __init__(self, authface_here: Callable[..., subprocess.CompletedProcess]) -> None:
        self.authface_here = authface_here
        self.names: list[str] = []

    def __call__(self, *arguments: object, launcher: Sequence[str] = ()) -> None:
        """Run a command, which must succeed."""
        self.names.append(str(arguments[0]))
        result = self.authface_here(*arguments)
        assert result.returncode == 0, (arguments, result.stderr)
