"""`authface export-captions`: exports the data set for other trainers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from manifests.support.console import WorkspaceOption, console, quote_path

NEXT_STEPS = {
    "kohya": "run `accelerate launch sdxl_train.py --dataset_config dataset.toml …` in that folder",
    "simpletuner": 'set data_backend_config = "multidatabackend.json" and train in that folder',
    "imagefolder": 'call datasets.load_dataset("imagefolder", data_dir=…)',
    "jsonl": "read captions.jsonl: one JSON object per line",
}


def export_captions(
    export_format: Annotated[
        Literal["kohya", "simpletuner", "imagefolder", "jsonl"],
        typer.Option("--format", help="Trainer or library that will read the folder."),
    ],
    output: Annotated[Path, typer.Option(metavar="DIR", help="A new or empty folder.")],
    tags: Annotated[
        Literal["none", "semantic", "photographic", "both"],
        typer.Option(help="Tags that the captions contain."),
    ] = "both",
    allow_unknown_licence: Annotated[
        bool,
        typer.Option("--allow-unknown-licence", help="Also export faces without a licence basis."),
    ] = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Copy kept crops and their captions into a folder for other trainers.

    ```
    authface export-captions --format kohya --output kohya
    authface export-captions --format imagefolder --tags semantic --output dataset
    ```
    """
    from authface_data.captions.export import export_dataset
    from manifests.workspace import Workspace

    ws = Workspace.find(workspace)
    counts = export_dataset(
        ws,
        output,
        export_format,
        tags=tags,
        allow_unknown_licence=allow_unknown_licence,
    )
    summary = ", ".join(f"{count} for {split}" for split, count in counts.items())
    console.print(
        f"Exported crops: {summary}, in {quote_path(output)}. `authface forget` does not reach "
        "this copy: find the ids of forgotten photographs in CREDITS.md and delete their files."
    )
    console.print(f"Next: {NEXT_STEPS[export_format]}", markup=False)
