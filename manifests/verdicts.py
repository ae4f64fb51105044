"""Verdicts of stages and gates, and the faces that verdicts and people's decisions keep.

A verdict is `kept`, `dropped` or `failed`, and belongs to one subject (a photo or a face) at one
gate. A stage that drops or fails a row is a gate with the stage's name. Decisions of people
(decisions.py) overrule verdicts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from manifests.decisions import face_decisions
from manifests.schema import FACES, VERDICTS
from manifests.store import RowFilter, Store, match_encoded
from manifests.workspace import Workspace

Subject = Literal["photo", "face"]
Verdict = Literal["kept", "dropped", "failed"]

ALL_GATES = "all_gates"
"""Gate of the overall verdict of a face. A face without it has not been gated yet."""
ANY_FACE = "any_face"
"""Gate of the overall verdict of a photo: whether any of its faces is kept."""
POSSIBLE_MINOR = "possible_minor"
"""Gate that flags faces for review by a person. It drops no face."""
DUPLICATE_PREFIX = "duplicate_of:"
"""Prefix of the reason of a photo that is dropped as a duplicate; the other photo_id follows."""
DUPLICATE_FACE_PREFIX = "duplicate_face_of:"
"""Prefix of the reason of a face that is dropped as a duplicate; the other face_id follows."""


def verdict_row(
    subject: Subject,
    id: str,
    gate: str,
    verdict: Verdict,
    *,
    fingerprint: str,
    reason: str | None = None,
    value: float | None = None,
    threshold: float | None = None,
) -> dict[str, object]:
    """Build a row of `verdicts`.

    Args:
        subject: What the verdict is about.
        id: The photo_id or face_id.
        gate: Name of the gate.
        verdict: The verdict.
        fingerprint: Fingerprint of the settings that led to the verdict.
        reason: Why the subject was dropped or failed.
        value: The measured value that decided.
        threshold: The threshold that the value was compared with.

    Returns:
        The row, without `created_at`.
    """
    return {
        "subject": subject,
        "id": id,
        "gate": gate,
        "verdict": verdict,
        "reason": reason,
        "value": value,
        "threshold": threshold,
        "fingerprint": fingerprint,
    }


def kept_faces(workspace: Workspace, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Read the faces that are kept.

    A face is kept if every gate keeps it or a person keeps it, and no person drops it. Decisions
    hold for pictures, see `decisions.face_decisions`.

    Args:
        workspace: The workspace to read.
        columns: Columns of `faces` to read besides face_id. Default: all.

    Returns:
        One row per kept face.
    """
    face_columns = None if columns is None else list(dict.fromkeys(["face_id", *columns]))
    face_ids = Store(workspace, FACES).read(["face_id"])["face_id"]
    kept_ids = face_ids.filter(pa.array(find_kept(workspace, face_ids)))
    only_kept = RowFilter("face_id", partial(pc.is_in, value_set=kept_ids))
    return Store(workspace, FACES).read(face_columns, only_kept).to_pandas()


def find_kept(workspace: Workspace, face_ids: pa.ChunkedArray) -> np.ndarray:
    """Find the kept ones among faces, see `kept_faces`.

    Args:
        workspace: The workspace to read.
        face_ids: (n,) string.

    Returns:
        (n,) bool.
    """
    verdicts = Store(workspace, VERDICTS).read(
        ["id", "verdict"], RowFilter.equal("gate", ALL_GATES), encoded=["verdict"]
    )
    is_kept = match_encoded(verdicts["verdict"], lambda values: pc.equal(values, "kept"))
    kept_by_gates = verdicts["id"].filter(pa.array(is_kept)).combine_chunks()
    overruling = {
        face_id: decision.decision
        for face_id, decision in face_decisions(workspace).items()
        if decision.overrules_gates
    }
    kept_by_person = _ids_decided(overruling, "keep")
    dropped_by_person = _ids_decided(overruling, "drop")

    kept = pc.is_in(face_ids, kept_by_gates)
    kept = pc.and_(kept, pc.invert(pc.is_in(face_ids, dropped_by_person)))
    kept = pc.or_(kept, pc.is_in(face_ids, kept_by_person))
    return kept.to_numpy()


def _ids_decided(decisions: Mapping[str, str], wanted: str) -> pa.Array:
    ids = [face_id for face_id, decision in decisions.items() if decision == wanted]
    return pa.array(ids, pa.string())
