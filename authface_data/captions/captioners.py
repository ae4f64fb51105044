"""The captioners by name: their options, their stages and their inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from manifests.missing_files import require_photo_rows
from manifests.names import CAPTIONERS
from manifests.schema import CAPTIONS, PHOTOS
from manifests.settings import override
from manifests.sources import select_source
from manifests.store import Store
from manifests.support.errors import UserError
from manifests.support.fingerprint import fingerprint
from manifests.support.options import TrainingSource
from manifests.support.text import unknown_name
from manifests.verdicts import kept_faces
from manifests.workspace import Workspace

if TYPE_CHECKING:
    from authface_data.engine.stage import Stage
    from manifests.settings import Captions

CAMERA_COLUMNS = ["focal_length_mm", "aperture", "iso"]
SIZE_COLUMNS = ["width", "height"]
FACE_COLUMNS = [
    "photo_id",
    "crop_path",
    "crop_sha256",
    "box_px",
    "qsize_px",
    "quad_px",
    "yaw_deg",
    "pitch_deg",
    "landmarks_crop_px",
    "left_eye_visible",
    "right_eye_visible",
    "mouth_visible",
]

CaptionInput = tuple[str, dict[str, Any]]
"""A face_id and its row."""


def override_settings(
    settings: Captions,
    captioner: str,
    *,
    model: str | None = None,
    base_url: str | None = None,
    precision: str | None = None,
) -> Captions:
    """Apply the options of `authface caption` to the settings.

    Args:
        settings: The section `captions` of the workspace's settings.
        captioner: Name of the captioner.
        model: LLaVA checkpoint, or the server's name of its model.
        base_url: Address of the server.
        precision: Precision of LLaVA's weights: "bf16", "8bit" or "4bit".

    Returns:
        A copy of the settings in which the options that are not None replace the settings.

    Raises:
        UserError: If the captioner is unknown or does not have one of the options.
    """
    if captioner not in CAPTIONERS:
        raise UserError(unknown_name("captioner", captioner, CAPTIONERS))
    _check_option("--model", model, captioner, ("llava", "server"))
    _check_option("--base-url", base_url, captioner, ("server",))
    _check_option("--precision", precision, captioner, ("llava",))
    if base_url is not None and not base_url.startswith(("http://", "https://")):
        raise UserError(f"--base-url must start with http:// or https://, not {base_url!r}")

    llava_model = model if captioner == "llava" else None
    server_model = model if captioner == "server" else None
    server = override(settings.server, model=server_model, base_url=base_url)
    return override(settings, model=llava_model, precision=precision, server=server)


def _check_option(
    option: str, value: str | None, captioner: str, valid_captioners: Sequence[str]
) -> None:
    """Raise UserError if an option is given that the captioner does not have."""
    if value is not None and captioner not in valid_captioners:
        valid = " or ".join(valid_captioners)
        raise UserError(f"{option} is only valid with --captioner {valid}")


def create_stage(workspace: Workspace, captioner: str, settings: Captions) -> Stage:
    """Create the stage of a captioner.

    Args:
        workspace: The workspace.
        captioner: One of `manifests.names.CAPTIONERS`.
        settings: The section `captions`, with options applied.

    Returns:
        The stage, before its setup.
    """
    if captioner == "llava":
        from authface_data.captions.llava import LlavaStage

        return LlavaStage(settings, workspace.weights_dir)
    if captioner == "server":
        from authface_data.captions.server import ServerStage

        return ServerStage(settings, workspace)
    from authface_data.captions.measured.stage import MeasuredStage

    return MeasuredStage(settings, workspace.weights_dir)


def load_inputs(workspace: Workspace, source: TrainingSource | None = None) -> list[CaptionInput]:
    """Read the kept faces, each with the camera columns and the size of its photo.

    Every row also has the column `measurement_hash`, a hash of all values that measured tags depend
    on: the captioner `measured` is run again when it changes.

    Args:
        workspace: The workspace.
        source: "ffhq" for the faces collected from FFHQ, "portraits" for all others, "workspace"
            for both. None takes "portraits", or "ffhq" if there are no others: Stage II, which
            learns from FFHQ, needs no captions.
    """
    photos = Store(workspace, PHOTOS).read(["photo_id", *CAMERA_COLUMNS, *SIZE_COLUMNS]).to_pylist()
    photo_of = {photo["photo_id"]: photo for photo in photos}
    faces = kept_faces(workspace, FACE_COLUMNS)
    require_photo_rows(faces["photo_id"], photo_of)
    faces = select_source(faces, source)
    inputs = []
    for face in faces.to_dict("records"):
        row = {**face, **photo_of[face["photo_id"]]}
        row["measurement_hash"] = _measurement_hash(row)
        inputs.append((face["face_id"], row))
    return inputs


def _measurement_hash(row: dict[str, Any]) -> str:
    pose = [row["yaw_deg"], row["pitch_deg"], row["qsize_px"]]
    if row["box_px"] is not None:
        pose += list(row["box_px"])
    # The names of the arguments are part of stored fingerprints: do not rename them.
    return fingerprint(
        crop=row["crop_sha256"],
        pose=[float(value) for value in pose],
        seen=[bool(row[f"{region}_visible"]) for region in ("left_eye", "right_eye", "mouth")],
        camera=[row[column] for column in CAMERA_COLUMNS],
    )


def add_measurements(workspace: Workspace, inputs: Sequence[CaptionInput]) -> list[CaptionInput]:
    """Add the stored measurements to the rows of `load_inputs`.

    Args:
        workspace: The workspace.
        inputs: The inputs; they are not changed.

    Returns:
        The inputs, whose rows have the column `measurements`; it is None for an unmeasured face.
    """
    rows = Store(workspace, CAPTIONS).read(["face_id", "captioner", "measurements"]).to_pylist()
    measurements_of = {
        row["face_id"]: row["measurements"] for row in rows if row["captioner"] == "measured"
    }
    return [
        (face_id, {**row, "measurements": measurements_of.get(face_id)}) for face_id, row in inputs
    ]
