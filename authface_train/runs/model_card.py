"""The model card of a run: what it is, what it was set to, and whose photographs are in it."""

from __future__ import annotations

import json

import pandas as pd

from authface_train.runs.lineage import credits_markdown

UNTRAINED = (
    "> **Untrained.** Built from configuration with random weights, to try the machinery only. It restores nothing; "
    "its pictures are noise."
)
TITLES = {"prior": "Face prior (AuthFace Stage I)", "restorer": "Face restorer (AuthFace Stage II)"}
LOADS = {"prior": "StableDiffusionXLPipeline", "restorer": "StableDiffusionXLControlNetPipeline"}


def model_card(
    stage: str, base: str, settings: dict, lineage: pd.DataFrame, untrained: bool
) -> str:
    """Markdown with the hub's front matter."""
    bases = sorted(set(lineage["licence_basis"].dropna()))
    photos, faces = lineage["photo_id"].nunique(), lineage["face_id"].nunique()
    parts = [
        "---\nlibrary_name: diffusers\ntags:\n- face-restoration\n- authface\n---",
        f"# {TITLES[stage]}",
        UNTRAINED if untrained else "",
        f"Loads with `DiffusionPipeline.from_pretrained(...)` as a `{LOADS[stage]}`. The time ids and the size it was trained "
        "at stand in `authface.json`.",
        f"Made from `{base}`, whose licence goes on to it.",
        f"## Data\n\n{faces} faces from {photos} photographs. Licence basis: {'; '.join(bases) or 'not stated'}. "
        "`lineage.parquet` lists every photograph with its hash.",
        credits_markdown(lineage),
        f"## Settings\n\n```json\n{json.dumps(settings, indent=1)}\n```",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"
