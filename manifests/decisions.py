"""Decisions of people: which of them are in force for faces and for tags."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import pandas as pd

from manifests.schema import DECISIONS
from manifests.store import Store
from manifests.workspace import Workspace

TAG_ID_PREFIX = "tag:"
"""Prefix of the id of a decision about a tag in all captions. Other ids are face ids."""


@dataclass(frozen=True)
class TagDecision:
    """A person's decision to rename or remove a tag in all captions.

    Attributes:
        tag: The tag in lower case.
        renamed_to: The new tag, or None if the tag is removed.
        decided_at: When the decision was made. It does not apply to tags edited later.
    """

    tag: str
    renamed_to: str | None
    decided_at: datetime


def last_decisions(workspace: Workspace) -> pd.Series:
    """Read the decision in force for each face.

    The newest `keep` or `drop` wins. `unsure` decides nothing, but it withdraws the earlier
    decision of the same reviewer.

    Returns:
        "keep" or "drop", indexed by face_id. Faces without a decision are left out.
    """
    decisions = Store(workspace, DECISIONS).read_pandas(
        ["id", "reviewer", "decision", "decided_at"]
    )
    decisions = decisions.dropna(subset=["decision"]).sort_values("decided_at", kind="stable")
    decisions = decisions.drop_duplicates(["id", "reviewer"], keep="last")
    decisions = decisions[decisions["decision"].isin(["keep", "drop"])]
    return decisions.groupby("id")["decision"].last()


def tag_decisions(workspace: Workspace) -> list[TagDecision]:
    """Read the decisions in force for tags.

    Returns:
        The last decision of each tag, oldest first. A tag whose last decision is `keep` is left
        out: it withdraws an earlier one.
    """
    decisions = Store(workspace, DECISIONS).read_pandas(
        ["id", "decision", "renamed_to", "decided_at"]
    )
    decisions = decisions[decisions["id"].str.startswith(TAG_ID_PREFIX)]
    decisions = decisions.sort_values("decided_at", kind="stable")
    decisions = decisions.drop_duplicates("id", keep="last")
    decisions = decisions[decisions["decision"] == "drop"]
    return [
        TagDecision(
            tag=row.id.removeprefix(TAG_ID_PREFIX),
            renamed_to=row.renamed_to if isinstance(row.renamed_to, str) else None,
            decided_at=row.decided_at,
        )
        for row in decisions.itertuples()
    ]
