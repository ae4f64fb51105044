"""The model card of a run: the base, the photographs and the settings of a model."""

from __future__ import annotations

import json

import pandas as pd

from authface_train.runs.lineage import credits_markdown
from manifests.support.text import count_of

UNTRAINED = (
    "> **Untrained.** Built from configuration with random weights, to try the software only. "
    "It restores nothing; its pictures are noise."
)
TITLES = {"prior": "Face prior (AuthFace Stage I)", "restorer": "Face restorer (AuthFace Stage II)"}
PIPELINE_CLASSES = {
    "prior": "StableDiffusionXLPipeline",
    "restorer": "StableDiffusionXLControlNetPipeline",
}


def model_card(
    stage: str,
    base: str,
    settings: dict[str, object],
    lineage: pd.DataFrame,
    *,
    untrained: bool,
    checkpoint_step: int | None = None,
) -> str:
    """Build the text of a model card.

    Args:
        stage: "prior" or "restorer".
        base: Hub id or folder of the base model.
        settings: Settings of the run, as JSON values.
        lineage: The run's lineage.
        untrained: Whether the model rests on random weights.
        checkpoint_step: Step of the checkpoint that holds the weights; None for the finished model.

    Returns:
        Markdown with the front matter of the Hugging Face Hub.
    """
    bases = sorted(set(lineage["licence_basis"].dropna()))
    photos = lineage["photo_id"].nunique()
    faces = lineage["face_id"].nunique()
    summary = "\n".join(_describe_stage(lineage, name) for name in TITLES)

    checkpoint = ""
    if checkpoint_step is not None:
        checkpoint = f"Checkpoint of step {checkpoint_step} of a run of {settings['steps']} steps."

    sections = [
        "---\nlibrary_name: diffusers\ntags:\n- face-restoration\n- authface\n---",
        f"# {TITLES[stage]}",
        UNTRAINED if untrained else "",
        f"`DiffusionPipeline.from_pretrained(...)` loads it as a `{PIPELINE_CLASSES[stage]}`. "
        "`authface.json` records the training resolution and SDXL's time ids.",
        f"Trained from `{base}`; the licence of that model applies to this one too.",
        checkpoint,
        f"## Data\n\n{faces} faces from {photos} photographs. "
        f"Licence basis: {'; '.join(bases) or 'not stated'}. "
        "`lineage.parquet` lists every photograph with its hash.",
        summary.strip(),
        f"### Photographs\n\n{credits_markdown(lineage)}",
        f"## Settings\n\n```json\n{json.dumps(settings, indent=1)}\n```",
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _describe_stage(lineage: pd.DataFrame, stage: str) -> str:
    """Faces, photographs and sources of a stage as an item of a list; "" without rows."""
    rows = lineage[lineage["stage"] == stage]
    if rows.empty:
        return ""
    faces = count_of(rows["face_id"].nunique(), "face")
    photos = count_of(rows["photo_id"].nunique(), "photograph")
    # Lineages of earlier versions have no sources.
    sources = sorted(rows["source"].dropna().unique()) if "source" in rows else []
    collected = f", collected from {', '.join(sources)}" if sources else ""
    return f"- {TITLES[stage]}: {faces} from {photos}{collected}"
