"""Fits the weights of authface_data/faces/visibility.py on painted and on labelled faces.

    python benchmarks/fit_visibility.py --photos DIR --labels CSV
    python benchmarks/fit_visibility.py                            the painted faces alone

It prints the two logistic models as Python, and how well they separate the kinds. The painted faces
are those of tests/authface_data/faces/visibility_labels.csv; `python tests/support/public_faces.py`
fetches them. Of the labels, in the format of curation.py, only the half "tune" is used. The result
depends on these faces and on the seed alone.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np
from curation import fill_workspace, match, read_faces, read_labels

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "support"))
os.environ.setdefault("AUTHFACE_CACHE", str(ROOT / ".assets"))

from occlusions import (  # noqa: E402
    make_texture,
    paint_hand,
    paint_mask,
    paint_patch,
    paint_printed_mask,
    paint_skin,
    paint_sunglasses,
    soften,
)
from public_faces import DetectedFace, detected_faces  # noqa: E402

from authface_data.faces.region_features import (  # noqa: E402
    EYE_FEATURES,
    MOUTH_FEATURES,
    RegionModels,
)
from authface_data.faces.visibility import MIN_PRESENCE  # noqa: E402
from authface_data.images.open import decode_image, read_file  # noqa: E402

LABELS = ROOT / "tests" / "authface_data" / "faces" / "visibility_labels.csv"
EYES = ("left_eye", "right_eye")
REGIONS = (*EYES, "mouth")
MIN_QUAD_PX = 150
"""Smaller faces are not painted on: their own regions are hard to see."""
SOFT_SIDES_PX = (64, 150)
CLEAN_KINDS = ("clean", "soft", "labelled")
"""Kinds of pictures without paint."""
CLEAN_WEIGHT = 3.0
"""Weight of a picture without paint, of which there are few."""
REGULARISATION = 0.3
TEXTURES = ("plain", "plaid", "dots", "leaves", "grain")

Labels = dict[str, bool]
"""Whether each region is visible; regions that are not labelled are left out."""
Painted = tuple[str, np.ndarray, tuple[str, ...]]
"""A kind of occlusion, the painted crop, and the regions it hides."""


def paint_all(face: DetectedFace, rng: np.random.Generator) -> Iterator[Painted]:
    """Paint every kind of occlusion on a face, in random colours and sizes."""
    crop = face.crop
    boxes = {name: np.array(face.row[f"{name}_box_crop_px"]) for name in REGIONS}
    eye = str(rng.choice(EYES))
    num_fingers = int(rng.integers(2, 5))
    grey = int(rng.integers(8, 50))
    colour = tuple(int(value) for value in rng.integers(20, 240, 3))

    lenses = paint_sunglasses(crop, boxes[EYES[0]], boxes[EYES[1]], (grey, grey, grey + 3))
    yield "sunglasses", lenses, EYES
    yield "plain mask", paint_mask(crop, boxes["mouth"], colour), ("mouth",)
    for kind in TEXTURES:
        texture = make_texture(kind, 96, 96, rng)
        yield "printed mask", paint_printed_mask(crop, boxes["mouth"], texture), ("mouth",)
    for region in (eye, "mouth"):
        yield "hand", paint_hand(crop, boxes[region], num_fingers), (region,)
        yield "skin", paint_skin(crop, boxes[region]), (region,)
        for kind in TEXTURES:
            texture = make_texture(kind, 64, 64, rng)
            yield "object", paint_patch(crop, boxes[region], texture), (region,)


def samples() -> Iterator[tuple[str, Labels, np.ndarray]]:
    """(kind, whether each region is visible, crop) of every picture to learn from."""
    with LABELS.open() as file:
        rows = list(csv.DictReader(file))
    rng = np.random.default_rng(0)
    for face in detected_faces():
        middle_px = np.mean(face.row["quad_px"], axis=0)[0]
        found = [
            row
            for row in rows
            if row["photo"] == face.photo and abs(int(row["x_px"]) - middle_px) < 8
        ]
        if not found:
            continue
        labels = {name: found[0][name] == "1" for name in REGIONS}
        yield "clean", labels, face.crop
        yield "soft", labels, soften(face.crop, int(rng.integers(*SOFT_SIDES_PX)))
        if not all(labels.values()) or face.row["qsize_px"] < MIN_QUAD_PX:
            continue
        for kind, crop, hidden in paint_all(face, rng):
            painted = {name: name not in hidden for name in REGIONS}
            yield kind, painted, crop
            if rng.random() < 0.3:
                yield kind, painted, soften(crop, int(rng.integers(*SOFT_SIDES_PX)))


def labelled_samples(photos: Path, labels: Path) -> Iterator[tuple[str, Labels, np.ndarray]]:
    """("labelled", whether each labelled region is visible, crop) of the half "tune"."""
    rows = read_labels(labels, "tune")
    with tempfile.TemporaryDirectory() as folder:
        workspace = Path(folder) / "workspace"
        fill_workspace(workspace, photos, "embedded")
        faces = read_faces(workspace, photos)
        for label, row in zip(rows.to_dict("records"), match(rows, faces), strict=True):
            if row is None:
                continue
            visible = {name: label[name] == "v" for name in REGIONS if label[name] in ("v", "h")}
            crop = decode_image(read_file(workspace / faces.at[row, "crop_path"]))
            yield "labelled", visible, crop


def fit(features: np.ndarray, hidden: np.ndarray, weights: np.ndarray) -> tuple[float, np.ndarray]:
    """Fit a logistic model; returns its intercept and its weights for features as they are."""
    from sklearn.linear_model import LogisticRegression

    mean, scale = features.mean(0), features.std(0)
    model = LogisticRegression(C=REGULARISATION, class_weight="balanced", max_iter=2000)
    model.fit((features - mean) / scale, hidden, sample_weight=weights)
    slopes = model.coef_[0] / scale
    return float(model.intercept_[0] - slopes @ mean), slopes


def main() -> None:
    """Parse the command line, fit the models and print them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--photos", type=Path, help="folder of labelled photographs")
    parser.add_argument("--labels", type=Path, help="CSV of the labels")
    options = parser.parse_args()
    sources = [samples()]
    if bool(options.photos) != bool(options.labels):
        parser.error("--photos and --labels belong together")
    if options.photos:
        sources.append(labelled_samples(options.photos, options.labels))

    models = RegionModels()
    models.setup(None)
    table: dict[str, list[tuple[str, str, bool, np.ndarray]]] = defaultdict(list)
    for kind, labels, crop in chain.from_iterable(sources):
        found = models.measure(crop)
        if found.presence < MIN_PRESENCE:
            continue
        for name, is_visible in labels.items():
            region, features = (
                ("mouth", found.mouth) if name == "mouth" else ("eye", found.eyes[name])
            )
            table[region].append((kind, name, not is_visible, features))

    for region, names in (("eye", EYE_FEATURES), ("mouth", MOUTH_FEATURES)):
        kinds = np.array([row[0] for row in table[region]])
        hidden = np.array([row[2] for row in table[region]])
        features = np.array([row[3] for row in table[region]])
        weights = np.where(np.isin(kinds, CLEAN_KINDS), CLEAN_WEIGHT, 1.0)
        intercept, slopes = fit(features, hidden, weights)
        print(
            f"{region.upper()}_MODEL = LogisticModel(\n    intercept={intercept:.3f},\n    weights={{"
        )
        for name, slope in zip(names, slopes, strict=True):
            print(f'        "{name}": {slope:.3f},')
        print("    },\n)")

        is_found = intercept + features @ slopes > 0
        print(f"# hidden {region}s found, and visible ones taken for hidden")
        for kind in dict.fromkeys(kinds.tolist()):
            of_kind = kinds == kind
            parts = [f"#   {kind:<14}"]
            for label, wanted in (("hidden", True), ("visible", False)):
                chosen = of_kind & (hidden == wanted)
                if chosen.any():
                    parts.append(f"{label} {is_found[chosen].mean():.3f} of {chosen.sum()}")
            print("  ".join(parts))


if __name__ == "__main__":
    main()
