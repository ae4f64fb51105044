"""Verdicts on photographs that were refused before they were downloaded: by what their source says, or by their preview."""

from __future__ import annotations

from collections import Counter

import pyarrow as pa
import pyarrow.compute as pc

from manifests.schema import VERDICTS
from manifests.store import Store
from manifests.support.fingerprint import fingerprint
from manifests.verdicts import verdict_row
from manifests.workspace import Workspace

METADATA, PREVIEW = "collect:metadata", "collect:preview"
COMMIT_ROWS = 256


class Refusals:
    """Gathers refusals and commits them in batches. A photograph that passes now loses what refused it before."""

    def __init__(self, workspace: Workspace):
        self.store = Store(workspace, VERDICTS)
        self.count: Counter[str] = Counter()
        self._rows: list[dict] = []
        self._passed: dict[str, set[str]] = {METADATA: set(), PREVIEW: set()}

    def refuse(
        self,
        photo_id: str,
        gate: str,
        reason: str,
        value: float | None = None,
        threshold: float | None = None,
    ) -> None:
        mark = fingerprint(gate=gate, threshold=threshold)
        self._rows.append(
            verdict_row(
                "photo",
                photo_id,
                gate,
                "dropped",
                fingerprint=mark,
                reason=reason[:500],
                value=value,
                threshold=threshold,
            )
        )
        self.count[gate] += 1
        if len(self._rows) >= COMMIT_ROWS:
            self.commit()

    def passed(self, photo_id: str, gate: str) -> None:
        self._passed[gate].add(photo_id)

    def commit(self) -> None:
        rows, self._rows = self._rows, []
        self.store.append(rows)

    def settle(self) -> None:
        """At the end: commit, and remove the refusals of what has passed since."""
        self.commit()
        passed = {gate: pa.array(sorted(ids), pa.string()) for gate, ids in self._passed.items()}

        def outdated(part: pa.Table) -> pa.Array:
            of_gate = [
                pc.and_(pc.equal(part["gate"], gate), pc.is_in(part["id"], ids))
                for gate, ids in passed.items()
            ]
            return pc.or_(*of_gate)

        self.store.compact(outdated)
