"""Verdicts on photographs that are rejected before their download, by metadata or by preview."""

from __future__ import annotations

from collections import Counter

import pyarrow as pa
import pyarrow.compute as pc

from authface_data.sources.protocol import RejectedPhoto
from manifests.schema import VERDICTS
from manifests.store import Store
from manifests.support.fingerprint import fingerprint
from manifests.verdicts import verdict_row
from manifests.workspace import Workspace

METADATA_GATE = "collect:metadata"
PREVIEW_GATE = "collect:preview"
COMMIT_ROWS = 256
MAX_REASON_LENGTH = 500


class RejectionLog:
    """Collects rejections and commits them to the verdicts manifest in batches.

    Args:
        workspace: The workspace.
    """

    def __init__(self, workspace: Workspace) -> None:
        self.store = Store(workspace, VERDICTS)
        self.counts: Counter[str] = Counter()
        """Number of rejections by gate."""
        self._rows: list[dict[str, object]] = []
        self._passed: dict[str, set[str]] = {METADATA_GATE: set(), PREVIEW_GATE: set()}

    def add(self, gate: str, rejected: RejectedPhoto) -> None:
        """Record that a gate rejected a photograph.

        Args:
            gate: METADATA_GATE or PREVIEW_GATE.
            rejected: The photograph and the reason.
        """
        row = verdict_row(
            "photo",
            rejected.photo_id,
            gate,
            "dropped",
            fingerprint=fingerprint(gate=gate, threshold=rejected.threshold),
            reason=rejected.reason[:MAX_REASON_LENGTH],
            value=rejected.value,
            threshold=rejected.threshold,
        )
        self._rows.append(row)
        self.counts[gate] += 1
        if len(self._rows) >= COMMIT_ROWS:
            self.commit()

    def mark_passed(self, gate: str, photo_id: str) -> None:
        """Note that a photograph passed a gate; `finish` removes its earlier rejections there.

        Args:
            gate: METADATA_GATE or PREVIEW_GATE.
            photo_id: The photograph.
        """
        self._passed[gate].add(photo_id)

    def commit(self) -> None:
        """Commit the rejections collected so far."""
        rows = self._rows
        self._rows = []  # before the commit: an interruption must not commit them twice
        self.store.append(rows)

    def finish(self) -> None:
        """Commit, and remove earlier rejections of photographs that pass now."""
        self.commit()
        passed = {gate: pa.array(sorted(ids), pa.string()) for gate, ids in self._passed.items()}

        def is_outdated(part: pa.Table) -> pa.Array:
            outdated_by_gate = [
                pc.and_(pc.equal(part["gate"], gate), pc.is_in(part["id"], ids))
                for gate, ids in passed.items()
            ]
            return pc.or_(*outdated_by_gate)

        self.store.compact(is_outdated)
