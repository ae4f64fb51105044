"""Measures the review page with many faces: its size, and the time to write, open and scroll it.

    python benchmarks/review.py [--faces 2000] [--size 1024]

The faces are those of the demo, repeated under other ids and resized. The browser is headless
Chromium. A frame longer than 50 ms is noticeable.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "support"))
os.environ.setdefault("AUTHFACE_CACHE", str(ROOT / ".assets"))

from browser import open_browser  # noqa: E402

from authface_data.review.faces import ReviewFace, faces_to_review  # noqa: E402
from authface_data.review.sheet import render_page  # noqa: E402
from authface_data.weights import cache_dir  # noqa: E402
from manifests.workspace import Workspace  # noqa: E402

NOTICEABLE_MS = 50
FIRST_PICTURE_IS_SHOWN = "cards.length && cards[0].querySelector('img').naturalWidth"
# Scrolls to the end of the grid and returns the duration of every frame in ms.
SCROLL = """new Promise((resolve) => {
    const grid = document.getElementById("grid");
    const durations = [];
    let last = performance.now();
    const scrollOneFrame = (now) => {
        durations.push(now - last);
        last = now;
        grid.scrollTop += 400;
        const isAtEnd = grid.scrollTop + grid.clientHeight >= grid.scrollHeight - 1;
        if (isAtEnd) resolve(durations.slice(1));
        else requestAnimationFrame(scrollOneFrame);
    };
    requestAnimationFrame(scrollOneFrame);
})"""


def main() -> None:
    """Run the benchmark and print its results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faces", type=int, default=2000, help="number of faces on the page")
    parser.add_argument("--size", type=int, default=1024, help="side of the crops in pixels")
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        workspace = create_workspace(Path(folder) / "ws", options.size)
        faces = repeat_faces(faces_to_review(workspace), options.faces, options.size)
        started = time.monotonic()
        page = render_page(workspace, faces)
        page_file = Path(folder) / "review.html"
        page_file.write_bytes(page)
        write_s = time.monotonic() - started

        with open_browser(Path(folder)) as chromium:
            started = time.monotonic()
            chromium.open(page_file)
            chromium.wait_for(FIRST_PICTURE_IS_SHOWN)
            open_s = time.monotonic() - started
            frames_ms = np.array(chromium.evaluate(SCROLL))

    noticeable = 100 * np.mean(frames_ms > NOTICEABLE_MS)
    print(f"{options.faces} faces of {options.size} px: {len(page) / 1e6:.0f} MB")
    print(f"written in {write_s:.0f} s, opened in {open_s:.1f} s")
    print(
        f"scrolling: {len(frames_ms)} frames, median {np.median(frames_ms):.0f} ms, "
        f"99th percentile {np.percentile(frames_ms, 99):.0f} ms, "
        f"{noticeable:.1f} % over {NOTICEABLE_MS} ms ({os.cpu_count()} cores)"
    )


def create_workspace(root: Path, size_px: int) -> Workspace:
    """Create a workspace with the faces of the demo's photographs.

    Args:
        root: The folder of the workspace.
        size_px: Side of the crops.
    """
    photos = cache_dir() / "photos" / "us-government-likely"
    source = ["--source", "folder", "--path", photos, "--licence-basis", "own"]
    run_authface("init", root, "--preset", "embedded")
    run_authface("collect", "-w", root, *source)
    run_authface("filter", "-w", root)
    for crop in (root / "faces").iterdir():
        with Image.open(crop) as opened:
            resized = opened.resize((size_px, size_px), Image.Resampling.LANCZOS)
        resized.save(crop)
    return Workspace(root)


def run_authface(*arguments: object) -> None:
    """Run an authface command without showing its output."""
    subprocess.run(
        [sys.executable, "-P", "-m", "cli", *map(str, arguments)], check=True, capture_output=True
    )


def repeat_faces(faces: Sequence[ReviewFace], count: int, size_px: int) -> list[ReviewFace]:
    """Repeat faces under other ids.

    Args:
        faces: The faces to repeat.
        count: Number of faces to return.
        size_px: Side of the crops.
    """
    return [
        dataclasses.replace(
            faces[number % len(faces)], face_id=f"fs_{number:06d}", crop_size_px=size_px
        )
        for number in range(count)
    ]


if __name__ == "__main__":
    main()
