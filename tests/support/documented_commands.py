"""Commands of documentation pages: reads fenced blocks, checks commands, and walks through a page.

Blocks of the language `bash` are run, line by line. Blocks of the language `text` are the expected
output of the commands before them: each line must be printed, in this order, where `…` stands for
any text. Other blocks are not run.
"""

from __future__ import annotations

import functools
import re
import shlex
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess

import typer.main
from typer.core import TyperCommand, TyperGroup

import cli

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
OMISSION = "…"
"""Stands for any text in an expected line, and for any lines if it stands alone."""
INSTALLERS = ("apt-get", "docker", "git", "make", "pip", "python3", "sudo", ".")
"""Programs that install authface. Their lines are checked, not run."""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Attributes:
        language: The word after the fence, or "".
        line: Line number of the fence, from 1.
        text: The lines between the fences.
    """

    language: str
    line: int
    text: str


def read_blocks(page: Path) -> list[Block]:
    """The fenced blocks of a Markdown page, in order."""
    text = page.read_text("utf-8")
    return [
        Block(match[1], text.count("\n", 0, match.start()) + 1, match[2])
        for match in FENCE.finditer(text)
    ]


def split_commands(text: str) -> list[list[str]]:
    """Split shell lines into commands.

    Args:
        text: Lines with comments, continued lines and `&&`.

    Returns:
        The words of each command.
    """
    commands = []
    for line in text.replace("\\\n", " ").splitlines():
        command: list[str] = []
        for word in [*shlex.split(line, comments=True), "&&"]:
            if word != "&&":
                command.append(word)
            elif command:
                commands.append(command)
                command = []
    return commands


@functools.cache
def command_group() -> TyperGroup:
    """The command line of authface."""
    group = typer.main.get_command(cli.app)
    assert isinstance(group, TyperGroup)
    return group


def check_authface(arguments: Sequence[str]) -> None:
    """Check that the command line accepts arguments, without running the command.

    Args:
        arguments: What follows `authface`.

    Raises:
        click.UsageError: If an option or a value is unknown.
        AssertionError: If there is no such command.
    """
    command, parent = command_group(), None
    remaining = list(arguments)
    if remaining[0].startswith("-"):  # --version and --install-completion act while they are parsed
        context = command.make_context("authface", [], resilient_parsing=True)
        names = [name for param in command.get_params(context) for name in param.opts]
        assert remaining[0] in names, f"no such option: {remaining[0]}"
        return
    assert remaining[0] in command.commands, f"no such command: {remaining[0]}"
    while isinstance(command, TyperGroup) and remaining and remaining[0] in command.commands:
        parent = command.make_context("authface", [], parent, resilient_parsing=True)
        command = command.commands[remaining.pop(0)]
    assert isinstance(command, (TyperCommand, TyperGroup))
    is_unknown = isinstance(command, TyperGroup) and remaining and remaining[0][0] != "-"
    assert not is_unknown, f"no such command: {' '.join(arguments)}"
    command.make_context("authface", remaining, parent)


def check_installer(command: Sequence[str]) -> None:
    """Check that the targets of make and the extras of pip exist."""
    if command[0] == "make":
        makefile = (ROOT / "Makefile").read_text("utf-8")
        for target in command[1:]:
            is_target = "=" in target or re.search(rf"^{target}:", makefile, re.MULTILINE)
            assert is_target, f"the Makefile has no target {target}"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    for word in command:
        for extras in re.findall(r"authface\[([\w,]+)\]", word):
            unknown = set(extras.split(",")) - set(project["optional-dependencies"])
            assert not unknown, f"unknown extras: {unknown}"


def check_output(expected: str, output: str) -> None:
    """Check that lines of a page are printed.

    Args:
        expected: The lines, in the order of the output; `…` stands for any text.
        output: What the commands printed.
    """
    position = 0
    for line in expected.splitlines():
        if line.strip() in ("", OMISSION):
            continue
        parts = [re.escape(part) for part in line.strip().split(OMISSION)]
        match = re.compile("[^\n]*".join(parts)).search(output, position)
        assert match, f"not printed: {line}\n--- printed:\n{output}"
        position = match.end()


class Walk:
    """Runs the commands of pages in the order in which they stand there.

    Args:
        authface: Runs a command: the fixture `authface_here`.
        folder: The folder in which the first page starts.
        by_hand: What a reader does by hand before a command, by the beginning of the command
            without `authface`. It is called with the current folder.
        placeholders: Functions of the current folder that give the value of a word such as FACE_ID.
    """

    def __init__(
        self,
        authface: Callable[..., CompletedProcess[str]],
        folder: Path,
        by_hand: Mapping[str, Callable[[Path], None]] | None = None,
        placeholders: Mapping[str, Callable[[Path], str]] | None = None,
    ) -> None:
        self.authface = authface
        self.folder = folder
        self.by_hand = by_hand or {}
        self.placeholders = placeholders or {}
        self.output = ""

    def follow(self, page: Path) -> None:
        """Run the blocks of a page."""
        for block in read_blocks(page):
            place = f"{page.name}:{block.line}"
            if block.language == "text":
                check_output(block.text, self.output)
            elif block.language == "bash":
                self.output = ""
                for command in split_commands(block.text):
                    self._run(command, place)

    def _run(self, command: list[str], place: str) -> None:
        program, arguments = command[0], command[1:]
        if program == "cd":
            self.folder = (self.folder / Path(arguments[0]).expanduser()).resolve(strict=True)
        elif program == "authface":
            self._run_authface(arguments, place)
        else:
            assert program in INSTALLERS, f"{place}: cannot run {program}"
            check_installer(command)

    def _run_authface(self, arguments: list[str], place: str) -> None:
        typed = " ".join(arguments)
        for beginning, action in self.by_hand.items():
            if typed.startswith(beginning):
                action(self.folder)
        values = [
            self.placeholders[word](self.folder)
            if word in self.placeholders
            else str(Path(word).expanduser())
            if word.startswith("~")
            else word
            for word in arguments
        ]
        result = self.authface(*values, cwd=self.folder)
        self.output += result.stdout + result.stderr
        assert result.returncode == 0, f"{place}: authface {typed}\n{self.output}"
