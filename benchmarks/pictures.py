"""The pictures in docs/filter.md and docs/review.md, by the commands themselves.

    python benchmarks/pictures.py [--keep DIR]

One photograph, NASA's portrait of Eileen Collins, which is in the public domain, spoilt in every way that is measured;
`authface filter` looks at them, `--what-if` and `review sheet` show what came of it. Needs Chromium for the page's picture.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "support"))

import degradations as spoil  # noqa: E402
from browser import browser  # noqa: E402

from authface_data.weights import cache_dir  # noqa: E402

LARGER = 3.0  # its face is only 174 px wide: spoilt at that size, it would be enlarged with what spoils it
SPOILT: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "as it is": lambda photo: photo,
    "noise": lambda photo: spoil.noisy(photo, 25),
    "pepper": lambda photo: spoil.peppered(photo, 0.01),
    "defocus": lambda photo: spoil.defocused(photo, 7),
    "slight blur": lambda photo: spoil.blurred(photo, 1.2),
    "motion": lambda photo: spoil.moved(photo, 21),
    "JPEG 12": lambda photo: spoil.compressed(photo, 12),
    "banding": lambda photo: spoil.posterised(photo, 14),
    "overexposed": lambda photo: spoil.overexposed(photo, 1.7),
    "beautified": lambda photo: spoil.beautified(photo, 3),
    "at night": lambda photo: spoil.at_night(photo),
    "soft light": lambda photo: spoil.in_soft_light(photo),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep", type=Path, help="a directory for the workspace, else a temporary one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temp:
        root = (options.keep or Path(temp)) / "ws"
        photos = root.parent / "photos"
        photos.mkdir(parents=True)
        with Image.open(cache_dir() / "photos" / "public-domain" / "astronaut-nasa.png") as opened:
            portrait = np.asarray(opened.convert("RGB"))
        for number, (name, change) in enumerate(SPOILT.items()):
            # Turned a little, each by another angle: else they would be found to be duplicates.
            turn = cv2.getRotationMatrix2D((224, 130), 4.0 * number - 22, LARGER)
            turn[:, 2] += (768 - 224, 620 - 130)
            turned = cv2.warpAffine(portrait, turn, (1536, 1536), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
            Image.fromarray(change(turned)).save(photos / f"{name}.png")
        authface("init", root, "--preset", "embedded")
        settings = (root / "authface.toml").read_text()
        (root / "authface.toml").write_text(settings.replace("[filter]", "[filter]\nduplicate_radius = 0"))
        authface("collect", "-w", root, "--source", "folder", "--path", photos, "--licence-basis", "public-domain")
        authface("filter", "-w", root)
        authface("caption", "-w", root)
        authface("filter", "-w", root, "--what-if", "detail>=0.3")
        docs = ROOT / "docs"
        (docs / "what-if.jpg").write_bytes((root / "reports" / "what-if.jpg").read_bytes())
        authface("review", "sheet", "-w", root)
        with browser(Path(temp)) as chromium:
            chromium.open(root / "reports" / "review.html")
            chromium.click("#reviewer")
            chromium.write("Anna")
            chromium.press("Escape", "x", "x", "4", "p", "u", "x")
            time.sleep(1)
            chromium.screenshot(Path(temp) / "page.png")
        Image.open(Path(temp) / "page.png").convert("RGB").save(docs / "review.jpg", quality=88)
    print(f"docs/what-if.jpg and docs/review.jpg are made anew in {docs}")


def authface(*words: object) -> None:
    print("$ authface", *words)
    subprocess.run([sys.executable, "-P", "-m", "cli", *map(str, words)], check=True)


if __name__ == "__main__":
    main()
