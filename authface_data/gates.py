"""Gates: rules on stored measurements that keep or drop faces.

A gate compares one measurement of a face with a threshold, or keeps the best N faces by it. A
verdict is the result of one gate for one face or photograph: kept, dropped, or failed if the
measurement is missing. A decision is a person's keep or drop of a face; it overrides all verdicts.

Measuring takes models and hours; evaluating gates reads what was measured and takes seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from authface_data.duplicates import Exclusions, Match, find_duplicates
from authface_data.measurements import Measurements, read_measurements
from authface_data.minors import possible_minors
from manifests.decisions import face_decisions
from manifests.names import MEASURED_COLUMNS, QUALITY_MEASURES
from manifests.schema import PHOTOS, VERDICTS
from manifests.settings import Gate
from manifests.store import Store
from manifests.support.errors import UserError
from manifests.support.fingerprint import fingerprint
from manifests.verdicts import ALL_GATES, ANY_FACE, POSSIBLE_MINOR
from manifests.workspace import Workspace

DUPLICATES = "duplicates"
"""Gate that drops near-duplicates of a better photograph."""

EXCLUSION = "exclusion"
"""Gate that drops pictures named by `filter --exclude-hashes`."""

STAGE_GATES = ("collect", "faces")
"""Gate names under which stages record dropped and failed rows, besides `scores:METRIC` and others
with a colon."""

RESERVED_NAMES = {ALL_GATES, ANY_FACE, DUPLICATES, EXCLUSION, POSSIBLE_MINOR, *STAGE_GATES}
"""Gate names that authface.toml cannot use."""

_OPPOSITE = {">=": "<", ">": "<=", "<=": ">", "<": ">=", "==": "!="}
"""Comparison -> the comparison that a dropped value satisfies, for reasons."""

_VERDICT_NAMES = ["kept", "dropped", "failed"]
_KEPT = 0
_DROPPED = 1
_FAILED = 2


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


@dataclass
class GateResult:
    """Verdicts of all gates on all n faces of a workspace."""

    measurements: Measurements
    """Measurements of the n faces; the other arrays have the same order."""
    decisions: np.ndarray
    """(n,) int: the decision of a person that overrules the gates; 1 keep, -1 drop, 0 none."""
    kept: np.ndarray
    """(n,) bool: whether every gate keeps the face, regardless of decisions."""
    reasons: pa.Array
    """(n,) string: why gates drop the face, joined by "; "; null for kept faces."""
    verdicts: list[pa.Table] = field(default_factory=list)
    """Rows of `verdicts`, one table per gate and subject."""

    @property
    def in_set(self) -> np.ndarray:
        """Whether each face is in the set, decisions of people included.

        Returns:
            (n,) bool.
        """
        return (self.kept & (self.decisions >= 0)) | (self.decisions > 0)

    def drop(self, dropped: np.ndarray, reasons: pa.Array) -> None:
        """Drop faces and append to their reasons.

        Args:
            dropped: (n,) bool.
            reasons: (n,) string, null for faces that are not dropped.
        """
        joined = pc.binary_join_element_wise(self.reasons, reasons, "; ")  # null if either is null
        self.reasons = pc.coalesce(joined, self.reasons, reasons)
        self.kept &= ~dropped


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
        pa.concat_tables(result.verdicts),
        drops_whole_keys=True,
    )
    return result


def is_stage_verdict(table: pa.Table) -> pa.Array:
    """Find the rows of `verdicts` that a stage wrote, not a gate.

    Args:
        table: Rows of `verdicts`.

    Returns:
        (rows,) bool.
    """
    is_stage = pc.is_in(table["gate"], pa.array(STAGE_GATES))
    return pc.or_(is_stage, pc.match_substring(table["gate"], ":"))


def evaluate_gates(workspace: Workspace, gates: Sequence[Gate]) -> GateResult:
    """Evaluate every gate on every face, and every photograph by its faces. Nothing is stored.

    The gates run in this order:

    1. Gates with a threshold. A face without the measurement has the verdict failed.
    2. Exclusions and duplicates. Of duplicate photographs one is kept: one with a face that passes,
       then the largest, then the sharpest.
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
        reasons=pa.nulls(count, pa.string()),
    )

    for gate in gates:
        if gate.best is None:
            _apply_threshold(result, gate)
    _apply_exclusions_and_duplicates(workspace, result)
    for gate in gates:
        if gate.best is not None:
            _apply_best(result, gate, gate.best)

    gates_fingerprint = fingerprint(gates=[gate.model_dump(exclude_none=True) for gate in gates])
    result.verdicts.append(
        _verdict_table(
            subject="face",
            ids=measurements.face_ids,
            gate=ALL_GATES,
            codes=np.where(result.kept, _KEPT, _DROPPED),
            reasons=result.reasons,
            row_fingerprint=gates_fingerprint,
        )
    )
    result.verdicts.append(_photo_verdicts(result, gates_fingerprint))
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
        _verdict_table(
            subject="face",
            ids=ids,
            gate=gate.name,
            codes=verdicts.codes,
            reasons=_lookup(verdicts.codes - _DROPPED, reason_names),
            values=verdicts.values,
            threshold=verdicts.threshold,
            row_fingerprint=fingerprint(gate=gate.model_dump(exclude_none=True)),
        )
    )
    result.drop(all_codes != _KEPT, _lookup(all_codes - _DROPPED, reason_names))


@dataclass(frozen=True)
class _Photos:
    """The p photographs of a workspace, and which faces belong to them."""

    frame: pd.DataFrame
    """(p,) rows of `photos`: ids, hashes and sizes."""
    row_of_face: np.ndarray
    """(n,) int: row in `frame` of each face's photograph; p if the photograph is missing."""
    has_face: np.ndarray
    """(p,) bool."""


def _read_photos(workspace: Workspace, measurements: Measurements) -> _Photos:
    frame = Store(workspace, PHOTOS).read_pandas(
        ["photo_id", "sha256", "phash", "pixel_hash", "width", "height"]
    )
    rows = pc.index_in(measurements.photo_ids, pa.array(frame["photo_id"], pa.string()))
    row_of_face = pc.fill_null(rows, len(frame)).to_numpy(zero_copy_only=False)
    return _Photos(frame, row_of_face, np.isin(np.arange(len(frame)), row_of_face))


def _apply_exclusions_and_duplicates(workspace: Workspace, result: GateResult) -> None:
    """Drop excluded pictures, then duplicates among the photographs."""
    radius = workspace.settings.filter.duplicate_radius
    photos = _read_photos(workspace, result.measurements)
    passing = result.in_set
    exclusions = Exclusions.load(workspace)
    if exclusions:
        passing &= ~_apply_exclusions(result, photos, exclusions, radius)
    _apply_duplicates(result, photos, passing, radius)


def _apply_exclusions(
    result: GateResult, photos: _Photos, exclusions: Exclusions, radius: int
) -> np.ndarray:
    """Drop pictures whose photograph or crop is excluded.

    Returns:
        (n,) bool: the excluded faces.
    """
    measurements = result.measurements
    by_photo = exclusions.find(
        photos.frame, {"perceptual": "phash", "pixels": "pixel_hash", "file": "sha256"}, radius
    )
    crops = pd.DataFrame(
        {
            "id": measurements.face_ids.to_pylist(),
            "phash": measurements.crop_phashes.to_pylist(),
        }
    )
    by_face = exclusions.find(crops, {"perceptual": "phash"}, radius)

    face_matches = [
        by_face.get(face_id) or by_photo.get(photo_id)
        for face_id, photo_id in zip(crops["id"], measurements.photo_ids.to_pylist(), strict=True)
    ]
    photo_matches = [by_photo.get(photo_id) for photo_id in photos.frame["photo_id"]]
    return _record_matches(
        result,
        EXCLUSION,
        photos=photos,
        photo_matches=photo_matches,
        face_matches=face_matches,
        radius=radius,
    )


def _apply_duplicates(
    result: GateResult, photos: _Photos, passing: np.ndarray, radius: int
) -> None:
    """Drop the faces of photographs that duplicate a better one.

    Args:
        result: The result to extend.
        photos: The photographs.
        passing: (n,) bool: faces that are in the set so far; photographs with one come first.
        radius: Largest number of differing bits of two perceptual hashes.
    """
    frame, count = photos.frame, len(photos.frame)
    ranked = frame.assign(passes=False, sharp=np.nan, pixels=frame["width"] * frame["height"])
    if len(result.measurements):
        sharpness = np.nan_to_num(result.measurements.values_of("sharpness"), nan=-np.inf)
        sharpest = np.full(count + 1, -np.inf)
        np.maximum.at(sharpest, photos.row_of_face, sharpness)
        ranked["passes"] = np.bincount(photos.row_of_face, passing, count + 1)[:-1] > 0
        ranked["sharp"] = sharpest[:-1]
    ranked = ranked.sort_values(
        ["passes", "pixels", "sharp", "photo_id"], ascending=[False, False, False, True]
    )

    duplicates = find_duplicates(ranked, radius)
    photo_matches = [duplicates.get(photo_id) for photo_id in frame["photo_id"]]
    with_missing = [*photo_matches, None]  # the last entry is for faces without a photograph
    face_matches = [with_missing[row] for row in photos.row_of_face]
    _record_matches(
        result,
        DUPLICATES,
        photos=photos,
        photo_matches=photo_matches,
        face_matches=face_matches,
        radius=radius,
    )


def _record_matches(
    result: GateResult,
    gate: str,
    *,
    photos: _Photos,
    photo_matches: Sequence[Match | None],
    face_matches: Sequence[Match | None],
    radius: int,
) -> np.ndarray:
    """Add verdicts on photographs and faces that match another picture, and drop these faces.

    A photograph that has neither a face nor a match gets no verdict.

    Returns:
        (n,) bool: the dropped faces.
    """
    photo_rows = [
        row for row, match in enumerate(photo_matches) if match is not None or photos.has_face[row]
    ]
    photo_ids = pa.array(photos.frame["photo_id"], pa.string()).take(
        pa.array(photo_rows, pa.int64())
    )
    matches_of_photos = [photo_matches[row] for row in photo_rows]
    result.verdicts += [
        _match_verdicts("photo", photo_ids, matches_of_photos, gate=gate, radius=radius),
        _match_verdicts(
            "face", result.measurements.face_ids, face_matches, gate=gate, radius=radius
        ),
    ]

    dropped = np.array([match is not None for match in face_matches], bool)
    result.drop(dropped, _match_reasons(face_matches))
    return dropped


def _match_verdicts(
    subject: str, ids: pa.Array, matches: Sequence[Match | None], *, gate: str, radius: int
) -> pa.Table:
    """Rows of `verdicts`: dropped where there is a match, with the distance as the value."""
    distances = [match.distance if match is not None else np.nan for match in matches]
    codes = [_KEPT if match is None else _DROPPED for match in matches]
    return _verdict_table(
        subject=subject,
        ids=ids,
        gate=gate,
        codes=np.array(codes, int),
        reasons=_match_reasons(matches),
        values=np.array(distances, float),
        threshold=float(radius),
        row_fingerprint=fingerprint(gate=gate, radius=radius),
    )


def _match_reasons(matches: Sequence[Match | None]) -> pa.Array:
    """(m,) string, null for a picture without a match."""
    return pa.array([match.reason if match is not None else None for match in matches], pa.string())


def _photo_verdicts(result: GateResult, gates_fingerprint: str) -> pa.Table:
    """Verdicts on photographs that have faces: the number of kept faces, or why all are dropped."""
    photos = result.measurements.photo_ids.dictionary_encode()
    photo_codes = photos.indices.to_numpy(zero_copy_only=False)
    counts = np.bincount(photo_codes, result.kept, len(photos.dictionary))

    reasons_of_photo: dict[int, list[str]] = {}
    rows = np.flatnonzero(counts[photo_codes] == 0)
    face_reasons = result.reasons.take(pa.array(rows)).to_pylist()
    for row, reason in zip(rows, face_reasons, strict=True):
        reasons_of_photo.setdefault(photo_codes[row], []).append(reason)
    reasons = [
        " | ".join(reasons_of_photo[code]) if code in reasons_of_photo else None
        for code in range(len(counts))
    ]

    return _verdict_table(
        subject="photo",
        ids=photos.dictionary,
        gate=ANY_FACE,
        codes=np.where(counts == 0, _DROPPED, _KEPT),
        reasons=pa.array(reasons, pa.string()),
        values=counts.astype(float),
        threshold=1.0,
        row_fingerprint=gates_fingerprint,
    )


def _possible_minor_verdicts(workspace: Workspace, measurements: Measurements) -> pa.Table:
    """Verdicts `kept` with a reason, on faces that a person should check before they are used."""
    flags = possible_minors(workspace, measurements)
    return _verdict_table(
        subject="face",
        ids=pa.array(list(flags), pa.string()),
        gate=POSSIBLE_MINOR,
        codes=np.full(len(flags), _KEPT),
        reasons=pa.array(list(flags.values()), pa.string()),
        row_fingerprint=fingerprint(gate=POSSIBLE_MINOR),
    )


def _verdict_table(
    *,
    subject: str,
    ids: pa.Array,
    gate: str,
    codes: np.ndarray,
    reasons: pa.Array,
    row_fingerprint: str,
    values: np.ndarray | None = None,
    threshold: float | None = None,
) -> pa.Table:
    """Rows of `verdicts`, one per id.

    Args:
        subject: "photo" or "face".
        ids: (m,) string.
        gate: Name of the gate.
        codes: (m,) int: index into `_VERDICT_NAMES`.
        reasons: (m,) string, null for kept rows.
        row_fingerprint: Fingerprint of the gate's settings.
        values: (m,) float64; NaN becomes null.
        threshold: The gate's threshold; NaN becomes null.
    """
    count = len(ids)
    schema = VERDICTS.schema.remove_metadata()
    now = pa.scalar(pd.Timestamp.now("UTC").to_pydatetime(), schema.field("created_at").type)
    value_column = pa.nulls(count, pa.float64())
    if values is not None:
        value_column = pa.array(values, pa.float64(), from_pandas=True)
    threshold_column = pa.nulls(count, pa.float64())
    if threshold is not None:
        threshold_column = pa.array(np.full(count, threshold), pa.float64(), from_pandas=True)

    columns = {
        "subject": pa.repeat(subject, count),
        "id": ids,
        "gate": pa.repeat(gate, count),
        "verdict": _lookup(codes, _VERDICT_NAMES),
        "reason": reasons,
        "value": value_column,
        "threshold": threshold_column,
        "fingerprint": pa.repeat(row_fingerprint, count),
        "created_at": pa.repeat(now, count),
    }
    return pa.Table.from_arrays([columns[name] for name in schema.names], schema=schema)


def _lookup(codes: np.ndarray, names: list[str]) -> pa.Array:
    """(m,) string: the name of each code; null for a negative code."""
    index = pa.array(codes, pa.int32(), mask=codes < 0)
    return pa.DictionaryArray.from_arrays(index, pa.array(names, pa.string())).cast(pa.string())
