"""A picture of how one face is processed: the detection, the crop, and the facts about it."""

from __future__ import annotations

import textwrap
from typing import Any

import pyarrow.compute as pc
from PIL import Image, ImageDraw, ImageFont

from authface_data.images.open import PictureReader
from authface_data.images.stored_picture import read_stored_picture
from authface_data.report.cards import ShownFace, read_shown_faces
from authface_data.report.contact_sheet import BACKGROUND, MUTED_COLOUR, TEXT_COLOUR
from manifests.captions import caption_text
from manifests.schema import FACES, PHOTOS
from manifests.store import Store
from manifests.workspace import Workspace

SIDE_PX = 512
GAP_PX = 16
TEXT_WIDTH_PX = 460
LINE_PX = 25
LINE_CHARACTERS = 50

BOX_COLOUR = "#f2b705"
QUAD_COLOUR = "#4cc9f0"
POINT_COLOUR = "#80ed99"

MUTED_PREFIX = "-"
"""Facts that begin with it are printed in the muted colour."""


def draw_largest_face(workspace: Workspace, licence_basis: str | None = None) -> Image.Image | None:
    """Draw the anatomy of the largest face of the workspace whose files are there.

    Args:
        workspace: The workspace.
        licence_basis: Choose among photographs with this licence basis only. Default: all.

    Returns:
        An RGB picture, or None if there is no face with its files.
    """
    face_id = find_largest_face(workspace, licence_basis)
    if face_id is None:
        return None
    return draw_anatomy(workspace, read_shown_faces(workspace, [face_id])[face_id])


def find_largest_face(workspace: Workspace, licence_basis: str | None = None) -> str | None:
    """Find the largest face whose files are there.

    Args:
        workspace: The workspace.
        licence_basis: Choose among photographs with this licence basis only. Default: all.

    Returns:
        Its face_id, or None if there is no face with its files.
    """
    faces = Store(workspace, FACES).read(["face_id", "photo_id", "qsize_px", "crop_path"])
    photos = Store(workspace, PHOTOS).read(["photo_id", "path", "licence_basis"])
    if licence_basis is not None:
        photos = photos.filter(pc.equal(photos["licence_basis"], licence_basis))
    photo_rows = pc.index_in(faces["photo_id"], photos["photo_id"].combine_chunks())
    for row in pc.sort_indices(faces["qsize_px"], sort_keys=[("", "descending")]):
        photo_row = photo_rows[row.as_py()].as_py()
        if photo_row is None:
            continue
        paths = (photos["path"][photo_row].as_py(), faces["crop_path"][row.as_py()].as_py())
        if all(path is None or workspace.exists(path) for path in paths):
            return faces["face_id"][row.as_py()].as_py()
    return None


def list_facts(shown: ShownFace) -> list[str]:
    """Describe a face in lines of text; see `MUTED_PREFIX`."""
    photo, face, card = shown.photo, shown.face, shown.card
    # Faces of aligned sources have no detector score.
    score = "" if face["score"] is None else f" ({face['score']:.3f})"
    angles = (
        f"yaw {face['yaw_deg']:.0f}, pitch {face['pitch_deg']:.0f}, roll {face['roll_deg']:.0f}"
    )
    facts = [
        card.title,
        f"- {card.credit}; basis: {card.basis}",
        f"- {photo['width']} x {photo['height']} px; face {face['qsize_px']:.0f} px",
        f"- detected by {face['detector']}{score}",
        f"- landmarks by {face['landmark_backend']}",
        f"- {angles} degrees",
    ]
    if card.tags:
        facts.append(f"Tags: {caption_text(card.tags)}")
    facts += [f"Dropped: {reason.text}" for reason in card.reasons]
    if not card.reasons:
        facts.append("Kept by every gate")
    return facts


def draw_anatomy(workspace: Workspace, shown: ShownFace) -> Image.Image:
    """Draw the photograph with box and quad, the crop with landmarks and regions, and the facts.

    Args:
        workspace: The workspace that holds the pictures.
        shown: The face; its files are there.

    Returns:
        An RGB picture.
    """
    width = 2 * SIDE_PX + TEXT_WIDTH_PX + 4 * GAP_PX
    sheet = Image.new("RGB", (width, SIDE_PX + 2 * GAP_PX), BACKGROUND)
    photo = draw_detection(workspace, shown.photo, shown.face)
    left = GAP_PX + (SIDE_PX - photo.width) // 2
    sheet.paste(photo, (left, GAP_PX + (SIDE_PX - photo.height) // 2))
    sheet.paste(draw_aligned_crop(workspace, shown.face), (SIDE_PX + 2 * GAP_PX, GAP_PX))

    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=17)
    x = 2 * SIDE_PX + 3 * GAP_PX
    y = GAP_PX + 4
    scores = " · ".join(f"{score.metric} {score.value}" for score in shown.card.scores)
    for fact in (*list_facts(shown), f"- {scores}"):
        colour = MUTED_COLOUR if fact.startswith(MUTED_PREFIX) else TEXT_COLOUR
        text = fact.removeprefix(MUTED_PREFIX).strip()
        for line in textwrap.wrap(text, LINE_CHARACTERS):
            draw.text((x, y), line, fill=colour, font=font)
            y += LINE_PX
        y += 4
    return sheet


def draw_detection(
    workspace: Workspace, photo: dict[str, Any], face: dict[str, Any]
) -> Image.Image:
    """Draw the photograph with the detected box and the quad of the crop.

    Args:
        workspace: The workspace that holds the pictures.
        photo: Row of `photos`; its file is there.
        face: Row of `faces`.

    Returns:
        An RGB picture whose long side is `SIDE_PX`.
    """
    picture = PictureReader(workspace, "path")(photo)
    image = Image.fromarray(picture.pixels(SIDE_PX))
    scale = image.width / picture.size_px[0]
    draw = ImageDraw.Draw(image)
    draw.rectangle([edge * scale for edge in face["box_px"]], outline=BOX_COLOUR, width=2)
    corners = [((x + 0.5) * scale, (y + 0.5) * scale) for x, y in face["quad_px"]]
    draw.line([*corners, corners[0]], fill=QUAD_COLOUR, width=2)
    return image


def draw_aligned_crop(workspace: Workspace, face: dict[str, Any]) -> Image.Image:
    """Draw the crop with its landmarks and the boxes of the visible regions.

    Args:
        workspace: The workspace that holds the pictures.
        face: Row of `faces`; its crop is there.

    Returns:
        An RGB picture of `SIDE_PX` x `SIDE_PX`.
    """
    crop = read_stored_picture(workspace, face["crop_path"])
    scale = SIDE_PX / crop.width
    image = crop.resize((SIDE_PX, SIDE_PX), Image.Resampling.LANCZOS)
    draw = ImageDraw.Draw(image)
    for region in ("left_eye", "right_eye", "mouth"):
        if face[f"{region}_visible"]:
            box = [edge * scale for edge in face[f"{region}_box_crop_px"]]
            draw.rectangle(box, outline=BOX_COLOUR, width=2)
    for x, y in face["landmarks_crop_px"]:
        u = (x + 0.5) * scale
        v = (y + 0.5) * scale
        draw.ellipse((u - 2, v - 2, u + 2, v + 2), fill=POINT_COLOUR)
    return image
