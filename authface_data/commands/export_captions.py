"""`authface export-captions`: the set for other trainers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from manifests.support.console import WorkspaceOption, console, quote_path

NEXT = {
    "kohya": "accelerate launch sdxl_train.py --dataset_config dataset.toml …, started there",
    "simpletuner": 'data_backend_config = "multidatabackend.json", started there',
    "imagefolder": 'datasets.load_dataset("imagefolder", data_dir=…)',
    "jsonl": "one JSON object a line in captions.jsonl",
}


def export_captions(
    format: Annotated[
        Literal["kohya", "simpletuner", "imagefolder", "jsonl"],
        typer.Option(help="For which trainer."),
    ],
    output: Annotated[Path, typer.Option(metavar="DIR", help="A new or empty folder.")],
    tags: Annotated[
        Literal["none", "semantic", "photographic", "both"],
        typer.Option(help="Which tags make the captions."),
    ] = "both",
    allow_unknown_licence: Annotated[
        bool, typer.Option("--allow-unknown-licence", help="Faces without a licence basis too.")
    ] = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Copy kept crops and their captions into a folder that other trainers read."""
    from rich.progress import track

    from authface_data.captions.export import export_dataset
    from manifests.workspace import Workspace

    ws = Workspace.find(workspace)
    counts = export_dataset(
        ws,
        output,
        format,
        tags,
        allow_unknown_licence,
        lambda rows: track(rows, description="export", console=console),
    )
    what = ", ".join(f"{count} for {split}" for split, count in counts.items())
    console.print(
        f"{what}, in {quote_path(output)}. What is forgotten here later must be taken out there by hand: CREDITS.md has ids"
    )
    console.print(f"Next: {NEXT[format]}")
