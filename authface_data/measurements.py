"""All numbers known about every face, in one table of columns that gates and reports can name.

A measurement is a numeric or boolean column of `faces`, a metric of `scores`, or follows from those,
such as the face's rank within its photograph.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from manifests.names import ANGLE_COLUMNS, FACE_COLUMNS, REGION_COLUMNS
from manifests.schema import FACES, SCORES
from manifests.store import Store, join_dictionaries
from manifests.workspace import Workspace


@dataclass(frozen=True)
class Measurements:
    """The measurements of all n faces of a workspace, in the order of `faces`."""

    face_ids: pa.Array
    """(n,) string."""
    photo_ids: pa.Array
    """(n,) string: the photograph of each face."""
    values: dict[str, np.ndarray]
    """Measurement name -> (n,) float64, NaN where the value is unknown."""
    metrics: list[str]
    """The names in `values` that come from `scores`, sorted."""

    def __len__(self) -> int:
        return len(self.face_ids)

    def values_of(self, name: str) -> np.ndarray:
        """Values of one measurement.

        Args:
            name: A column of `MEASURED_COLUMNS` or a metric of `scores`.

        Returns:
            (n,) float64; all NaN if no face has this measurement.
        """
        if name in self.values:
            return self.values[name]
        return np.full(len(self), np.nan)


def read_measurements(workspace: Workspace) -> Measurements:
    """Read the measurements of every face from `faces` and `scores`."""
    faces = Store(workspace, FACES).read(["face_id", "photo_id", *FACE_COLUMNS])
    face_ids = faces["face_id"].combine_chunks()
    photo_ids = faces["photo_id"].combine_chunks()

    values = {name: _to_float(faces[name].combine_chunks()) for name in FACE_COLUMNS}
    photo_codes = photo_ids.dictionary_encode().indices.to_numpy(zero_copy_only=False)
    values["faces_in_photo"] = _count_per_photo(photo_codes)
    values["rank_in_photo"] = _rank_within_photo(photo_codes, values["qsize_px"])

    for name in ANGLE_COLUMNS:
        values[f"abs_{name}"] = np.abs(values[name])
    values["visible_regions"] = np.sum([values[name] for name in REGION_COLUMNS], axis=0)

    scores = _read_scores(workspace, face_ids)
    if "sharpness" in scores:
        values["relative_sharpness"] = _relative_to_best(photo_codes, scores["sharpness"])
    return Measurements(
        face_ids=face_ids,
        photo_ids=photo_ids,
        values=values | scores,
        metrics=sorted(scores),
    )


def _read_scores(workspace: Workspace, face_ids: pa.Array) -> dict[str, np.ndarray]:
    """Metric -> (n,) float64 in the order of `face_ids`; scores of unknown faces are ignored."""
    table = Store(workspace, SCORES).read(
        ["face_id", "metric", "value"], encoded=["face_id", "metric"]
    )
    row_of_value, ids = join_dictionaries(table["face_id"])
    row_of_id = pc.index_in(ids, face_ids).fill_null(len(face_ids)).to_numpy()
    rows = np.append(row_of_id, len(face_ids))[row_of_value]
    scores = _to_float(table["value"])

    metrics = table["metric"].unify_dictionaries().combine_chunks()
    codes = metrics.indices.to_numpy(zero_copy_only=False)
    values = {}
    for code, metric in enumerate(metrics.dictionary.to_pylist()):
        selected = codes == code
        of_all = np.full(len(face_ids) + 1, np.nan)  # the last value is of unknown faces
        of_all[rows[selected]] = scores[selected]
        values[metric] = of_all[:-1]
    return values


def _count_per_photo(photo_codes: np.ndarray) -> np.ndarray:
    """(n,) float64: number of faces in the photograph of each face."""
    if not len(photo_codes):
        return np.zeros(0)
    return np.bincount(photo_codes)[photo_codes].astype(float)


def _rank_within_photo(photo_codes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """(n,) float64: 1, 2, ... within each photograph by descending size; ties in order of rows."""
    order = np.lexsort((np.arange(len(photo_codes)), -np.nan_to_num(sizes), photo_codes))
    starts = np.flatnonzero(np.diff(photo_codes[order], prepend=-1))
    counts = np.diff([*starts, len(photo_codes)])
    ranks = np.empty(len(photo_codes))
    ranks[order] = np.arange(len(photo_codes)) - np.repeat(starts, counts) + 1
    return ranks


def _relative_to_best(photo_codes: np.ndarray, values: np.ndarray) -> np.ndarray:
    """(n,) float64: each value divided by the largest one in the same photograph."""
    best = np.zeros(int(photo_codes.max(initial=-1)) + 1)
    np.maximum.at(best, photo_codes, np.nan_to_num(values))
    with np.errstate(invalid="ignore", divide="ignore"):
        return values / best[photo_codes]


def _to_float(column: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """(n,) float64, NaN for null."""
    return pc.cast(column, pa.float64()).to_numpy(zero_copy_only=False)
