"""Speed of `authface filter` by engine and number of workers, and where its time goes.

    python benchmarks/pipeline.py [--photos DIR] [--engines local:1,local:2,ray:1,ray:2]
    python benchmarks/pipeline.py --memory 1000,20000

The preset is `embedded`. The first form runs the real command on copies of one workspace, start-up
included, and then measures the parts of the work in one process. The second form collects and
filters small pictures and prints the peak memory of the process and its children together.
docs/scale.md has its figures.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image

SAMPLE_INTERVAL_S = 0.05
SMALL_PX = 160


def run(command: list[object], show_memory: bool = False) -> tuple[str, float, float]:
    """Run an authface command.

    Returns:
        Its output, its duration in seconds and the peak memory of its processes in MB.
    """
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "cli", *map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    peak = 0.0

    def sample() -> None:
        nonlocal peak
        while process.poll() is None:
            total = 0
            with suppress(psutil.Error):
                family = psutil.Process(process.pid)
                for member in [family, *family.children(recursive=True)]:
                    with suppress(psutil.Error):
                        # The shared memory of forked workers is counted once.
                        total += member.memory_full_info().pss
            peak = max(peak, total / 1e6)
            time.sleep(SAMPLE_INTERVAL_S)

    thread = threading.Thread(target=sample)
    if show_memory:
        thread.start()
    output, _ = process.communicate()
    if show_memory:
        thread.join()
    if process.returncode not in (0, 4):
        sys.exit(output)
    return output, time.monotonic() - started, peak


def collect(root: Path, photos: Path) -> tuple[str, float, float]:
    """Make a workspace of the photographs of a folder."""
    run(["init", root, "--preset", "embedded", "-q"])
    source = ["--source", "folder", "--path", photos, "--licence-basis", "own"]
    return run(["collect", "-w", root, *source, "-q"], show_memory=True)


def measure_engines(collected: Path, folder: Path, engines: list[str]) -> None:
    """Run `filter` with each engine and print a table."""
    print("| engine | workers | photos/s | faces/s | all, s |\n|---|---|---|---|---|")
    for number, engine in enumerate(engines):
        name, _, workers = engine.partition(":")
        root = folder / f"copy-{number}"
        shutil.copytree(collected, root)
        options = ["--engine", name, "--workers", workers]
        output, seconds, _ = run(["filter", "-w", root, *options])
        photos = re.search(r"faces: ([\d.]+) photographs/s", output)
        faces = re.search(r"scores: ([\d.]+) faces/s", output)
        assert photos is not None, output
        assert faces is not None, output
        print(f"| {name} | {workers} | {photos[1]} | {faces[1]} | {seconds:.1f} |", flush=True)
        shutil.rmtree(root)


class Clock:
    """Time of the parts of the work; a part does not contain the parts that it calls."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self._open: list[list[float]] = []

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Measure a part."""
        started = time.perf_counter()
        self._open.append([0.0])
        try:
            yield
        finally:
            seconds = time.perf_counter() - started
            (inner,) = self._open.pop()
            self.seconds[name] += seconds - inner
            if self._open:
                self._open[-1][0] += seconds

    def measure(self, place: Any, function: str, name: str) -> None:
        """Measure every call of a function or method as a part."""
        original: Callable[..., Any] = getattr(place, function)

        def measured(*args: Any, **options: Any) -> Any:
            with self.part(name):
                return original(*args, **options)

        setattr(place, function, measured)


def measure_parts(root: Path) -> None:
    """Filter in this process and print the share of each part."""
    from authface_data.engine.run import Engine
    from authface_data.faces import stage as faces
    from authface_data.faces.landmarks import Dlib68
    from authface_data.faces.region_features import RegionModels
    from authface_data.filter_faces import measure_faces
    from authface_data.images import open as pictures
    from authface_data.quality.stage import ScoreStage
    from manifests.workspace import Workspace

    clock = Clock()
    clock.measure(pictures.Photo, "pixels", "decoding")
    clock.measure(pictures.Photo, "region", "decoding")
    clock.measure(faces.FaceDetection, "predict", "detection")
    clock.measure(Dlib68, "locate", "landmarks")
    clock.measure(faces, "align_photo", "alignment")
    clock.measure(faces, "encode_lossless", "encoding of crops")
    clock.measure(RegionModels, "measure", "visibility of regions")
    process = ScoreStage.process

    def measured(stage: ScoreStage, *args: Any) -> Any:
        with clock.part("measures" if stage.is_measure else stage.name):
            return process(stage, *args)

    ScoreStage.process = measured  # type: ignore[method-assign]
    workspace = Workspace(root)
    with workspace.lock("benchmark"), clock.part("the rest"):
        measure_faces(workspace, workspace.settings.filter, engine=Engine(workers=1))

    total = sum(clock.seconds.values())
    print("\n| part | s | share |\n|---|---|---|")
    for name, seconds in clock.seconds.most_common():
        print(f"| {name} | {seconds:.1f} | {100 * seconds / total:.0f} % |")


def measure_memory(counts: list[int], folder: Path) -> None:
    """Collect and filter different numbers of small pictures and print the peak memory."""
    print("| photographs | collect, MB | s | filter, MB | s |\n|---|---|---|---|---|")
    for count in counts:
        photos = folder / f"small-{count}"
        photos.mkdir()
        write_small_pictures(photos, count)
        root = folder / f"ws-{count}"
        _, collect_s, collect_mb = collect(root, photos)
        _, filter_s, filter_mb = run(["filter", "-w", root, "-q"], show_memory=True)
        print(
            f"| {count:,} | {collect_mb:.0f} | {collect_s:.0f} | {filter_mb:.0f} | {filter_s:.0f} |",
            flush=True,
        )
        shutil.rmtree(root)


def write_small_pictures(folder: Path, count: int) -> None:
    """Write small pictures, all of them different."""
    rng = np.random.default_rng(0)
    base = rng.integers(0, 255, (SMALL_PX // 8, SMALL_PX // 8, 3), np.uint8)
    picture = Image.fromarray(base).resize((SMALL_PX, SMALL_PX))
    for number in range(count):
        picture.putpixel((number % SMALL_PX, number // SMALL_PX % SMALL_PX), (number % 256, 0, 255))
        picture.save(folder / f"{number:07d}.jpg", quality=80)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--photos", type=Path, help="folder of photographs; default: the demo's")
    parser.add_argument("--engines", default="local:1,local:2,ray:1,ray:2")
    parser.add_argument(
        "--memory", metavar="COUNTS", help="numbers of photographs, comma-separated"
    )
    options = parser.parse_args()
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if options.memory:
            measure_memory([int(count) for count in options.memory.split(",")], folder)
            return
        photos = options.photos
        if photos is None:
            from authface_data.sources import demo_photos

            photos = folder / "photos"
            photos.mkdir()
            for photo in demo_photos.PHOTOS:
                shutil.copy(photo.path, photos / photo.file)
        collected = folder / "collected"
        collect(collected, photos)
        measure_engines(collected, folder, options.engines.split(","))
        measure_parts(collected)


if __name__ == "__main__":
    main()
