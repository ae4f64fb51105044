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
from pathlib import Path

import PIL

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests" / "support"), str(ROOT)]
os.environ.setdefault("AUTHFACE_CACHE", str(ROOT / ".assets"))

from storm import Storm  # noqa: E402
from storm_output import Log, print_figures  # noqa: E402


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
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        storm = Storm(
            options.keep or Path(temporary),
            num_files=options.files,
            num_kills=options.kills,
            seed=options.seed,
            show=Log(),
            only=tuple(options.only),
        )
        figures = storm.run()
    print_figures("Storm", figures)
    if options.json is not None:
        options.json.write_text(json.dumps(dataclasses.asdict(figures), indent=1))
    sys.exit(any(figures.faults().values()))


if __name__ == "__main__":
    main()
