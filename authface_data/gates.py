"""Gates: rules on stored measurements that keep or drop faces.

A gate compares one measurement of a face with a threshold, or keeps the best N faces by it. A
verdict is the result of one gate for one face or photograph: kept, dropped, or failed if the
measurement is missing. A decision is a person's keep or drop of a face; it overrides all verdicts.

Measuring takes models and hours; evaluating gates reads what was measured and takes seconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import chain

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from authface_data.copies import rank_copies, read_copies
from authface_data.duplicates import Exclusions, Match, find_duplicates
from authface_data.face_duplicates import FaceHashes, choose_radius, find_face_duplicates
from authface_data.measurements import Measurements, read_measurements
from authface_data.minors import possible_minors
from manifests.decisions import face_decisions
from manifests.names import MEASURED_COLUMNS, OPTIONAL_COLUMNS, QUALITY_MEASURES
from manifests.schema import FACES, PHOTOS, VERDICTS
from manifests.settings import Gate
from manifests.store import ROWS_PER_PART, RowFilter, Store, text_array
from manifests.support.errors import UserError
from manifests.support.fingerprint import fingerprint
from manifests.verdicts import ALL_GATES, ANY_FACE, POSSIBLE_MINOR, Subject, Verdict
from manifests.workspace import Workspace

DUPLICATES = "duplicates"
"""Gate that drops near-duplicates of a better photograph."""

DUPLICATE_FACES = "duplicate_faces"
"""Gate that drops near-duplicates of a better picture of the same face, mirror images included."""

EXCLUSION = "exclusion"
"""Gate that drops pictures named by `filter --exclude-hashes`."""

STAGE_GATES = ("collect", "faces")
"""Gate names under which stages record dropped and failed rows, besides `scores:METRIC` and others
with a colon."""

RESERVED_NAMES = {
    *(ALL_GATES, ANY_FACE, DUPLICATES, DUPLICATE_FACES, EXCLUSION, POSSIBLE_MINOR),
    *STAGE_GATES,
}
"""Gate names that authface.toml cannot use."""

_OPPOSITE = {">=": "<", ">": "<=", "<=": ">", "<": ">=", "==": "!="}
"""Comparison -> the comparison that a dropped value satisfies, for reasons."""

_VERDICT_NAMES = ["kept", "dropped", "failed"]
_KEPT = np.int8(0)
_DROPPED = np.int8(1)
_FAILED = np.int8(2)


def check_gate_names(gates: Sequence[Gate]) -> None:
    """Check that gates have usable names.

    Raises:
        UserError: If a name is used twice, is reserved or contains a colon.
    """
    names = [gate.name for gate in gates]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f'gate name "{name}" is used twice; give each gate another name')
        if name in RESERVED_NAMES:
            raise UserError(f'gate name "{name}" is reserved; choose another name')
        if ":" in name:
            raise UserError(f'gate name "{name}" contains a colon; choose another name')


def check_gates(gates: Sequence[Gate], metrics: Sequence[str]) -> None:
    """Check that gates have usable names, and that their measurements have been taken.

    Args:
        gates: The gates to check.
        metrics: The metrics of `scores` that gates may use besides `MEASURED_COLUMNS`.

    Raises:
        UserError: If a gate has an unusable name or a metric that has not been measured.
    """
    check_gate_names(gates)
    for gate in gates:
        check_measured(f'gate "{gate.name}"', gate.metric, metrics)


def check_measured(place: str, name: str, metrics: Sequence[str]) -> None:
    """Check that a measurement has been taken.

    Args:
        place: Where its name stands, for the message.
        name: The name of a measurement.
        metrics: The metrics of `scores` that have been measured.

    Raises:
        UserError: If it is a metric that has not been measured.
    """
    if name in metrics or name in MEASURED_COLUMNS:
        return
    setting = "" if name in QUALITY_MEASURES else "add it to filter.metrics in authface.toml and "
    raise UserError(f"{place}: {name} has not been measured; {setting}run `authface filter`")


@dataclass(frozen=True)
class GateVerdicts:
    """Verdicts of one gate on m faces, or on m photographs."""

    subject: Subject
    gate: str
    ids: pa.Array
    """(m,) string."""
    codes: np.ndarray
    """(m,) int: index into `_VERDICT_NAMES`."""
    reasons: pa.Array
    """(m,) string or dictionary of strings, null for kept rows."""
    fingerprint: str
    """Fingerprint of the gate's settings."""
    values: np.ndarray | None = None
    """(m,) float64; NaN becomes null. None: all null."""
    threshold: float | None = None
    """The gate's threshold; NaN becomes null."""

    @property
    def is_dropped(self) -> np.ndarray:
        """Whether the gate dropped or failed each row.

        Returns:
            (m,) bool.
        """
        return self.codes != _KEPT

    def tables(self) -> Iterator[pa.Table]:
        """Rows of `verdicts`, in tables of at most `ROWS_PER_PART` rows."""
        now = datetime.now(UTC)
        for start in range(0, len(self.ids), ROWS_PER_PART):
            yield self._table(slice(start, start + ROWS_PER_PART), now)

    def _table(self, rows: slice, now: datetime) -> pa.Table:
        schema = VERDICTS.schema.remove_metadata()
        ids = self.ids[rows]
        values = np.full(len(ids), np.nan) if self.values is None else self.values[rows]
        threshold = np.nan if self.threshold is None else self.threshold
        columns = {
            "subject": pa.repeat(self.subject, len(ids)),
            "id": ids,
            "gate": pa.repeat(self.gate, len(ids)),
            "verdict": _lookup(self.codes[rows], _VERDICT_NAMES).cast(pa.string()),
            "reason": self.reasons[rows].cast(pa.string()),
            "value": pa.array(values, pa.float64(), from_pandas=True),
            "threshold": pa.array(np.full(len(ids), threshold), from_pandas=True),
            "fingerprint": pa.repeat(self.fingerprint, len(ids)),
            "created_at": pa.repeat(pa.scalar(now, schema.field("created_at").type), len(ids)),
        }
        return pa.Table.from_arrays([columns[name] for name in schema.names], schema=schema)


@dataclass
class GateResult:
    """Verdicts of all gates on all n faces of a workspace."""

    measurements: Measurements
    """Measurements of the n faces; the other arrays have the same order."""
    decisions: np.ndarray
    """(n,) int: the decision of a person that overrules the gates; 1 keep, -1 drop, 0 none."""
    kept: np.ndarray
    """(n,) bool: whether every gate keeps the face, regardless of decisions."""
    drop_reasons: list[pa.Array] = field(default_factory=list)
    """Why each gate drops faces: (n,) string or dictionary of strings, null for others."""
    verdicts: list[GateVerdicts] = field(default_factory=list)
    """Verdicts of every gate, on faces and on photographs."""

    @property
    def in_set(self) -> np.ndarray:
        """Whether each face is in the set, decisions of people included.

        Returns:
            (n,) bool.
        """
        return (self.kept & (self.decisions >= 0)) | (self.decisions > 0)

    def count(self, subject: Subject, gate: str, verdict: Verdict) -> int:
        """Count the verdicts of one kind.

        Args:
            subject: What the verdicts are about.
            gate: Name of the gate.
            verdict: The verdict to count.

        Returns:
            Number of verdicts.
        """
        code = _VERDICT_NAMES.index(verdict)
        counts = [
            int((verdicts.codes == code).sum())
            for verdicts in self.verdicts
            if (verdicts.subject, verdicts.gate) == (subject, gate)
        ]
        return sum(counts)

    def failed_ids(self) -> pa.Array:
        """Distinct ids of the faces and photographs that a gate could not measure."""
        ids = [verdicts.ids.filter(verdicts.codes == _FAILED) for verdicts in self.verdicts]
        return pa.chunked_array(ids, pa.string()).unique()

    def drop(self, dropped: np.ndarray, reasons: pa.Array) -> None:
        """Drop faces and append to their reasons.

        Args:
            dropped: (n,) bool.
            reasons: (n,) string or dictionary of strings, null for faces that are not dropped.
        """
        self.drop_reasons.append(reasons)
        self.kept &= ~dropped

    def join_reasons(self) -> pa.Array:
        """Why gates drop each face.

        Returns:
            (n,) string: the reasons joined by "; "; null for kept faces.
        """
        rows = [np.flatnonzero(reasons.is_valid()) for reasons in self.drop_reasons]
        texts = [reasons.drop_null().cast(pa.string()) for reasons in self.drop_reasons]
        joined = _join_by_row(rows, texts, len(self.kept), "; ")
        return pc.if_else(pa.array(self.kept), None, joined)


def _join_by_row(
    rows: Sequence[np.ndarray], texts: Sequence[pa.Array], count: int, separator: str
) -> pa.Array:
    """Join the texts of each row in the given order.

    Args:
        rows: One array per array of texts: the row of each text, in [0, count).
        texts: String arrays without null.
        count: Number of rows.
        separator: Text between two texts.

    Returns:
        (count,) string; "" for a row without texts.
    """
    all_rows = np.concatenate([np.zeros(0, np.int64), *rows])
    order = pa.array(np.argsort(all_rows, kind="stable"))
    starts = np.append(0, np.cumsum(np.bincount(all_rows, minlength=count))).astype(np.int32)
    all_texts = pa.chunked_array(texts, pa.string()).combine_chunks().take(order)
    return pc.binary_join(pa.ListArray.from_arrays(starts, all_texts), separator)


def apply_gates(workspace: Workspace, gates: Sequence[Gate]) -> GateResult:
    """Evaluate gates and store their verdicts.

    They replace the verdicts of earlier evaluations, removed gates included, in one commit.
    Verdicts of stages stay.

    Args:
        workspace: The workspace to read from and write to; its lock must be held.
        gates: The gates, as checked by `check_gates`.
    """
    result = evaluate_gates(workspace, gates)
    Store(workspace, VERDICTS).compact(
        lambda part: pc.invert(is_stage_verdict(part)),
        chain.from_iterable(verdicts.tables() for verdicts in result.verdicts),
        drop_columns=["gate"],
        replaces_keys=True,
    )
    return result


def is_stage_verdict(table: pa.Table) -> pa.ChunkedArray:
    """Find the rows of `verdicts` that a stage wrote, not a gate.

    Args:
        table: Rows of `verdicts`.

    Returns:
        (rows,) bool.
    """
    return _is_stage_gate(table["gate"])


def _is_stage_gate(gates: pa.ChunkedArray) -> pa.ChunkedArray:
    is_stage = pc.is_in(gates, pa.array(STAGE_GATES))
    return pc.or_(is_stage, pc.match_substring(gates, ":"))


STAGE_VERDICTS = RowFilter("gate", _is_stage_gate)
"""Selects the rows of `verdicts` that a stage wrote, not a gate."""


def evaluate_gates(workspace: Workspace, gates: Sequence[Gate]) -> GateResult:
    """Evaluate every gate on every face, and every photograph by its faces. Nothing is stored.

    The gates run in this order:

    1. Gates with a threshold. A face without the measurement has the verdict failed, but passes if
       the measurement is one of `OPTIONAL_COLUMNS`.
    2. Exclusions, duplicate photographs and duplicate faces. Of duplicates the best is kept, see
       copies.py.
    3. Gates that keep the best N, among the faces that all previous gates keep.

    A face is kept if every gate keeps it. A photograph is kept if one of its faces is. Decisions
    count where faces compete: a face that a person dropped takes no place, and a face that a person
    kept has one.

    Args:
        workspace: The workspace to read from.
        gates: The gates.

    Raises:
        UserError: If a gate has an unusable name.
    """
    check_gate_names(gates)
    measurements = read_measurements(workspace)
    count = len(measurements)
    result = GateResult(
        measurements=measurements,
        decisions=_read_decisions(workspace, measurements),
        kept=np.ones(count, bool),
    )

    for gate in gates:
        if gate.best is None:
            _apply_threshold(result, gate)
    _apply_exclusions_and_duplicates(workspace, result)
    for gate in gates:
        if gate.best is not None:
            _apply_best(result, gate, gate.best)

    reasons = result.join_reasons()
    gates_fingerprint = fingerprint(gates=[gate.model_dump(exclude_none=True) for gate in gates])
    result.verdicts.append(
        GateVerdicts(
            subject="face",
            gate=ALL_GATES,
            ids=measurements.face_ids,
            codes=np.where(result.kept, _KEPT, _DROPPED),
            reasons=reasons,
            fingerprint=gates_fingerprint,
        )
    )
    result.verdicts.append(_photo_verdicts(result, reasons, gates_fingerprint))
    result.verdicts.append(_possible_minor_verdicts(workspace, measurements))
    return result


def _read_decisions(workspace: Workspace, measurements: Measurements) -> np.ndarray:
    """(n,) int as `GateResult.decisions`."""
    decisions = np.zeros(len(measurements), int)
    decided = face_decisions(workspace)
    rows = pc.index_in(pa.array(list(decided), pa.string()), measurements.face_ids)
    for row, decision in zip(rows.to_pylist(), decided.values(), strict=True):
        if row is not None and decision.overrules_gates:
            decisions[row] = 1 if decision.decision == "keep" else -1
    return decisions


def passes_threshold(values: np.ndarray, op: str, threshold: float) -> np.ndarray:
    """Compare values with a threshold.

    Args:
        values: (n,) float; NaN never passes.
        op: One of `>=`, `>`, `<=`, `<`, `==`.
        threshold: The right-hand side of the comparison.

    Returns:
        (n,) bool.
    """
    comparisons = {
        ">=": np.greater_equal,
        ">": np.greater,
        "<=": np.less_equal,
        "<": np.less,
        "==": np.equal,
    }
    with np.errstate(invalid="ignore"):
        return comparisons[op](values, threshold)


@dataclass(frozen=True)
class _FaceVerdicts:
    """Verdicts of one gate on m of the n faces."""

    rows: np.ndarray
    """(m,) int: rows of the faces."""
    codes: np.ndarray
    """(m,) int: index into `_VERDICT_NAMES`."""
    dropped_reason: str
    failed_reason: str
    values: np.ndarray
    """(m,) float64, NaN if unknown."""
    threshold: float


def _apply_threshold(result: GateResult, gate: Gate) -> None:
    """Evaluate a gate that compares with a threshold, on every face."""
    threshold = float(gate.threshold or 0)
    values = result.measurements.values_of(gate.metric)
    passes = passes_threshold(values, gate.op, threshold)
    if gate.metric in OPTIONAL_COLUMNS:
        passes |= np.isnan(values)
    codes = np.where(passes, _KEPT, np.where(np.isfinite(values), _DROPPED, _FAILED))
    verdicts = _FaceVerdicts(
        rows=np.arange(len(values)),
        codes=codes,
        dropped_reason=f"{gate.metric} {_OPPOSITE[gate.op]} {threshold:g}",
        failed_reason=f"no {gate.metric}",
        values=values,
        threshold=threshold,
    )
    _record(result, gate, verdicts)


def _apply_best(result: GateResult, gate: Gate, best: int) -> None:
    """Evaluate a gate that keeps the best N, on the faces that all gates so far keep.

    The verdict depends on the measurement alone. The threshold is the value of the worst face that
    has one of the N places. It is found among the undecided faces, after the faces that a person
    kept have taken their places.
    """
    candidates = np.flatnonzero(result.kept)
    undecided = result.decisions[candidates] == 0
    sign = -1.0 if gate.op == ">=" else 1.0
    values = sign * result.measurements.values_of(gate.metric)[candidates]  # smaller is better
    known = np.isfinite(values)

    face_ids = result.measurements.face_ids.take(pa.array(candidates))
    names = face_ids.to_numpy(zero_copy_only=False).astype(str)
    order = np.lexsort((names, np.where(known, values, np.inf)))
    places = max(best - int((result.decisions > 0).sum()), 0)
    chosen = [row for row in order if undecided[row] and known[row]][:places]
    threshold = values[chosen[-1]] if chosen else np.nan

    inside = np.zeros(len(candidates), bool)
    inside[chosen] = True
    inside |= ~undecided & known & (values <= threshold)
    verdicts = _FaceVerdicts(
        rows=candidates,
        codes=np.where(inside, _KEPT, np.where(known, _DROPPED, _FAILED)),
        dropped_reason=f"not among the best {best} by {gate.metric}",
        failed_reason=f"no {gate.metric}",
        values=sign * values,
        threshold=sign * threshold,
    )
    _record(result, gate, verdicts)


def _record(result: GateResult, gate: Gate, verdicts: _FaceVerdicts) -> None:
    """Add a gate's verdicts to the result, and drop what it does not keep."""
    face_ids = result.measurements.face_ids
    all_codes = np.full(len(face_ids), _KEPT)
    all_codes[verdicts.rows] = verdicts.codes
    reason_names = [verdicts.dropped_reason, verdicts.failed_reason]

    ids = face_ids
    if len(verdicts.rows) < len(face_ids):
        ids = face_ids.take(pa.array(verdicts.rows))
    result.verdicts.append(
        GateVerdicts(
            subject="face",
            gate=gate.name,
            ids=ids,
            codes=verdicts.codes,
            reasons=_lookup(verdicts.codes - _DROPPED, reason_names),
            fingerprint=fingerprint(gate=gate.model_dump(exclude_none=True)),
            values=verdicts.values,
            threshold=verdicts.threshold,
        )
    )
    result.drop(all_codes != _KEPT, _lookup(all_codes - _DROPPED, reason_names))


@dataclass(frozen=True)
class _Photos:
    """The p photographs of a workspace, and which faces belong to them."""

    frame: pd.DataFrame
    """(p,) rows of `photos`: ids and hashes."""
    row_of_face: np.ndarray
    """(n,) int: row in `frame` of each face's photograph; p if the photograph is missing."""
    has_face: np.ndarray
    """(p,) bool."""


def _read_photos(
    workspace: Workspace, measurements: Measurements, *, with_file_hashes: bool
) -> _Photos:
    columns = ["photo_id", "phash", "pixel_hash"]
    if with_file_hashes:
        columns.append("sha256")
    frame = Store(workspace, PHOTOS).read_pandas(columns)
    rows = pc.index_in(measurements.photo_ids, text_array(frame["photo_id"]))
    row_of_face = pc.fill_null(rows, len(frame)).to_numpy(zero_copy_only=False)
    return _Photos(frame, row_of_face, np.isin(np.arange(len(frame)), row_of_face))


def _apply_exclusions_and_duplicates(workspace: Workspace, result: GateResult) -> None:
    """Drop excluded pictures, then duplicates among the photographs."""
    settings = workspace.settings.filter
    exclusions = Exclusions.load(workspace)
    photos = _read_photos(workspace, result.measurements, with_file_hashes=bool(exclusions))
    competing = np.ones(len(result.kept), bool)
    passing = result.in_set
    if exclusions:
        competing &= ~_apply_exclusions(workspace, result, photos, exclusions)
    competing &= ~_apply_duplicates(workspace, result, photos, passing & competing)
    face_radius = choose_radius(settings.duplicate_face_radius, len(result.kept))
    if face_radius is not None:
        faces = _CompetingFaces(competing, passing & competing)
        _apply_face_duplicates(workspace, result, faces, face_radius)


@dataclass(frozen=True)
class _Matches:
    """The matches of photographs and faces with other pictures."""

    found: list[Match]
    of_photo: np.ndarray
    """(p,) int: index into `found`, -1 for a photograph without a match."""
    of_face: np.ndarray
    """(n,) int: index into `found`, -1 for a face without a match."""


def _crop_hashes(workspace: Workspace, *columns: str) -> list[pa.Array]:
    """Hashes of the crops of n faces, each (n,) string, null if unknown."""
    hashes = Store(workspace, FACES).read(columns)
    return [hashes[name].combine_chunks() for name in columns]


def _apply_exclusions(
    workspace: Workspace, result: GateResult, photos: _Photos, exclusions: Exclusions
) -> np.ndarray:
    """Drop pictures whose photograph or crop is excluded.

    Returns:
        (n,) bool: the excluded faces.
    """
    measurements = result.measurements
    radius = workspace.settings.filter.duplicate_radius
    by_photo = exclusions.find(
        photos.frame, {"perceptual": "phash", "pixels": "pixel_hash", "file": "sha256"}, radius
    )
    (phashes,) = _crop_hashes(workspace, "crop_phash")
    crops = pa.table({"id": measurements.face_ids, "phash": phashes})
    by_face = exclusions.find(crops.to_pandas(), {"perceptual": "phash"}, radius)

    of_photo = _index_matches(by_photo, text_array(photos.frame["photo_id"]))
    of_face = _index_matches(by_face, measurements.face_ids)
    matches = _Matches(
        found=[*by_photo.values(), *by_face.values()],
        of_photo=of_photo,
        of_face=np.where(
            of_face >= 0, of_face + len(by_photo), _of_faces(of_photo, photos.row_of_face)
        ),
    )
    return _record_matches(result, EXCLUSION, photos=photos, matches=matches, radius=radius)


def _index_matches(matches: Mapping[str, Match], ids: pa.Array) -> np.ndarray:
    """(m,) int: position of each id's match in `matches`, -1 for an id without one."""
    positions = pc.index_in(ids, pa.array(list(matches), pa.string()))
    return pc.fill_null(positions, -1).to_numpy(zero_copy_only=False)


def _of_faces(of_photo: np.ndarray, row_of_face: np.ndarray) -> np.ndarray:
    """(n,) int: the match of each face's photograph; -1 if the photograph is missing."""
    return np.append(of_photo, -1)[row_of_face]


def _apply_duplicates(
    workspace: Workspace, result: GateResult, photos: _Photos, passing: np.ndarray
) -> np.ndarray:
    """Drop the faces of photographs that duplicate a better one.

    Args:
        workspace: The workspace.
        result: The result to extend.
        photos: The photographs.
        passing: (n,) bool: faces that are in the set so far; photographs with one come first.

    Returns:
        (n,) bool: the dropped faces.
    """
    radius = workspace.settings.filter.duplicate_radius
    count = len(photos.frame)
    passes = np.bincount(photos.row_of_face, passing, count + 1)[:-1] > 0
    num_faces = np.bincount(photos.row_of_face, minlength=count + 1)
    num_decided = np.bincount(photos.row_of_face, result.decisions < 0, count + 1)
    face_px = np.zeros(count + 1)
    sizes_px = np.nan_to_num(result.measurements.values_of("qsize_px"))
    np.maximum.at(face_px, photos.row_of_face, sizes_px)

    def rank(rows: np.ndarray, groups: np.ndarray) -> np.ndarray:
        ids = photos.frame["photo_id"].iloc[rows].tolist()
        copies = read_copies(
            workspace,
            ids,
            ids=ids,
            passes=passes[rows],
            face_px=face_px[rows],
            num_faces=num_faces[rows],
            is_decided=num_decided[rows] > 0,
        )
        return rows[rank_copies(copies, groups)]

    duplicates = find_duplicates(photos.frame, radius, rank)
    of_photo = _index_matches(duplicates, text_array(photos.frame["photo_id"]))
    matches = _Matches(
        found=list(duplicates.values()),
        of_photo=of_photo,
        of_face=_of_faces(of_photo, photos.row_of_face),
    )
    return _record_matches(result, DUPLICATES, photos=photos, matches=matches, radius=radius)


@dataclass(frozen=True)
class _CompetingFaces:
    """Which of the n faces of a workspace compete for places among their copies."""

    competing: np.ndarray
    """(n,) bool: False for faces that are excluded or in a duplicate photograph."""
    passing: np.ndarray
    """(n,) bool: faces that are in the set so far; they come first."""


def _apply_face_duplicates(
    workspace: Workspace, result: GateResult, faces: _CompetingFaces, radius: int
) -> None:
    """Drop faces that duplicate a better one."""
    measurements = result.measurements
    sizes_px = measurements.values_of("qsize_px")

    def rank(rows: np.ndarray, groups: np.ndarray) -> np.ndarray:
        index = pa.array(rows)
        copies = read_copies(
            workspace,
            measurements.photo_ids.take(index).to_pylist(),
            ids=measurements.face_ids.take(index).to_pylist(),
            passes=faces.passing[rows],
            face_px=sizes_px[rows],
            num_faces=measurements.values_of("faces_in_photo")[rows],
            pad_fractions=measurements.values_of("pad_fraction")[rows],
        )
        return rows[rank_copies(copies, groups)]

    hashes = FaceHashes(
        measurements.face_ids,
        *_crop_hashes(workspace, "crop_phash", "crop_phash_mirrored", "crop_fine_hash"),
    )
    duplicates = find_face_duplicates(hashes, faces.competing, radius, rank)
    matches = _index_matches(duplicates, measurements.face_ids)
    verdicts = _match_verdicts(
        "face",
        measurements.face_ids,
        list(duplicates.values()),
        matches,
        gate=DUPLICATE_FACES,
        radius=radius,
    )
    result.verdicts.append(verdicts)
    result.drop(matches >= 0, verdicts.reasons)


def _record_matches(
    result: GateResult, gate: str, *, photos: _Photos, matches: _Matches, radius: int
) -> np.ndarray:
    """Add verdicts on photographs and faces that match another picture, and drop these faces.

    A photograph that has neither a face nor a match gets no verdict.

    Returns:
        (n,) bool: the dropped faces.
    """
    photo_ids = text_array(photos.frame["photo_id"])
    rows = np.flatnonzero((matches.of_photo >= 0) | photos.has_face)
    of_photos = _match_verdicts(
        "photo",
        photo_ids.take(pa.array(rows)),
        matches.found,
        matches.of_photo[rows],
        gate=gate,
        radius=radius,
    )
    of_faces = _match_verdicts(
        "face",
        result.measurements.face_ids,
        matches.found,
        matches.of_face,
        gate=gate,
        radius=radius,
    )
    result.verdicts += [of_photos, of_faces]
    dropped = matches.of_face >= 0
    result.drop(dropped, of_faces.reasons)
    return dropped


def _match_verdicts(
    subject: Subject,
    ids: pa.Array,
    found: Sequence[Match],
    matches: np.ndarray,
    *,
    gate: str,
    radius: int,
) -> GateVerdicts:
    """Verdicts: dropped where there is a match, with the distance as the value.

    Args:
        subject: What the ids are.
        ids: (m,) string.
        found: The matches.
        matches: (m,) int: index into `found`, -1 for a picture without a match.
        gate: Name of the gate.
        radius: Largest number of differing bits of two perceptual hashes.
    """
    distances = np.array([*(match.distance for match in found), np.nan])
    return GateVerdicts(
        subject=subject,
        gate=gate,
        ids=ids,
        codes=np.where(matches < 0, _KEPT, _DROPPED),
        reasons=_lookup(matches, [match.reason for match in found]),
        fingerprint=fingerprint(gate=gate, radius=radius),
        values=distances[matches],
        threshold=float(radius),
    )


def _photo_verdicts(
    result: GateResult, reasons_of_faces: pa.Array, gates_fingerprint: str
) -> GateVerdicts:
    """Verdicts on photographs that have faces: the number of kept faces, or why all are dropped."""
    photos = result.measurements.photo_ids.dictionary_encode()
    photo_codes = photos.indices.to_numpy(zero_copy_only=False)
    counts = np.bincount(photo_codes, result.kept, len(photos.dictionary))

    rows = np.flatnonzero(counts[photo_codes] == 0)
    face_reasons = reasons_of_faces.take(pa.array(rows))
    reasons = _join_by_row([photo_codes[rows]], [face_reasons], len(counts), " | ")
    return GateVerdicts(
        subject="photo",
        gate=ANY_FACE,
        ids=photos.dictionary,
        codes=np.where(counts == 0, _DROPPED, _KEPT),
        reasons=pc.if_else(pa.array(counts == 0), reasons, None),
        fingerprint=gates_fingerprint,
        values=counts.astype(float),
        threshold=1.0,
    )


def _possible_minor_verdicts(workspace: Workspace, measurements: Measurements) -> GateVerdicts:
    """Verdicts `kept` with a reason, on faces that a person should check before they are used."""
    flags = possible_minors(workspace, measurements)
    return GateVerdicts(
        subject="face",
        gate=POSSIBLE_MINOR,
        ids=pa.array(list(flags), pa.string()),
        codes=np.full(len(flags), _KEPT),
        reasons=pa.array(list(flags.values()), pa.string()),
        fingerprint=fingerprint(gate=POSSIBLE_MINOR),
    )


def _lookup(codes: np.ndarray, names: list[str]) -> pa.DictionaryArray:
    """(m,) dictionary of strings: the name of each code; null for a negative code."""
    index = pa.array(codes, mask=codes < 0)
    return pa.DictionaryArray.from_arrays(index, pa.array(names, pa.string()))
