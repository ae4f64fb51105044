"""`authface restore`: restores aligned faces and the faces of whole photographs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from authface_train.commands.input_images import expand_inputs, report_failures
from authface_train.commands.silence_libraries import silence_libraries
from authface_train.restore.sampling import ColourFix, Scheduler, Start
from manifests.support.console import WorkspaceOption, console, quote_path
from manifests.support.errors import UserError
from manifests.support.extras import needs_extras
from manifests.support.options import MAX_SEED, DetectorName
from manifests.support.text import count_of

if TYPE_CHECKING:
    from authface_train.restore.runner import RestoreRunner

MAX_NAMES = 3
"""Names that are printed of a list."""


@needs_extras("data", "train")
def restore(
    model: Annotated[
        str,
        typer.Option(
            help="A run of train-restore, or a hub id (the authors': Ethanliang99/AuthFace)."
        ),
    ],
    input: Annotated[
        list[str],
        typer.Option(help="A picture, a folder of pictures, or a quoted pattern. Repeatable."),
    ],
    output: Annotated[
        Path,
        typer.Option(
            help="Folder for the results: photographs keep their names, aligned faces become PNG. "
            "Or, for one picture, a file (.jpg, .png, .webp, .tif)."
        ),
    ],
    aligned: Annotated[
        bool,
        typer.Option(
            "--aligned",
            help="Every input is an aligned face. By default a square picture is one if its "
            "landmarks lie as in an aligned face.",
        ),
    ] = False,
    faces: Annotated[
        Literal["largest", "all"] | None,
        typer.Option(
            help="Every input is a photograph; restore these faces of it. Default: all faces of "
            "pictures that are not aligned faces."
        ),
    ] = None,
    preset: Annotated[
        Literal["ours", "authors"],
        typer.Option(
            help="`ours`: null prompt and no guidance, as in the paper's text. `authors`: prompts, "
            "guidance and colour fix of the authors' script. Both take its 50 DDPM steps and seed."
        ),
    ] = "ours",
    steps: Annotated[
        int | None, typer.Option(min=1, max=1000, help="Denoising steps. Default: 50.")
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(min=0, max=MAX_SEED, help="Seed of the initial noise. Default: 123."),
    ] = None,
    scheduler: Annotated[Scheduler | None, typer.Option(help="Sampler. Default: ddpm.")] = None,
    guidance: Annotated[
        float | None,
        typer.Option(
            min=1.0,
            help="Classifier-free guidance scale. 1 disables it and is faster. Default: that of "
            "the preset.",
        ),
    ] = None,
    conditioning_scale: Annotated[
        float | None, typer.Option(min=0.0, help="Scale of the ControlNet. Default: 1.")
    ] = None,
    prompt: Annotated[str | None, typer.Option(help="Prompt. Default: that of the preset.")] = None,
    negative_prompt: Annotated[
        str | None, typer.Option(help="Negative prompt. Default: that of the preset.")
    ] = None,
    colour_fix: Annotated[
        ColourFix | None,
        typer.Option(help="Take over the degraded face's colours. Default: that of the preset."),
    ] = None,
    start: Annotated[
        Start | None,
        typer.Option(
            help="Initial latents: pure noise, or the noisy degraded face. Default: that of the "
            "preset."
        ),
    ] = None,
    precision: Annotated[
        Literal["auto", "fp32", "bf16", "fp16"],
        typer.Option(help="Data type of the networks. auto: fp16 on a GPU, else fp32."),
    ] = "auto",
    batch: Annotated[int, typer.Option(min=1, help="Faces per batch.")] = 4,
    upscale: Annotated[
        int,
        typer.Option(min=1, max=8, help="Enlarge photographs by this factor before pasting faces."),
    ] = 1,
    certainty: Annotated[
        int,
        typer.Option(
            metavar="K",
            min=1,
            help="Restore each face with K seeds; measure and draw where they disagree.",
        ),
    ] = 1,
    detector: Annotated[
        DetectorName, typer.Option(help="Face detector for photographs.")
    ] = "retinaface-mobile",
    min_face_px: Annotated[
        int,
        typer.Option(
            min=8,
            help="Smallest face to restore in a photograph, in its pixels. Small faces in very "
            "large photographs take longer to find.",
        ),
    ] = 32,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Restore inputs again whose result exists.")
    ] = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Restore aligned faces (as `authface filter` writes them), or the faces of whole photographs.

    In the output folder, `restored.parquet` records how each face was restored; `strip.jpg` shows
    the first faces, degraded above restored.

    ```
    authface restore --model runs/restorer-paper --input album --output restored
    authface restore --model runs/restorer-paper --input face.png --output new.png --aligned
    ```
    """
    import dataclasses

    from authface_train.restore.sampling import PRESETS

    options = {
        "steps": steps,
        "seed": seed,
        "scheduler": scheduler,
        "guidance": guidance,
        "conditioning_scale": conditioning_scale,
        "prompt": prompt,
        "negative_prompt": negative_prompt,
        "colour_fix": colour_fix,
        "start": start,
    }
    changes = {name: value for name, value in options.items() if value is not None}
    sampling = dataclasses.replace(PRESETS[preset], **changes)  # type: ignore[arg-type]

    inputs = expand_inputs(input)
    silence_libraries()
    from authface_data.faces.detectors import make_detector
    from authface_train.restore import runner
    from authface_train.restore.earlier_results import EarlierResults, describe_settings
    from authface_train.restore.output_folder import OutputTarget
    from manifests.support.hub import resolve_model

    restore_options = runner.RestoreOptions(
        aligned=aligned,
        faces=faces,
        upscale=upscale,
        seeds=certainty,
        batch=batch,
        detector=detector,
        min_face_px=min_face_px,
    )
    make_detector(detector)  # refuses an unknown name before the model is loaded
    target = OutputTarget.parse(output)
    if target.file is not None and certainty > 1:
        raise UserError("--certainty writes maps besides the picture; use a folder for --output")
    inputs = target.rename(inputs)
    target.check(inputs)
    weights_dir = runner.find_weights_dir(workspace)
    model_path = Path(resolve_model(model, weights_dir))
    selected = inputs
    if not overwrite:
        earlier = EarlierResults(target, restore_options.known_aligned)
        results = earlier.find(inputs)
        earlier.check(
            results,
            model=model,
            folder=model_path if model_path.is_dir() else None,
            settings=describe_settings(sampling, seeds=certainty, upscale=upscale),
        )
        selected = {path: names for path, names in inputs.items() if path not in results}
        if results:
            console.print(
                f"{len(results):,} of {count_of(len(inputs), 'result')} exist in "
                f"{quote_path(output)}, by this model with these settings; --overwrite restores "
                "them again"
            )
    if not selected:
        return

    from authface_train.restore.pipeline import Restorer

    restorer = Restorer(model, sampling, weights_dir, precision)
    target.folder.mkdir(parents=True, exist_ok=True)
    restore_runner = runner.RestoreRunner(
        restorer=restorer,
        target=target,
        options=restore_options,
        model=model,
        weights_dir=weights_dir,
    )
    restore_runner.restore(selected)
    _print_summary(restore_runner)
    report_failures(restore_runner.failures, len(selected), "restored")


def _print_summary(runner: RestoreRunner) -> None:
    """Print the counts of a run, and warnings about its results."""
    from authface_train.restore.output_folder import CERTAINTY_FOLDER, RECORD_FILE, STRIP_FILE

    summary = runner.summarise()
    if summary is None:
        return
    target = runner.target
    by_products = f"; settings are in {RECORD_FILE}, an overview in {STRIP_FILE}"
    console.print(
        f"Restored {count_of(summary.faces, 'face')} to {quote_path(target.file or target.folder)}, "
        f"{summary.seconds_per_face:.2f} s per face{by_products if target.file is None else ''}"
    )
    kinds = []
    if summary.aligned:
        kinds.append(count_of(summary.aligned, "aligned face"))
    if summary.photographs:
        kinds.append(count_of(summary.photographs, "photograph"))
    console.print(f"Inputs: {', '.join(kinds)}")
    if runner.undetected:
        more = ", ..." if len(runner.undetected) > MAX_NAMES else ""
        console.print(
            f"No face was detected in {count_of(len(runner.undetected), 'square picture')}, restored "
            f"as aligned ({', '.join(runner.undetected[:MAX_NAMES])}{more}); --faces all treats "
            "square pictures as photographs",
            markup=False,
        )
    if summary.larger_faces:
        console.print(
            f"Larger than the model's {runner.restorer.size_px} px, so that they lose detail: "
            f"{count_of(summary.larger_faces, 'face')}"
        )
    if runner.options.seeds > 1:
        console.print(
            f"Maps of the disagreement between {runner.options.seeds} seeds are in "
            f"{quote_path(target.folder / CERTAINTY_FOLDER)}"
        )
    if runner.restorer.notes.get("untrained"):
        console.print("[yellow]Untrained model:[/] the restored faces are noise")
