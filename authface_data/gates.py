"""Decisions over the whole set, from stored measurements: seconds for what took models hours to measure."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from authface_data.duplicates import Exclusions, Same, find_duplicates
from manifests.errors import UserMistake
from manifests.fingerprint import fingerprint
from manifests.ledger import ALL_GATES, ANY_FACE, last_decisions
from manifests.schema import FACES, PHOTOS, SCORES, VERDICTS
from manifests.settings import Gate
from manifests.store import Store
from manifests.workspace import Workspace

FAILS = {">=": "<", ">": "<=", "<=": ">", "<": ">=", "==": "!="}
NOTHING = np.array(None, object)
OF_STAGES = ("collect", "faces")  # besides those with a colon
DUPLICATES, EXCLUSION = "duplicates", "exclusion"
RESERVED = {ALL_GATES, ANY_FACE, DUPLICATES, EXCLUSION, *OF_STAGES}
MEASURED_COLUMNS = [name for name, kind in FACES.columns if pt.is_floating(kind) or pt.is_integer(kind) or pt.is_boolean(kind)]


def check(gates: list[Gate], metrics: list[str]) -> None:
    """Raises UserMistake for a gate that cannot work: an unknown measurement, a name used twice or reserved."""
    names = [gate.name for gate in gates]
    for gate in gates:
        if names.count(gate.name) > 1 or gate.name in RESERVED or ":" in gate.name:
            raise UserMistake(f"gate {gate.name!r}: choose another name (it is used twice, reserved, or has a colon)")
        if gate.metric not in metrics and gate.metric not in MEASURED_COLUMNS:
            known = ", ".join([*metrics, *MEASURED_COLUMNS])
            raise UserMistake(f"gate {gate.name!r} asks for {gate.metric!r}, which is not measured; there are {known}")


def decide(workspace: Workspace, gates: list[Gate]) -> None:
    """Judge every face at every gate, and every photo by its faces; the former judgements go in the same commit.

    A face lacking the measurement has `failed` there. Of photographs that are duplicates the best is kept: one with a face that
    passes, then the largest, then the sharpest. A face is kept if every gate keeps it, its photo is no duplicate, and
    neither is excluded; a photo if a face of it is kept.
    """
    faces = Store(workspace, FACES).read_pandas(["face_id", "photo_id", "crop_phash", *MEASURED_COLUMNS])
    measured = _measurements(workspace, faces)
    tables, kept = [], np.ones(len(faces), bool)
    reasons = pd.Series("", index=faces.index)
    for gate in gates:
        values = measured[gate.metric].to_numpy(float) if gate.metric in measured else np.full(len(faces), np.nan)
        passes, known = _compare(values, gate), np.isfinite(values)
        fails = f"{gate.metric} {FAILS[gate.op]} {gate.threshold:g}"
        verdict = np.where(passes, "kept", np.where(known, "dropped", "failed"))
        reason = np.where(passes, NOTHING, np.where(known, fails, f"no {gate.metric}"))
        mark = fingerprint(gate=gate.model_dump())
        tables.append(_verdicts("face", faces["face_id"], gate.name, verdict, reason, values, gate.threshold, mark))
        reasons[~passes] += np.where(known, fails, f"no {gate.metric}")[~passes] + "; "
        kept &= passes

    for name, of_faces, of_photos in _over_the_set(workspace, faces, measured, kept):
        of_photos = of_photos[of_photos.notna() | of_photos.index.isin(faces["photo_id"])]  # no face, and no other's: no matter
        radius = workspace.settings.filter.duplicate_radius
        mark = fingerprint(gate=name, radius=radius)
        for subject, told in (("photo", of_photos), ("face", of_faces)):
            drops, distance = told.notna().to_numpy(), np.full(len(told), np.nan)
            distance[drops] = [same.distance for same in told[drops]]
            words = np.array([getattr(same, "reason", None) for same in told], object)
            verdict = np.where(drops, "dropped", "kept")
            tables.append(_verdicts(subject, told.index.to_series(), name, verdict, words, distance, float(radius), mark))
            if subject == "face":
                reasons[drops] += pd.Series(words[drops], index=reasons[drops].index) + "; "
                kept &= ~drops

    mark = fingerprint(gates=[gate.model_dump() for gate in gates])
    words = reasons.str.removesuffix("; ").where(~pd.Series(kept, index=faces.index), None)
    verdict = np.where(kept, "kept", "dropped")
    tables.append(_verdicts("face", faces["face_id"], ALL_GATES, verdict, words, None, None, mark))

    photos = pd.Series(kept, index=faces["photo_id"]).groupby(level=0).sum()
    why: dict[str, list[str]] = {}  # joined by hand: pandas takes seconds for it where there are many photos
    for photo_id, word in zip(faces["photo_id"], words, strict=True):
        if isinstance(word, str):
            why.setdefault(photo_id, []).append(word)
    any_kept = photos.to_numpy() > 0
    why_none = np.where(any_kept, NOTHING, np.array([" | ".join(why.get(one, [])) for one in photos.index], object))
    verdict = np.where(any_kept, "kept", "dropped")
    counts = photos.to_numpy(float)
    tables.append(_verdicts("photo", photos.index.to_series(), ANY_FACE, verdict, why_none, counts, 1.0, mark))

    def former(part: pa.Table) -> pa.Array:
        # Everything but the verdicts of stages: gates that are no longer set are former too.
        by_stage = pc.or_(pc.is_in(part["gate"], pa.array(OF_STAGES)), pc.match_substring(part["gate"], ":"))
        return pc.invert(by_stage)

    Store(workspace, VERDICTS).compact(former, pa.concat_tables(tables))


def _over_the_set(
    workspace: Workspace, faces: pd.DataFrame, measured: pd.DataFrame, kept: np.ndarray
) -> list[tuple[str, pd.Series, pd.Series]]:
    """(gate, per face_id, per photo_id: what it is the same as, or None) of what is excluded, and of duplicates."""
    radius = workspace.settings.filter.duplicate_radius
    photos = Store(workspace, PHOTOS).read_pandas(["photo_id", "sha256", "phash", "pixel_hash", "width", "height"])
    gates = []
    passing = pd.Series(kept, index=faces["face_id"])
    decided = last_decisions(workspace).reindex(faces["face_id"])
    passing = (passing & (decided != "drop")) | (decided == "keep")
    exclusions = Exclusions.of(workspace)
    if exclusions:
        out = exclusions.find(photos, {"perceptual": "phash", "pixels": "pixel_hash", "file": "sha256"}, radius)
        crops = exclusions.find(faces[["face_id", "crop_phash"]], {"perceptual": "crop_phash"}, radius)
        of_photos, of_faces = _told(photos["photo_id"], out), _told(faces["face_id"], crops)
        inherited = _told(faces["photo_id"], out).to_numpy(object)
        of_faces = pd.Series([a or b for a, b in zip(of_faces, inherited, strict=True)], index=of_faces.index, dtype=object)
        gates.append((EXCLUSION, of_faces, of_photos))
        passing &= of_faces.isna()
    best = pd.DataFrame(
        {
            "photo_id": faces["photo_id"],
            "passes": passing.to_numpy(),
            "sharp": measured.get("sharpness", pd.Series(dtype=float)),
        }
    )
    best = best.groupby("photo_id").agg(passes=("passes", "any"), sharp=("sharp", "max"))
    passes, sharp = best["passes"].to_dict(), best["sharp"].to_dict()
    photos["passes"] = [bool(passes.get(photo_id, False)) for photo_id in photos["photo_id"]]
    photos["sharp"] = [float(sharp.get(photo_id, np.nan)) for photo_id in photos["photo_id"]]
    photos["pixels"] = photos["width"] * photos["height"]
    ranked = photos.sort_values(["passes", "pixels", "sharp", "photo_id"], ascending=[False, False, False, True])
    same = find_duplicates(ranked, radius)
    of_faces = _told(faces["photo_id"], same).set_axis(faces["face_id"])
    gates.append((DUPLICATES, of_faces, _told(photos["photo_id"], same)))
    return gates


def _told(ids: pd.Series, found: dict[str, Same]) -> pd.Series:
    return pd.Series([found.get(one) for one in ids], index=ids.to_numpy(object), dtype=object)


def _measurements(workspace: Workspace, faces: pd.DataFrame) -> pd.DataFrame:
    """Columns of `faces` and metrics of `scores`, one row per face, in the order of `faces`."""
    scores = Store(workspace, SCORES).read_pandas(["face_id", "metric", "value"])
    wide = scores.pivot(index="face_id", columns="metric", values="value").reindex(faces["face_id"])
    return pd.concat([faces[MEASURED_COLUMNS].astype(float), wide.reset_index(drop=True)], axis=1)


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


def _verdicts(subject, ids, gate, verdict, reason, values, threshold, mark) -> pa.Table:
    """Rows of `verdicts` as a table, one per id; values (n,) or None."""
    count, schema = len(ids), VERDICTS.schema.remove_metadata()
    columns = {
        "subject": np.full(count, subject, object),
        "id": ids.to_numpy(object),
        "gate": np.full(count, gate, object),
        "verdict": verdict,
        "reason": reason,
        "value": values,
        "threshold": None if threshold is None else np.full(count, threshold),
        "fingerprint": np.full(count, mark, object),
        "created_at": np.full(count, pd.Timestamp.now("UTC").to_datetime64()),
    }
    arrays = [
        pa.nulls(count, field.type)
        if columns[field.name] is None
        else pa.Array.from_pandas(columns[field.name], type=field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(arrays, schema=schema)
