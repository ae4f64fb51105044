"""The ledger: verdicts of machines, decisions of people, and what the two together keep.

A verdict is `kept`, `dropped` or `failed`, of one subject (a photo or a face) at one gate; a stage that drops or fails a row
is a gate of the stage's name. A decision is a person's `keep`, `drop` or `unsure`, and has the last word.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from manifests.schema import DECISIONS, FACES, VERDICTS
from manifests.store import Store
from manifests.workspace import Workspace

Subject = Literal["photo", "face"]
Verdict = Literal["kept", "dropped", "failed"]

# Written for every face that the gates have judged: without it a face is not yet part of any set.
ALL_GATES = "all_gates"
# Written for every photo whose faces have been judged.
ANY_FACE = "any_face"
# Written for faces that a person should look at: kept all the same.
POSSIBLE_MINOR = "possible_minor"
# How the id of a decision begins that is about a tag in all captions, not about a face.
TAG_ID_PREFIX = "tag:"
# How the reason begins of a photo that is dropped for another.
DUPLICATE_PREFIX = "duplicate_of:"


def verdict_row(
    subject: Subject,
    id: str,
    gate: str,
    verdict: Verdict,
    fingerprint: str,
    reason: str | None = None,
    value: float | None = None,
    threshold: float | None = None,
) -> dict:
    """One row of `verdicts`."""
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


def last_decisions(workspace: Workspace) -> pd.Series:
    """The newest keep or drop of each face, index face_id. `unsure` decides nothing, and takes back its reviewer's own."""
    frame = Store(workspace, DECISIONS).read_pandas(["id", "reviewer", "decision", "decided_at"])
    frame = frame.dropna(subset=["decision"]).sort_values("decided_at", kind="stable")
    frame = frame.drop_duplicates(["id", "reviewer"], keep="last")
    return frame[frame["decision"].isin(["keep", "drop"])].groupby("id")["decision"].last()


@dataclass(frozen=True)
class TagDecision:
    """What a person decided about a tag in all captions: renamed_to None means that it goes."""

    tag: str
    renamed_to: str | None
    decided_at: datetime


def tag_decisions(workspace: Workspace) -> list[TagDecision]:
    """The decisions about tags that stand, the last of each tag, oldest first; `keep` takes an earlier one back."""
    frame = Store(workspace, DECISIONS).read_pandas(["id", "decision", "renamed_to", "decided_at"])
    frame = frame[frame["id"].str.startswith(TAG_ID_PREFIX)].sort_values(
        "decided_at", kind="stable"
    )
    frame = frame.drop_duplicates("id", keep="last")
    frame = frame[frame["decision"] == "drop"]
    return [
        TagDecision(
            row.id.removeprefix(TAG_ID_PREFIX),
            row.renamed_to if isinstance(row.renamed_to, str) else None,
            row.decided_at,
        )
        for row in frame.itertuples()
    ]


def kept_faces(workspace: Workspace, columns: list[str] | None = None) -> pd.DataFrame:
    """Rows of `faces` that every gate kept, or that a person kept; none that a person dropped. Columns: all, or those named."""
    wanted = None if columns is None else list(dict.fromkeys(["face_id", *columns]))
    faces = Store(workspace, FACES).read(wanted)
    verdicts = Store(workspace, VERDICTS).read(
        ["id", "verdict"], lambda part: pc.equal(part["gate"], ALL_GATES)
    )
    chosen = verdicts.filter(pc.equal(verdicts["verdict"], "kept"))
    kept = pc.is_in(faces["face_id"], chosen["id"].combine_chunks())
    decided = last_decisions(workspace)
    for decision, join in (("drop", lambda a, b: pc.and_(a, pc.invert(b))), ("keep", pc.or_)):
        kept = join(
            kept,
            pc.is_in(faces["face_id"], pa.array(decided.index[decided == decision], pa.string())),
        )
    return faces.filter(kept).to_pandas()
