"""Hostile files and SIGKILLs: runs every command of the data half in a storm and prints its counts.

    python benchmarks/storm.py [--files 3000] [--kills 150] [--seed 1] [--keep DIR]

The exit code is 1 if anything was lost, doubled or executed, hung, ended with a traceback, or
differs from an undisturbed run. `make storm` runs it; docs/reliability.md has its figures.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path

import PIL
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "support"))
os.environ.setdefault("AUTHFACE_CACHE", str(ROOT / ".assets"))

from storm import Figures, Storm  # noqa: E402

from manifests.support.text import strip_control  # noqa: E402

MAX_LISTED = 20
console = Console(highlight=False, markup=False, soft_wrap=True)


def print_figures(figures: Figures) -> None:
    """Print the counts as a table, and what must not have happened."""
    table = Table("count", "value", title="Storm")
    for field in dataclasses.fields(figures):
        value = getattr(figures, field.name)
        if isinstance(value, list):
            text = str(len(value))
        else:
            text = f"{value:.1f}" if isinstance(value, float) else str(value)
        table.add_row(field.name, text)
    console.print(table)
    for name, messages in figures.faults().items():
        for message in messages[:MAX_LISTED]:
            console.print(strip_control(f"{name}: {message}"))
        if len(messages) > MAX_LISTED:
            console.print(f"{name}: {len(messages) - MAX_LISTED} more")


def main() -> None:
    """Run the storm."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=3000)
    parser.add_argument("--kills", type=int, default=150)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", action="append", default=[], help="Name of a step. Repeatable.")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="A new folder for all files.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="Write the counts to a file.")
    options = parser.parse_args()
    print(
        f"Python {platform.python_version()}, Pillow {PIL.__version__}, {os.cpu_count()} cores; "
        f"{options.files} files, {options.kills} kills, seed {options.seed}"
    )
    started = time.monotonic()

    def show(line: str) -> None:
        console.print(strip_control(f"{time.monotonic() - started:6.0f} s  {line}"))

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        storm = Storm(
            options.keep or Path(temporary),
            num_files=options.files,
            num_kills=options.kills,
            seed=options.seed,
            show=show,
            only=tuple(options.only),
        )
        figures = storm.run()
    print_figures(figures)
    if options.json is not None:
        options.json.write_text(json.dumps(dataclasses.asdict(figures), indent=1))
    sys.exit(any(figures.faults().values()))


if __name__ == "__main__":
    main()
