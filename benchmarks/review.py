"""How the review page behaves with many faces: its size, how long it takes to write and open, how it scrolls.

    python benchmarks/review.py [--faces 2000] [--size 1024]

Faces are the demo's, repeated under other names and brought to the size asked for; the browser is Chromium, headless. A
frame longer than 50 ms can be felt.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "support"))
os.environ.setdefault("AUTHFACE_CACHE", str(ROOT / ".assets"))

from browser import browser  # noqa: E402

from authface_data.review.faces import faces_to_review  # noqa: E402
from authface_data.review.sheet import page  # noqa: E402
from authface_data.weights import cache_dir  # noqa: E402
from manifests.workspace import Workspace  # noqa: E402

SCROLL = """new Promise((done) => {
    const grid = document.getElementById("grid"), times = [];
    let last = performance.now();
    const frame = (now) => {
        times.push(now - last);
        last = now;
        grid.scrollTop += 400;
        if (grid.scrollTop + grid.clientHeight >= grid.scrollHeight - 1) done(times.slice(1));
        else requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
})"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faces", type=int, default=2000)
    parser.add_argument("--size", type=int, default=1024)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temp:
        root = Path(temp) / "ws"
        photos = cache_dir() / "photos" / "us-government-likely"
        for words in (
            ["init", root, "--preset", "embedded"],
            [
                "collect",
                "-w",
                root,
                "--source",
                "folder",
                "--path",
                photos,
                "--licence-basis",
                "own",
            ],
            ["filter", "-w", root],
        ):
            subprocess.run(
                [sys.executable, "-P", "-m", "cli", *map(str, words)],
                check=True,
                capture_output=True,
            )
        for crop in (root / "faces").iterdir():
            with Image.open(crop) as opened:
                larger = opened.resize((options.size, options.size), Image.Resampling.LANCZOS)
            larger.save(crop)
        ws = Workspace(root)
        few = faces_to_review(ws)
        many = [
            dataclasses.replace(
                few[number % len(few)], id=f"fs_{number:06d}", crop_size_px=options.size
            )
            for number in range(options.faces)
        ]
        started = time.monotonic()
        data = page(ws, many)
        where = Path(temp) / "review.html"
        where.write_bytes(data)
        wrote = time.monotonic() - started
        with browser(Path(temp)) as chromium:
            started = time.monotonic()
            chromium.open(where)
            chromium.until("cards.length && cards[0].querySelector('img').naturalWidth")
            opened_s = time.monotonic() - started
            frames = chromium.run(SCROLL)
    felt = np.mean(np.array(frames) > 50)
    print(f"{options.faces} faces of {options.size} px: {len(data) / 1e6:.0f} MB")
    print(f"written in {wrote:.0f} s, opened in {opened_s:.1f} s")
    print(
        f"scrolling: {len(frames)} frames, median {np.median(frames):.0f} ms, 99 % under {np.percentile(frames, 99):.0f} ms, "
        f"{100 * felt:.1f} % over 50 ms ({os.cpu_count()} cores)"
    )


if __name__ == "__main__":
    main()
