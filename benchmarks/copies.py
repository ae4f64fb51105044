"""Which copy of a photograph is kept, and which copies of faces are found.

    python benchmarks/copies.py --photos DIR [--limit 40] [--faces]

Copies of every photograph are made: enlarged, reduced, compressed again, saved as PNG. The first
table says how often the original counts as better, and how long measuring takes. With --faces, the
second table says how many faces are found again as duplicates: in a mirror image, a part of 88 % of
both sides, and others.
"""

from __future__ import annotations

import argparse
import io
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image, ImageOps

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "support"))

from public_faces import faces_stage  # noqa: E402

from authface_data.copies import Copy, compare_copies  # noqa: E402
from authface_data.engine.stage import Item, Rows  # noqa: E402
from authface_data.face_duplicates import FaceHashes, find_face_duplicates  # noqa: E402
from authface_data.faces.stage import FacesStage  # noqa: E402
from authface_data.images.detail_spectrum import measure_detail  # noqa: E402
from authface_data.images.open import IMAGE_SUFFIXES, Photo, decode_image  # noqa: E402

LARGEST_PX = 20_000_000
"""Larger copies are left out."""
FILTERS = {"bicubic": Image.Resampling.BICUBIC, "Lanczos": Image.Resampling.LANCZOS}
FACE_RADIUS = 8
MIN_FACE_PX = 150
"""Copies of faces with a smaller quad are not counted: their landmarks differ too much."""


def main() -> None:
    """Make copies and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=40)
    parser.add_argument("--faces", action="store_true")
    options = parser.parse_args()
    paths = sorted(
        path for path in options.photos.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES
    )
    chosen = np.linspace(0, len(paths) - 1, min(options.limit, len(paths))).round().astype(int)
    paths = [paths[index] for index in chosen]
    print_order(paths)
    if options.faces:
        print_found_faces(paths)


def print_order(paths: list[Path]) -> None:
    """Print how often the original wins over each kind of copy."""
    wins: dict[str, list[bool]] = defaultdict(list)
    seconds_per_megapixel = []
    for path in paths:
        data = path.read_bytes()
        pixels = decode_image(data)
        started = time.process_time()
        original = _copy("original", data, pixels)
        seconds = time.process_time() - started
        seconds_per_megapixel.append(seconds / pixels.shape[0] / pixels.shape[1] * 1e6)
        for kind, copy_data in _copies(Image.fromarray(pixels)):
            copy = _copy("copy", copy_data, decode_image(copy_data))
            wins[kind].append(compare_copies(original, copy) < 0)
    print(f"{'copy':32} original kept")
    for kind, results in wins.items():
        print(f"{kind:32} {sum(results):4} of {len(results)}")
    print(f"measuring: {1e3 * np.median(seconds_per_megapixel):.1f} ms of CPU time per megapixel")


def _copy(name: str, data: bytes, pixels: np.ndarray) -> Copy:
    """What `collect` knows about a picture."""
    detail = measure_detail(pixels)
    height, width = pixels.shape[:2]
    return Copy(
        id=name,
        passes=True,
        face_px=None,
        size_px=(width, height),
        num_bytes=len(data),
        spectrum=None if detail is None else np.array(detail.spectrum),
        coefficient_share=None if detail is None else detail.coefficient_share,
    )


def _copies(image: Image.Image) -> Iterator[tuple[str, bytes]]:
    """(kind, file) of each copy of a picture."""
    for factor in (1.25, 1.5, 2, 4):
        if image.width * image.height * factor**2 > LARGEST_PX:
            continue
        for name, method in FILTERS.items():
            enlarged = _resize(image, factor, method)
            yield f"enlarged {factor:g}x {name}, PNG", _encode(enlarged, "PNG")
            yield f"enlarged {factor:g}x {name}, JPEG 90", _encode(enlarged, "JPEG", 90)
    for name, method in FILTERS.items():
        yield f"reduced 0.5x {name}, JPEG 95", _encode(_resize(image, 0.5, method), "JPEG", 95)
    for quality in (95, 85, 70, 50):
        yield f"JPEG {quality}", _encode(image, "JPEG", quality)
    yield "PNG", _encode(image, "PNG")
    yield (
        "PNG of JPEG 70",
        _encode(Image.open(io.BytesIO(_encode(image, "JPEG", 70))).convert("RGB"), "PNG"),
    )


def _resize(image: Image.Image, factor: float, method: Image.Resampling) -> Image.Image:
    return image.resize((round(image.width * factor), round(image.height * factor)), method)


def _encode(image: Image.Image, file_format: str, quality: int = 90) -> bytes:
    file = io.BytesIO()
    options = {"quality": quality} if file_format == "JPEG" else {"compress_level": 1}
    image.save(file, file_format, **options)
    return file.getvalue()


def print_found_faces(paths: list[Path]) -> None:
    """Print how many faces of copies are found as duplicates, and how many pairs are wrong."""
    stage = faces_stage()
    kinds: dict[str, Callable[[Image.Image], Image.Image]] = {
        "mirror image": ImageOps.mirror,
        "part of 88 %": lambda image: ImageOps.crop(image, round(0.06 * min(image.size))),
        "reduced 0.5x": lambda image: _resize(image, 0.5, Image.Resampling.LANCZOS),
        "enlarged 1.5x": lambda image: _resize(image, 1.5, Image.Resampling.BICUBIC),
    }
    found: dict[str, list[bool]] = defaultdict(list)
    originals: list[dict] = []
    for path in paths:
        image = Image.fromarray(decode_image(path.read_bytes()))
        image.thumbnail((1600, 1600))
        faces = _detect(stage, _encode(image, "PNG"))
        originals += [{**face, "face_id": f"{path.name} {face['face_id']}"} for face in faces]
        large = [face for face in faces if face["qsize_px"] >= MIN_FACE_PX]
        for kind, change in kinds.items():
            copies = _detect(stage, _encode(change(image), "JPEG", 85))
            for face in large:
                matches = _find_duplicates([{**face, "face_id": "original"}, *copies])
                found[kind].append(bool(matches))
    print(f"\n{'copy, saved as JPEG 85':32} faces found")
    for kind, results in found.items():
        print(f"{kind:32} {sum(results):4} of {len(results)}")
    print(f"\nDuplicates among the {len(originals)} faces of the photographs themselves:")
    for face_id, reason in _find_duplicates(originals).items():
        print(f"  {face_id}: {reason}")


def _detect(stage: FacesStage, data: bytes) -> list[dict]:
    """The rows of `faces` of a picture."""
    item = Item("photo", {}, Photo(lambda: data))
    (result,) = stage.process([item], lambda path, content: None)
    return list(result.rows) if isinstance(result, Rows) else []


def _find_duplicates(rows: list[dict]) -> dict[str, str]:
    """face_id -> reason of the duplicates among rows of `faces`; earlier rows are better."""
    columns = ("face_id", "crop_phash", "crop_phash_mirrored", "crop_fine_hash")
    hashes = FaceHashes(*(pa.array([row[name] for row in rows], pa.string()) for name in columns))
    matches = find_face_duplicates(
        hashes, np.ones(len(rows), bool), FACE_RADIUS, lambda order, _: order
    )
    return {face_id: match.reason for face_id, match in matches.items()}


if __name__ == "__main__":
    main()
