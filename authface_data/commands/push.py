"""`authface push`: publish a model or the data set on the Hugging Face hub."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from manifests.support.console import WorkspaceOption, YesOption, console
from manifests.support.errors import UserError
from manifests.support.extras import needs_extras
from manifests.support.text import count_of


@needs_extras("data")
def push(
    repo: Annotated[str, typer.Option(metavar="OWNER/NAME", help="Repository on the hub.")],
    model: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Push this model: a finished run, or an export as folder. Default: none.",
        ),
    ] = None,
    dataset: Annotated[
        bool, typer.Option("--dataset", help="Push the kept faces of the workspace.")
    ] = False,
    public: Annotated[
        bool, typer.Option("--public", help="Make a new repository public. Default: private.")
    ] = False,
    workspace: WorkspaceOption = None,
    yes: YesOption = False,
) -> None:
    """Push a model or the data set to the Hugging Face hub, as far as the licences allow.

    A data set is Parquet with a card, splits and credits. Without --yes, only check and show what
    would be pushed. HF_TOKEN holds the key.

    ```
    authface push --dataset --repo me/faces
    authface push --model runs/restorer-paper --repo me/restorer --yes
    ```
    """
    from authface_data.publish import hub

    if (model is None) == (not dataset):
        raise UserError("use either --model DIR or --dataset")
    hub.check_repository(repo)
    if model is not None:
        files = hub.list_model_files(model)
        _push(repo, "model", model, files, public=public, yes=yes)
        return

    from authface_data.publish.dataset import build_dataset
    from manifests.workspace import Workspace

    ws = Workspace.find(workspace)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        counts = build_dataset(ws, folder, repo.rpartition("/")[2])
        splits = ", ".join(f"{count:,} for {split}" for split, count in counts.items())
        console.print(f"Faces: {splits}")
        files = [path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file()]
        _push(repo, "dataset", folder, files, public=public, yes=yes)


def _push(
    repo: str, kind: str, folder: Path, files: list[Path], *, public: bool, yes: bool
) -> None:
    from authface_data.publish.hub import upload

    total_mb = sum((folder / path).stat().st_size for path in files) / 1e6
    visibility = "public" if public else "private"
    for path in files:
        console.print(f"  {path}", markup=False)
    if not yes:
        console.print(
            f"{count_of(len(files), 'file')}, {total_mb:.1f} MB, would be pushed to the {kind} "
            f"repository {repo} ({visibility} if it is new); repeat the command with "
            "[bold]--yes[/]"
        )
        return
    address = upload(
        repo, "dataset" if kind == "dataset" else "model", folder, files, public=public
    )
    console.print(f"Pushed {count_of(len(files), 'file')}, {total_mb:.1f} MB: {address}")
