"""`authface evaluate`: any method's pictures into Table 1."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from authface_train.commands.input_images import named_folder
from authface_train.commands.silence_libraries import silence_libraries
from manifests.support.console import WorkspaceOption, console, quote_path
from manifests.support.errors import PartialFailureError, UserError

MANY = 20  # lines of one kind that are printed


def evaluate(
    restored: Annotated[
        list[str], typer.Option(help="A method's pictures: DIR or NAME=DIR. Repeatable.")
    ],
    reference: Annotated[
        Path | None, typer.Option(help="The clean pictures, matched by name.")
    ] = None,
    degraded: Annotated[
        Path | None,
        typer.Option(
            help="What the methods were given: a row of its own, and what gains are over."
        ),
    ] = None,
    fid_reference: Annotated[
        Path | None, typer.Option(help="The set that FID is the distance to [the --reference].")
    ] = None,
    draws: Annotated[
        Path | None,
        typer.Option(help="The draws.parquet of `authface degrade`, for response curves."),
    ] = None,
    test_set: Annotated[
        Literal["celeba-test", "lfw-test", "webphoto-test", "wider-test"] | None,
        typer.Option("--set", help="Which of Table 1 it is: the paper's figures stand beside."),
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated; ours or any of pyiqa's [Table 1's, identity, landmarks]."
        ),
    ] = None,
    allow_missing: Annotated[
        bool,
        typer.Option("--allow-missing", help="End with 0 where metrics' weights are not here."),
    ] = False,
    json: Annotated[
        bool, typer.Option("--json", help="Print what a machine reads, and nothing else.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(help="Where scores.parquet, report.html and the table as .md, .tex, .csv go."),
    ] = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Score restored pictures: PSNR to CLIPIQA as in Table 1, identity and landmarks, several methods side by side."""
    import json as json_

    silence_libraries()
    from authface_train.evaluation import summary
    from authface_train.evaluation.evaluate import DEGRADED, evaluate, look_at_faces
    from authface_train.evaluation.fid import FEW, reference_set
    from authface_train.evaluation.metrics import METRICS, known
    from authface_train.evaluation.test_sets import SETS

    methods = _methods(restored)
    if degraded is not None:
        methods = {DEGRADED: degraded, **methods}
    names = (
        [name.strip() for name in metrics.split(",") if name.strip()]
        if metrics is not None
        else list(METRICS)
    )
    asked = metrics is not None
    of_reference = [name for name in names if known(name).kind in ("reference", "face")]
    if test_set is not None and SETS[test_set].has_reference and reference is None:
        raise UserError(f"{SETS[test_set].words} has clean pictures: --reference DIR")
    if reference is None:
        if asked and of_reference:
            raise UserError(
                f"{of_reference[0]} is measured against clean pictures: --reference DIR"
            )
        names = [name for name in names if name not in of_reference]
    compared = fid_reference or reference
    if "fid" in names and compared is None:
        if asked:
            raise UserError("FID is a distance to a set of pictures: --fid-reference DIR")
        names.remove("fid")
        left_out = "FID was left out: it is a distance to a set of pictures, --fid-reference DIR"
    else:
        left_out = None
    from authface_train.evaluation import page, response
    from authface_train.restore.runner import weights_dir

    device = _device()
    weights = weights_dir(workspace)
    drawn = response.read_draws(draws, methods.values()) if draws is not None else None
    compared_set = reference_set(compared) if "fid" in names and compared is not None else None
    found = evaluate(methods, reference, compared_set, names, weights, device)
    if reference is not None and output is not None and "identity" in found.metrics:
        look_at_faces(found, weights)
    made = summary.summarise(found, test_set)
    text = json_.dumps(summary.as_json(found, made, test_set), indent=1)
    title = f"Evaluation on {SETS[test_set].words}" if test_set is not None else "Evaluation"
    if output is not None:
        page.write(found, made, output, title, text, drawn)
    if json:
        print(text)
    else:
        _tell(found, made, output, FEW)
        if left_out:
            console.print(left_out)
    _end(found, allow_missing)


def _methods(restored: list[str]) -> dict[str, Path]:
    from authface_train.evaluation.evaluate import DEGRADED

    methods: dict[str, Path] = {}
    for one in restored:
        name, path = named_folder("--restored", one)
        if name == DEGRADED:
            raise UserError(
                f"a method cannot be named {DEGRADED}: --restored NAME=DIR, and --degraded for what it was given"
            )
        if name in methods:
            raise UserError(f"two methods are named {name}: --restored NAME=DIR")
        methods[name] = path
    return methods


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _tell(found: Any, made: Any, output: Path | None, few: int) -> None:
    from authface_train.evaluation import summary

    console.print(summary.rich_table(made))
    if (fid := found.fid_reference) is not None:
        small = (
            f"; of fewer than {few} pictures FID is biased upwards"
            if min(fid.count, *made.counts.values()) < few
            else ""
        )
        console.print(f"FID against {fid.words}{small}")
    for lines in (found.notes, found.unmatched, found.failed):
        for line in lines[:MANY]:
            console.print(line, markup=False)
        if len(lines) > MANY:
            console.print(f"... and {len(lines) - MANY} more lines like this")
    if output is not None:
        console.print(
            f"Pictures and numbers are in {quote_path(output / 'report.html')}, the table beside it as .md, .tex and .csv"
        )


def _end(found: Any, allow_missing: bool) -> None:
    undone = (
        [f"{len(found.failed)} pictures were not measured: {found.failed[0]}"]
        if found.failed
        else []
    )
    if found.missing and not allow_missing:
        undone.append("; ".join(found.missing.values()) + " (--allow-missing ends with 0)")
    if undone:
        raise PartialFailureError("; ".join(undone))
