"""Accounts of a storm's workspace: every input must end as one row, verdict or skipped file.

The accounts read the corpus and the manifests; only the ids of photographs are made by the program.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from hostile_files import ALIGNED, HostileFile
from workspace_state import count_doubled

from authface_data.images.open import IMAGE_SUFFIXES
from authface_data.sources.file_source import FileOptions
from authface_data.sources.registry import source_class
from authface_data.sources.skipped_files import COUNTS_FILE
from manifests.support.text import strip_control
from manifests.verdicts import kept_faces
from manifests.workspace import Workspace


@dataclass
class Account:
    """What became of the inputs of one command.

    Attributes:
        inputs: Number of inputs.
        rows: Inputs with a row.
        dropped: Inputs that were refused, with a reason.
        failed: Inputs whose processing failed, with a reason.
        skipped: Files that are counted by suffix.
        lost: Inputs with neither a row nor a verdict.
        doubled: Inputs with a row and a verdict, and keys of two rows.
        wrong: Files whose row or verdict is not the expected one.
    """

    inputs: int = 0
    rows: int = 0
    dropped: int = 0
    failed: int = 0
    skipped: int = 0
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def add(self, name: str, num_rows: int, verdicts: Iterable[str], expected: str = "any") -> None:
        """Count one input.

        Args:
            name: Its name for messages.
            num_rows: Whether it has rows.
            verdicts: Its verdicts, dropped or failed.
            expected: The expected result, as of a hostile file.
        """
        found = list(verdicts)
        self.inputs += 1
        self.rows += num_rows > 0
        self.dropped += "dropped" in found
        self.failed += "failed" in found
        if not num_rows and not found:
            self.lost.append(name)
        if len(found) + (num_rows > 0) > 1:
            self.doubled.append(name)
        if (expected == "row" and not num_rows) or (expected == "refused" and num_rows):
            self.wrong.append(f"{name}: {found or 'a row'} instead of {expected}")

    def add_skipped(self, name: str, is_counted: bool) -> None:
        """Count one file that is no picture."""
        self.inputs += 1
        self.skipped += is_counted
        if not is_counted:
            self.lost.append(name)


def _counts_by_suffix(root: Path, folder: Path) -> Counter[str]:
    """Suffix -> number of files that the last collection of a folder skipped."""
    path = root / COUNTS_FILE
    counts = json.loads(path.read_text()) if path.exists() else {}
    return Counter(counts.get(str(folder), {}))


def _read(root: Path, name: str) -> pd.DataFrame:
    return pd.read_parquet(root / "manifests" / name)


def _verdicts(root: Path, gate: str) -> dict[str, list[str]]:
    """Id -> the verdicts dropped and failed of a gate."""
    rows = _read(root, "verdicts")
    rows = rows[(rows["gate"] == gate) & rows["verdict"].isin(["dropped", "failed"])]
    return rows.groupby("id")["verdict"].agg(list).to_dict()


def account_collected(root: Path, folder: Path, files: list[HostileFile], printed: str) -> Account:
    """Account for the files of a folder that was collected.

    Args:
        root: The workspace.
        folder: The collected folder.
        files: Its files.
        printed: What the command printed; it names links and pipes with the name of a picture.
    """
    name = "ffhq" if folder.name == ALIGNED else "folder"
    source = source_class(name)(Workspace(str(root)), FileOptions(path=folder, licence_basis="own"))
    id_of_path = {str(photo.file): photo.photo_id for photo in source.describe_photos()}
    photos = Counter(_read(root, "photos")["photo_id"])
    verdicts = _verdicts(root, "collect")
    counts = _counts_by_suffix(root, folder)

    account = Account()
    for file in files:
        if file.path.is_dir():
            continue  # Its files are inputs, not the folder.
        photo_id = id_of_path.get(str(file.path))
        if photo_id is not None:
            found = verdicts.get(photo_id, [])
            account.add(repr(file.path.name), photos[photo_id], found, file.expected)
        elif file.path.suffix.lower() in IMAGE_SUFFIXES:
            account.add_skipped(repr(file.path.name), strip_control(file.path.name) in printed)
        else:
            suffix = file.path.suffix
            account.add_skipped(repr(file.path.name), counts[suffix] > 0)
            counts[suffix] -= 1
    account.doubled += doubled_keys(root)
    return account


def doubled_keys(root: Path) -> list[str]:
    """A message for each manifest with two rows of one key."""
    return [f"{count} rows of {name}" for name, count in count_doubled(root).items() if count]


def account_faces(root: Path) -> Account:
    """Account for the photographs in which faces were detected, and for the faces' scores."""
    faces = _read(root, "faces")
    num_faces = Counter(faces["photo_id"])
    verdicts = _verdicts(root, "faces")
    account = Account()
    for photo_id in _read(root, "photos")["photo_id"]:
        found = verdicts.get(photo_id, [])
        account.add(photo_id, num_faces[photo_id], found)
        if "failed" in found:
            account.wrong.append(f"{photo_id}: collected, but it cannot be read")

    scores = _read(root, "scores")
    scored = set(zip(scores["face_id"], scores["metric"], strict=True))
    for metric in sorted(set(scores["metric"])):
        verdicts = _verdicts(root, f"scores:{metric}")
        for face_id in faces["face_id"]:
            found = verdicts.get(face_id, [])
            account.add(f"{face_id} {metric}", (face_id, metric) in scored, found)
    account.doubled += doubled_keys(root)
    return account


def account_captions(root: Path, captioner: str = "measured") -> Account:
    """Account for the faces that gates and people keep, which are captioned."""
    kept = kept_faces(Workspace(str(root)), ["face_id"])
    captions = _read(root, "captions")
    captioned = set(captions.loc[captions["captioner"] == captioner, "face_id"])
    verdicts = _verdicts(root, f"captions:{captioner}")
    account = Account()
    for face_id in kept["face_id"]:
        account.add(face_id, face_id in captioned, verdicts.get(face_id, []))
    account.doubled += doubled_keys(root)
    return account


def account_degraded(folder: Path, output: Path, printed: str) -> Account:
    """Account for the pictures of a folder that were degraded.

    Args:
        folder: The pictures.
        output: The folder of the degraded pictures.
        printed: What the command printed; it names the pictures that failed.
    """
    draws = pd.read_parquet(output / "draws.parquet")
    drawn = Counter(draws["file"])
    account = Account()
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in IMAGE_SUFFIXES or not path.is_file():
            continue
        has_file = (output / f"{path.stem}.png").exists()
        is_named = strip_control(path.stem) in printed
        account.add(repr(path.name), int(has_file), ["failed"] if is_named else [])
    account.doubled += [name for name, count in drawn.items() if count > 1]
    return account
