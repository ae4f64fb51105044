"""Precision and recall of the measured tags on labelled faces, for benchmarks/curation.py.

In the labels of tags a row is a face, with the box of curation_labels.csv, and each further column
is a tag: y if it is right, n if it is wrong, ? if a careful viewer cannot say. Faces with a ? count
neither as right nor as wrong.

Dropped faces have no captions, so the tags of all labelled faces are measured here, with the
captioner's own functions.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from authface_data.captions.captioners import CAMERA_COLUMNS, SIZE_COLUMNS
from authface_data.captions.measured.networks import CropNetworks
from authface_data.captions.measured.stage import measure_face, read_face

TAG_LABELS = Path(__file__).parent / "results" / "tag_labels.csv"
FACE = ["file", "x0", "y0", "x1", "y1"]
NORMAL_QUANTILE = 1.96
"""Of the interval that holds 95 % of a normal distribution."""


def print_tags(
    labels: pd.DataFrame, faces: pd.DataFrame, workspace: Path, tag_labels: Path = TAG_LABELS
) -> None:
    """Print how many of each tag are right and how many true ones are found.

    Args:
        labels: Labels of decisions; the column `row` holds the index of the face, or None.
        faces: The detected faces, with the column `kept`.
        workspace: Their workspace.
        tag_labels: CSV of the labels of tags.
    """
    tags = pd.read_csv(tag_labels, keep_default_na=False, dtype=str)
    merged = labels[labels["row"].notna()].merge(tags, on=FACE)
    if merged.empty:
        print(f"\nMeasured tags: no face has labels in {tag_labels.name}")
        return
    given = measure_tags(workspace, faces.loc[merged["row"]])
    is_kept = faces.loc[merged["row"], "kept"].to_numpy(bool)

    print("\nMeasured tags (a 95 % interval in brackets)")
    for tag in tags.columns[len(FACE) :]:
        is_given = np.array([tag in measured for measured in given])
        label = merged[tag].to_numpy()
        kept = describe(is_given[is_kept], label[is_kept])
        print(f"  {tag:19} kept faces: {kept}; all: {describe(is_given, label)}")


def measure_tags(workspace: Path, faces: pd.DataFrame) -> list[set[str]]:
    """Measure the tags of faces as the captioner `measured` does.

    Args:
        workspace: The workspace of the faces.
        faces: Rows of the manifest `faces`.

    Returns:
        The tags of each face.
    """
    networks = CropNetworks()
    networks.setup(None)
    photos = pd.read_parquet(workspace / "manifests" / "photos").set_index("photo_id")
    columns = [*CAMERA_COLUMNS, *SIZE_COLUMNS]
    measured = []
    for face in faces.to_dict("records"):
        photo = photos.loc[face["photo_id"], columns]
        row = {**face, **photo.astype(object).where(photo.notna(), None)}
        with Image.open(workspace / face["crop_path"]) as crop:
            pixels = np.asarray(crop.convert("RGB"))
        measured.append({item.tag for item in measure_face(read_face(row, pixels, networks))})
    return measured


def describe(is_given: np.ndarray, label: np.ndarray) -> str:
    """Describe precision and recall of one tag.

    Args:
        is_given: (faces,) bool; whether the tag is measured.
        label: (faces,) of y, n and ?.

    Returns:
        The counts as text.
    """
    right = int((is_given & (label == "y")).sum())
    wrong = int((is_given & (label == "n")).sum())
    unclear = int((is_given & (label == "?")).sum())
    found = f"found {right} of {int((label == 'y').sum())}"
    if not right + wrong:
        return f"none given, {found}"
    low, high = wilson_interval(right, right + wrong)
    precision = f"{right} of {right + wrong} right ({low:.0%} to {high:.0%})"
    return f"{precision}, {unclear} unclear, {found}"


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """Compute Wilson's 95 % interval of a proportion.

    Args:
        successes: Number of successes.
        trials: Number of trials, at least 1.

    Returns:
        Lower and upper end, 0 to 1.
    """
    share = successes / trials
    square = NORMAL_QUANTILE**2 / trials
    centre = (share + square / 2) / (1 + square)
    spread = share * (1 - share) + square / 4
    half = math.sqrt(square * spread) / (1 + square)
    return max(centre - half, 0.0), min(centre + half, 1.0)
