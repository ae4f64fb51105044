"""Real faces for the small experiments: collected, found, aligned, and divided so that no person stands on two sides.

Photographs that share a person form one group, and a group goes to one side whole. Who is who in the packages' photographs
stands in `small_split.csv`, by the 128-d descriptor and looked at pair by pair: it takes some strangers for one person. The
photographs that a user adds join whoever the descriptor takes them for, or are divided by the hash of their name. Nearly equal
pixels keep photographs together as everywhere (`splits`).
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from authface_data.faces.descriptor import SAME_PERSON, Descriptor
from manifests.schema import PHOTOS
from manifests.store import Store
from manifests.support.console import run_command
from manifests.verdicts import kept_faces
from manifests.workspace import Workspace

SPLIT = Path(__file__).with_name("small_split.csv")
PICTURES = (".jpg", ".jpeg", ".png", ".ppm", ".webp")
BASIS = "other:an experiment on one machine; consent unknown"
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
SHARES = {"train": 0.6, "val": 0.15, "test": 0.25}


@dataclass(frozen=True)
class Faces:
    """Rows of the kept faces with `file`, `person`, `group` and `split`: a person is one face's, a group one photograph's."""

    workspace: Workspace
    rows: pd.DataFrame

    def of(self, split: str) -> pd.DataFrame:
        return self.rows[self.rows["split"] == split].reset_index(drop=True)


def prepare(folder: Path, photographs: list[Path]) -> Faces:
    """A workspace in `folder` of the packages' photographs and all in the folders `photographs`; once, then as it is."""
    root, photos, split = folder / "ws", folder / "photographs", folder / "split.csv"
    if not split.is_file():
        for begun in (root, photos):
            shutil.rmtree(begun, ignore_errors=True)
        run_command("demo", "--public-faces", photos)
        for own in photographs:
            for file in sorted(own.rglob("*")):
                if file.suffix.lower() in PICTURES:
                    shutil.copy(file, photos / file.name)
        run_command("init", root, "--preset", "embedded")
        (root / "authface.toml").write_text(SETTINGS)
        collect = [
            "collect",
            "-w",
            root,
            "--source",
            "folder",
            "--path",
            photos,
            "--licence-basis",
            BASIS,
        ]
        run_command(*collect)
        run_command("filter", "-w", root)
        rows = _rows(root)
        pinned = _pin(rows)
        for file, group in dict(zip(rows["file"], rows["group"], strict=True)).items():
            sidecar = photos / f"{file}.json"
            said = json.loads(sidecar.read_text()) if sidecar.is_file() else {}
            sidecar.write_text(json.dumps({**said, "person": group}))
        pins = "\n".join(f'"{group}" = "{where}"' for group, where in pinned.items())
        (root / "authface.toml").write_text(
            f"{SETTINGS}\n[splits]\nval = 0.0\n\n[splits.people]\n{pins}\n"
        )
        run_command(*collect, "--yes")
        run_command("caption", "-w", root)
        rows["split"] = rows["group"].map(pinned)
        rows[["file", "face_id", "person", "group", "split"]].to_csv(split, index=False)
    workspace = Workspace(root)
    table = pd.read_csv(split, dtype=str)[["face_id", "file", "person", "group", "split"]]
    rows = kept_faces(workspace).merge(table, on="face_id", validate="one_to_one")
    return Faces(workspace, rows.sort_values("face_id").reset_index(drop=True))


def _rows(root: Path) -> pd.DataFrame:
    """Kept faces with their photograph's file, who they show, the group of the photograph, and the split it is known for."""
    workspace = Workspace(root)
    rows = kept_faces(workspace)
    names = (
        Store(workspace, PHOTOS)
        .read_pandas(["photo_id", "description"])
        .set_index("photo_id")["description"]
    )
    rows["file"] = names.reindex(rows["photo_id"]).to_numpy()
    rows["left_px"] = [box[0] for box in rows["box_px"]]
    rows = rows.sort_values(["file", "left_px"]).reset_index(drop=True)
    rows["place"] = rows.groupby("file").cumcount()
    rows = rows.merge(pd.read_csv(SPLIT), on=["file", "place"], how="left", validate="one_to_one")
    describe = Descriptor()
    describe.setup(None)
    descriptors = [
        describe.describe(np.asarray(Image.open(root / path).convert("RGB")))
        for path in rows["crop_path"]
    ]
    known = rows["person"].notna()

    def same(one: int, other: int) -> bool:
        if known[one] and known[other]:
            return bool(rows["person"][one] == rows["person"][other])
        a, b = descriptors[one], descriptors[other]
        return a is not None and b is not None and bool(np.linalg.norm(a - b) < SAME_PERSON)

    pairs = [(one, other) for one in range(len(rows)) for other in range(one)]
    near = [pair for pair in pairs if same(*pair)]
    beside = [(one, other) for one, other in pairs if rows["file"][one] == rows["file"][other]]
    labels = [
        str(rows["person"][place]) if known[place] else f"{rows['file'][place]}-{place}"
        for place in rows.index
    ]
    rows["person"] = [labels[place] for place in _joined(len(rows), near)]
    rows["group"] = [str(rows["file"][place]) for place in _joined(len(rows), [*near, *beside])]
    return rows


def _joined(count: int, pairs: list[tuple[int, int]]) -> list[int]:
    """For each of `count` things the first of those it is joined to."""
    first = list(range(count))
    for one, other in pairs:
        low, high = sorted((first[one], first[other]))
        first = [low if of == high else of for of in first]
    return first


def _pin(rows: pd.DataFrame) -> dict[str, str]:
    """The side of each group: that of the photographs in `small_split.csv` that it holds, else by its hash."""
    sides = {}
    for group, own in rows.groupby("group"):
        named = set(own["split"].dropna())
        # A user's photograph may join groups that stood apart: then all are kept from where they could teach.
        sides[str(group)] = next(
            (side for side in ("test", "val", "train") if side in named), None
        ) or _by_hash(str(group))
    return sides


def _by_hash(group: str) -> str:
    share = int.from_bytes(hashlib.sha256(group.encode()).digest()[:8], "big") / 2**64
    if share < SHARES["test"]:
        return "test"
    return "val" if share < SHARES["test"] + SHARES["val"] else "train"
