"""A contact sheet: faces in rows under headings, each with a line of text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from manifests.workspace import Workspace

TILE_PX, GAP_PX, TEXT_PX, TITLE_PX, COLUMNS = 192, 8, 20, 34, 8
BACK, INK, SOFT = "#16181c", "#e8e6e3", "#9a978f"


@dataclass(frozen=True)
class Section:
    """A heading, and the faces under it: (path of the crop, line of text)."""

    title: str
    faces: Sequence[tuple[str, str]]


def contact_sheet(workspace: Workspace, sections: Sequence[Section]) -> Image.Image:
    """The sections below each other; one without a face keeps its heading."""
    heights = [
        TITLE_PX + -(-len(section.faces) // COLUMNS) * (TILE_PX + TEXT_PX + GAP_PX)
        for section in sections
    ]
    sheet = Image.new("RGB", (COLUMNS * (TILE_PX + GAP_PX) + GAP_PX, sum(heights) + GAP_PX), BACK)
    pen, top = ImageDraw.Draw(sheet), 0
    heading, small = ImageFont.load_default(size=18), ImageFont.load_default(size=13)
    for section, height in zip(sections, heights, strict=True):
        pen.text((GAP_PX, top + 8), section.title, fill=INK, font=heading)
        for number, (path, words) in enumerate(section.faces):
            row, column = divmod(number, COLUMNS)
            x, y = (
                GAP_PX + column * (TILE_PX + GAP_PX),
                top + TITLE_PX + row * (TILE_PX + TEXT_PX + GAP_PX),
            )
            with workspace.open(path) as file, Image.open(file) as opened:
                sheet.paste(
                    opened.convert("RGB").resize((TILE_PX, TILE_PX), Image.Resampling.LANCZOS),
                    (x, y),
                )
            pen.text((x, y + TILE_PX + 2), words, fill=SOFT, font=small)
        top += height
    return sheet
