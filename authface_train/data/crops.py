"""Aligned crops as tensors."""

from __future__ import annotations

import numpy as np
from PIL import Image

from manifests.workspace import Workspace


def load_crop(workspace: Workspace, path: str, size_px: int) -> np.ndarray:
    """A crop as (size, size, 3) uint8 sRGB, scaled by Lanczos where it is stored at another size."""
    with workspace.open(path) as file, Image.open(file) as image:
        picture = image.convert("RGB")
        if picture.size != (size_px, size_px):
            picture = picture.resize((size_px, size_px), Image.Resampling.LANCZOS)
        return np.asarray(picture)
