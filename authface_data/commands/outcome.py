"""How a command that ran stages ends: with the next command, or with an error if rows failed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from manifests.support.console import console
from manifests.support.errors import PartialFailureError
from manifests.support.text import count_of

if TYPE_CHECKING:
    from authface_data.engine.run import Outcomes


def finish_stages(outcomes: Outcomes, next_command: str) -> None:
    """Print which command comes next.

    Raises:
        PartialFailureError: If rows failed.
    """
    failed = sum(outcomes.failed.values())
    if failed:
        counts = [f"{count} in {name}" for name, count in outcomes.failed.items() if count]
        raise PartialFailureError(
            f"{count_of(failed, 'row')} failed ({', '.join(counts)}); `authface status` lists the reasons. "
            "Try them again with --retry failed"
        )
    print_next(next_command)


def print_next(command: str) -> None:
    """Print the command that comes next."""
    console.print(f"Next: [bold]{command}[/]")
