"""One face's way through the pipeline as a picture: what was found in the photograph, what was cut out, what was decided."""

from __future__ import annotations

import textwrap
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from authface_data.images.open import PictureReader
from manifests.workspace import Workspace

SIDE_PX, GAP_PX, TEXT_PX = 512, 16, 460
BACK, INK, SOFT, BOX, QUAD, POINT = "#16181c", "#e8e6e3", "#9a978f", "#f2b705", "#4cc9f0", "#80ed99"


def draw(
    workspace: Workspace, photo: dict[str, Any], face: dict[str, Any], facts: list[str]
) -> Image.Image:
    """The photograph with box and quad, the crop with landmarks and regions, and the facts as text.

    photo, face: rows of their manifests. facts: lines of text; one that begins with a dash is set softer.
    """
    sheet = Image.new("RGB", (2 * SIDE_PX + TEXT_PX + 4 * GAP_PX, SIDE_PX + 2 * GAP_PX), BACK)
    sheet.paste(_found(workspace, photo, face), (GAP_PX, GAP_PX))
    sheet.paste(_cut(workspace, face), (SIDE_PX + 2 * GAP_PX, GAP_PX))
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=17)
    x, y = 2 * SIDE_PX + 3 * GAP_PX, GAP_PX + 4
    for fact in facts:
        soft = fact.startswith("-")
        for line in textwrap.wrap(fact.removeprefix("-").strip(), 50):
            pen.text((x, y), line, fill=SOFT if soft else INK, font=font)
            y += 25
        y += 4
    return sheet


def _found(workspace: Workspace, photo: dict[str, Any], face: dict[str, Any]) -> Image.Image:
    picture = PictureReader(workspace, "path")(photo)
    image = Image.fromarray(picture.pixels(SIDE_PX))
    scale = image.width / picture.size_px[0]
    pen = ImageDraw.Draw(image)
    pen.rectangle([edge * scale for edge in face["box_px"]], outline=BOX, width=2)
    corners = [((x + 0.5) * scale, (y + 0.5) * scale) for x, y in face["quad_px"]]
    pen.line([*corners, corners[0]], fill=QUAD, width=2)
    square = Image.new("RGB", (SIDE_PX, SIDE_PX), BACK)
    square.paste(image, ((SIDE_PX - image.width) // 2, (SIDE_PX - image.height) // 2))
    return square


def _cut(workspace: Workspace, face: dict[str, Any]) -> Image.Image:
    with workspace.open(face["crop_path"]) as file, Image.open(file) as opened:
        scale = SIDE_PX / opened.width
        image = opened.convert("RGB").resize((SIDE_PX, SIDE_PX), Image.Resampling.LANCZOS)
    pen = ImageDraw.Draw(image)
    for name in ("left_eye", "right_eye", "mouth"):
        if face[f"{name}_visible"]:
            pen.rectangle(
                [edge * scale for edge in face[f"{name}_box_crop_px"]], outline=BOX, width=2
            )
    for x, y in face["landmarks_crop_px"]:
        u, v = (x + 0.5) * scale, (y + 0.5) * scale
        pen.ellipse((u - 2, v - 2, u + 2, v + 2), fill=POINT)
    return image
