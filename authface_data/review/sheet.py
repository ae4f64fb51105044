"""The review as one HTML page: every picture inside it, no network, and the same table comes out of it."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from importlib import resources
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, select_autoescape
from PIL import Image

from authface_data.review.faces import ReviewFace
from authface_data.review.table import DECISION_WORDS, SAID, cells, columns, metrics_of
from manifests.support.fingerprint import fingerprint
from manifests.workspace import Workspace

THUMBNAIL_PX, INSET_PX = 224, 112
# Whole crops are inside for the zoom. Two thousand of them stay within what a browser opens.
MANY, FINE_QUALITY, COARSE_QUALITY = 500, 88, 72


def page(workspace: Workspace, faces: Sequence[ReviewFace]) -> bytes:
    """The page of these faces, in this order."""
    metrics = metrics_of(faces)
    quality = FINE_QUALITY if len(faces) <= MANY else COARSE_QUALITY
    shown, pictures = [], []
    for face in faces:
        with workspace.open(face.crop_path) as file, Image.open(file) as opened:
            crop = opened.convert("RGB")
        shown.append(_facts(face, metrics, crop))
        pictures.append({"id": face.id, "data": _base64(crop, quality)})
    environment = Environment(
        loader=PackageLoader("authface_data.review", "."),
        autoescape=select_autoescape(default=True),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    data = {
        "sheet": fingerprint(workspace=str(workspace.root)),
        "columns": columns(metrics),
        "said": list(SAID),
        "words": list(DECISION_WORDS),
        "faces": shown,
    }
    return (
        environment.get_template("sheet.html.jinja")
        .render(
            style=_file("sheet.css"),
            script=_file("sheet.js"),
            # Inside a script element, `<` could end it.
            data=json.dumps(data, ensure_ascii=False).replace("<", "\\u003c"),
            pictures=pictures,
            count=len(faces),
        )
        .encode()
    )


def _file(name: str) -> str:
    return (resources.files("authface_data.review") / name).read_text("utf-8")


def _facts(face: ReviewFace, metrics: Sequence[str], crop: Image.Image) -> dict[str, Any]:
    thumbnail = crop.resize((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.LANCZOS)
    return {
        "cells": cells(face, metrics),
        "mark": face.state.rpartition("-")[0],
        "kept": face.kept,
        "why": face.why,
        "flag": face.flag,
        "decided": face.decided,
        "photo": face.photo,
        "credit": face.credit,
        "size": face.crop_size_px,
        "scores": {name: f"{value:.3g}" for name, value in sorted(face.scores.items())},
        "thumbnail": f"data:image/jpeg;base64,{_base64(thumbnail, 84)}",
        "insets": f"data:image/jpeg;base64,{_base64(_insets(face, crop), 92)}",
    }


def _insets(face: ReviewFace, crop: Image.Image) -> Image.Image:
    """An eye and a cheek at 1:1, beside each other."""
    left, right = (
        np.array(face.boxes_crop_px[name]).reshape(2, 2).mean(0)
        for name in ("left_eye", "right_eye")
    )
    mouth = np.array(face.boxes_crop_px["mouth"]).reshape(2, 2).mean(0)
    cheek = np.array([left[0], (left[1] + mouth[1]) / 2 + 0.02 * face.crop_size_px])
    strip = Image.new("RGB", (2 * INSET_PX, INSET_PX))
    for number, centre in enumerate((right, cheek)):
        corner = np.clip(
            np.rint(centre) - INSET_PX // 2, 0, max(face.crop_size_px - INSET_PX, 0)
        ).astype(int)
        strip.paste(
            crop.crop((*corner.tolist(), *(corner + INSET_PX).tolist())), (number * INSET_PX, 0)
        )
    return strip


def _base64(image: Image.Image, quality: int) -> str:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality)
    return base64.b64encode(out.getvalue()).decode()
