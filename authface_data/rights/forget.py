"""The right to be forgotten: a photograph goes from every file of the workspace, and does not come back.

What is to go is first written down (`.forgetting.json`), then buried (tombstones), then taken out of the manifests and of every
other file. Interrupted at any moment, it is finished by doing it again; until then no other command writes.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import asdict, dataclass, field
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from authface_data import gates
from authface_data.images.hashes import hash_of_pixels
from authface_data.images.open import DECODE_ERRORS, Photo
from authface_data.rights.workspace_sweep import Traces, WorkspaceSweep
from manifests.schema import (
    CAPTIONS,
    DECISIONS,
    FACES,
    MANIFESTS,
    PHOTOS,
    SCORES,
    TOMBSTONES,
    VERDICTS,
    Manifest,
)
from manifests.store import Store
from manifests.support.errors import PartialFailureError, UserError
from manifests.tombstones import Tombstones, add_tombstones
from manifests.verdicts import ALL_GATES, DUPLICATE_PREFIX
from manifests.workspace import FORGETTING, Workspace

# Which column of a manifest names the photograph or its face.
NAMES: dict[str, str] = {
    PHOTOS.name: "photo_id",
    FACES.name: "photo_id",
    SCORES.name: "face_id",
    CAPTIONS.name: "face_id",
    VERDICTS.name: "id",
    DECISIONS.name: "id",
}


@dataclass
class Order:
    """What is to be forgotten. hashes: SHA-256 of the photographs' files and the crops'. pixels: of their pixels. urls: that no
    other photograph has. others: ids of photographs that stay and begin alike."""

    photo_ids: list[str]
    photo_hashes: list[str] = field(default_factory=list)
    photo_pixels: list[str] = field(default_factory=list)
    crop_hashes: list[str] = field(default_factory=list)
    crop_pixels: list[str] = field(default_factory=list)
    urls: list[str] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    why: str | None = None

    def marks(self) -> Traces:
        return Traces(
            ids=self.photo_ids,
            others=set(self.others),
            words=[
                *self.photo_hashes,
                *self.crop_hashes,
                *self.photo_pixels,
                *self.crop_pixels,
                *self.urls,
            ],
            file_hashes={*self.photo_hashes, *self.crop_hashes},
            pixel_hashes={*self.photo_pixels, *self.crop_pixels},
            paths=set(self.paths),
        )


@dataclass(frozen=True)
class Found:
    """What a dry run found: rows per manifest, what would be done to which file, the runs that learnt from it, and the
    photographs that look alike and would stay."""

    photo_ids: list[str]
    rows: dict[str, int]
    files: dict[str, str]
    runs: list[str]
    already: list[str]
    alike: list[str]


def order(ws: Workspace, ids: list[str], why: str | None) -> tuple[Order, list[str]]:
    """What forgetting the ids means, and those of them that are forgotten already.

    An id is a photograph's, a face's (its whole photograph is meant), or Unsplash's own. Photographs of the same pixels go with
    it. Raises UserError for an id that the workspace does not know.
    """
    photos = {row["photo_id"]: row for row in Store(ws, PHOTOS).read().to_pylist()}
    faces = Store(ws, FACES).read(["face_id", "photo_id", "crop_path", "crop_sha256"]).to_pylist()
    of_face = {row["face_id"]: row["photo_id"] for row in faces}
    told = Store(ws, VERDICTS).read(["subject", "id"])
    judged = set(told.filter(pc.equal(told["subject"], "photo"))["id"].to_pylist())
    tombstones = Tombstones(ws)
    chosen: dict[str, None] = {}
    already = []
    for one in ids:
        photo_id = of_face.get(one, one)
        known = next(
            (name for name in (photo_id, f"us_{one}") if name in photos or name in judged), None
        )
        if known is not None:
            chosen[known] = None
        elif tombstones.holds(photo_id) or tombstones.holds(f"us_{one}"):
            already.append(photo_id)
        else:
            raise UserError(
                f"no photograph {one!r} here: an id is one of photos.photo_id or faces.face_id"
            )
    pixels = {
        photos[one]["pixel_hash"] for one in chosen if one in photos and photos[one]["pixel_hash"]
    }
    chosen |= {one: None for one, row in photos.items() if row["pixel_hash"] in pixels}
    made = Order(list(chosen))
    everyone = {*photos, *judged} - set(chosen)
    made.others = sorted(
        other for other in everyone if any(other.startswith(one) for one in chosen)
    )
    shared = Counter(
        row[name] for row in photos.values() for name in ("source_url", "download_location")
    )
    for photo_id in chosen:
        row = photos.get(photo_id)
        if row is not None:
            made.photo_hashes.append(row["sha256"])
            made.photo_pixels += (
                [row["pixel_hash"]] if row["pixel_hash"] else _pixels_of(ws, row["path"])
            )
            urls = {row[name] for name in ("source_url", "download_location") if row[name]}
            made.urls += sorted(
                url for url in urls if url.startswith(("http://", "https://")) and shared[url] == 1
            )
            made.paths.append(row["path"])
    for face in faces:
        if face["photo_id"] in chosen:
            made.crop_hashes.append(face["crop_sha256"])
            made.paths.append(face["crop_path"])
            made.crop_pixels += _pixels_of(ws, face["crop_path"])
    if why is not None:
        made.why = made.marks().nameless(why.encode("utf-8", "replace")).decode()
        for photo_id in chosen:  # as Unsplash writes it
            if photo_id.startswith("us_"):
                made.why = re.sub(
                    rf"(?<![\w-]){re.escape(photo_id[3:])}(?![\w-])", "forgotten", made.why
                )
    return made, already


def _pixels_of(ws: Workspace, path: str) -> list[str]:
    """The hash of a picture's pixels; nothing of one that is not there or cannot be decoded."""
    try:
        return [hash_of_pixels(Photo(lambda: ws.read_bytes(path)).pixels())]
    except DECODE_ERRORS:
        return []


def look(ws: Workspace, made: Order, already: list[str]) -> Found:
    """The dry run."""
    sweep = WorkspaceSweep(ws, made.marks(), {})
    files = {path: what for path, what, _ in sweep.actions()}
    rows = {
        name: count
        for name, manifest in MANIFESTS.items()
        if name in NAMES
        if (
            count := sum(
                _mask(part, manifest, made).to_pylist().count(True)
                for part in [Store(ws, manifest).read()]
            )
        )
    }
    return Found(made.photo_ids, rows, files, sweep.runs, already, _alike(ws, set(made.photo_ids)))


def _alike(ws: Workspace, ids: set[str]) -> list[str]:
    """Photographs that the last `authface filter` found to be near-duplicates of those."""
    told = Store(ws, VERDICTS).read_pandas(["subject", "id", "reason"])
    told = told[
        (told["subject"] == "photo") & told["reason"].str.startswith(DUPLICATE_PREFIX, na=False)
    ]
    alike: set[str] = set()
    for one, reason in zip(told["id"], told["reason"], strict=True):
        other = reason.removeprefix(DUPLICATE_PREFIX)
        alike |= {other} if one in ids else {one} if other in ids else set()
    return sorted(alike - ids)


def act(ws: Workspace, made: Order) -> tuple[Counter[str], list[str]]:
    """Forget. Returns how many files were dealt with, by what was done, and the runs whose models learnt from it.

    Raises PartialFailureError for files that hold it and could not be cleaned.
    """
    ws.write_bytes(FORGETTING, json.dumps(asdict(made)).encode())
    secrets = [
        *(("id", photo_id) for photo_id in made.photo_ids),
        *(("file", sha256) for sha256 in made.photo_hashes),
        *(("pixels", pixels) for pixels in made.photo_pixels),
    ]
    tombstones = add_tombstones(ws, secrets, made.why)
    judged = False
    for name, manifest in MANIFESTS.items():
        store = Store(ws, manifest)
        if name == VERDICTS.name:
            judged = bool(pc.any(pc.equal(store.read(["gate"])["gate"], ALL_GATES)).as_py())
        if name in NAMES:
            store.compact(partial(_mask, manifest=manifest, made=made))
        elif name == TOMBSTONES.name:
            store.compact()
    if judged:
        gates.decide(ws, ws.settings.gates)  # what was dropped as its duplicate may be kept now
    key = tombstones.keyed_hash
    sweep = WorkspaceSweep(
        ws, made.marks(), {photo_id: key(photo_id) for photo_id in made.photo_ids}
    )
    done: Counter[str] = Counter()
    for _, what, do in sweep.actions():
        do()
        done[what] += 1
    left = [path for path, _, _ in WorkspaceSweep(ws, made.marks(), {}).actions()] + sweep.left
    ws.remove(FORGETTING)
    if left:
        raise PartialFailureError(
            f"{len(left)} files still name it and could not be cleaned: look at {', '.join(left[:5])}"
        )
    return done, sweep.runs


def interrupted(ws: Workspace) -> Order | None:
    """What an interrupted forget was about."""
    if not ws.exists(FORGETTING):
        return None
    return Order(**json.loads(ws.read_bytes(FORGETTING)))


def _mask(part: pa.Table, manifest: Manifest, made: Order) -> pa.Array:
    """Which rows of a part are about what is forgotten, or name it."""
    marks = made.marks()
    texts = part[NAMES[manifest.name]].to_pylist()
    if manifest.name == VERDICTS.name:
        texts = [
            f"{one} {reason or ''}"
            for one, reason in zip(texts, part["reason"].to_pylist(), strict=True)
        ]
    return pa.array(
        [text is not None and marks.names(text.encode("utf-8", "replace")) for text in texts],
        pa.bool_(),
    )
