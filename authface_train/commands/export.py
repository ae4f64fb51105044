"""`authface export`: converts a trained model for other software."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from manifests.support.console import console, quote_path


def export(
    model: Annotated[
        Path, typer.Argument(metavar="DIR", help="A finished run of train-prior or train-restore.")
    ],
    format: Annotated[
        Literal["single-file", "folder"],
        typer.Option(help="One file with SDXL's original parameter names, or a diffusers folder."),
    ] = "single-file",
    precision: Annotated[
        Literal["fp32", "fp16"],
        typer.Option(help="fp16 halves the size. The VAE stays fp32: it overflows in fp16."),
    ] = "fp32",
    output: Annotated[
        Path | None, typer.Option(help="Default: DIR.safetensors or DIR-model, next to DIR.")
    ] = None,
) -> None:
    """Export a model with its model card and lineage."""
    from authface_train.runs.export import export_folder, export_single_file

    half = precision == "fp16"
    if format == "single-file":
        target = output or model.with_name(f"{model.name}.safetensors")
        files = export_single_file(model, target, half=half)
        console.print(
            "ComfyUI, A1111 and diffusers' from_single_file load the file; its model card names "
            "the training photographs"
        )
    else:
        files = export_folder(model, output or model.with_name(f"{model.name}-model"), half=half)
    for path in files:
        console.print(f"wrote {quote_path(path)}")
