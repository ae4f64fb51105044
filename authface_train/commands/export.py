"""`authface export`."""

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
        typer.Option(help="One file under SDXL's original names, or the model's folder."),
    ] = "single-file",
    precision: Annotated[
        Literal["fp32", "fp16"],
        typer.Option(help="fp16 halves it; the VAE stays fp32, since SDXL's does not stand less."),
    ] = "fp32",
    output: Annotated[
        Path | None, typer.Option(help="Default: DIR.safetensors, or DIR-model, beside it.")
    ] = None,
) -> None:
    """Hand a model to other software, its card and lineage beside it."""
    from authface_train.runs import export as exporting

    half = precision == "fp16"
    if format == "single-file":
        made = exporting.export_single_file(
            model, output or model.with_name(f"{model.name}.safetensors"), half
        )
        console.print(
            "ComfyUI, A1111 and diffusers' from_single_file load it; the card says whose photographs are in it"
        )
    else:
        made = exporting.export_folder(
            model, output or model.with_name(f"{model.name}-model"), half
        )
    for path in made:
        console.print(f"made {quote_path(path)}")
