"""What every command shares: the workspace option, the two consoles, the group that turns errors into one line and a code."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from manifests.errors import AuthfaceError, Terminated

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


def wants_retry(value: str | None) -> bool:
    """What `--retry` asks for."""
    if value not in (None, "failed"):
        raise typer.BadParameter("the only thing to retry is `failed`", param_hint="--retry")
    return value == "failed"


class Commands(TyperGroup):
    """Runs a command; a mistake or something missing ends it with one line and the documented code."""

    def invoke(self, ctx: Any) -> Any:
        signal.signal(signal.SIGTERM, _terminate)
        try:
            return super().invoke(ctx)
        except (AuthfaceError, Terminated) as error:
            errors.print(f"[bold red]authface:[/] {_plain(error)}")
            sys.exit(error.exit_code)
        except KeyboardInterrupt:
            errors.print("[bold red]authface:[/] interrupted; what was committed is kept, run it again to go on")
            sys.exit(130)


def _plain(error: BaseException) -> str:
    from rich.markup import escape

    return escape(" ".join(str(error).split()))


def _terminate(*_: Any) -> None:
    raise Terminated("terminated; what was committed is kept, run it again to go on")
