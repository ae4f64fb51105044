"""`authface restore`: aligned faces in, restored faces out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from authface_train.commands.pictures import pictures_in
from manifests.command_line import WorkspaceOption, console, shown
from manifests.errors import DoneInPart, UserMistake


def restore(
    model: Annotated[str, typer.Option(help="A run of train-restore, or a hub id.")],
    input: Annotated[Path, typer.Option(help="An aligned face (square), or a folder of them.")],
    output: Annotated[Path, typer.Option(help="Where the restored faces go, as PNG under the same names.")],
    steps: Annotated[int, typer.Option(min=1, max=1000, help="Denoising steps.")] = 50,
    seed: Annotated[int, typer.Option(help="Of the noise to start from.")] = 123,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Restore again what is there.")] = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Restore aligned faces (as `authface filter` writes them). Also writes `strip.jpg`: before above after."""
    files = pictures_in(input)
    if output.resolve() == input.resolve():
        raise UserMistake("--output is the folder of --input: the restored faces would overwrite what they are made from")
    todo = [file for file in files if overwrite or not (output / f"{file.stem}.png").exists()]
    if len(todo) < len(files):
        console.print(f"{len(files) - len(todo)} are there already in {shown(output)} (--overwrite restores them again)")
    if not todo:
        return
    import time

    from authface_train import restoring
    from authface_train.commands.train import _quiet
    from authface_train.pipeline import Restorer

    _quiet()
    weights_dir = restoring.weights_dir(workspace)
    restorer = Restorer(model, weights_dir)
    output.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    refused = restoring.restore_files(restorer, todo, output, steps, seed)
    done = len(todo) - len(refused)
    if done:
        console.print(f"{done} faces restored to {shown(output)}, {(time.monotonic() - started) / done:.2f} s each")
    if restorer.notes.get("untrained"):
        console.print("[yellow]Untrained model:[/] what it makes is noise; it shows that the machinery runs")
    if refused:
        raise DoneInPart("; ".join(refused))
