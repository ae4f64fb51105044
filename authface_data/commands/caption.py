"""`authface caption`: kept faces get tags."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from authface_data.commands.outcome import finish
from manifests.support.console import (
    RetryOption,
    WorkersOption,
    WorkspaceOption,
    YesOption,
    console,
    parse_retry,
)
from manifests.support.errors import UserError

if TYPE_CHECKING:
    from authface_data.engine.local import Outcomes
    from authface_data.engine.stage import Stage
    from manifests.settings import Captions
    from manifests.workspace import Workspace

CAPTIONERS = ("llava", "server", "measured")


def caption(
    captioner: Annotated[
        str | None, typer.Option(help="llava | server | measured. Default: captions.captioner.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="LLaVA-1.6 checkpoint, hub id or folder; the server's model.")
    ] = None,
    base_url: Annotated[
        str | None,
        typer.Option(metavar="URL", help="The server's address, as http://127.0.0.1:8000/v1."),
    ] = None,
    precision: Annotated[
        Literal["bf16", "8bit", "4bit"] | None,
        typer.Option(help="Of LLaVA's weights on a GPU. Default: captions.precision."),
    ] = None,
    workspace: WorkspaceOption = None,
    retry: RetryOption = None,
    workers: WorkersOption = None,
    yes: YesOption = False,
) -> None:
    """Write semantic and photographic tags for every kept face; check them against what the picture measures."""
    again = parse_retry(retry)
    from authface_data.captions.recompose import recompose
    from authface_data.captions.server import forget_answers
    from manifests.workspace import Workspace

    ws = Workspace.find(workspace)
    with ws.lock("caption"):
        name = captioner or ws.settings.captions.captioner
        settings = _settings(ws, name, model, base_url, precision)
        inputs = kept_with_photos(ws)
        if not inputs:
            raise UserError(
                "no face is kept yet: `authface filter` first (`authface status` says why faces were dropped)"
            )
        stage = _stage(ws, "measured", settings)
        # Any other captioner is held against it; and it costs no model's time to measure again.
        outcomes = _run(ws, stage, inputs, workers, again, yes or name != "measured")
        if name != "measured":
            _say(outcomes, stage, len(inputs))
            measured = outcomes
            stage = _stage(ws, name, settings)
            outcomes = _run(
                ws,
                stage,
                _with_measurements(ws, inputs),
                1 if name == "server" else workers,
                again,
                yes,
            )
            outcomes.failed.update(measured.failed)
        changed = recompose(ws)
        _say(outcomes, stage, len(inputs))
        if not sum(outcomes.failed.values()):
            forget_answers(ws)
        if changed and not outcomes.processed[stage.name]:
            console.print(
                f"{changed} captions composed anew by the present settings and vocabulary"
            )
        _say_contradictions(ws, name)
        finish(
            outcomes, "authface train-prior --preset paper   (or: authface tags, authface report)"
        )


def _settings(
    ws: Workspace, name: str, model: str | None, base_url: str | None, precision: str | None
) -> Captions:
    """The workspace's, with the options over them. Raises UserError for what does not go together."""
    if name not in CAPTIONERS:
        raise UserError(f"no captioner {name!r}: there are {', '.join(CAPTIONERS)}")
    of = {
        "--model": (model, ("llava", "server")),
        "--base-url": (base_url, ("server",)),
        "--precision": (precision, ("llava",)),
    }
    for option, (given, captioners) in of.items():
        if given is not None and name not in captioners:
            raise UserError(
                f"{option} means nothing to the captioner {name}: it is of {', '.join(captioners)}"
            )
    settings = ws.settings.captions
    if base_url is not None and not base_url.startswith(("http://", "https://")):
        raise UserError(
            f"--base-url {base_url!r} is no address: it begins with http:// or https://"
        )
    said = {"base_url": base_url, "model": model if name == "server" else None}
    server = settings.server.model_copy(
        update={key: value for key, value in said.items() if value is not None}
    )
    own = {"model": model if name == "llava" else None, "precision": precision, "server": server}
    return settings.model_copy(
        update={key: value for key, value in own.items() if value is not None}
    )


def _stage(ws: Workspace, name: str, settings: Captions) -> Stage:
    if name == "llava":
        from authface_data.captions.llava import LlavaStage

        return LlavaStage(settings, ws.weights_dir)
    if name == "server":
        from authface_data.captions.server import ServerStage

        return ServerStage(settings, ws)
    from authface_data.captions.measured.stage import MeasuredStage

    return MeasuredStage(settings)


def _run(
    ws: Workspace,
    stage: Stage,
    inputs: list[tuple[str, dict[str, Any]]],
    workers: int | None,
    again: bool,
    yes: bool,
) -> Outcomes:
    from authface_data.engine import local
    from authface_data.engine.stage import Chain
    from authface_data.images.open import PictureReader

    chain = Chain([stage], PictureReader(ws, "crop_path"))
    return local.run_chain(
        ws,
        chain,
        inputs,
        title=f"caption ({stage.name})",
        workers=workers,
        retry_failed=again,
        redo=yes,
    )


def _say(outcomes: Outcomes, stage: Stage, kept: int) -> None:
    speed = f", {outcomes.rate(stage):.2f} images/s" if outcomes.seconds else ""
    console.print(
        f"{outcomes.processed[stage.name]} faces captioned by {stage.name}{speed}; {kept} are kept"
    )


def _say_contradictions(ws: Workspace, name: str) -> None:
    from authface_data.captions.coverage import count_contradictions

    count = sum(one.count for one in count_contradictions(ws) if one.captioner == name)
    if count:
        left_out = ws.settings.captions.contradictions == "leave out"
        fate = "left out of the captions" if left_out else "kept in the captions"
        console.print(
            f"[yellow]{count} tags contradict the picture:[/] {fate}; `authface report` counts them"
        )


def kept_with_photos(ws: Workspace) -> list[tuple[str, dict[str, Any]]]:
    """(face_id, row) of every kept face, its photo's camera columns beside its own.

    measured_mark: names what a measured tag depends on beside the crop.
    """
    from manifests.schema import PHOTOS
    from manifests.store import Store
    from manifests.support.fingerprint import fingerprint
    from manifests.verdicts import kept_faces

    camera = ["focal_length_mm", "aperture", "iso"]
    pose = [
        "box_px",
        "qsize_px",
        "yaw_deg",
        "pitch_deg",
        "landmarks_crop_px",
        "left_eye_visible",
        "right_eye_visible",
    ]
    photos = {
        row["photo_id"]: row for row in Store(ws, PHOTOS).read(["photo_id", *camera]).to_pylist()
    }
    faces = kept_faces(ws, ["photo_id", "crop_path", "crop_sha256", *pose])
    inputs = []
    for face in faces.to_dict("records"):
        row = {**face, **photos[face["photo_id"]]}
        numbers = [
            row["yaw_deg"],
            row["pitch_deg"],
            row["qsize_px"],
            *(row["box_px"] if row["box_px"] is not None else []),
        ]
        seen = [bool(row["left_eye_visible"]), bool(row["right_eye_visible"])]
        mark = fingerprint(
            crop=face["crop_sha256"],
            pose=[float(x) for x in numbers],
            seen=seen,
            camera=[row[x] for x in camera],
        )
        inputs.append((face["face_id"], {**row, "measured_mark": mark}))
    return inputs


def _with_measurements(
    ws: Workspace, inputs: list[tuple[str, dict[str, Any]]]
) -> list[tuple[str, dict[str, Any]]]:
    """The inputs, with what was measured of each."""
    from manifests.schema import CAPTIONS
    from manifests.store import Store

    rows = Store(ws, CAPTIONS).read(["face_id", "captioner", "measurements"]).to_pylist()
    facts = {row["face_id"]: row["measurements"] for row in rows if row["captioner"] == "measured"}
    return [(key, {**row, "measurements": facts.get(key)}) for key, row in inputs]
