"""A contact sheet: faces in rows under headings, each with a line of text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from authface_data.images.stored_picture import read_stored_picture
from manifests.workspace import Workspace

BACKGROUND = "#16181c"
TEXT_COLOUR = "#e8e6e3"
MUTED_COLOUR = "#9a978f"

COLUMNS = 8
TILE_PX = 192
GAP_PX = 8
LINE_PX = 20
HEADING_PX = 34


@dataclass(frozen=True)
class Section:
    """A heading and the faces below it.

    Attributes:
        title: The heading.
        faces: Pairs of crop path and line of text. A section without faces keeps its heading.
    """

    title: str
    faces: Sequence[tuple[str, str]]


def draw_contact_sheet(workspace: Workspace, sections: Sequence[Section]) -> Image.Image:
    """Draw sections one below the other.

    Args:
        workspace: The workspace that holds the crops.
        sections: The sections.

    Returns:
        An RGB picture of about 1600 px width.
    """
    heights = [_section_height(section) for section in sections]
    width = COLUMNS * (TILE_PX + GAP_PX) + GAP_PX
    sheet = Image.new("RGB", (width, sum(heights) + GAP_PX), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    heading_font = ImageFont.load_default(size=18)
    text_font = ImageFont.load_default(size=13)

    top = 0
    for section, height in zip(sections, heights, strict=True):
        draw.text((GAP_PX, top + 8), section.title, fill=TEXT_COLOUR, font=heading_font)
        for index, (path, text) in enumerate(section.faces):
            row, column = divmod(index, COLUMNS)
            x = GAP_PX + column * (TILE_PX + GAP_PX)
            y = top + HEADING_PX + row * (TILE_PX + LINE_PX + GAP_PX)
            sheet.paste(_read_tile(workspace, path), (x, y))
            draw.text((x, y + TILE_PX + 2), text, fill=MUTED_COLOUR, font=text_font)
        top += height
    return sheet


def _section_height(section: Section) -> int:
    num_rows = -(-len(section.faces) // COLUMNS)
    return HEADING_PX + num_rows * (TILE_PX + LINE_PX + GAP_PX)


def _read_tile(workspace: Workspace, path: str) -> Image.Image:
    crop = read_stored_picture(workspace, path)
    return crop.resize((TILE_PX, TILE_PX), Image.Resampling.LANCZOS)
