"""Captions composed again from stored answers and measurements: another setting or vocabulary costs no model's time."""

from __future__ import annotations

from typing import Any

from authface_data.captions.compose import compose_caption, caption_from_answers, visible_tags
from authface_data.captions.measured.measurement import Measurement
from authface_data.captions.vocabulary import vocabulary_text
from manifests.schema import CAPTIONS
from manifests.settings import Captions
from manifests.store import Store
from manifests.support.fingerprint import fingerprint
from manifests.workspace import Workspace

VERSION = 1  # of the rules in compose.py and words.py: raised when they change


def recompose(workspace: Workspace) -> int:
    """Bring every caption in line with the present settings, vocabulary and measurements. Returns how many changed."""
    store, settings = Store(workspace, CAPTIONS), workspace.settings.captions
    rows = store.read().to_pylist()
    facts = {
        row["face_id"]: row["measurements"] or [] for row in rows if row["captioner"] == "measured"
    }
    now = _rules(settings)
    changed, different = [], 0
    for row in rows:
        measured = facts.get(row["face_id"], [])
        mark = fingerprint(rules=now, said=row["raw_answers"], measured=measured)
        if row["composition"] == mark:
            continue
        new = _columns(row, [Measurement(**fact) for fact in measured], settings)
        different += any(row[name] != value for name, value in new.items())
        del row["created_at"]
        changed.append({**row, **new, "composition": mark})
    store.append(changed)
    store.compact()
    return different


def _rules(settings: Captions) -> str:
    """Names what a caption depends on besides what was said and measured."""
    said = settings.model_dump(include={"sensitive", "contradictions", "max_words"}, mode="json")
    return fingerprint(version=VERSION, vocabulary=vocabulary_text(), settings=said)


def _columns(row: dict[str, Any], measured: list[Measurement], settings: Captions) -> dict[str, Any]:
    """The columns of a caption that follow from what its captioner said."""
    if row["captioner"] == "measured":
        caption = compose_caption(
            {"semantic": [], "photographic": [fact.tag for fact in measured]}, [], settings
        )
    else:
        said = [*(row["raw_answers"] or []), "", ""]
        caption = caption_from_answers(said[0], said[1], measured, settings)
    return {"measured_tags": visible_tags(measured), **caption.columns()}
