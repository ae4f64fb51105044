"""What all commands share: options, consoles, and the group that maps errors to exit codes."""

from __future__ import annotations

import dataclasses
import errno
import io
import itertools
import json
import logging
import re
import shlex
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.text import Text
from typer.core import TyperCommand, TyperGroup

from manifests.support.errors import AuthfaceError, MissingResourceError, Terminated
from manifests.support.extras import describe_missing, extra_of_module
from manifests.support.text import did_you_mean, strip_control
from manifests.support.value_names import name_values

WorkspaceOption = Annotated[
    str | None,
    typer.Option(
        "-w",
        "--workspace",
        metavar="DIR",
        help="Workspace: a folder or s3://BUCKET/NAME. Default: AUTHFACE_WORKSPACE, else the "
        "nearest parent folder with an authface.toml.",
    ),
]
RetryOption = Annotated[
    str | None, typer.Option("--retry", metavar="failed", help="Process failed rows again.")
]
YesOption = Annotated[
    bool, typer.Option("--yes", help="Do what the command would otherwise only announce.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


class SafeConsole(Console):
    """A console that shows the control characters of a text instead of sending them on.

    File names and texts from servers may contain escape codes. Every string that is printed, also
    as a cell or as the title of a table, passes through `render_str`; rich's own styling is added
    later.
    """

    def render_str(self, text: str, **options: Any) -> Text:
        """Convert a string to rich text."""
        return super().render_str(strip_control(text), **options)


# Emoji codes such as `:cat:` stay as they are, because file names may contain them.
console = SafeConsole(highlight=False, soft_wrap=True, emoji=False)
error_console = SafeConsole(stderr=True, highlight=False, soft_wrap=True, emoji=False)


def run_command(
    *arguments: object, launcher: Sequence[str] = (sys.executable, "-P", "-m", "cli")
) -> None:
    """Print an authface command line and run it in a new process.

    Args:
        arguments: The command and its options, without `authface`.
        launcher: Command that starts the program; replace it to start several processes. `-P`
            keeps the current folder out of sys.path, which may be any folder of the user.

    Raises:
        AuthfaceError: If the command fails; it carries the command's exit code.
    """
    import subprocess

    line = [str(argument) for argument in arguments]
    console.print(f"\n[bold cyan]$ authface {escape(shlex.join(line))}[/]")
    completed = subprocess.run([*launcher, *line])
    if completed.returncode:
        error = AuthfaceError(
            f"`authface {line[0]}` ended with exit code {completed.returncode}; "
            "see its output above"
        )
        error.exit_code = completed.returncode
        raise error


def parse_retry(value: str | None) -> bool:
    """Whether `--retry failed` was given; any other value is a usage error."""
    if value not in (None, "failed"):
        raise typer.BadParameter("the only accepted value is `failed`", param_hint="--retry")
    return value == "failed"


def print_version(given: bool) -> None:
    """Print the version of authface and exit, if the option `--version` was given."""
    if given:
        from importlib.metadata import version

        console.print(f"authface {version('authface')}")
        raise typer.Exit


def quote_path(path: object) -> str:
    """A path for printing: quoted for a shell if necessary, and escaped for rich markup."""
    return escape(shlex.quote(str(path)))


def print_json(value: object) -> None:
    """Print a dataclass, a list of dataclasses, or plain values and times, as JSON on stdout."""

    def encode(item: Any) -> Any:
        return item.isoformat() if isinstance(item, datetime) else dataclasses.asdict(item)

    # json.dumps escapes control characters, and everything that is not ASCII.
    print(json.dumps(value, indent=1, default=encode))


# Base class of click's usage errors. Newer versions of typer contain a copy of click, older ones
# import the package, so the class is taken from the ancestors of a class that typer exports.
UsageError: Any = typer.BadParameter.__mro__[1]

# OSErrors about a place that cannot be written to are the user's to solve; others are bugs.
USER_ERRNOS = (
    errno.EACCES,
    errno.EPERM,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
    errno.ENOSPC,
    errno.EROFS,
    errno.EDQUOT,
    errno.ENAMETOOLONG,
)


# Slurm announces the end of a job with SIGUSR1, a closed terminal sends SIGHUP.
TERMINATING_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)


class CommandGroup(TyperGroup):
    """Command group that prints its help, and exits with 0, if it is run without a command."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the options before the command.

        Args:
            ctx: Context of the group.
            args: The words after the name of the group.

        Returns:
            The words that remain for the command.
        """
        if not args and self.no_args_is_help and not ctx.resilient_parsing:
            _print_help(ctx)
        return super().parse_args(ctx, args)


class AuthfaceGroup(CommandGroup):
    """Command group that ends errors with one line and the documented exit code.

    It also gives every command the options `-v/--verbose`, `-q/--quiet` and `--help`.
    """

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        common_options = _common_options()
        verbosity = [option for option in common_options if option.name != "help"]
        help_option = [option for option in common_options if option.name == "help"]
        for command in _all_commands(self):
            if isinstance(command, TyperCommand):
                command.params += verbosity
            command.params += help_option
            _hide_flag_types(command.params)

    def get_params(self, ctx: Any) -> list[Any]:
        """The options before the command, with those that typer adds for completion."""
        params = super().get_params(ctx)
        _hide_flag_types(params)
        return params

    def main(self, args: Sequence[str] | None = None, *others: Any, **options: Any) -> Any:
        """Parse the command line and run the chosen command."""
        accept_any_text()
        _refuse_urls_of_folders(sys.argv[1:] if args is None else args)
        return super().main(args, *others, **options)

    def invoke(self, ctx: Any) -> Any:
        """Run the chosen command."""
        for number in TERMINATING_SIGNALS:
            # `nohup` ignores SIGHUP.
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, _raise_terminated)
        _set_level(logging.INFO)
        try:
            return super().invoke(ctx)
        except (AuthfaceError, Terminated) as error:
            _exit(str(error), error.exit_code)
        except UsageError as error:
            help_hint = f" (see `{error.ctx.command_path} --help`)" if error.ctx else ""
            _exit(_describe_usage_error(error.format_message()) + help_hint, 2)
        except OSError as error:
            if error.errno not in USER_ERRNOS:
                raise
            _exit(f"{error.filename or 'the disk'}: {error.strerror}", 2)
        except ModuleNotFoundError as error:
            extra = extra_of_module(error.name)
            if extra is None:
                raise
            _exit(describe_missing([extra], "this command"), MissingResourceError.exit_code)
        except KeyboardInterrupt as error:
            message = str(error) or "interrupted; finished work is saved, run the command again"
            _exit(message, 130)


def accept_any_text() -> None:
    """Let stdout and stderr print every text, also in a terminal with a small character set.

    Characters that the encoding does not have are printed as `\\u2192`. Otherwise an arrow or a
    file name that is not valid UTF-8 would end a command with an error.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def leaf_commands(group: TyperGroup, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every command that does something, with its full name, such as "review export".

    Args:
        group: A group of commands.
        prefix: Start of the names: the names of the groups above, each with a space.
    """
    for name, command in group.commands.items():
        if isinstance(command, TyperGroup):
            yield from leaf_commands(command, f"{prefix}{name} ")
        if not isinstance(command, TyperGroup) or command.invoke_without_command:
            yield prefix + name, command


def _all_commands(group: TyperGroup) -> Iterator[Any]:
    """The group, its commands, and those of the groups in it."""
    yield group
    for command in group.commands.values():
        if isinstance(command, TyperGroup):
            yield from _all_commands(command)
        else:
            yield command


def _hide_flag_types(params: Iterable[Any]) -> None:
    """Typer shows the type of a flag as <bool>, as if it took a value."""
    for param in params:
        if getattr(param, "is_flag", False):
            param.metavar = ""


def _print_help(context: Any) -> NoReturn:
    name_values(context.command)
    typer.echo(context.get_help(), color=context.color)
    raise typer.Exit


def _show_help(context: typer.Context, given: bool) -> None:
    if given and not context.resilient_parsing:
        _print_help(context)


def _set_verbose(given: bool) -> None:
    if given:
        _set_level(logging.DEBUG)


def _set_quiet(given: bool) -> None:
    if given:
        _set_level(logging.WARNING)


VerboseOption = Annotated[
    bool,
    typer.Option(
        "-v",
        "--verbose",
        help="Show more of what happens.",
        callback=_set_verbose,
        is_eager=True,
        expose_value=False,
    ),
]
QuietOption = Annotated[
    bool,
    typer.Option(
        "-q",
        "--quiet",
        help="Show warnings and errors only.",
        callback=_set_quiet,
        is_eager=True,
        expose_value=False,
    ),
]


HelpOption = Annotated[
    bool,
    typer.Option(
        "--help",
        "-h",
        help="Show this message and exit.",
        callback=_show_help,
        is_eager=True,
        expose_value=False,
    ),
]


def _common(
    verbose: VerboseOption = False, quiet: QuietOption = False, help: HelpOption = False
) -> None:
    """A command whose parameters every command gets."""


def _common_options() -> list[Any]:
    app = typer.Typer(add_completion=False)
    app.command()(_common)
    return list(typer.main.get_command(app).params)


def _set_level(level: int) -> None:
    from manifests.support.logs import configure_logging

    configure_logging(level)


def _describe_usage_error(message: str) -> str:
    """Typer's message; if it lists the values of an option, the nearest one is added."""
    message = message.replace("Value error, ", "")
    match = re.search(r"'([^']*)' is not one of (.*?)\.?$", message)
    if match is None:
        return message
    return message.rstrip(".") + did_you_mean(match[1], re.findall(r"'(.*?)'", match[2]))


def _refuse_urls_of_folders(arguments: Sequence[str]) -> None:
    """Refuse URLs where a path is needed: as a path they would name a local folder `s3:`."""
    for previous, argument in itertools.pairwise(["", *arguments]):
        option, _, value = argument.rpartition("=")
        is_workspace = {previous, option} & {"-w", "--workspace", "init"} and arguments[0] != "demo"
        if value.startswith("s3://") and not is_workspace:
            name = option or (previous if previous.startswith("-") else "this argument")
            _exit(f"{name} needs a folder on a disk; only the workspace may be in {value}", 2)


def _exit(message: str, code: int) -> NoReturn:
    error_console.print(f"[bold red]authface:[/] {escape(' '.join(message.split()))}")
    sys.exit(code)


def _raise_terminated(*_: object) -> None:
    # Slurm and torchrun may send a signal twice; the second one must not end the clean-up.
    for number in TERMINATING_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    raise Terminated("terminated; finished work is saved, run the command again to continue")
