"""How a command that ran stages ends: rates, failures, the next command."""

from __future__ import annotations

from typing import TYPE_CHECKING

from manifests.support.console import console
from manifests.support.errors import PartialFailureError

if TYPE_CHECKING:
    from authface_data.engine.local import Outcomes


def finish(outcomes: Outcomes, next_command: str) -> None:
    """Print what comes next. Raises PartialFailureError where rows failed."""
    failed = sum(outcomes.failed.values())
    if failed:
        which = ", ".join(f"{count} in {name}" for name, count in outcomes.failed.items() if count)
        raise PartialFailureError(
            f"{failed} rows failed ({which}): the reasons stand in `authface status`; try them again with --retry failed"
        )
    console.print(f"Next: [bold]{next_command}[/]")
