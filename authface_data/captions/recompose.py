"""Composes stored captions again after settings, vocabulary or measurements have changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from authface_data.captions.compose import caption_from_answers, compose_caption, visible_tags
from authface_data.captions.measured.measurement import Measurement
from authface_data.captions.vocabulary import vocabulary_text
from manifests.schema import CAPTIONS
from manifests.settings import Captions
from manifests.store import Store
from manifests.support.fingerprint import fingerprint
from manifests.workspace import Workspace

VERSION = 1
"""Version of the rules in compose.py and normalise_tags.py. Increase it when they change."""


def recompose(workspace: Workspace) -> int:
    """Compose every caption whose inputs have changed, from stored answers, without a model.

    Args:
        workspace: The workspace; its captions are updated.

    Returns:
        The number of captions whose content changed.
    """
    store = Store(workspace, CAPTIONS)
    settings = workspace.settings.captions
    rows = store.read().to_pylist()
    measurements_of = {
        row["face_id"]: row["measurements"] or [] for row in rows if row["captioner"] == "measured"
    }
    rules = _rules_fingerprint(settings)

    updated_rows = []
    changed_count = 0
    for row in rows:
        measurements = measurements_of.get(row["face_id"], [])
        # The names of the arguments are part of stored fingerprints: do not rename them.
        composition = fingerprint(rules=rules, said=row["raw_answers"], measured=measurements)
        if row["composition"] == composition:
            continue
        columns = _compose_row(row, [Measurement(**item) for item in measurements], settings)
        changed_count += any(row[name] != value for name, value in columns.items())
        del row["created_at"]  # the store sets the time of the new row
        updated_rows.append({**row, **columns, "composition": composition})
    store.append(updated_rows)
    store.compact()
    return changed_count


def _rules_fingerprint(settings: Captions) -> str:
    """Return the fingerprint of the settings, vocabulary and rules that determine captions."""
    relevant = settings.model_dump(
        include={"sensitive", "contradictions", "max_words"}, mode="json"
    )
    return fingerprint(version=VERSION, vocabulary=vocabulary_text(), settings=relevant)


def _compose_row(
    row: Mapping[str, Any], measurements: Sequence[Measurement], settings: Captions
) -> dict[str, Any]:
    """Return the columns of a row that depend on its raw answers and measurements."""
    if row["captioner"] == "measured":
        tags = [measurement.tag for measurement in measurements]
        caption = compose_caption({"semantic": [], "photographic": tags}, [], settings)
    else:
        # Imported captions have a single answer, or none.
        answers = [*(row["raw_answers"] or []), "", ""]
        caption = caption_from_answers(answers[0], answers[1], measurements, settings)
    return {"measured_tags": visible_tags(measurements), **caption.columns()}
