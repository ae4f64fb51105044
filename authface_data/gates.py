"""Decisions over the whole set, from stored measurements: seconds for what took models hours to measure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from authface_data.duplicates import Exclusions, Same, find_duplicates
from authface_data.measurements import COLUMNS, Measurements, measurements
from authface_data.minors import possible_minors
from manifests.schema import PHOTOS, VERDICTS
from manifests.settings import Gate
from manifests.store import Store
from manifests.support.errors import UserError
from manifests.support.fingerprint import fingerprint
from manifests.verdicts import ALL_GATES, ANY_FACE, POSSIBLE_MINOR, last_decisions
from manifests.workspace import Workspace

FAILS = {">=": "<", ">": "<=", "<=": ">", "<": ">=", "==": "!="}
OF_STAGES = ("collect", "faces")  # besides those with a colon
DUPLICATES, EXCLUSION = "duplicates", "exclusion"
RESERVED = {ALL_GATES, ANY_FACE, DUPLICATES, EXCLUSION, POSSIBLE_MINOR, *OF_STAGES}


def check(gates: list[Gate], metrics: list[str]) -> None:
    """Raises UserError for a gate that cannot work: an unknown measurement, a name used twice or reserved."""
    names = [gate.name for gate in gates]
    for gate in gates:
        if names.count(gate.name) > 1 or gate.name in RESERVED or ":" in gate.name:
            raise UserError(
                f"gate {gate.name!r}: choose another name (it is used twice, reserved, or has a colon)"
            )
        if gate.metric not in metrics and gate.metric not in COLUMNS:
            known = ", ".join([*metrics, *COLUMNS])
            raise UserError(
                f"gate {gate.name!r} asks for {gate.metric!r}, which is not measured; there are {known}"
            )


@dataclass
class Judgement:
    """tables: rows of `verdicts`; kept: (n,) bool, by the gates alone; reasons: (n,) string, null for the kept; measured: of
    the faces, in the same order; decided: (n,) int, what people said last of each: 1 keep, -1 drop, 0 nothing."""

    tables: list[pa.Table]
    kept: np.ndarray
    reasons: pa.Array
    measured: Measurements
    decided: np.ndarray

    @property
    def in_the_set(self) -> np.ndarray:
        """(n,) bool: what is kept when people have had the last word."""
        return (self.kept & (self.decided >= 0)) | (self.decided > 0)


def decide(workspace: Workspace, gates: list[Gate]) -> Judgement:
    """Judge everything and write it down; the former judgements go in the same commit."""

    judgement = judge(workspace, gates)
    # Everything but the verdicts of stages is former: gates that are no longer set are too.
    Store(workspace, VERDICTS).compact(
        lambda part: pc.invert(by_stage(part)),
        pa.concat_tables(judgement.tables),
        drops_whole_keys=True,
    )
    return judgement


def by_stage(part: pa.Table) -> pa.Array:
    """Which verdicts are a stage's, not a gate's."""
    return pc.or_(
        pc.is_in(part["gate"], pa.array(OF_STAGES)), pc.match_substring(part["gate"], ":")
    )


def judge(workspace: Workspace, gates: list[Gate]) -> Judgement:
    """Judge every face at every gate, and every photo by its faces.

    A face lacking the measurement has `failed` there. Of photographs that are duplicates the best is kept: one with a face that
    passes, then the largest, then the sharpest. Gates of the best N come last, among those that everything else keeps. A
    face is kept if every gate keeps it, its photo is no duplicate, and neither is excluded; a photo if a face of it is kept.
    Decisions of people count where faces compete: who was dropped takes no place, who was kept has one.
    """
    measured = measurements(workspace)
    count, decided = len(measured), _decided(workspace, measured)
    judgement = Judgement([], np.ones(count, bool), pa.nulls(count, pa.string()), measured, decided)
    for gate in (gate for gate in gates if gate.best is None):
        values = measured.of(gate.metric)
        passes, known = _compare(values, gate), np.isfinite(values)
        codes = np.where(passes, -1, np.where(known, 0, 1))
        words = [f"{gate.metric} {FAILS[gate.op]} {gate.threshold:g}", f"no {gate.metric}"]
        _record(judgement, gate, np.arange(count), codes, words, values, float(gate.threshold or 0))
    _over_the_set(workspace, judgement)
    for gate in (gate for gate in gates if gate.best is not None):
        _best(judgement, gate)
    mark = fingerprint(gates=[gate.model_dump(exclude_none=True) for gate in gates])
    verdict = _words(np.where(judgement.kept, 0, 1), ["kept", "dropped"])
    judgement.tables.append(
        verdicts("face", measured.face_ids, ALL_GATES, verdict, judgement.reasons, None, None, mark)
    )
    judgement.tables.append(_photos(judgement, mark))
    judgement.tables.append(_flags(workspace, measured))
    return judgement


def _decided(workspace: Workspace, measured: Measurements) -> np.ndarray:
    """As in `Judgement`."""
    last = last_decisions(workspace)
    said = np.zeros(len(measured), int)
    if len(last):
        rows = pc.index_in(pa.array(last.index, pa.string()), measured.face_ids).to_numpy(
            zero_copy_only=False
        )
        there = np.isfinite(rows.astype(float))
        said[rows[there].astype(int)] = np.where(last[there] == "keep", 1, -1)
    return said


def _compare(values: np.ndarray, gate: Gate) -> np.ndarray:
    """(n,) bool; a value that is not there passes nothing."""
    with np.errstate(invalid="ignore"):
        return {
            ">=": values >= gate.threshold,
            ">": values > gate.threshold,
            "<=": values <= gate.threshold,
            "<": values < gate.threshold,
            "==": values == gate.threshold,
        }[gate.op]


def _record(
    judgement: Judgement,
    gate: Gate,
    rows: np.ndarray,
    codes: np.ndarray,
    words: list[str],
    values: np.ndarray,
    threshold: float,
) -> None:
    """Write a gate's verdicts of some faces. codes: -1 kept, else which of the words; 1 means that there is no measurement."""
    reasons, ids = _words(codes, words), judgement.measured.face_ids
    verdict = _words(codes + 1, ["kept", "dropped", "failed"])
    mark = fingerprint(gate=gate.model_dump(exclude_none=True))
    if len(rows) < len(ids):
        ids = ids.take(pa.array(rows))
    judgement.tables.append(
        verdicts("face", ids, gate.name, verdict, reasons, values, threshold, mark)
    )
    every = np.full(len(judgement.kept), -1)
    every[rows] = codes
    _drop(judgement, every >= 0, _words(every, words))


def _drop(judgement: Judgement, drops: np.ndarray, words: pa.Array) -> None:
    """Faces out, with what is said of them added to their reasons."""
    former = judgement.reasons
    both = pc.binary_join_element_wise(former, words, "; ")  # null where either is
    judgement.reasons = pc.coalesce(both, former, words)
    judgement.kept &= ~drops


def _best(judgement: Judgement, gate: Gate) -> None:
    """The best N by a metric of the faces that everything so far keeps; the verdict is by merit, whatever people said.

    Who was kept by a person has one of the N places, who was dropped by one takes none: so the cut, the value of the last that
    is in, is found among those whom nobody has decided on.
    """
    assert gate.best is not None
    contend, decided = np.flatnonzero(judgement.kept), judgement.decided
    sign = -1.0 if gate.op == ">=" else 1.0
    values = sign * judgement.measured.of(gate.metric)[contend]  # less is better
    known, open_ = np.isfinite(values), decided[contend] == 0
    names = (
        judgement.measured.face_ids.take(pa.array(contend))
        .to_numpy(zero_copy_only=False)
        .astype(str)
    )
    places = max(gate.best - int((decided > 0).sum()), 0)
    order = [
        row
        for row in np.lexsort((names, np.where(known, values, np.inf)))
        if open_[row] and known[row]
    ]
    inside = np.zeros(len(contend), bool)
    inside[order[:places]] = True
    cut = values[order[:places][-1]] if order[:places] else np.nan
    inside |= ~open_ & known & (values <= cut)
    codes = np.where(inside, -1, np.where(known, 0, 1))
    words = [f"not among the best {gate.best} by {gate.metric}", f"no {gate.metric}"]
    _record(judgement, gate, contend, codes, words, sign * values, sign * cut)


def _over_the_set(workspace: Workspace, judgement: Judgement) -> None:
    """What is excluded, and duplicates: of photographs, and of the faces in them."""
    radius, measured = workspace.settings.filter.duplicate_radius, judgement.measured
    photos = Store(workspace, PHOTOS).read_pandas(
        ["photo_id", "sha256", "phash", "pixel_hash", "width", "height"]
    )
    rows = pc.index_in(measured.photo_ids, pa.array(photos["photo_id"], pa.string()))
    of_face = pc.fill_null(rows, len(photos)).to_numpy(
        zero_copy_only=False
    )  # a face without its photo: one beyond the last
    passing = judgement.in_the_set
    has_face = np.isin(np.arange(len(photos)), of_face)
    exclusions = Exclusions.of(workspace)
    if exclusions:
        out = exclusions.find(
            photos, {"perceptual": "phash", "pixels": "pixel_hash", "file": "sha256"}, radius
        )
        crops = pd.DataFrame(
            {"id": measured.face_ids.to_pylist(), "phash": measured.crop_phashes.to_pylist()}
        )
        found = exclusions.find(crops, {"perceptual": "phash"}, radius)
        photo_ids = measured.photo_ids.to_pylist()
        told = [
            found.get(face) or out.get(photo)
            for face, photo in zip(crops["id"], photo_ids, strict=True)
        ]
        passing &= np.array([one is None for one in told], bool)
        _same(
            judgement,
            EXCLUSION,
            told,
            photos["photo_id"],
            [out.get(one) for one in photos["photo_id"]],
            has_face,
            radius,
        )
    ranked = photos.assign(passes=False, sharp=np.nan, pixels=photos["width"] * photos["height"])
    if len(measured):
        ranked["passes"] = np.bincount(of_face, passing, len(photos) + 1)[:-1] > 0
        sharp = np.full(len(photos) + 1, -np.inf)
        np.maximum.at(sharp, of_face, np.nan_to_num(measured.of("sharpness"), nan=-np.inf))
        ranked["sharp"] = sharp[:-1]
    ranked = ranked.sort_values(
        ["passes", "pixels", "sharp", "photo_id"], ascending=[False, False, False, True]
    )
    same = find_duplicates(ranked, radius)
    of_photos = [same.get(one) for one in photos["photo_id"]]
    beyond = [*of_photos, None]
    of_faces = [beyond[row] for row in of_face]
    _same(judgement, DUPLICATES, of_faces, photos["photo_id"], of_photos, has_face, radius)


def _same(
    judgement: Judgement,
    gate: str,
    of_faces: list[Same | None],
    photo_ids: pd.Series,
    of_photos: list[Same | None],
    has_face: np.ndarray,
    radius: int,
) -> None:
    """Write down what is the same as something else. A photo without a face, and no other's, has no verdict."""
    mark = fingerprint(gate=gate, radius=radius)
    chosen = [row for row, one in enumerate(of_photos) if one is not None or has_face[row]]
    photos = pa.array(photo_ids, pa.string()).take(pa.array(chosen, pa.int64()))
    for subject, ids, told in (
        ("photo", photos, [of_photos[row] for row in chosen]),
        ("face", judgement.measured.face_ids, of_faces),
    ):
        drops = np.array([one is not None for one in told], bool)
        words = pa.array([one.reason if one else None for one in told], pa.string())
        distance = np.array([one.distance if one else np.nan for one in told], float)
        verdict = _words(drops.astype(int), ["kept", "dropped"])
        judgement.tables.append(
            verdicts(subject, ids, gate, verdict, words, distance, float(radius), mark)
        )
        if subject == "face":
            _drop(judgement, drops, words)


def _photos(judgement: Judgement, mark: str) -> pa.Table:
    """The verdict on each photo that has faces: how many of them are kept, and why none is."""
    photos = judgement.measured.photo_ids.dictionary_encode()
    codes = photos.indices.to_numpy(zero_copy_only=False)
    counts = np.bincount(codes, judgement.kept, len(photos.dictionary))
    why: dict[int, list[str]] = {}
    lost = np.flatnonzero(counts[codes] == 0)
    for row, words in zip(lost, judgement.reasons.take(pa.array(lost)).to_pylist(), strict=True):
        why.setdefault(codes[row], []).append(words)
    reasons = pa.array(
        [" | ".join(why[code]) if code in why else None for code in range(len(counts))], pa.string()
    )
    verdict = _words((counts == 0).astype(int), ["kept", "dropped"])
    return verdicts(
        "photo", photos.dictionary, ANY_FACE, verdict, reasons, counts.astype(float), 1.0, mark
    )


def _flags(workspace: Workspace, measured: Measurements) -> pa.Table:
    """Faces that people should look at before they are used: kept as they are, with a reason."""
    flags = possible_minors(workspace, measured)
    kept, reasons = (
        pa.array(["kept"] * len(flags), pa.string()),
        pa.array(list(flags.values()), pa.string()),
    )
    ids = pa.array(list(flags), pa.string())
    return verdicts(
        "face", ids, POSSIBLE_MINOR, kept, reasons, None, None, fingerprint(gate=POSSIBLE_MINOR)
    )


def _words(codes: np.ndarray, words: list[str]) -> pa.Array:
    """(n,) string: the word of each code, null for -1."""
    index = pa.array(codes, pa.int32(), mask=codes < 0)
    return pa.DictionaryArray.from_arrays(index, pa.array(words, pa.string())).cast(pa.string())


def verdicts(
    subject: str,
    ids: pa.Array,
    gate: str,
    verdict: pa.Array,
    reasons: pa.Array,
    values: np.ndarray | None,
    threshold: float | None,
    mark: str,
) -> pa.Table:
    """Rows of `verdicts` as a table, one per id; values (n,), NaN where there is none."""
    count, schema = len(ids), VERDICTS.schema.remove_metadata()
    now = pa.scalar(pd.Timestamp.now("UTC").to_pydatetime(), schema.field("created_at").type)
    columns = {
        "subject": pa.repeat(subject, count),
        "id": ids,
        "gate": pa.repeat(gate, count),
        "verdict": verdict,
        "reason": reasons,
        "value": pa.nulls(count, pa.float64())
        if values is None
        else pa.array(values, pa.float64(), from_pandas=True),
        "threshold": pa.array(
            [threshold] * count if threshold is None else np.full(count, threshold),
            pa.float64(),
            from_pandas=True,
        ),
        "fingerprint": pa.repeat(mark, count),
        "created_at": pa.repeat(now, count),
    }
    return pa.Table.from_arrays([columns[name] for name in schema.names], schema=schema)
