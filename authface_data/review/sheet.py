"""The review as one HTML page that works offline and saves the same table as the CSV export."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import resources

import numpy as np
from jinja2 import Environment, PackageLoader, select_autoescape
from PIL import Image

from authface_data.images.encode import data_uri
from authface_data.images.stored_picture import read_stored_picture
from authface_data.review.faces import ReviewFace
from authface_data.review.table import (
    ANSWER_COLUMNS,
    DECISION_VALUES,
    collect_metrics,
    table_cells,
    table_columns,
)
from manifests.missing_files import find_missing_keys, require_crops
from manifests.support.fingerprint import fingerprint
from manifests.workspace import Workspace

THUMBNAIL_PX = 224
THUMBNAIL_QUALITY = 84
INSET_PX = 112
"""Side of the details of an eye and a cheek, which are shown at 1:1."""
INSET_QUALITY = 92

# The page contains the whole crops, for the zoom. With the lower quality, two thousand crops stay
# within the size that a browser can open.
MAX_FINE_CROPS = 500
FINE_QUALITY = 88
COARSE_QUALITY = 72


def render_page(workspace: Workspace, faces: Sequence[ReviewFace]) -> bytes:
    """Render the review page.

    Args:
        workspace: The workspace that holds the crops.
        faces: The faces to show, in this order. A face that a person has dropped is left out if its
            crop is missing.

    Returns:
        An HTML document in UTF-8 that loads nothing from outside.

    Raises:
        UserError: If the crop of another face is missing or damaged.
    """
    lost_ids = find_missing_keys(workspace, {face.face_id: face.crop_path for face in faces})
    faces = [
        face
        for face in faces
        if face.face_id not in lost_ids or not face.last_decision.startswith("drop by")
    ]
    require_crops(workspace, {face.face_id: face.crop_path for face in faces})
    metrics = collect_metrics(faces)
    quality = FINE_QUALITY if len(faces) <= MAX_FINE_CROPS else COARSE_QUALITY
    face_data = []
    crops = []
    for face in faces:
        crop = read_stored_picture(workspace, face.crop_path)
        face_data.append(_face_data(face, metrics, crop))
        crops.append({"id": face.face_id, "uri": data_uri(crop, quality=quality)})

    page_data = {
        # The browser stores answers under this id, so that pages of one workspace share them.
        "workspaceId": fingerprint(workspace=str(workspace.root)),
        "columns": table_columns(metrics),
        "answerColumns": list(ANSWER_COLUMNS),
        "decisions": list(DECISION_VALUES),
        "faces": face_data,
    }
    environment = Environment(
        loader=PackageLoader("authface_data.review", "."),
        autoescape=select_autoescape(default=True),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    html = environment.get_template("sheet.html.jinja").render(
        style=_read_asset("sheet.css"),
        script=_read_asset("sheet.js"),
        # A literal `<` could end the script element that contains the JSON.
        data=json.dumps(page_data, ensure_ascii=False).replace("<", "\\u003c"),
        crops=crops,
        count=len(faces),
    )
    return html.encode()


def _read_asset(name: str) -> str:
    return (resources.files("authface_data.review") / name).read_text("utf-8")


def _face_data(face: ReviewFace, metrics: Sequence[str], crop: Image.Image) -> dict[str, object]:
    """What sheet.js needs of one face."""
    thumbnail = crop.resize((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.LANCZOS)
    return {
        "cells": table_cells(face, metrics),
        "contentId": face.snapshot.content_id,
        "isKept": face.is_kept,
        "dropReasons": face.drop_reasons,
        "flag": face.flag,
        "lastDecision": face.last_decision,
        "photoTitle": face.photo_title,
        "credit": face.credit,
        "cropSizePx": face.crop_size_px,
        "scores": {name: f"{value:.3g}" for name, value in sorted(face.scores.items())},
        "thumbnail": data_uri(thumbnail, quality=THUMBNAIL_QUALITY),
        "insets": data_uri(_draw_insets(face, crop), quality=INSET_QUALITY),
    }


def _draw_insets(face: ReviewFace, crop: Image.Image) -> Image.Image:
    """An eye and a cheek at 1:1, next to each other, 2 * INSET_PX wide."""
    left_eye, right_eye, mouth = (
        np.array(face.boxes_crop_px[name]).reshape(2, 2).mean(0)
        for name in ("left_eye", "right_eye", "mouth")
    )
    cheek_y = (left_eye[1] + mouth[1]) / 2 + 0.02 * face.crop_size_px
    cheek = np.array([left_eye[0], cheek_y])

    insets = Image.new("RGB", (2 * INSET_PX, INSET_PX))
    largest_corner = max(face.crop_size_px - INSET_PX, 0)
    for position, centre in enumerate((right_eye, cheek)):
        corner = np.clip(np.rint(centre) - INSET_PX // 2, 0, largest_corner).astype(int)
        left, top = corner.tolist()
        detail = crop.crop((left, top, left + INSET_PX, top + INSET_PX))
        insets.paste(detail, (position * INSET_PX, 0))
    return insets
