"""Runs commands as in an environment without the extras, in one process.

Everything that no dependency of the chosen extras brings cannot be found: this is as good as a new
virtual environment, and takes a second instead of a minute.

    python tests/support/base_only.py EXTRAS < COMMAND_LINES

EXTRAS are names separated by commas, or "" for none. The input is a JSON list of command lines, the
output a JSON list of [exit code, stdout, stderr].
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
import traceback
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def installed_modules(extras: Sequence[str]) -> set[str]:
    """Top-level modules of authface's dependencies with some extras, and of their dependencies."""
    seen: set[tuple[str, str]] = set()
    pending = [("authface", extra) for extra in ("", *extras)]
    while pending:
        name, extra = pending.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        try:
            requirements = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        for requirement in map(Requirement, requirements):
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                child = canonicalize_name(requirement.name)
                pending += [(child, child_extra) for child_extra in ("", *requirement.extras)]
    distributions = {name for name, _ in seen}
    return {
        module
        for module, names in importlib.metadata.packages_distributions().items()
        if any(canonicalize_name(name) in distributions for name in names)
    }


class BaseOnlyFinder:
    """Finds modules on sys.path, except those of packages that would not be installed."""

    find_distributions = staticmethod(PathFinder.find_distributions)

    def __init__(self, extras: Sequence[str]) -> None:
        self.hidden = set(importlib.metadata.packages_distributions()) - installed_modules(extras)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find a module, or return None as for one that is not installed."""
        if name.partition(".")[0] in self.hidden:
            return None
        return PathFinder.find_spec(name, path, target)


def main() -> None:
    """Run the command lines of stdin."""
    lines = json.load(sys.stdin)
    finder = BaseOnlyFinder([extra for extra in sys.argv[1].split(",") if extra])
    for module in [name for name in sys.modules if name.partition(".")[0] in finder.hidden]:
        del sys.modules[module]
    sys.meta_path = [finder if item is PathFinder else item for item in sys.meta_path]
    import typer.testing

    import cli

    results = []
    for line in lines:
        result = typer.testing.CliRunner().invoke(cli.app, line)
        error = result.exception
        trace = ""
        if error is not None and not isinstance(error, SystemExit):
            trace = "".join(traceback.format_exception(error))
        results.append([result.exit_code, result.stdout, result.stderr + trace])
    json.dump(results, sys.stdout)


if __name__ == "__main__":
    main()
