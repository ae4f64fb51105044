"""The report: one self-contained HTML file about everything a workspace holds."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from jinja2 import Environment, PackageLoader, select_autoescape
from PIL import Image

from authface_data.captions import coverage
from authface_data.report import anatomy, balance, status
from authface_data.report.curves import HEIGHT, LEFT, WIDTH, Curve, audit_curves, curves
from authface_data.report.thumbnails import jpeg_uri, thumbnail
from manifests.captions import current_tags
from manifests.schema import FACES, PHOTOS, SCORES, VERDICTS
from manifests.store import Store
from manifests.verdicts import ANY_FACE, kept_faces
from manifests.workspace import Workspace

CROP_PX, MOST_FACES = 280, 120
PATH = "reports/report.html"


@dataclass(frozen=True)
class Card:
    """One face on a contact sheet. reasons: why it was dropped, empty for kept ones."""

    face_id: str
    picture: str
    title: str
    credit: str
    basis: str
    tags: list[str]
    scores: str
    reasons: list[str]
    notes: list[str]


@dataclass(frozen=True)
class RunView:
    name: str
    state: str
    untrained: bool
    curves: list[Curve]


def write(workspace: Workspace) -> str:
    """Write `reports/report.html`. Returns its path in the workspace."""
    workspace.check_no_interrupted_forget()
    photos = {row["photo_id"]: row for row in Store(workspace, PHOTOS).read().to_pylist()}
    faces = Store(workspace, FACES).read().to_pylist()
    kept_ids = set(kept_faces(workspace, [])["face_id"])
    verdicts = Store(workspace, VERDICTS).read().to_pylist()
    cards = _cards(workspace, photos, faces, verdicts)
    lost = [
        {"id": row["id"], "why": row["reason"], "name": _name(photos.get(row["id"]))}
        for row in verdicts
        if row["subject"] == "photo" and row["verdict"] != "kept" and row["gate"] != ANY_FACE
    ]
    taken_apart, facets = anatomy_of(workspace), balance.balance(workspace)
    page = _template().render(
        made=f"{datetime.now(UTC):%d %B %Y, %H:%M} UTC",
        status=status.gather(workspace),
        kept=[cards[row["face_id"]] for row in faces if row["face_id"] in kept_ids],
        dropped=[cards[row["face_id"]] for row in faces if row["face_id"] not in kept_ids],
        most=MOST_FACES,
        lost=lost,
        anatomy="" if taken_apart is None else jpeg_uri(taken_apart),
        balance=facets,
        coverage=coverage.count_facets(workspace, kept_ids),
        contradictions=coverage.count_contradictions(workspace),
        missing=balance.missing(facets),
        runs=_runs(workspace),
        strips=_strips(workspace),
        plot={"width": WIDTH, "height": HEIGHT, "left": LEFT},
        total={
            "photos": len(photos) + sum(1 for row in lost if row["id"] not in photos),
            "faces": len(faces),
        },
    )
    workspace.write_bytes(PATH, page.encode())
    return PATH


def _template():
    environment = Environment(
        loader=PackageLoader("authface_data.report", "."),
        autoescape=select_autoescape(default=True),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.jinja")


def _cards(
    workspace: Workspace, photos: dict, faces: list[dict], verdicts: list[dict]
) -> dict[str, Card]:
    captions = {
        face_id: [*semantic, *other]
        for face_id, (semantic, other) in current_tags(workspace).items()
    }
    scores: dict[str, list[str]] = {}
    for row in Store(workspace, SCORES).read().to_pylist():
        scores.setdefault(row["face_id"], []).append(f"{row['metric']} {row['value']:.3g}")
    reasons: dict[str, list[str]] = {}
    for row in verdicts:
        if row["subject"] == "face" and row["verdict"] != "kept" and row["gate"] != "all_gates":
            measured = "" if row["value"] is None else f" (it is {row['value']:.3g})"
            reasons.setdefault(row["id"], []).append(f"{row['gate']}: {row['reason']}{measured}")
    shown: dict[bool, int] = {True: 0, False: 0}
    cards = {}
    for face in faces:
        face_id, photo = face["face_id"], photos[face["photo_id"]]
        is_dropped = face_id in reasons
        shown[is_dropped] += 1
        cards[face_id] = Card(
            face_id=face_id,
            picture=thumbnail(workspace, face["crop_path"], CROP_PX)
            if shown[is_dropped] <= MOST_FACES
            else "",
            title=_name(photo),
            credit=photo["photographer_name"] or "photographer not stated",
            basis=photo["licence_basis"] or "no licence basis",
            tags=captions.get(face_id, []),
            scores=" · ".join(scores.get(face_id, [])),
            reasons=reasons.get(face_id, []),
            notes=[f"{face['qsize_px']:.0f} px", *(["upscaled"] if face["upscaled"] else [])],
        )
    return cards


def _name(photo: dict | None) -> str:
    return "" if photo is None else str(photo["description"] or photo["photo_id"])


def anatomy_of(workspace: Workspace, licence_basis: str | None = None) -> Image.Image | None:
    """The largest face found, taken apart; of photographs with that licence basis, if one is named."""
    photos = {row["photo_id"]: row for row in Store(workspace, PHOTOS).read().to_pylist()}
    faces = Store(workspace, FACES).read().to_pylist()
    fitting = [
        row for row in faces if licence_basis in (None, photos[row["photo_id"]]["licence_basis"])
    ]
    if not fitting:
        return None
    face = max(fitting, key=lambda row: row["qsize_px"])
    photo = photos[face["photo_id"]]
    cards = _cards(workspace, photos, [face], Store(workspace, VERDICTS).read().to_pylist())
    return anatomy.draw(workspace, photo, face, facts(photo, face, cards))


def facts(photo: dict, face: dict, cards: dict[str, Card]) -> list[str]:
    """What a workspace knows of a face, as lines."""
    card = cards[face["face_id"]]
    return [
        card.title,
        f"- {card.credit}; basis: {card.basis}",
        f"- {photo['width']} x {photo['height']} px; face {face['qsize_px']:.0f} px",
        f"- found by {face['detector']} ({face['score']:.3f}), landmarks by {face['landmark_backend']}",
        f"- yaw {face['yaw_deg']:.0f}, pitch {face['pitch_deg']:.0f}, roll {face['roll_deg']:.0f} degrees",
        f"- {card.scores}",
        f"Tags: {', '.join(card.tags)}" if card.tags else "",
        *(f"Dropped by {reason}" for reason in card.reasons),
        "" if card.reasons else "Kept by every gate",
    ]


def _runs(workspace: Workspace) -> list[RunView]:
    views = []
    for name, state in status.runs(workspace).items():
        notes = _json(workspace, f"runs/{name}/authface.json")
        metrics = f"runs/{name}/metrics.csv"
        drawn = curves(workspace.read_bytes(metrics)) if workspace.exists(metrics) else []
        audits = f"runs/{name}/audit/audit.csv"
        drawn += audit_curves(workspace.read_bytes(audits)) if workspace.exists(audits) else []
        views.append(RunView(name, state, bool(notes.get("untrained")), drawn))
    return views


def _json(workspace: Workspace, path: str) -> dict[str, Any]:
    return json.loads(workspace.read_bytes(path)) if workspace.exists(path) else {}


def _strips(workspace: Workspace) -> list[dict[str, str]]:
    """Before/after strips that `authface restore` left in folders under reports/."""
    found = []
    for name in workspace.list("reports"):
        path = f"reports/{name}/strip.jpg"
        if workspace.exists(path):
            found.append({"name": name, "picture": thumbnail(workspace, path, 2048)})
    return found
