"""What is known of every face in numbers: measured columns of `faces`, metrics of `scores`, its place in its photo."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from manifests.schema import FACES, SCORES
from manifests.store import Store
from manifests.workspace import Workspace

OF_FACES = [
    name
    for name, kind in FACES.columns
    if pt.is_floating(kind) or pt.is_integer(kind) or pt.is_boolean(kind)
]
# Of the faces found in a photograph: how many there are, and which this is by size, 1 the largest.
OF_PHOTO = ["faces_in_photo", "rank_in_photo"]
COLUMNS = [*OF_FACES, *OF_PHOTO]


@dataclass(frozen=True)
class Measurements:
    """face_ids, photo_ids, crop_phashes: (n,) strings, in the order of `faces`; values: name -> (n,) float, NaN where not
    known; metrics: those of the names that stand in `scores`."""

    face_ids: pa.Array
    photo_ids: pa.Array
    crop_phashes: pa.Array
    values: dict[str, np.ndarray]
    metrics: list[str]

    def __len__(self) -> int:
        return len(self.face_ids)

    def of(self, name: str) -> np.ndarray:
        """(n,) float; all NaN for a name that nothing was measured by."""
        return self.values.get(name, np.full(len(self), np.nan))


def measurements(workspace: Workspace) -> Measurements:
    """Read them."""
    faces = Store(workspace, FACES).read(["face_id", "photo_id", "crop_phash", *OF_FACES])
    face_ids, photo_ids, phashes = (
        _flat(faces[name]) for name in ("face_id", "photo_id", "crop_phash")
    )
    values = {name: _numbers(_flat(faces[name])) for name in OF_FACES}
    codes = photo_ids.dictionary_encode().indices.to_numpy(zero_copy_only=False)
    values["faces_in_photo"] = (
        np.bincount(codes)[codes].astype(float) if len(codes) else np.zeros(0)
    )
    values["rank_in_photo"] = _ranks(codes, values["qsize_px"])
    scores = Store(workspace, SCORES).read(["face_id", "metric", "value"])
    metric = _flat(scores["metric"]).dictionary_encode()
    rows, numbers = (
        _numbers(pc.index_in(_flat(scores["face_id"]), face_ids)),
        _numbers(_flat(scores["value"])),
    )
    which, metrics = metric.indices.to_numpy(zero_copy_only=False), metric.dictionary.to_pylist()
    for code, name in enumerate(metrics):
        chosen = (which == code) & np.isfinite(rows)
        values[name] = np.full(len(face_ids), np.nan)
        values[name][rows[chosen].astype(int)] = numbers[chosen]
    return Measurements(face_ids, photo_ids, phashes, values, sorted(metrics))


def _ranks(photos: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """(n,) 1, 2, … within each photo, by size; of equal ones the first."""
    order = np.lexsort((np.arange(len(photos)), -np.nan_to_num(sizes), photos))
    first = np.flatnonzero(np.diff(photos[order], prepend=-1))
    ranks = np.empty(len(photos))
    ranks[order] = np.arange(len(photos)) - np.repeat(first, np.diff([*first, len(photos)])) + 1
    return ranks


def _flat(column: pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks()


def _numbers(column: pa.Array) -> np.ndarray:
    """As float, null as NaN."""
    return pc.cast(column, pa.float64()).to_numpy(zero_copy_only=False)
