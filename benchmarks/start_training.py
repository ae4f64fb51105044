"""Seconds from the start of `authface train-prior` to its first step.

    python benchmarks/start_training.py --tiny              the same with a tiny model
    python benchmarks/start_training.py                     SDXL's shape with random weights
    python benchmarks/start_training.py --base DIR          a model on this disk
    python benchmarks/start_training.py --set lora_rank=4   settings, as for train-prior

The random model takes 7 GB of the temporary folder (TMPDIR). Each start is a new process, without
captions. The first start encodes the faces of the demo and estimates the memory; the later ones
find both in the workspace's cache. Read times depend on whether the system has the files in memory.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("AUTHFACE_CACHE", str(ROOT / ".assets"))

NUM_STARTS = 3
FIRST_STEP = "steps 0 to"
"""Part of the line that the loop logs when it starts."""
AUTHFACE = [sys.executable, str(ROOT / "cli.py")]


def save_random_sdxl(folder: Path) -> None:
    """Save a pipeline of SDXL's shape with random weights in fp16."""
    import torch

    from authface_train.models.sdxl import random_sdxl
    from authface_train.models.sdxl_config import SDXL_CONFIGURATION

    torch.set_default_dtype(torch.float16)
    random_sdxl(SDXL_CONFIGURATION, seed=0).save_pretrained(folder)


def make_workspace(folder: Path) -> None:
    """Filter the portraits of the demo into a new workspace."""
    from authface_data.sources.demo_photos import US_GOVERNMENT

    for command in (
        ["demo", "--fetch"],
        ["init", folder, "--preset", "embedded"],
        [
            "collect",
            "--source",
            "folder",
            "--path",
            Path(os.environ["AUTHFACE_CACHE"]) / "photos" / "us-government-likely",
            "--licence-basis",
            US_GOVERNMENT,
            "-w",
            folder,
        ],
        ["filter", "--metrics", "", "-w", folder],
    ):
        subprocess.run([*AUTHFACE, *map(str, command)], check=True, stdout=subprocess.DEVNULL)


def time_start(workspace: Path, base: str, settings: Sequence[str], run: Path) -> float:
    """Start a run, stop it before its first step, and remove it.

    Args:
        workspace: The workspace.
        base: The model to start from.
        settings: Values of `--set`.
        run: Folder of the run.

    Returns:
        Seconds until the loop starts.
    """
    command = [*AUTHFACE, "train-prior", "-w", workspace, "--base", base, "--output", run]
    command += ["--tags", "none"]
    for setting in ("audit=false", "draw.every=0", *settings):
        command += ["--set", setting]
    started = time.monotonic()
    process = subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    output = []
    for line in process.stdout:
        output.append(line)
        if FIRST_STEP in line:
            seconds = time.monotonic() - started
            process.kill()
            process.wait()
            shutil.rmtree(run)
            return seconds
    raise SystemExit("".join(output))


def main() -> None:
    """Print the seconds of each start."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--base", help="Folder of an SDXL. Default: a random one.")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        base = options.base
        if options.tiny:
            base = "tiny"
        elif base is None:
            base = str(Path(temporary, "sdxl"))
            save_random_sdxl(Path(base))
        workspace = Path(temporary, "workspace")
        make_workspace(workspace)
        print(f"Python {platform.python_version()}, {os.cpu_count()} cores")
        for number in range(1, NUM_STARTS + 1):
            seconds = time_start(workspace, base, options.set, Path(temporary, "run"))
            print(f"start {number}: {seconds:.1f} s")


if __name__ == "__main__":
    main()
