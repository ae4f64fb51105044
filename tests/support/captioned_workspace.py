"""A workspace with three kept faces that have captions and measurements."""

from __future__ import annotations

from datetime import UTC, datetime

from PIL import Image

from authface_data.captions.recompose import recompose
from manifests.captions import caption_text, current_tags
from manifests.schema import CAPTIONS, DECISIONS, FACES, PHOTOS, VERDICTS
from manifests.store import Store
from manifests.verdicts import ALL_GATES, verdict_row
from manifests.workspace import Workspace

# Name of a face -> LLaVA's semantic and photographic answer.
ANSWERS = {
    "a": ["young asian woman, long black hair", "profile view, soft light"],
    "b": ["man, beard, zebra", "front view, black and white"],
    "c": ["woman, beard", "smile"],
}
FRONT_VIEW = {"facet": "view", "tag": "front view", "value": 2.0, "confidence": 0.97}


def face_id(name: str) -> str:
    """The face_id of a face in `ANSWERS`."""
    return f"fs_{name}_1"


def fill(workspace: Workspace) -> None:
    """Add the faces, each captioned by LLaVA and measured as a front view."""
    faces = []
    photos = []
    captions = []
    for name, answers in ANSWERS.items():
        faces.append(
            {
                "face_id": face_id(name),
                "photo_id": f"fs_{name}",
                "crop_path": f"faces/{face_id(name)}.png",
                "fingerprint": "f",
            }
        )
        photos.append(
            {
                "photo_id": f"fs_{name}",
                "sha256": name,
                "licence_basis": "own",
                "photographer_name": f"Ann {name}",
                "fingerprint": "f",
            }
        )
        caption = {"face_id": face_id(name), "fingerprint": "f"}
        captions.append({**caption, "captioner": "llava", "raw_answers": answers})
        captions.append({**caption, "captioner": "measured", "measurements": [FRONT_VIEW]})
        with workspace.local_path(f"faces/{face_id(name)}.png").open("wb") as file:
            Image.new("RGB", (16, 16), "red").save(file, "PNG")

    verdicts = [
        verdict_row("face", face_id(name), ALL_GATES, "kept", fingerprint="f") for name in ANSWERS
    ]
    Store(workspace, FACES).append(faces)
    Store(workspace, PHOTOS).append(photos)
    Store(workspace, VERDICTS).append(verdicts)
    Store(workspace, CAPTIONS).append(captions)
    recompose(workspace)


def captions_in_use(workspace: Workspace) -> dict[str, str]:
    """Name of a face -> the text of the caption in use."""
    return {
        face[3]: caption_text([*tags.semantic, *tags.photographic])
        for face, tags in current_tags(workspace).items()
    }


def decide(
    workspace: Workspace,
    tag: str,
    decision: str = "drop",
    renamed_to: str | None = None,
    minute: int = 0,
) -> None:
    """Record a decision about a tag, made at 12:`minute`."""
    row = {
        "id": f"tag:{tag}",
        "reviewer": "r",
        "decision": decision,
        "renamed_to": renamed_to,
        "decided_at": datetime(2026, 11, 25, 12, minute, tzinfo=UTC),
    }
    Store(workspace, DECISIONS).append([row])
