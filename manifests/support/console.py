"""What every command shares: the workspace option, the two consoles, the group that turns errors into one line and a code."""

from __future__ import annotations

import dataclasses
import errno
import json
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from typer.core import TyperGroup

from manifests.support.errors import AuthfaceError, Terminated

WorkspaceOption = Annotated[
    Path | None,
    typer.Option("-w", "--workspace", help="The data set. Else AUTHFACE_WORKSPACE, else the nearest parent folder."),
]
RetryOption = Annotated[str | None, typer.Option("--retry", help="`failed`: try again what failed before.")]
WorkersOption = Annotated[int | None, typer.Option(min=1, help="Worker processes. Default: by cores and work.")]
YesOption = Annotated[bool, typer.Option("--yes", help="Agree to what the command says it would do.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Answer for a machine.")]

console = Console(highlight=False, soft_wrap=True)
errors = Console(stderr=True, highlight=False, soft_wrap=True)


def run_command(*words: object, start: Sequence[str] = (sys.executable, "-P", "-m", "cli")) -> None:
    """Show a command of authface and run it, as a process of its own. Its failure is the caller's, with the same code.

    start: what starts it, where that is something else (several processes).
    """
    line = [str(word) for word in words]
    console.print(f"\n[bold cyan]$ authface {escape(shlex.join(line))}[/]")
    # -P: a workspace's own folder `manifests` must not be taken for the package, should this be started in one.
    done = subprocess.run([*start, *line])
    if done.returncode:
        failure = AuthfaceError(f"`authface {line[0]}` ended with code {done.returncode}: see above")
        failure.exit_code = done.returncode
        raise failure


def wants_retry(value: str | None) -> bool:
    """What `--retry` asks for."""
    if value not in (None, "failed"):
        raise typer.BadParameter("the only thing to retry is `failed`", param_hint="--retry")
    return value == "failed"


def shown(path: object) -> str:
    """A path as it is printed: quoted for a shell where it must be, and safe from rich's markup."""
    return escape(shlex.quote(str(path)))


def print_json(value: Any) -> None:
    """A dataclass, a list of them, or plain values and times, for a machine."""

    def plain(one: Any) -> Any:
        return one.isoformat() if isinstance(one, datetime) else dataclasses.asdict(one)

    print(json.dumps(value, indent=1, default=plain))


# Typer carries its own copy of click, or in older versions depends on it: the base of its usage errors in either.
UsageError: Any = typer.BadParameter.__mro__[1]
# A place that cannot be written to is the user's to mend; any other OSError is ours.
PLACES = (errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOSPC, errno.EROFS, errno.EDQUOT)


class Commands(TyperGroup):
    """Runs a command; a mistake or something missing ends it with one line and the documented code."""

    def invoke(self, ctx: Any) -> Any:
        signal.signal(signal.SIGTERM, _terminate)
        try:
            return super().invoke(ctx)
        except (AuthfaceError, Terminated) as error:
            _end(str(error), error.exit_code)
        except UsageError as error:
            asked = f" (see `{error.ctx.command_path} --help`)" if error.ctx else ""
            _end(error.format_message() + asked, 2)
        except OSError as error:
            if error.errno not in PLACES:
                raise
            _end(f"{error.filename or 'the disk'}: {error.strerror}", 2)
        except KeyboardInterrupt as error:
            _end(str(error) or "interrupted; what was committed is kept, run it again to go on", 130)


def _end(words: str, code: int) -> NoReturn:
    errors.print(f"[bold red]authface:[/] {escape(' '.join(words.split()))}")
    sys.exit(code)


def _terminate(*_: Any) -> None:
    raise Terminated("terminated; what was committed is kept, run it again to go on")
