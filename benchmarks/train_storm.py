"""SIGKILL and SIGTERM: trains both stages with two processes in a storm and prints its counts.

    python benchmarks/train_storm.py [--kills 20] [--terms 10] [--seed 1] [--keep DIR]

The processes run on the CPU under torchrun. The exit code is 1 if a file differs from those of an
undisturbed run, a process hangs, is left over or ends with a traceback. docs/running.md has its
figures.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "support"))
os.environ.setdefault("AUTHFACE_CACHE", str(ROOT / ".assets"))
os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1")

from commands import collect_folder, init_workspace  # noqa: E402
from processes import cpu_environment, torchrun_options  # noqa: E402
from storm_output import Log, print_figures  # noqa: E402
from train_storm import NUM_PROCESSES, Schedule, TrainStorm  # noqa: E402

from authface_data.sources import demo_photos  # noqa: E402


class Torchrun:
    """Torchrun with an authface command.

    Args:
        command: Arguments of the command.
        folder: Folder for the output.
    """

    def __init__(self, command: Sequence[object], folder: Path) -> None:
        folder.mkdir(parents=True)
        options = torchrun_options(NUM_PROCESSES, folder / "ranks")
        with (folder / "torchrun.log").open("wb") as log:
            self._process = subprocess.Popen(
                ["torchrun", *options, "--no_python", "authface", *map(str, command)],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **cpu_environment()},
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Id of the process."""
        return self._process.pid

    def wait(self, timeout_s: float) -> int | None:
        """Wait for its end; returns its exit code, or None if it is still running."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None


def fill_workspace(root: Path, folder: Path) -> None:
    """Collect, filter and caption the photographs of the demo."""
    folder.mkdir()
    for photo in demo_photos.PHOTOS:
        (folder / photo.file).symlink_to(photo.path)
    for command in (
        init_workspace(root),
        collect_folder(root, folder),
        ["filter", "--metrics", "", "-w", root],
        ["caption", "-w", root],
    ):
        line = ["authface", *map(str, command), "-q"]
        subprocess.run(line, check=True, capture_output=True)


def main() -> None:
    """Run the storm."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--terms", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, metavar="DIR", help="A new folder for all files.")
    options = parser.parse_args()
    print(
        f"Python {platform.python_version()}, torch {torch.__version__}, {os.cpu_count()} cores; "
        f"{options.kills} SIGKILLs, {options.terms} SIGTERMs, seed {options.seed}"
    )
    log = Log()

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        fill_workspace(folder / "workspace", folder / "photos")
        schedule = Schedule(kills=options.kills, terms=options.terms, seed=options.seed)
        storm = TrainStorm(folder, folder / "workspace", Torchrun, schedule, log)
        figures = storm.run()

    print_figures("Training storm", figures)
    print(f"{log.seconds:.0f} s")
    sys.exit(any(figures.faults().values()))


if __name__ == "__main__":
    main()
