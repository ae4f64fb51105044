"""`authface caption`: kept faces get tags."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from authface_data.commands.outcome import finish
from manifests.command_line import RetryOption, WorkersOption, WorkspaceOption, YesOption, console, wants_retry
from manifests.errors import UserMistake

if TYPE_CHECKING:
    from manifests.workspace import Workspace


def caption(
    captioner: Annotated[str | None, typer.Option(help="llava | measured. Default: captions.captioner.")] = None,
    model: Annotated[str | None, typer.Option(help="LLaVA-1.6 checkpoint, hub id or folder.")] = None,
    workspace: WorkspaceOption = None,
    retry: RetryOption = None,
    workers: WorkersOption = None,
    yes: YesOption = False,
) -> None:
    """Write semantic and photographic tags for every kept face."""
    again = wants_retry(retry)
    from importlib import import_module

    from authface_data.captions import CAPTIONERS
    from authface_data.engine import local
    from authface_data.engine.stage import Chain
    from authface_data.photo import PictureReader
    from manifests.workspace import Workspace

    ws = Workspace.find(workspace)
    with ws.lock("caption"):
        settings = ws.settings.captions
        name = captioner or settings.captioner
        if name not in CAPTIONERS:
            raise UserMistake(f"no captioner {name!r}: there are {', '.join(CAPTIONERS)}")
        module, kind = CAPTIONERS[name].split(":")
        stage = getattr(import_module(module), kind)(model or settings.model, ws.weights_dir)
        inputs = kept_with_photos(ws)
        if not inputs:
            raise UserMistake("no face is kept yet: `authface filter` first (`authface status` says why faces were dropped)")
        chain = Chain([stage], PictureReader(ws, "crop_path"))
        outcomes = local.run(ws, chain, inputs, title=f"caption ({name})", workers=workers, retry_failed=again, redo=yes)
        speed = f", {outcomes.rate(stage):.2f} faces/s" if outcomes.seconds else ""
        console.print(f"{outcomes.made[stage.name]} faces captioned by {name}{speed}; {len(inputs)} are kept")
        finish(outcomes, "authface train-prior --preset paper   (or: authface report)")


def kept_with_photos(ws: Workspace) -> list[tuple[str, dict[str, Any]]]:
    """(face_id, row) of every kept face, its photo's size and camera columns beside its own."""
    from manifests.ledger import kept_faces
    from manifests.schema import PHOTOS
    from manifests.store import Store

    columns = ["photo_id", "width", "height", "focal_length_mm", "aperture", "iso"]
    photos = {row["photo_id"]: row for row in Store(ws, PHOTOS).read(columns).to_pylist()}
    faces = kept_faces(ws)[
        ["face_id", "photo_id", "crop_path", "crop_sha256", "qsize_px", "yaw_deg", "roll_deg", "landmarks_crop_px"]
    ]
    return [(row["face_id"], {**row, **photos[row["photo_id"]]}) for row in faces.to_dict("records")]
