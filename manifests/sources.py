"""Sources of training faces: FFHQ, which Stage II learns from, and portraits for Stage I."""

from __future__ import annotations

import pandas as pd

from manifests.support.options import TrainingSource

FFHQ = "ffhq"
"""Name of the source that collects FFHQ."""
FFHQ_PREFIX = "ffhq_"
"""Prefix of the photo_id of every picture of FFHQ."""


def select_source(faces: pd.DataFrame, source: TrainingSource | None) -> pd.DataFrame:
    """Select the faces of a source.

    Args:
        faces: Faces with the column photo_id.
        source: "ffhq" for the faces collected from FFHQ, "portraits" for all others, "workspace"
            for both. None takes "portraits", or "ffhq" if there are no others.

    Returns:
        The rows of these faces.
    """
    if source == "workspace":
        return faces
    is_ffhq = faces["photo_id"].str.startswith(FFHQ_PREFIX).astype(bool)
    if source is None:
        source = "ffhq" if is_ffhq.all() else "portraits"
    return faces[is_ffhq if source == "ffhq" else ~is_ffhq]
