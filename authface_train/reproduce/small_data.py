"""Real faces for the small experiments: collected, detected, aligned and split by person.

Photographs that show the same person form a group, and a group belongs to one split. For the
photographs of the packages, `small_split.csv` records the person of each face. These records were
found by the 128-d descriptor and checked by eye, since the descriptor confuses some people. The
ORL database names its people. Faces in a user's photographs are assigned to people by the
descriptor, and new groups to a split by a hash.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from authface_data.faces.descriptor import FaceDescriptor
from authface_data.images.open import open_image
from authface_train.reproduce.orl_faces import orl_person
from manifests.schema import PHOTOS
from manifests.settings import SETTINGS_FILE
from manifests.splits import hash_share
from manifests.store import Store
from manifests.support.components import connected_labels
from manifests.support.console import run_command
from manifests.support.files import write_json
from manifests.verdicts import kept_faces
from manifests.workspace import Workspace

SPLIT_FILE = Path(__file__).with_name("small_split.csv")
PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".webp")
"""Suffixes of the packages' photographs; collecting converts nothing, so .ppm is included."""
LICENCE_BASIS = "other:an experiment on one machine; consent unknown"
SETTINGS = """
[filter]
detector = "retinaface-mobile"
landmarks = "dlib"
size = 512
metrics = []

[[gates]]
name = "face_size"
metric = "qsize_px"
op = ">="
threshold = 64

[captions]
captioner = "measured"
use = ["measured"]
"""
SHARES = {"train": 0.75, "val": 0.05, "test": 0.2}
SAME_PERSON_DISTANCE = 0.5
"""Descriptors of one person are closer than this. dlib's threshold of .6 is for single pairs; here
chains of pairs would join most of a few hundred faces into one person."""


@dataclass(frozen=True)
class Faces:
    """The faces of an experiment.

    Attributes:
        workspace: The workspace that holds them.
        rows: Rows of the kept faces with the additional columns `file`, `place` (faces of a
            photograph are counted from the left), `person`, `group` (of the photograph) and
            `split`.
    """

    workspace: Workspace
    rows: pd.DataFrame

    def of_split(self, split: str) -> pd.DataFrame:
        """Rows of one split."""
        return self.rows[self.rows["split"] == split].reset_index(drop=True)


def prepare_faces(folder: Path, extra_photos: list[Path]) -> Faces:
    """Collect, filter, split and caption the faces of an experiment; later calls reuse them.

    An interrupted call is continued by the next one.

    Args:
        folder: Folder of the experiment.
        extra_photos: Folders of photographs that are used in addition to those of the packages.
    """
    split_table = folder / "split.csv"
    root = folder / "ws"
    if not split_table.is_file():
        _build_workspace(root, folder / "photographs", split_table, extra_photos)

    workspace = Workspace(root)
    columns = ["face_id", "file", "person", "group", "split"]
    table = pd.read_csv(split_table, dtype=str)[columns]
    rows = kept_faces(workspace).merge(table, on="face_id", validate="one_to_one")
    rows = _add_places(rows)
    return Faces(workspace, rows.sort_values("face_id").reset_index(drop=True))


def _build_workspace(root: Path, photos: Path, split_table: Path, extra_photos: list[Path]) -> None:
    run_command("demo", "--public-faces", photos)
    for source in extra_photos:
        for file in sorted(source.rglob("*")):
            if file.suffix.lower() in PHOTO_SUFFIXES:
                shutil.copy(file, photos / file.name)

    settings_file = root / SETTINGS_FILE
    if not settings_file.is_file():
        run_command("init", root, "--preset", "embedded")
    settings_file.write_text(SETTINGS, "utf-8")
    collect = ["collect", "-w", root, "--source", "folder", "--path", photos]
    collect += ["--licence-basis", LICENCE_BASIS]
    run_command(*collect, "--yes")
    run_command("filter", "-w", root)

    rows = _identify_faces(root)
    split_of_group = _assign_groups(rows)
    for file, group in zip(rows["file"], rows["group"], strict=True):
        sidecar = photos / f"{file}.json"
        content = json.loads(sidecar.read_text("utf-8")) if sidecar.is_file() else {}
        write_json(sidecar, {**content, "person": group})
    pins = "\n".join(f'"{group}" = "{split}"' for group, split in split_of_group.items())
    settings_file.write_text(
        f"{SETTINGS}\n[splits]\nval = 0.0\n\n[splits.people]\n{pins}\n", "utf-8"
    )
    run_command(*collect, "--yes")
    run_command("caption", "-w", root)

    rows["split"] = rows["group"].map(split_of_group)
    rows[["file", "face_id", "person", "group", "split"]].to_csv(split_table, index=False)


def _identify_faces(root: Path) -> pd.DataFrame:
    """Kept faces with file, person and group, and the split that `small_split.csv` records."""
    workspace = Workspace(root)
    rows = kept_faces(workspace)
    photos = Store(workspace, PHOTOS).read_pandas(["photo_id", "description"])
    file_names = photos.set_index("photo_id")["description"]
    rows["file"] = file_names.reindex(rows["photo_id"]).to_numpy()
    rows = _add_places(rows)
    rows = rows.merge(_known_people(rows), on=["file", "place"], how="left", validate="one_to_one")

    same_person = _same_person_pairs(root, rows)
    same_photo = [
        (first, second)
        for first in range(len(rows))
        for second in range(first)
        if rows["file"][first] == rows["file"][second]
    ]
    is_known = rows["person"].notna()
    names = [
        str(rows["person"][index]) if is_known[index] else f"{rows['file'][index]}-{index}"
        for index in rows.index
    ]
    person_labels = connected_labels(len(rows), same_person)
    group_labels = connected_labels(len(rows), [*same_person, *same_photo])
    rows["person"] = [names[label] for label in person_labels]
    rows["group"] = [str(rows["file"][label]) for label in group_labels]
    return rows


def _add_places(rows: pd.DataFrame) -> pd.DataFrame:
    """Sort rows by file and add the column `place`, which counts the faces from the left."""
    rows = rows.assign(left_px=[box[0] for box in rows["box_px"]])
    rows = rows.sort_values(["file", "left_px"]).reset_index(drop=True)
    return rows.assign(place=rows.groupby("file").cumcount())


def _known_people(rows: pd.DataFrame) -> pd.DataFrame:
    """Person and split of the faces of packages, by `file` and `place`."""
    known = pd.read_csv(SPLIT_FILE)
    orl = [
        {"file": file, "place": 0, "person": person[0], "split": person[1]}
        for file in rows["file"].unique()
        if (person := orl_person(file)) is not None
    ]
    return pd.concat([known, pd.DataFrame(orl)], ignore_index=True)


def _same_person_pairs(root: Path, rows: pd.DataFrame) -> list[tuple[int, int]]:
    """Pairs of rows that show the same person, as recorded or, for other faces, by descriptor."""
    face_descriptor = FaceDescriptor()
    face_descriptor.setup(None)
    descriptors = [
        face_descriptor.describe(np.asarray(open_image(root / path).convert("RGB")))
        for path in rows["crop_path"]
    ]
    is_known = rows["person"].notna()

    def is_same(first: int, second: int) -> bool:
        if is_known[first] and is_known[second]:
            return bool(rows["person"][first] == rows["person"][second])
        descriptor = descriptors[first]
        other_descriptor = descriptors[second]
        if descriptor is None or other_descriptor is None:
            return False
        return bool(np.linalg.norm(descriptor - other_descriptor) < SAME_PERSON_DISTANCE)

    return [
        (first, second)
        for first in range(len(rows))
        for second in range(first)
        if is_same(first, second)
    ]


def _assign_groups(rows: pd.DataFrame) -> dict[str, str]:
    """The split of each group: as recorded for its photographs, else by a hash of its name."""
    splits = {}
    for group, group_rows in rows.groupby("group"):
        recorded = set(group_rows["split"].dropna())
        # A user's photograph may join groups of different splits. The joint group then leaves the
        # training set.
        by_priority = [split for split in ("test", "val", "train") if split in recorded]
        splits[str(group)] = by_priority[0] if by_priority else _split_by_hash(str(group))
    return splits


def _split_by_hash(group: str) -> str:
    share = hash_share(group)
    if share < SHARES["test"]:
        return "test"
    return "val" if share < SHARES["test"] + SHARES["val"] else "train"
