"""What an output folder of `authface restore` holds besides the restored pictures."""

from __future__ import annotations

from pathlib import Path

from manifests.workspace import STRIP_FILE

RECORD_FILE = "restored.parquet"
"""One row per restored face."""
CERTAINTY_FOLDER = "certainty"
"""Maps of the disagreement between seeds, one picture per face."""


def is_by_product(path: Path, folder: Path) -> bool:
    """Whether a picture was written by `authface restore` but is not itself a result.

    Args:
        path: A picture in `folder` or in one of its sub-folders.
        folder: A folder that may be an output folder of `authface restore`.
    """
    if not (folder / RECORD_FILE).is_file():
        return False
    inside = path.relative_to(folder)
    return inside == Path(STRIP_FILE) or inside.parts[0] == CERTAINTY_FOLDER
