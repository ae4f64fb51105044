"""How well each artefact measure separates degraded faces from clean ones.

    python benchmarks/artefacts.py
    python benchmarks/artefacts.py --photos DIR

The faces and degradations are those of tests/authface_data/quality/test_artefacts.py; no measure
was tuned on them. For every strength of a degradation, the median score is printed, and the AUC
against the same faces without it: clean, two stops darker, and in flat light. An AUC of 0.5 is
chance, 1.0 perfect separation.

With `--photos`, the faces are those of a folder of good photographs instead. For every gate on a
measure in the preset `paper`, the share of the faces that it drops is printed with their files, and
the share that it drops by skin tone. Only faces of at least 224 px are used. Salt-and-pepper noise
is added to the photographs, before alignment, at several scales.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "support"))

from authface_data.weights import cache_dir  # noqa: E402

os.environ["AUTHFACE_CACHE"] = str(cache_dir())

from degradations import (  # noqa: E402
    DEGRADATIONS,
    add_pepper_noise,
    auc,
    darken,
    downscale,
    flatten_light,
)
from public_faces import faces_stage, held_out_crops  # noqa: E402

from authface_data.engine.stage import Item, Rows  # noqa: E402
from authface_data.faces.align import ArraySource, Quad, align_photo  # noqa: E402
from authface_data.images.open import Photo  # noqa: E402
from authface_data.quality import ARTEFACTS, pepper, skin_tone  # noqa: E402
from authface_data.report.balance import MEASURED_FACETS  # noqa: E402
from manifests.settings import Gate, load_settings, preset_text  # noqa: E402

MIN_QUAD_PX = 224
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
PEPPER_FRACTION = 0.01
PEPPER_SCALES_PX = (256, 384, 512, 768, 1024, 1600)
"""Sides of the quad in the photograph to which noise is added."""
MARGIN = 0.15
"""Margin of the surroundings around the quad, as a share of its side."""


def main() -> None:
    """Print the scores and the AUC of every measure, or the false drops of a folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, help="folder of good photographs")
    photos_folder = parser.parse_args().photos
    if photos_folder is None:
        print_separation()
    else:
        print_false_drops(list(find_good_faces(photos_folder)))


def print_separation() -> None:
    """Print how well each measure separates degraded faces from clean ones."""
    crops = list(held_out_crops().values())
    print(f"{len(crops)} faces; {os.cpu_count()} cores")
    for name, degradations in DEGRADATIONS.items():
        score = import_module(ARTEFACTS[name]).score
        faces = [downscale(crop, 256) for crop in crops] if name == "detail" else crops

        started = time.perf_counter()
        clean = [score(crop) for crop in faces]
        seconds_per_face = (time.perf_counter() - started) / len(faces)
        hard_negatives = [
            score(change(crop)) for crop in faces for change in (darken, flatten_light)
        ]
        print(
            f"{name}: clean {np.median(clean):.2f}, lowest {min(clean):.2f}; "
            f"{1000 * seconds_per_face:.1f} ms a face"
        )

        for degrade, strengths in degradations:
            results = []
            for strength in strengths:
                degraded = [score(degrade(crop, strength)) for crop in faces]
                separation = auc(degraded, [*clean, *hard_negatives])
                results.append(f"{strength:g}: {np.median(degraded):.2f}, AUC {separation:.3f}")
            print(f"  {degrade.__name__} " + "; ".join(results))


@dataclass(frozen=True)
class GoodFace:
    """A face of a photograph that no artefact gate should drop."""

    name: str
    """File name and number of the face."""
    crop: np.ndarray
    surroundings: np.ndarray
    """The part of the photograph around the face."""
    quad: Quad
    """The quad of the crop, in pixels of the surroundings."""


def find_good_faces(folder: Path) -> Iterator[GoodFace]:
    """Detect and align the faces of a folder that are at least `MIN_QUAD_PX` large."""
    stage = faces_stage()
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in IMAGE_SUFFIXES:
            continue
        photo = Photo(path.read_bytes)
        files: dict[str, bytes] = {}
        (result,) = stage.process([Item(path.stem, {}, photo)], files.__setitem__)
        for number, row in enumerate(result.rows if isinstance(result, Rows) else []):
            if row["qsize_px"] < MIN_QUAD_PX:
                continue
            corners_px = np.array([list(corner) for corner in row["quad_px"]])
            margin_px = MARGIN * row["qsize_px"]
            left, top = np.clip(corners_px.min(0) - margin_px, 0, photo.size_px).astype(int)
            right, bottom = np.clip(corners_px.max(0) + margin_px, 0, photo.size_px).astype(int)
            with Image.open(io.BytesIO(files[row["crop_path"]])) as crop:
                yield GoodFace(
                    f"{path.name}:{number}",
                    np.asarray(crop.convert("RGB")),
                    photo.pixels()[top:bottom, left:right].copy(),
                    Quad(corners_px - (left, top), row["qsize_px"]),
                )


def print_false_drops(faces: list[GoodFace]) -> None:
    """Print what the artefact gates of the preset `paper` drop, and what pepper noise scores."""
    settings = load_settings(preset_text("paper").encode(), "paper")
    gates = [gate for gate in settings.gates if gate.metric in ARTEFACTS]
    print(f"{len(faces)} faces of at least {MIN_QUAD_PX} px; false drops by gate:")
    drops = {gate.name: np.array([_is_dropped(face, gate) for face in faces]) for gate in gates}
    for gate in gates:
        names = [face.name for face, drop in zip(faces, drops[gate.name], strict=True) if drop]
        share = 100 * drops[gate.name].mean()
        print(f"  {gate.name} ({gate.metric} {gate.op} {gate.threshold:g}): {share:.1f} %", *names)

    facet = MEASURED_FACETS["Skin tone"]
    groups = np.digitize([skin_tone.score(face.crop) for face in faces], facet.bounds)
    is_dropped = drops["pepper_noise"] | drops["clipping"] | drops["banding"]
    print("dropped by pepper_noise, clipping or banding, by skin tone:")
    for group, label in enumerate(facet.labels):
        of_group = is_dropped[groups == group]
        print(f"  {label}: {of_group.sum()} of {len(of_group)}")

    print(f"{100 * PEPPER_FRACTION:g} % salt-and-pepper noise, found at a threshold of 0.5:")
    for size_px in PEPPER_SCALES_PX:
        scores = [
            pepper.score(_crop_with_pepper(face, size_px))
            for face in faces
            if face.quad.size_px >= 0.95 * size_px
        ]
        if scores:
            found = np.mean(np.array(scores) < 0.5)
            print(f"  faces of {size_px} px: {100 * found:.1f} % of {len(scores)}")


def _is_dropped(face: GoodFace, gate: Gate) -> bool:
    assert gate.op == ">="
    assert gate.threshold is not None
    measure = import_module(ARTEFACTS[gate.metric])
    arguments = [face.quad.corners_px] if hasattr(measure, "USES_QUAD") else []
    return bool(measure.score(face.crop, *arguments) < gate.threshold)


def _crop_with_pepper(face: GoodFace, size_px: int) -> np.ndarray:
    """Reduce the photograph to a quad of `size_px`, add noise and align."""
    scale = min(size_px / face.quad.size_px, 1)
    resized = cv2.resize(face.surroundings, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    corners_px = (face.quad.corners_px + 0.5) * scale - 0.5
    quad = Quad(corners_px, face.quad.size_px * scale)
    return align_photo(ArraySource(add_pepper_noise(resized, PEPPER_FRACTION)), quad, 512).pixels


if __name__ == "__main__":
    main()
