"""Reads the aligned face crops of a workspace."""

from __future__ import annotations

import numpy as np
from PIL import Image

from authface_data.images.stored_picture import read_stored_picture
from manifests.workspace import Workspace


def load_crop(workspace: Workspace, path: str, size_px: int) -> np.ndarray:
    """Load a crop, resized with a Lanczos filter if it is stored at another size.

    Args:
        workspace: The workspace.
        path: Path of the crop, relative to the workspace.
        size_px: Side of the result.

    Returns:
        (size_px, size_px, 3) uint8, sRGB.

    Raises:
        UserError: If the crop is missing or damaged.
    """
    crop = read_stored_picture(workspace, path)
    if crop.size != (size_px, size_px):
        crop = crop.resize((size_px, size_px), Image.Resampling.LANCZOS)
    return np.asarray(crop)
