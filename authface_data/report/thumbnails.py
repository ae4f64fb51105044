"""Small pictures inside a page."""

from __future__ import annotations

import base64
import io

from PIL import Image

from authface_data.images.colour import to_srgb
from manifests.workspace import Workspace


def thumbnail(workspace: Workspace, path: str, side_px: int) -> str:
    """A picture of the workspace as a JPEG data URI, at most side_px on its long side."""
    with workspace.open(path) as file, Image.open(file) as opened:
        image = to_srgb(opened)
        image.thumbnail((side_px, side_px), Image.Resampling.LANCZOS)
        return jpeg_uri(image)


def jpeg_uri(image: Image.Image, quality: int = 88) -> str:
    """A picture as a JPEG data URI."""
    out = io.BytesIO()
    image.convert("RGB").save(out, "JPEG", quality=quality)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode()
