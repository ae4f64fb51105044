"""Command lines that several tests use."""

from pathlib import Path


def set_options(*changes: str) -> list[str]:
    """`--set` options of the trainers, one per "key=value"."""
    return [argument for change in changes for argument in ("--set", change)]


def collect_folder(workspace: Path, folder: Path, *options: object) -> list[object]:
    """`authface collect` of a folder of the tester's own photographs."""
    source = ["--source", "folder", "--path", folder, "--licence-basis", "own"]
    return ["collect", "-w", workspace, *source, *options]
