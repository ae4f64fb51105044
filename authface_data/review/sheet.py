"""The review as one HTML page that works offline and saves the same table as the CSV export.

`authface serve` shows the same page, with pictures from the server and without a table to carry.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from authface_data.images.encode import data_uri
from authface_data.images.stored_picture import read_stored_picture
from authface_data.report.reasons import format_score, wording_of
from authface_data.review.faces import ReviewFace
from authface_data.review.table import (
    ANSWER_COLUMNS,
    DECISION_VALUES,
    collect_metrics,
    table_cells,
    table_columns,
)
from manifests.missing_files import find_missing_keys, require_crops
from manifests.support import html_page
from manifests.support.fingerprint import fingerprint
from manifests.workspace import Workspace

PACKAGE = "authface_data.review"
THUMBNAIL_PX = 288
THUMBNAIL_QUALITY = 84
DETAIL_SIZE_PX = (168, 112)
"""Size of the details of an eye and a cheek, which are shown at 1:1."""
DETAIL_QUALITY = 92

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
    faces = select_pictured_faces(workspace, faces)
    quality = FINE_QUALITY if len(faces) <= MAX_FINE_CROPS else COARSE_QUALITY
    pictures = []
    crops = []
    for face in faces:
        crop = read_stored_picture(workspace, face.crop_path)
        eye, cheek = draw_details(face, crop)
        pictures.append(
            {
                "thumbnail": data_uri(draw_thumbnail(crop), quality=THUMBNAIL_QUALITY),
                "eye": data_uri(eye, quality=DETAIL_QUALITY),
                "cheek": data_uri(cheek, quality=DETAIL_QUALITY),
            }
        )
        crops.append({"id": face.face_id, "uri": data_uri(crop, quality=quality)})
    storage = html_page.read_asset(PACKAGE, "file_storage.js")
    return render_sheet(workspace, faces, pictures, storage=storage, crops=crops).encode()


def select_pictured_faces(
    workspace: Workspace, faces: Sequence[ReviewFace]
) -> Sequence[ReviewFace]:
    """Leave out faces that a person has dropped and whose crop is missing.

    Args:
        workspace: The workspace that holds the crops.
        faces: The faces.

    Raises:
        UserError: If the crop of another face is missing.
    """
    lost_ids = find_missing_keys(workspace, {face.face_id: face.crop_path for face in faces})
    shown = [
        face
        for face in faces
        if face.face_id not in lost_ids or not face.last_decision.startswith("drop by")
    ]
    require_crops(workspace, {face.face_id: face.crop_path for face in shown})
    return shown


def render_sheet(
    workspace: Workspace,
    faces: Sequence[ReviewFace],
    pictures: Sequence[dict[str, str]],
    *,
    storage: str,
    crops: Sequence[dict[str, str]] = (),
    is_served: bool = False,
) -> str:
    """Render the page from faces and the addresses of their pictures.

    Args:
        workspace: The workspace.
        faces: The faces to show, in this order.
        pictures: For each face the addresses `thumbnail`, `eye` and `cheek`, and `crop` unless
            `crops` has it.
        storage: Script that stores the answers; it is run after sheet.js and starts the page.
        crops: `id` and data URI `uri` of the crops that the page contains.
        is_served: Whether the page belongs to `authface serve`.

    Returns:
        An HTML document.
    """
    metrics = collect_metrics(faces)
    page_data = {
        # The browser stores answers under this id, so that pages of one workspace share them.
        "workspaceId": fingerprint(workspace=str(workspace.root)),
        "columns": table_columns(metrics),
        "answerColumns": list(ANSWER_COLUMNS),
        "decisions": list(DECISION_VALUES),
        "faces": [
            _face_data(face, metrics) | addresses
            for face, addresses in zip(faces, pictures, strict=True)
        ],
    }
    return html_page.render_page(
        PACKAGE,
        "sheet.html.jinja",
        is_served=is_served,
        style=html_page.read_asset(PACKAGE, "sheet.css"),
        script=html_page.read_asset(PACKAGE, "sheet.js") + storage,
        data=html_page.json_for_script(page_data),
        crops=crops,
        count=len(faces),
    )


def _face_data(face: ReviewFace, metrics: Sequence[str]) -> dict[str, object]:
    """What sheet.js needs of one face besides its pictures."""
    return {
        "cells": table_cells(face, metrics),
        "contentId": face.snapshot.content_id,
        "isKept": face.is_kept,
        "dropReasons": face.drop_reasons,
        "dropRules": face.drop_rules,
        "flag": face.flag,
        "lastDecision": face.last_decision,
        "photoTitle": face.photo_title,
        "credit": face.credit,
        "cropSizePx": face.crop_size_px,
        "scores": {
            name: [wording_of(name).noun, format_score(name, value)]
            for name, value in sorted(face.scores.items())
        },
    }


def draw_thumbnail(crop: Image.Image) -> Image.Image:
    """Shrink a crop for the gallery.

    Args:
        crop: The crop.

    Returns:
        An RGB picture of `THUMBNAIL_PX` x `THUMBNAIL_PX`.
    """
    return crop.resize((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.LANCZOS)


def draw_details(face: ReviewFace, crop: Image.Image) -> tuple[Image.Image, Image.Image]:
    """Cut out an eye and a cheek at 1:1.

    Args:
        face: The face.
        crop: Its crop.

    Returns:
        Two RGB pictures of `DETAIL_SIZE_PX`.
    """
    left_eye, right_eye, mouth = (
        np.array(face.boxes_crop_px[name]).reshape(2, 2).mean(0)
        for name in ("left_eye", "right_eye", "mouth")
    )
    cheek_y = (left_eye[1] + mouth[1]) / 2 + 0.02 * face.crop_size_px
    cheek = np.array([left_eye[0], cheek_y])
    return _cut_out(crop, right_eye), _cut_out(crop, cheek)


def _cut_out(crop: Image.Image, centre: np.ndarray) -> Image.Image:
    """The part of `DETAIL_SIZE_PX` around a point (x, y), moved into the crop if necessary."""
    size = np.array(DETAIL_SIZE_PX)
    largest_corner = np.maximum(np.array(crop.size) - size, 0)
    corner = np.clip(np.rint(centre) - size // 2, 0, largest_corner).astype(int)
    left, top = corner.tolist()
    return crop.crop((left, top, left + DETAIL_SIZE_PX[0], top + DETAIL_SIZE_PX[1]))
