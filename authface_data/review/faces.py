"""The faces to review: which ones, in what order, and what a reviewer should know about each."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from authface_data.gates import check_gate_names, passes_threshold
from authface_data.measurements import Measurements, read_measurements
from authface_data.report.reasons import SEPARATOR, describe_joined_reasons
from authface_data.review.snapshot import EPOCH, Snapshot, split_lists
from manifests.captions import TAG_SEPARATOR, Captions, FaceTags, current_captions
from manifests.decisions import face_decisions, newest_decision_time
from manifests.missing_files import describe_missing_crops
from manifests.names import PHOTO_COLUMNS
from manifests.schema import DECISIONS, FACES, PHOTOS, VERDICTS
from manifests.settings import Gate
from manifests.store import RowFilter, Store
from manifests.verdicts import ALL_GATES, POSSIBLE_MINOR
from manifests.workspace import Workspace

REGIONS = ("left_eye", "right_eye", "mouth")
TEXT_COLUMNS = (
    "face_id",
    "photo_id",
    "crop_path",
    "photo_title",
    "credit",
    "drop_reasons",
    "drop_rules",
    "flag",
    "last_decision",
)
"""Columns of `ReviewFaces` that are texts and attributes of `ReviewFace`."""
OTHER_COLUMNS = ("crop_size_px", "is_kept", "threshold_distance", "margin")
"""Columns of `ReviewFaces` that are other attributes of `ReviewFace`."""
ROWS_PER_BATCH = 10_000

DISCRETE_MEASUREMENTS = frozenset(
    [*PHOTO_COLUMNS, "visible_regions"]
    + [name for name, kind in FACES.columns if pt.is_boolean(kind)]
)
"""Flags and counts."""
NARROW_MARGIN = 0.5
"""Within this many standard deviations of a threshold, the verdict of a gate is doubtful."""
DOUBTS = (
    Gate(name="presence", metric="face_presence", op=">=", threshold=0.9),
    Gate(name="hidden", metric="visible_regions", op="==", threshold=3),
    Gate(name="drawn", metric="photographic", op=">=", threshold=0.5),
    Gate(name="retouched", metric="skin", op=">=", threshold=0.8),
)
"""A kept face that does not meet one of these is doubtful, whatever the gates are: it may be no
face, hidden, a painting, or retouched."""


@dataclass(frozen=True)
class ReviewFace:
    """A face as it is shown to reviewers."""

    face_id: str
    photo_id: str
    crop_path: str
    """Path in the workspace."""
    crop_size_px: int
    boxes_crop_px: Mapping[str, list[float]]
    """`left_eye`, `right_eye` and `mouth` -> box [x0, y0, x1, y1] in pixels of the crop."""
    photo_title: str
    credit: str
    """Name of the photographer, or ""."""
    is_kept: bool
    """Whether every gate keeps the face."""
    drop_reasons: str
    """Why gates drop the face in a photographer's words, or ""."""
    drop_rules: str
    """The same as rules on measurements, such as "qsize_px < 224", or ""."""
    flag: str
    """Why a person should check the face, or ""."""
    last_decision: str
    """For example "drop by anna", or ""."""
    semantic_tags: list[str]
    photographic_tags: list[str]
    scores: Mapping[str, float]
    """Metric -> value."""
    threshold_distance: float
    """Distance to the nearest threshold of a gate, in standard deviations of the measurement."""
    margin: float
    """Distance by which the face passes the threshold that it passes least, in standard deviations.
    Negative if a gate drops the face."""
    snapshot: Snapshot


class ReviewFaces(Sequence[ReviewFace]):
    """Faces in the order of a review, in columns: a million of them take few hundred megabytes.

    Args:
        rows: One row per face: columns of `faces`, those of `ReviewFace` that are one text or
            number, and `caption_row`, the row in `captions`, -1 for a face without a caption.
        scores: Metric -> (len(rows),) float64, NaN where it is unknown.
        captions: The captions in use.
        exported_at: The time of the snapshots.
        positions: (n,) int: the rows of the faces, in their order. Default: all rows.
    """

    def __init__(
        self,
        rows: pa.Table,
        scores: Mapping[str, np.ndarray],
        captions: Captions,
        exported_at: datetime,
        positions: np.ndarray | None = None,
    ) -> None:
        self._rows = rows
        self._scores = scores
        self._captions = captions
        self._exported_at = exported_at
        # Rows are taken when they are needed: sorted copies of all would take too much memory.
        self._positions = np.arange(rows.num_rows) if positions is None else positions

    def __len__(self) -> int:
        return len(self._positions)

    @overload
    def __getitem__(self, index: int) -> ReviewFace: ...
    @overload
    def __getitem__(self, index: slice) -> ReviewFaces: ...
    def __getitem__(self, index: int | slice) -> ReviewFace | ReviewFaces:
        if isinstance(index, slice):
            return self.take(np.arange(len(self))[index])
        position = range(len(self))[index]
        return self._faces(slice(position, position + 1))[0]

    def __iter__(self) -> Iterator[ReviewFace]:
        for start in range(0, len(self), ROWS_PER_BATCH):
            yield from self._faces(slice(start, start + ROWS_PER_BATCH))

    def take(self, positions: np.ndarray) -> ReviewFaces:
        """The faces at some positions, in that order."""
        return ReviewFaces(
            self._rows,
            self._scores,
            self._captions,
            self._exported_at,
            self._positions[positions],
        )

    def sort(self, *columns: str) -> ReviewFaces:
        """The faces sorted by columns of the rows, ascending."""
        rows = self._take_rows(slice(None), columns)
        order = pc.sort_indices(rows, sort_keys=[(name, "ascending") for name in columns])
        return self.take(order.to_numpy())

    def column(self, name: str) -> list:
        """The values of a column of the rows."""
        return self._take_rows(slice(None), [name])[name].to_pylist()

    def _take_rows(self, part: slice, columns: Sequence[str] | None = None) -> pa.Table:
        """Columns of the rows of some faces, in their order. Default: all columns."""
        rows = self._rows if columns is None else self._rows.select(list(columns))
        return rows.take(pa.array(self._positions[part]))

    def describe_missing_crops(self, workspace: Workspace) -> str | None:
        """Name the faces whose crop is missing, as `missing_files.describe_missing_crops` does."""
        names = pa.array(workspace.list_names("faces"), pa.string())
        present = pc.binary_join_element_wise("faces", names, "/")
        # Paths in other folders are compared by the function.
        rows = self._take_rows(slice(None), ["face_id", "crop_path"])
        others = rows.filter(pc.invert(pc.is_in(rows["crop_path"], present)))
        paths = zip(others["face_id"].to_pylist(), others["crop_path"].to_pylist(), strict=True)
        return describe_missing_crops(workspace, dict(paths))

    @property
    def metrics(self) -> list[str]:
        """The metrics that at least one of the faces has, sorted."""
        return sorted(
            name
            for name, values in self._scores.items()
            if np.isfinite(values[self._positions]).any()
        )

    def batches(self) -> Iterator[FaceBatch]:
        """The faces in the columns of a review table."""
        families = (self._captions.semantic, self._captions.photographic)
        for start in range(0, len(self), ROWS_PER_BATCH):
            part = slice(start, start + ROWS_PER_BATCH)
            rows = self._take_rows(part)
            caption_rows = rows["caption_row"].to_numpy()
            semantic, photographic = (lists.take(caption_rows) for lists in families)
            snapshots = Snapshot.take_texts(
                rows["crop_sha256"].to_pylist(),
                split_lists(semantic),
                split_lists(photographic),
                self._exported_at,
            )
            yield FaceBatch(
                columns={name: rows[name] for name in TEXT_COLUMNS},
                is_kept=rows["is_kept"],
                semantic_tags=semantic.texts(TAG_SEPARATOR),
                photographic_tags=photographic.texts(TAG_SEPARATOR),
                snapshots=pa.chunked_array([snapshots], pa.string()),
                scores={
                    name: values[self._positions[part]] for name, values in self._scores.items()
                },
            )

    def _faces(self, part: slice) -> list[ReviewFace]:
        faces = []
        rows = self._take_rows(part).to_pylist()
        for position, row in zip(self._positions[part], rows, strict=True):
            semantic_tags, photographic_tags = self._tags_of(row["caption_row"])
            scores = {name: float(values[position]) for name, values in self._scores.items()}
            boxes = {name: row[f"{name}_box_crop_px"] for name in REGIONS}
            snapshot = Snapshot.take(
                row["crop_sha256"], semantic_tags, photographic_tags, self._exported_at
            )
            faces.append(
                ReviewFace(
                    **{name: row[name] for name in (*TEXT_COLUMNS, *OTHER_COLUMNS)},
                    boxes_crop_px=boxes,
                    semantic_tags=semantic_tags,
                    photographic_tags=photographic_tags,
                    scores={name: score for name, score in scores.items() if np.isfinite(score)},
                    snapshot=snapshot,
                )
            )
        return faces

    def _tags_of(self, caption_row: int) -> FaceTags:
        if caption_row < 0:
            return FaceTags([], [])
        return FaceTags(
            self._captions.semantic[caption_row], self._captions.photographic[caption_row]
        )


@dataclass(frozen=True)
class FaceBatch:
    """Some faces of a review, in columns of n values."""

    columns: Mapping[str, pa.ChunkedArray]
    """Name in `TEXT_COLUMNS` -> (n,) string."""
    is_kept: pa.ChunkedArray
    """(n,) bool."""
    semantic_tags: pa.ChunkedArray
    """(n,) string: the tags, joined by `TAG_SEPARATOR`."""
    photographic_tags: pa.ChunkedArray
    """(n,) string, as `semantic_tags`."""
    snapshots: pa.ChunkedArray
    """(n,) string: texts of the snapshots."""
    scores: Mapping[str, np.ndarray]
    """Metric -> (n,) float64, NaN where it is unknown."""


def faces_to_review(
    workspace: Workspace, near_threshold: int | None = None, sample: int | None = None
) -> ReviewFaces:
    """Select and order faces for review.

    Args:
        workspace: The workspace; faces without verdicts of the gates are left out.
        near_threshold: Select this many faces that are nearest to a threshold.
        sample: Select this many faces by a hash of their ids, the same ones each time.

    Returns:
        What is most likely wrong comes first: flagged faces; kept faces that do not meet a
        condition of `DOUBTS` or pass a gate narrowly; faces that a single gate drops narrowly; then
        the others. Within each group, the nearest to a threshold come first.
    """
    faces = _read_faces(workspace)
    if near_threshold is not None:
        faces = faces.sort("threshold_distance", "face_id")[:near_threshold]
    if sample is not None:
        digests = [hashlib.sha256(face_id.encode()).digest() for face_id in faces.column("face_id")]
        order = sorted(range(len(digests)), key=digests.__getitem__)
        faces = faces.take(np.array(order[:sample], int))
    return faces.sort("review_group", "review_order", "face_id")


def _read_faces(workspace: Workspace) -> ReviewFaces:
    """All faces that have been through the gates."""
    gates = workspace.settings.gates
    check_gate_names(gates)
    # In this order, and with what is no longer needed removed: a million faces fill the memory of
    # a laptop.
    captions = current_captions(workspace)
    measurements = read_measurements(workspace)
    face_ids = measurements.face_ids
    scores = {name: measurements.values_of(name) for name in measurements.metrics}
    distances, margins = threshold_margins(measurements, gates)
    _, doubts = threshold_margins(measurements, DOUBTS)
    overall = _read_verdicts(workspace, ALL_GATES, face_ids)
    drop_reasons = describe_joined_reasons(overall["reason"], measurements.values_of)
    del measurements

    boxes = [f"{name}_box_crop_px" for name in REGIONS]
    rows = Store(workspace, FACES).read(
        ["face_id", "photo_id", "crop_path", "crop_sha256", "crop_size_px", *boxes]
    )
    texts = {
        **_photo_texts(workspace, rows["photo_id"]),
        "drop_reasons": drop_reasons,
        "drop_rules": overall["reason"],
        "flag": _read_verdicts(workspace, POSSIBLE_MINOR, face_ids)["reason"],
        "last_decision": _decisions_of(workspace, face_ids),
    }
    for name, column in texts.items():
        rows = rows.append_column(name, pc.fill_null(column, ""))
    is_kept = pc.equal(overall["verdict"], "kept")
    groups, order = _review_order(
        is_flagged=pc.not_equal(rows["flag"], "").to_numpy(),
        is_kept=is_kept.fill_null(False).to_numpy(),
        has_single_reason=pc.invert(pc.match_substring(rows["drop_rules"], SEPARATOR)).to_numpy(),
        margins=margins,
        doubts=doubts,
    )
    numbers = {
        "is_kept": is_kept,
        "caption_row": captions.find(face_ids),
        "threshold_distance": distances,
        "margin": margins,
        "review_group": groups,
        "review_order": order,
    }
    for name, values in numbers.items():
        rows = rows.append_column(name, values if isinstance(values, pa.ChunkedArray) else [values])
    is_gated = overall["verdict"].is_valid().to_numpy()
    del texts, numbers, overall, drop_reasons
    # Rows are taken often, and each time Arrow would join the chunks of all rows.
    for index, name in enumerate(rows.column_names):
        rows = rows.set_column(index, name, rows[name].combine_chunks())
        pa.default_memory_pool().release_unused()

    faces = ReviewFaces(
        rows,
        scores,
        captions,
        # Not before the newest decision, so that a clock that runs behind cannot make a table
        # outdated.
        max(datetime.now(UTC), newest_decision_time(workspace) or EPOCH),
    )
    has_crop = pc.fill_null(pc.not_equal(rows["crop_path"], ""), False).to_numpy()
    is_gated = is_gated & has_crop
    return faces if is_gated.all() else faces.take(np.flatnonzero(is_gated))


def _review_order(
    *,
    is_flagged: np.ndarray,
    is_kept: np.ndarray,
    has_single_reason: np.ndarray,
    margins: np.ndarray,
    doubts: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Order n faces by how likely their verdict is wrong.

    Args:
        is_flagged: (n,) bool: whether a person should check the face in any case.
        is_kept: (n,) bool: whether every gate keeps the face.
        has_single_reason: (n,) bool: whether at most one gate drops the face.
        margins: (n,) float: `ReviewFace.margin`.
        doubts: (n,) float: the same for the conditions of `DOUBTS`.

    Returns:
        (n,) int: the group of each face, 0 to 3; and (n,) float: its place in the group.
    """
    lowest = np.fmin(margins, doubts)
    is_doubtful_keep = is_kept & (lowest < NARROW_MARGIN)
    is_narrow_drop = ~is_kept & has_single_reason & (margins < 0) & (margins > -NARROW_MARGIN)
    groups = np.select([is_flagged, is_doubtful_keep, is_narrow_drop], [0, 1, 2], 3)
    order = np.where(is_kept, lowest, np.abs(margins))
    return groups, order


def _read_verdicts(workspace: Workspace, gate: str, face_ids: pa.Array) -> pa.Table:
    """verdict and reason of a gate for each face; null for a face without one."""
    of_gate = RowFilter.equal("gate", gate)
    verdicts = Store(workspace, VERDICTS).read(["id", "verdict", "reason"], of_gate)
    index = pc.index_in(face_ids, verdicts["id"].combine_chunks())
    return verdicts.drop_columns("id").take(index)


def _photo_texts(workspace: Workspace, photo_ids: pa.ChunkedArray) -> dict[str, pa.ChunkedArray]:
    """photo_title and credit of each face."""
    photos = Store(workspace, PHOTOS).read(["photo_id", "description", "photographer_name"])
    index = pc.index_in(photo_ids, photos["photo_id"].combine_chunks())
    titles = pc.if_else(pc.equal(photos["description"], ""), None, photos["description"])
    return {
        "photo_title": pc.coalesce(titles.take(index), photo_ids),
        "credit": photos["photographer_name"].take(index),
    }


def _decisions_of(workspace: Workspace, face_ids: pa.Array) -> pa.Array:
    """The last decision on each face, see `describe_decisions`; null for none."""
    decisions = describe_decisions(workspace)
    decided = pa.array(list(decisions), pa.string())
    described = pa.array(list(decisions.values()), pa.string())
    return described.take(pc.index_in(face_ids, decided))


def threshold_margins(
    measurements: Measurements, gates: Sequence[Gate]
) -> tuple[np.ndarray, np.ndarray]:
    """Distances of n faces to the thresholds of gates, in standard deviations of each measurement.

    Args:
        measurements: The measurements of the faces.
        gates: The gates; those without a threshold are ignored.

    Returns:
        threshold_distance and margin as in `ReviewFace`, each (n,) float64; infinite for a face
        whose measurements have no threshold, and for a flag or a count that is as it should be,
        which no face passes narrowly.
    """
    distances, margins = np.full((2, len(measurements)), np.inf)
    for gate in gates:
        values = measurements.values_of(gate.metric)
        if gate.threshold is None or not np.isfinite(values).any():
            continue
        excess = (values - gate.threshold) / (float(np.nanstd(values)) or 1.0)
        if gate.metric in DISCRETE_MEASUREMENTS:
            excess[passes_threshold(values, gate.op, gate.threshold)] = np.nan
        distances = np.fmin(distances, np.abs(excess))
        margin = {"=": -np.abs(excess), ">": excess, "<": -excess}[gate.op[0]]
        margins = np.fmin(margins, margin)
    return distances, margins


def describe_decisions(workspace: Workspace) -> dict[str, str]:
    """face_id -> the decision in force and its reviewer, for example "drop by anna".

    A decision of `unsure` is given only if neither keep nor drop is in force.
    """
    rows = Store(workspace, DECISIONS).read_pandas(["id", "reviewer", "decision", "decided_at"])
    rows = rows[rows["decision"].notna()].sort_values("decided_at", kind="stable")
    rows = rows.drop_duplicates(["id", "reviewer"], keep="last")
    unsure = rows[rows["decision"] == "unsure"]
    descriptions = {row.id: f"unsure by {row.reviewer}" for row in unsure.itertuples()}
    for face_id, decision in face_decisions(workspace).items():
        descriptions[face_id] = str(decision)
    return descriptions
