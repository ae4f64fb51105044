"""`authface restore`: aligned faces or whole photographs in, the same restored out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from authface_train.commands.input_images import pictures_of
from authface_train.commands.silence_libraries import silence_libraries
from manifests.support.console import WorkspaceOption, console, quote_path
from manifests.support.errors import PartialFailureError, UserError


def restore(
    model: Annotated[
        str,
        typer.Option(
            help="A run of train-restore, or a hub id (the authors': Ethanliang99/AuthFace)."
        ),
    ],
    input: Annotated[
        list[str],
        typer.Option(help="A picture, a folder of them, or a quoted pattern. Repeatable."),
    ],
    output: Annotated[
        Path,
        typer.Option(help="Where results go: photographs by their names, aligned faces as PNG."),
    ],
    faces: Annotated[
        Literal["largest", "all"] | None,
        typer.Option(
            help="Every picture is a whole photograph; else squares are aligned faces, of others all faces are done."
        ),
    ] = None,
    preset: Annotated[
        Literal["ours", "authors"],
        typer.Option(help="The paper's text, or its authors' released script."),
    ] = "ours",
    steps: Annotated[
        int | None, typer.Option(min=1, max=1000, help="Denoising steps [preset: 50].")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Of the noise to start from [preset: 123].")
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option(help="ddpm | ddim | dpm++ | euler | unipc [preset: ddpm].")
    ] = None,
    guidance: Annotated[
        float | None,
        typer.Option(min=1.0, help="Scale of classifier-free guidance; 1 is none, and faster."),
    ] = None,
    conditioning_scale: Annotated[
        float | None, typer.Option(min=0.0, help="Of the ControlNet [preset: 1].")
    ] = None,
    prompt: Annotated[str | None, typer.Option(help="In the place of the preset's.")] = None,
    negative_prompt: Annotated[
        str | None, typer.Option(help="In the place of the preset's.")
    ] = None,
    colour_fix: Annotated[
        str | None, typer.Option(help="none | wavelet | adain, to the degraded face's colours.")
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            help="noise | degraded: from noise alone, or with the degraded face under it."
        ),
    ] = None,
    precision: Annotated[
        Literal["auto", "fp32", "bf16", "fp16"],
        typer.Option(help="auto: fp16 on a card, else fp32."),
    ] = "auto",
    batch: Annotated[int, typer.Option(min=1, help="Faces at a time.")] = 4,
    upscale: Annotated[
        int,
        typer.Option(
            min=1, max=8, help="Enlarge a photograph so many times before its faces go in."
        ),
    ] = 1,
    certainty: Annotated[
        int,
        typer.Option(
            metavar="K", min=1, help="Restore by K seeds, and draw and measure where they disagree."
        ),
    ] = 1,
    detector: Annotated[
        str, typer.Option(help="retinaface-mobile | retinaface, for whole photographs.")
    ] = "retinaface-mobile",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Restore again what is there.")
    ] = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Restore faces: aligned ones (as `authface filter` writes them), or every face of whole photographs, pasted back.

    `restored.parquet` says what was done to each face; `strip.jpg` shows before above after.
    """
    import dataclasses

    from authface_train.restore.sampling import PRESETS

    given: dict[str, Any] = {
        "steps": steps, "seed": seed, "scheduler": scheduler, "guidance": guidance, "conditioning_scale": conditioning_scale,
        "prompt": prompt, "negative_prompt": negative_prompt, "colour_fix": colour_fix, "start": start,
    }  # fmt: skip
    sampling = dataclasses.replace(
        PRESETS[preset], **{name: value for name, value in given.items() if value is not None}
    )
    files = pictures_of(input)
    roots = {
        file.resolve().parents[depth]
        for file, name in files.items()
        for depth in (0, len(name.parts) - 1)
    }
    if output.resolve() in roots:
        raise UserError(
            "--output is a folder of --input: the results would overwrite what they are made from"
        )
    silence_libraries()
    from authface_train.restore import runner as restoring

    if any(file.name == restoring.STRIP for file in files):
        raise UserError(
            f"a picture of --input is named {restoring.STRIP}, as the strip of this command: rename it"
        )
    aligned = {file: restoring.is_aligned(file, faces) for file in files}
    todo = [
        file
        for file in files
        if overwrite or not restoring.target(files[file], output, aligned[file]).exists()
    ]
    if len(todo) < len(files):
        console.print(
            f"{len(files) - len(todo)} are there already in {quote_path(output)} (--overwrite restores them again)"
        )
    if not todo:
        return
    from authface_train.restore.pipeline import Restorer

    weights_dir = restoring.weights_dir(workspace)
    restorer = Restorer(model, sampling, weights_dir, precision)
    output.mkdir(parents=True, exist_ok=True)
    asked = restoring.RestoreOptions(faces, upscale, certainty, batch, detector)
    work = restoring.RestoreRunner(restorer, output, asked, model, weights_dir)
    work.restore({file: files[file] for file in todo})
    _tell(work, output)
    if work.refused:
        raise PartialFailureError("; ".join(work.refused))


def _tell(work: Any, output: Path) -> None:
    """What was done, and what to know of it."""
    done, size_px = len(work.rows), work.restorer.size_px
    if not done:
        return
    pictures = len({row["output"] for row in work.rows})
    console.print(
        f"{done} faces of {pictures} pictures restored to {quote_path(output)}, {work.seconds / done:.2f} s each; "
        f"restored.parquet says how, strip.jpg shows them"
    )
    if large := sum((row["qsize_px"] or 0) > 1.25 * size_px for row in work.rows):
        console.print(
            f"{large} of them are larger than the model's {size_px} px: they come out softer than they could be"
        )
    if work.asked.seeds > 1:
        console.print(
            f"Where {work.asked.seeds} seeds disagree is drawn in {quote_path(output / 'certainty')}"
        )
    if work.restorer.notes.get("untrained"):
        console.print(
            "[yellow]Untrained model:[/] what it makes is noise; it shows that the machinery runs"
        )
