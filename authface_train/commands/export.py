"""`authface export`: converts a trained model for other software."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from authface_train.commands.silence_libraries import silence_libraries
from manifests.support.console import console, quote_path
from manifests.support.errors import UserError
from manifests.support.extras import needs_extras


@needs_extras("data", "train")
def export(
    model: Annotated[
        Path, typer.Argument(metavar="DIR", help="A run of train-prior or train-restore.")
    ],
    format: Annotated[
        Literal["single-file", "folder"],
        typer.Option(help="One file with SDXL's original parameter names, or a diffusers folder."),
    ] = "single-file",
    checkpoint: Annotated[
        int | None,
        typer.Option(
            metavar="STEP",
            help="Export the model of this checkpoint. Default: the finished model.",
        ),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="With --checkpoint: the model that the run started from, if it has moved. "
            "Default: the recorded one.",
        ),
    ] = None,
    precision: Annotated[
        Literal["fp32", "fp16"],
        typer.Option(help="fp16 halves the size. The VAE stays fp32: it overflows in fp16."),
    ] = "fp32",
    output: Annotated[
        Path | None,
        typer.Option(
            help="File or folder to write. Default: DIR.safetensors or DIR-model, next to DIR."
        ),
    ] = None,
) -> None:
    """Export a model with its model card and lineage.

    ```
    authface export runs/prior-paper
    authface export runs/restorer-paper --format folder --precision fp16
    ```
    """
    silence_libraries()
    from authface_train.runs.checkpoint_model import checkpoint_model
    from authface_train.runs.export import check_output, export_folder, export_single_file

    if base is not None and checkpoint is None:
        raise UserError("--base belongs to --checkpoint; a finished model needs no other files")
    is_file = format == "single-file"
    export_to = export_single_file if is_file else export_folder
    half = precision == "fp16"
    target = output or _default_output(model, checkpoint, is_file)
    if checkpoint is None:
        files = export_to(model, target, half=half)
    else:
        check_output(model, target, single_file=is_file)
        with checkpoint_model(model, checkpoint, target.parent, base) as folder:
            files = export_to(folder, target, half=half)
    if is_file:
        console.print(
            "ComfyUI, A1111 and diffusers' from_single_file load the file; its model card names "
            "the training photographs"
        )
    for path in files:
        console.print(f"wrote {quote_path(path)}")


def _default_output(model: Path, checkpoint: int | None, is_file: bool) -> Path:
    """Path of the export, next to the folder of the run."""
    run = model if model.name else model.absolute()
    name = run.name if checkpoint is None else f"{run.name}-step-{checkpoint}"
    return run.with_name(f"{name}.safetensors" if is_file else f"{name}-model")
