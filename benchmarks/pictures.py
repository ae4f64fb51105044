"""The pictures in docs/filter.md, docs/review.md and docs/captions.md, by the commands and measures themselves.

    python benchmarks/pictures.py [--keep DIR]

One photograph, NASA's portrait of Eileen Collins, which is in the public domain, spoilt in every way that is measured;
`authface filter` looks at them, `--what-if` and `review sheet` show what came of it. Needs Chromium for the page's picture.
"""

from __future__ import annotations

import argparse
import os
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
os.environ.setdefault("AUTHFACE_CACHE", str(ROOT / ".assets"))

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


def _lit(crop: np.ndarray, left: float, right: float) -> np.ndarray:
    return np.clip(crop * np.linspace(left, right, crop.shape[1])[None, :, None], 0, 255).astype(
        np.uint8
    )


CHANGED: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "as it is": lambda crop: crop,
    "grey": lambda crop: np.repeat(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2),
    "lit from the left": lambda crop: _lit(crop, 1.5, 0.0),
    "lit from the right": lambda crop: _lit(crop, 0.0, 1.5),
    "by candlelight": lambda crop: np.clip(crop * np.array([0.5, 0.32, 0.12]), 0, 255).astype(
        np.uint8
    ),
    "in the shade": lambda crop: np.clip(crop * np.array([0.75, 0.9, 1.2]), 0, 255).astype(
        np.uint8
    ),
    "more colour": lambda crop: np.clip(
        crop.mean(2, keepdims=True) + 2.4 * (crop - crop.mean(2, keepdims=True)), 0, 255
    ).astype(np.uint8),
    "out of focus": lambda crop: spoil.defocused(crop, 7),
}


def measured_tags(docs: Path) -> None:
    """docs/captions.jpg: the portrait, changed, each with its measured tags."""
    import textwrap

    from PIL import ImageDraw, ImageFont
    from public_faces import found_faces

    from authface_data.captions.measured.stage import measure_face

    (face,) = (one for one in found_faces() if one.photo == "astronaut-nasa.png")
    side, text, columns, font = 300, 110, 4, ImageFont.load_default(size=15)
    sheet = Image.new("RGB", (columns * (side + 8), 2 * (side + text)), "#16181c")
    pen = ImageDraw.Draw(sheet)
    for number, (name, change) in enumerate(CHANGED.items()):
        crop = change(face.crop)
        x, y = number % columns * (side + 8), number // columns * (side + text)
        sheet.paste(Image.fromarray(crop).resize((side, side), Image.Resampling.LANCZOS), (x, y))
        tags = ", ".join(
            fact.tag for fact in measure_face(face.row, crop) if fact.tag != "colour photograph"
        )
        pen.text((x + 4, y + side + 4), name, fill="#9a978f", font=font)
        pen.multiline_text(
            (x + 4, y + side + 24), "\n".join(textwrap.wrap(tags, 42)), fill="#e8e6e3", font=font
        )
    sheet.save(docs / "captions.jpg", quality=90)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--keep", type=Path, help="a directory for the workspace, else a temporary one"
    )
    options = parser.parse_args()
    docs = ROOT / "docs"
    measured_tags(docs)
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
            turned = cv2.warpAffine(
                portrait, turn, (1536, 1536), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT
            )
            Image.fromarray(change(turned)).save(photos / f"{name}.png")
        authface("init", root, "--preset", "embedded")
        settings = (root / "authface.toml").read_text()
        (root / "authface.toml").write_text(
            settings.replace("[filter]", "[filter]\nduplicate_radius = 0")
        )
        authface(
            "collect",
            "-w",
            root,
            "--source",
            "folder",
            "--path",
            photos,
            "--licence-basis",
            "public-domain",
        )
        authface("filter", "-w", root)
        authface("caption", "-w", root)
        authface("filter", "-w", root, "--what-if", "detail>=0.3")
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
    print(f"docs/captions.jpg, what-if.jpg and review.jpg are made anew in {docs}")


def authface(*words: object) -> None:
    print("$ authface", *words)
    subprocess.run([sys.executable, "-P", "-m", "cli", *map(str, words)], check=True)


if __name__ == "__main__":
    main()
