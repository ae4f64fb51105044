"""`authface degrade`: makes a paired test set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from authface_train.commands.input_images import expand_inputs, report_failures
from manifests.support.console import console, quote_path
from manifests.support.extras import needs_extras
from manifests.support.options import MAX_SEED, DegradationPreset
from manifests.support.text import count_of


@needs_extras("data", "train")
def degrade(
    input: Annotated[Path, typer.Option(help="A picture, or a folder of pictures.")],
    output: Annotated[Path, typer.Option(help="Folder for `<stem>.png` and draws.parquet.")],
    preset: Annotated[
        DegradationPreset,
        typer.Option(help="Recipe of a paper, or high-iso: strong noise and little blur."),
    ] = "gfpgan",
    seed: Annotated[
        int,
        typer.Option(
            min=0, max=MAX_SEED, help="The same seed and file name give the same degradation."
        ),
    ] = 0,
) -> None:
    """Degrade pictures as in training, and record the parameters of each degradation.

    The shorter side of each picture is resized to 512 px first.

    ```
    authface degrade --input celeba-test --output celeba-test-lq --preset gfpgan
    ```
    """
    from authface_train.evaluation.degraded_set import RECORD_FILE, degrade_pictures

    files = {path: names.face for path, names in expand_inputs([str(input)]).items()}
    degraded = degrade_pictures(files, output, preset=preset, seed=seed)
    console.print(
        f"Degraded {count_of(degraded.count, 'picture')} to {quote_path(output)}; their parameters are in "
        f"{RECORD_FILE}"
    )
    report_failures(degraded.failures, len(files), "degraded")
