"""Makes docs/captions.jpg, docs/what-if.jpg and docs/review.jpg.

    python benchmarks/pictures.py [--keep DIR]

The photograph is NASA's portrait of Eileen Collins, which is in the public domain. It is degraded
in every way that the artefact measures detect. `authface filter` processes the results, and
`--what-if` and `review sheet` draw the pictures of them. The picture of the review sheet needs
Chromium.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "support"))
os.environ.setdefault("AUTHFACE_CACHE", str(ROOT / ".assets"))

import degradations  # noqa: E402
from browser import open_browser  # noqa: E402
from public_faces import detected_faces  # noqa: E402

from authface_data.captions.measured.networks import CropNetworks  # noqa: E402
from authface_data.captions.measured.stage import measure_face, read_face  # noqa: E402
from authface_data.weights import cache_dir  # noqa: E402

Change = Callable[[np.ndarray], np.ndarray]

PORTRAIT = "astronaut-nasa.png"
PORTRAIT_FACE_PX = (224, 130)
"""(x, y) of the face in the portrait."""
SCENE_PX = 1536
SCENE_FACE_PX = (768, 620)
"""(x, y) of the face in the degraded photographs."""
ENLARGEMENT = 3.0
"""The face is only 174 px wide. If it were degraded at that size, alignment would enlarge the
artefacts."""


def _unchanged(picture: np.ndarray) -> np.ndarray:
    """Return the picture itself."""
    return picture


DEGRADED: dict[str, Change] = {
    "as it is": _unchanged,
    "noise": lambda photo: degradations.add_gaussian_noise(photo, 25),
    "pepper": lambda photo: degradations.add_pepper_noise(photo, 0.01),
    "defocus": lambda photo: degradations.blur_defocus(photo, 7),
    "slight blur": lambda photo: degradations.blur_gaussian(photo, 1.2),
    "motion": lambda photo: degradations.blur_motion(photo, 21),
    "JPEG 12": lambda photo: degradations.compress_jpeg(photo, 12),
    "banding": lambda photo: degradations.posterise(photo, 14),
    "overexposed": lambda photo: degradations.overexpose(photo, 1.7),
    "beautified": lambda photo: degradations.smooth_surfaces(photo, 3),
    "at night": degradations.darken,
    "soft light": degradations.flatten_light,
}


def _to_uint8(picture: np.ndarray) -> np.ndarray:
    """Clip to 0..255 and truncate to uint8."""
    return np.clip(picture, 0, 255).astype(np.uint8)


def _light_from_side(crop: np.ndarray, left: float, right: float) -> np.ndarray:
    """Multiply a crop by a gradient from `left` to `right`."""
    return _to_uint8(crop * np.linspace(left, right, crop.shape[1])[None, :, None])


def _to_grey(crop: np.ndarray) -> np.ndarray:
    """Remove the colour of a crop."""
    grey = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)
    return np.repeat(grey[..., None], 3, axis=2)


def _tint(crop: np.ndarray, gains: tuple[float, float, float]) -> np.ndarray:
    """Multiply the channels of a crop by their gains."""
    return _to_uint8(crop * np.array(gains))


def _saturate(crop: np.ndarray, factor: float) -> np.ndarray:
    """Multiply the distance of every colour from grey."""
    grey = crop.mean(2, keepdims=True)
    return _to_uint8(grey + factor * (crop - grey))


CHANGED: dict[str, Change] = {
    "as it is": _unchanged,
    "grey": _to_grey,
    "lit from the left": partial(_light_from_side, left=1.5, right=0.0),
    "lit from the right": partial(_light_from_side, left=0.0, right=1.5),
    "by candlelight": partial(_tint, gains=(0.5, 0.32, 0.12)),
    "in the shade": partial(_tint, gains=(0.75, 0.9, 1.2)),
    "more colour": partial(_saturate, factor=2.4),
    "out of focus": lambda crop: degradations.blur_defocus(crop, 7),
}


def _make_captions_picture(path: Path) -> None:
    """Save a sheet of the portrait, changed in several ways, each with its measured tags."""
    cell_px, text_px, num_columns = 300, 110, 4
    gap_px = 8
    font = ImageFont.load_default(size=15)
    (face,) = (face for face in detected_faces() if face.photo == PORTRAIT)
    networks = CropNetworks()
    networks.setup(None)
    sheet = Image.new("RGB", (num_columns * (cell_px + gap_px), 2 * (cell_px + text_px)), "#16181c")
    draw = ImageDraw.Draw(sheet)
    for index, (name, change) in enumerate(CHANGED.items()):
        crop = change(face.crop)
        x = index % num_columns * (cell_px + gap_px)
        y = index // num_columns * (cell_px + text_px)
        thumbnail = Image.fromarray(crop).resize((cell_px, cell_px), Image.Resampling.LANCZOS)
        sheet.paste(thumbnail, (x, y))

        measurements = measure_face(read_face(face.row, crop, networks))
        measured = [measurement.tag for measurement in measurements]
        tags = ", ".join(tag for tag in measured if tag != "colour photograph")
        draw.text((x + 4, y + cell_px + 4), name, fill="#9a978f", font=font)
        wrapped = "\n".join(textwrap.wrap(tags, 42))
        draw.multiline_text((x + 4, y + cell_px + 24), wrapped, fill="#e8e6e3", font=font)
    sheet.save(path, quality=90)


def _save_degraded_photographs(folder: Path) -> None:
    """Save the portrait once per degradation, enlarged."""
    folder.mkdir(parents=True)
    with Image.open(cache_dir() / "photos" / "public-domain" / PORTRAIT) as opened:
        portrait = np.asarray(opened.convert("RGB"))
    for index, (name, degrade) in enumerate(DEGRADED.items()):
        # Each is rotated by a different angle, so that they are not near-duplicates.
        matrix = cv2.getRotationMatrix2D(PORTRAIT_FACE_PX, 4.0 * index - 22, ENLARGEMENT)
        matrix[:, 2] += np.subtract(SCENE_FACE_PX, PORTRAIT_FACE_PX)
        scene = cv2.warpAffine(
            portrait,
            matrix,
            (SCENE_PX, SCENE_PX),
            flags=cv2.INTER_CUBIC,
            borderMode=cv2.BORDER_REFLECT,
        )
        Image.fromarray(degrade(scene)).save(folder / f"{name}.png")


def _run_authface(*arguments: object) -> None:
    """Run a command and stop if it fails."""
    print("$ authface", *arguments)
    subprocess.run([sys.executable, "-P", "-m", "cli", *map(str, arguments)], check=True)


def _fill_workspace(root: Path, photos: Path) -> None:
    """Collect, filter and caption the photographs, without the search for near-duplicates."""
    _run_authface("init", root, "--preset", "embedded")
    settings = root / "authface.toml"
    text = settings.read_text()
    no_duplicates = '[filter]\nduplicate_radius = 0\nduplicate_face_radius = "off"'
    settings.write_text(text.replace("[filter]", no_duplicates))
    source = ["--source", "folder", "--path", photos, "--licence-basis", "public-domain"]
    _run_authface("collect", "-w", root, *source)
    _run_authface("filter", "-w", root)
    _run_authface("caption", "-w", root)


def _make_review_picture(root: Path, path: Path, temporary: Path) -> None:
    """Save screenshots of the review sheet with a few decisions: a desktop and a telephone."""
    _run_authface("review", "sheet", "-w", root)
    shots = []
    with open_browser(temporary) as chromium:
        chromium.open(root / "reports" / "review.html")
        for width, scheme, is_touch in ((1280, "light", False), (390, "dark", True)):
            chromium.resize(width, 844, touch=is_touch)
            chromium.prefer_colour_scheme(scheme)
            chromium.evaluate("answers = {}; showFaces('dropped')")
            chromium.evaluate("select(cards.findIndex((card) => !card.hidden))")
            chromium.press("x", "4", "p", "u", "x", "ArrowLeft", "ArrowLeft")
            time.sleep(1)
            chromium.screenshot(temporary / "page.png")
            shots.append(Image.open(temporary / "page.png").convert("RGB"))
    both = Image.new("RGB", (sum(shot.width for shot in shots) + 20, 844), "white")
    both.paste(shots[0], (0, 0))
    both.paste(shots[1], (shots[0].width + 20, 0))
    both.save(path, quality=85)


def main() -> None:
    """Make the three pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--keep", type=Path, metavar="DIR", help="Folder for the workspace. Default: temporary."
    )
    options = parser.parse_args()
    docs = ROOT / "docs"
    _make_captions_picture(docs / "captions.jpg")
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        root = folder / "ws"
        _save_degraded_photographs(folder / "photos")
        _fill_workspace(root, folder / "photos")
        _run_authface("filter", "-w", root, "--what-if", "detail>=0.3")
        (docs / "what-if.jpg").write_bytes((root / "reports" / "what-if.jpg").read_bytes())
        _make_review_picture(root, docs / "review.jpg", Path(temporary))
    print(f"captions.jpg, what-if.jpg and review.jpg are in {docs}")


if __name__ == "__main__":
    main()
