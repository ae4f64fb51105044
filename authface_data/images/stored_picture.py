"""Reads the pictures that authface itself has written to a workspace: crops and overviews."""

from __future__ import annotations

from PIL import Image

from authface_data.images.colour import to_srgb
from authface_data.images.open import DECODE_ERRORS, open_image
from manifests.support.errors import UserError
from manifests.workspace import Workspace

REPAIR_COMMANDS = {"faces": "authface filter", "reports": "authface restore"}
"""Folder of the workspace -> the command that makes its pictures."""


def read_stored_picture(workspace: Workspace, path: str) -> Image.Image:
    """Read a picture of the workspace.

    Args:
        workspace: The workspace.
        path: Path of a crop, or of an overview in `reports`.

    Returns:
        The picture in RGB.

    Raises:
        UserError: If the file is missing or damaged. The message names it and says what to do.
    """
    command = REPAIR_COMMANDS[path.partition("/")[0]]
    try:
        with workspace.open(path) as file, open_image(file) as image:
            picture = to_srgb(image)
            picture.load()
            return picture
    except FileNotFoundError as error:
        raise UserError(
            f"{workspace.root}/{path} is missing; run `{command}` to make it again"
        ) from error
    except DECODE_ERRORS as error:
        raise UserError(
            f"{workspace.root}/{path} cannot be read as a picture; remove it and run `{command}` "
            "to make it again"
        ) from error
