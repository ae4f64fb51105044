"""Compares the decisions of `authface filter` with those of a person who looked at the faces.

    python benchmarks/curation.py --photos DIR --labels CSV              preset embedded
    python benchmarks/curation.py --photos DIR --labels CSV --half test  one half of the labels
    python benchmarks/curation.py … --workspace DIR                      keep or reuse the workspace

A row of the labels is a face or, without a box, a whole picture:

    file, x0, y0, x1, y1   the face's box in pixels of the upright picture; empty for a picture
    decision (or label)    keep, drop, or for a picture also "no face"; anything else is not counted
    reason, half           optional: why it should be dropped, and the half of the labels
    left_eye, right_eye, mouth         optional: v (visible) or h (hidden); left as seen
    kind                   optional: "photo", or what else the face is, such as "painting"

It prints the confusion of decisions, false drops by gate, the visibility of regions, duplicates,
precision and recall of the measured tags, and the time per photograph. The labels of the tags are
in a file of their own, see tag_precision.py.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
from tag_precision import TAG_LABELS, print_tags

from authface_data.faces.boxes import iou
from authface_data.images.strip_location import strip_location
from manifests.verdicts import ALL_GATES, DUPLICATE_FACE_PREFIX, DUPLICATE_PREFIX

BOX = ["x0", "y0", "x1", "y1"]
REGIONS = ("left_eye", "right_eye", "mouth")
MIN_IOU = 0.5
"""Overlap from which a detected face is the labelled one."""


def read_labels(path: Path, half: str | None) -> pd.DataFrame:
    """Read the labels; every optional column exists and holds text."""
    labels = pd.read_csv(path, keep_default_na=False, dtype=str)
    labels = labels.rename(columns={"label": "decision"})
    for column in ("reason", "half", "kind", *REGIONS):
        if column not in labels:
            labels[column] = ""
    if half:
        labels = labels[labels["half"] == half]
    return labels.reset_index(drop=True)


def run(*arguments: str | Path) -> float:
    """Run a command of authface; returns the seconds that it took."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "cli", *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode not in (0, 4):
        raise SystemExit(f"authface {arguments[0]} failed: {result.stderr[-2000:]}")
    return time.perf_counter() - start


def fill_workspace(workspace: Path, photos: Path, preset: str) -> str:
    """Collect and filter the photographs; returns a line about the time that it took."""
    run("init", workspace, "--preset", preset)
    run(
        "collect", "-w", workspace, "--source", "folder", "--path", photos, "--licence-basis", "own"
    )
    filter_s = run("filter", "-w", workspace)
    count = len(_read(workspace, "photos"))
    return f"filter: {filter_s:.0f} s, {filter_s / count:.2f} s per photograph"


def _read(workspace: Path, manifest: str) -> pd.DataFrame:
    return pd.read_parquet(workspace / "manifests" / manifest)


def read_faces(workspace: Path, photos: Path) -> pd.DataFrame:
    """One row per detected face: its file, whether it is kept, and its reasons."""
    faces = _read(workspace, "faces")
    name_of_digest = {
        hashlib.sha256(strip_location(path.read_bytes())).hexdigest(): path.relative_to(
            photos
        ).as_posix()
        for path in sorted(photos.rglob("*"))
        if path.is_file()
    }
    collected = _read(workspace, "photos").set_index("photo_id")["sha256"]
    name_of = collected.map(name_of_digest)
    faces["file"] = faces["photo_id"].map(name_of)

    verdicts = _read(workspace, "verdicts")
    verdicts = verdicts[verdicts["subject"] == "face"]
    whole = verdicts[verdicts["gate"] == ALL_GATES].set_index("id")
    faces["kept"] = (faces["face_id"].map(whole["verdict"]) == "kept").to_numpy()
    faces["reason"] = faces["face_id"].map(whole["reason"]).fillna("")
    dropping = verdicts[(verdicts["verdict"] != "kept") & (verdicts["gate"] != ALL_GATES)]
    gates_of = dropping.groupby("id")["gate"].agg(list)
    faces["gates"] = [gates_of.get(face_id, []) for face_id in faces["face_id"]]
    return faces


def match(labels: pd.DataFrame, faces: pd.DataFrame) -> list[int | None]:
    """The row of `faces` that each labelled box is, or None."""
    matches: list[int | None] = []
    for label in labels.itertuples():
        if not label.x0:
            matches.append(None)
            continue
        box = np.array([float(getattr(label, edge)) for edge in BOX])
        overlaps = {
            row: iou(box, np.asarray(faces.at[row, "box_px"], float))
            for row in faces.index[faces["file"] == label.file]
        }
        best = max(overlaps, key=lambda row: overlaps[row], default=None)
        matches.append(best if best is not None and overlaps[best] >= MIN_IOU else None)
    return matches


def print_decisions(labels: pd.DataFrame, faces: pd.DataFrame) -> None:
    """Confusion of decisions on faces, and what the errors are."""
    is_box = labels["x0"] != ""
    counted = labels[is_box & labels["decision"].isin(["keep", "drop"])].copy()
    counted["kept"] = [row is not None and bool(faces.at[row, "kept"]) for row in counted["row"]]
    _settle_duplicates(counted, faces)
    table = pd.crosstab(counted["decision"], counted["kept"].map({True: "kept", False: "dropped"}))
    print(f"\nDecisions on {len(counted)} labelled faces (rows: the person)\n{table}")
    agreement = ((counted["decision"] == "keep") == counted["kept"]).mean()
    good = counted[counted["decision"] == "keep"]
    bad = counted[counted["decision"] == "drop"]
    print(f"agreement {agreement:.1%}; good faces dropped: {_share(~good['kept'])}")
    print(f"bad faces kept: {_share(bad['kept'])} {_counts(bad['reason'][bad['kept']])}")

    missed = good[~good["kept"]]
    gates = [faces.at[row, "gates"] if row is not None else ["not found"] for row in missed["row"]]
    print(
        "good faces dropped, by gate (one may count several times):",
        _counts(chain.from_iterable(gates)),
    )
    for label, names in zip(missed.itertuples(), gates, strict=True):
        print(f"  {label.file} ({label.x0}, {label.y0}): {', '.join(names)}")


def _settle_duplicates(counted: pd.DataFrame, faces: pd.DataFrame) -> None:
    """If another copy of the same face is kept than the labels keep, count that as agreement."""
    ids = dict(zip(faces["face_id"], faces.index, strict=True))
    label_of = {row: index for index, row in counted["row"].items() if row is not None}
    for index, row in counted["row"].items():
        if row is None or counted.at[index, "kept"] or counted.at[index, "decision"] != "keep":
            continue
        for reason in faces.at[row, "reason"].split("; "):
            if reason.startswith(DUPLICATE_FACE_PREFIX):
                other = label_of.get(ids.get(reason.removeprefix(DUPLICATE_FACE_PREFIX), -1))
                if other is not None and counted.at[other, "reason"] == "duplicate":
                    counted.loc[[index, other], "kept"] = [True, False]


def print_pictures(labels: pd.DataFrame, faces: pd.DataFrame) -> None:
    """Labels of whole pictures: whether any face of them is kept."""
    pictures = labels[(labels["x0"] == "") & labels["decision"].isin(["keep", "drop", "no face"])]
    if pictures.empty:
        return
    kept_files = set(faces["file"][faces["kept"]])
    found_files = set(faces["file"])
    print("\nWhole pictures")
    for decision, group in pictures.groupby("decision"):
        is_kept = group["file"].isin(kept_files)
        found = group["file"].isin(found_files)
        wrong = group["file"][~is_kept if decision == "keep" else is_kept].tolist()
        print(f"  {decision}: {len(group)}; a face is found in {found.sum()}, kept in "
              f"{is_kept.sum()}; wrong: {', '.join(wrong) or 'none'}")  # fmt: skip


def print_regions(labels: pd.DataFrame, faces: pd.DataFrame) -> None:
    """How many hidden regions are found, and how many visible ones are called hidden."""
    print("\nRegions (eyes and mouth)")
    for name, chosen in (
        ("all labelled faces", labels["row"].notna()),
        ("faces in photographs", labels["row"].notna() & labels["kind"].isin(["", "photo"])),
        ("faces that the person keeps", labels["row"].notna() & (labels["decision"] == "keep")),
    ):
        hidden, visible = [], []
        for _, label in labels[chosen].iterrows():
            for region in REGIONS:
                is_visible = bool(faces.at[label["row"], f"{region}_visible"])
                if label[region] == "h":
                    hidden.append(not is_visible)
                elif label[region] == "v":
                    visible.append(not is_visible)
        print(f"  {name}: hidden regions found {_share(pd.Series(hidden, dtype=bool))}, "
              f"false alarms {_share(pd.Series(visible, dtype=bool))}")  # fmt: skip


def print_duplicates(labels: pd.DataFrame, faces: pd.DataFrame) -> None:
    """Faces dropped as duplicates, and what the labels say of them."""
    prefixes = (DUPLICATE_PREFIX, DUPLICATE_FACE_PREFIX)
    is_duplicate = [
        any(reason.startswith(prefixes) for reason in text.split("; ")) for text in faces["reason"]
    ]
    dropped = set(faces.index[is_duplicate])
    expected = {row for row in labels["row"][labels["reason"] == "duplicate"] if pd.notna(row)}
    print(f"\nDuplicates: {len(dropped)} faces dropped; {len(expected & dropped)} of the "
          f"{len(expected)} that the labels call duplicates")  # fmt: skip


def _share(values: pd.Series) -> str:
    if not len(values):
        return "none"
    return f"{int(values.sum())} of {len(values)} ({values.mean():.1%})"


def _counts(names: Iterable[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in Counter(names).most_common()) or "none"


def print_comparison(workspace: Path, options: argparse.Namespace) -> None:
    """Compare a filtered workspace with the labels."""
    faces = read_faces(workspace, options.photos)
    labels = read_labels(options.labels, options.half)
    labels["row"] = match(labels, faces)
    labels["row"] = labels["row"].astype("object").where(labels["row"].notna(), None)
    print_decisions(labels, faces)
    print_pictures(labels, faces)
    print_regions(labels, faces)
    print_duplicates(labels, faces)
    print_tags(labels, faces, workspace, options.tag_labels)


def main() -> None:
    """Parse the command line, fill the workspace and print the comparison."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True, help="folder of photographs")
    parser.add_argument("--labels", type=Path, required=True, help="CSV of the labels")
    parser.add_argument("--tag-labels", type=Path, default=TAG_LABELS, help="CSV of tag labels")
    parser.add_argument("--half", help="compare only the labels of this half")
    parser.add_argument("--preset", default="embedded", help="preset of the workspace")
    parser.add_argument("--workspace", type=Path, help="workspace to make, or to reuse")
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        workspace = options.workspace or Path(folder) / "workspace"
        if not (workspace / "authface.toml").is_file():
            print(fill_workspace(workspace, options.photos, options.preset))
        print_comparison(workspace, options)


if __name__ == "__main__":
    main()
