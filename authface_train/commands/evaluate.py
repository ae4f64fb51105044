"""`authface evaluate`: measures the pictures of any method, in the form of the paper's Table 1."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.markup import escape

from authface_train.commands.input_images import parse_named_folder
from authface_train.commands.silence_libraries import silence_libraries
from manifests.support.console import (
    WorkspaceOption,
    console,
    error_console,
    print_json,
    quote_path,
)
from manifests.support.errors import PartialFailureError, UserError
from manifests.support.extras import needs_extras, sometimes_needs
from manifests.support.options import complete_evaluation_metrics
from manifests.support.text import count_of

if TYPE_CHECKING:
    from rich.table import Table

    from authface_train.evaluation.evaluate import Evaluation
    from authface_train.evaluation.summary import Summary

MAX_MESSAGES = 20
"""Messages of one kind that are printed; the report has all of them."""


@sometimes_needs("hps")
@needs_extras("data", "train")
def evaluate(
    restored: Annotated[
        list[str], typer.Option(help="Pictures of a method: DIR or NAME=DIR. Repeatable.")
    ],
    reference: Annotated[
        Path | None,
        typer.Option(help="Folder of the clean pictures, matched by name. Default: none."),
    ] = None,
    suffix: Annotated[
        str | None,
        typer.Option(
            help="Text that a method appended to names: `_sr` matches a_sr.png to a.png. "
            "`_restored` and `_00` are known. Default: none."
        ),
    ] = None,
    degraded: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the degraded pictures. They get a row of the table, and gains are "
            "measured over them. Default: none."
        ),
    ] = None,
    fid_reference: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the pictures that FID is measured against. Default: --reference."
        ),
    ] = None,
    draws: Annotated[
        Path | None,
        typer.Option(
            help="The draws.parquet of `authface degrade`, for response curves. Default: none."
        ),
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(
            help="CSV file with the prompts of generated pictures (columns file, caption), for "
            "hpsv2. Default: captions.csv in the folder of each method."
        ),
    ] = None,
    test_set: Annotated[
        Literal["celeba-test", "lfw-test", "webphoto-test", "wider-test"] | None,
        typer.Option(
            "--set",
            help="Test set of the paper; adds a row with its printed values. Default: none.",
        ),
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,...",
            help="Metrics, including any of pyiqa, and hpsv2. Default: those of Table 1, identity "
            "and landmarks.",
            autocompletion=complete_evaluation_metrics,
        ),
    ] = None,
    allow_missing: Annotated[
        bool,
        typer.Option("--allow-missing", help="End with 0 if the weights of a metric are missing."),
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            help="Folder for scores.parquet, report.html and the table (.md, .tex, .csv). "
            "Default: none."
        ),
    ] = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Measure restored pictures of one or several methods.

    The metrics are those of Table 1 (PSNR to CLIPIQA), identity and landmarks.

    ```
    authface evaluate --restored ours=restored --reference clean --output report
    authface evaluate --restored ours=restored --set lfw-test --metrics musiq,niqe
    ```
    """
    silence_libraries()
    import torch

    from authface_train.evaluation import degraded_set, fid, page, summary
    from authface_train.evaluation.evaluate import DEGRADED, measure_faces
    from authface_train.evaluation.evaluate import evaluate as run_evaluation
    from authface_train.evaluation.metrics import HPSV2, select_metrics
    from authface_train.evaluation.prompts import prompts_of_methods
    from authface_train.evaluation.test_sets import TEST_SETS
    from authface_train.restore.runner import find_weights_dir

    methods = _parse_methods(restored)
    if degraded is not None:
        methods = {DEGRADED: degraded, **methods}
    if test_set is not None and TEST_SETS[test_set].has_reference and reference is None:
        raise UserError(f"{TEST_SETS[test_set].title} has clean pictures; add --reference DIR")
    fid_folder = fid_reference or reference
    requested = _parse_names(metrics)
    prompt_of: dict[Path, str] = {}
    if HPSV2 in (requested or []):
        prompt_of = prompts_of_methods(methods, prompts)
    elif prompts is not None:
        raise UserError(f"--prompts is only valid with --metrics {HPSV2}")
    names = select_metrics(
        requested,
        has_reference=reference is not None,
        has_fid_reference=fid_folder is not None,
        has_prompts=bool(prompt_of),
    )
    fid_set = None
    if "fid" in names and fid_folder is not None:
        fid_set = fid.describe_reference_set(fid_folder)

    weights_dir = find_weights_dir(workspace)
    degradations = None
    if draws is not None:
        degradations = degraded_set.read_degradations(draws, methods.values(), suffix)
    evaluation = run_evaluation(
        methods,
        reference=reference,
        fid_reference=fid_set,
        suffix=suffix,
        prompts=prompt_of,
        metrics=names,
        weights_dir=weights_dir,
        device="cuda" if torch.cuda.is_available() else "cpu",
    )
    if reference is not None and output is not None and "identity" in evaluation.metrics:
        measure_faces(evaluation, weights_dir)
    table = summary.summarise(evaluation, test_set)
    if output is not None:
        page.write_report(evaluation, table, output, test_set=test_set, degradations=degradations)

    if json:
        print_json(summary.as_json(evaluation, table, test_set))
    else:
        _print_evaluation(evaluation, table, output)
        if metrics is None and fid_set is None:
            console.print("FID was left out; add --fid-reference DIR to measure it")
    _raise_if_incomplete(evaluation, allow_missing)


def _parse_names(metrics: str | None) -> list[str] | None:
    """Split the value of `--metrics`."""
    if metrics is None:
        return None
    return [name.strip() for name in metrics.split(",") if name.strip()]


def _parse_methods(restored: Sequence[str]) -> dict[str, Path]:
    """Parse the values of `--restored` to a folder per method."""
    from authface_train.evaluation.evaluate import DEGRADED

    methods: dict[str, Path] = {}
    for value in restored:
        name, folder = parse_named_folder("--restored", value)
        if name == DEGRADED:
            raise UserError(
                f"a method cannot be named {DEGRADED}; use --restored NAME=DIR, or --degraded DIR "
                "for the degraded pictures"
            )
        if name in methods:
            raise UserError(f"two methods are named {name}; use --restored NAME=DIR")
        methods[name] = folder
    return methods


def _make_table(table: Summary) -> Table:
    """The summary for the terminal; best values are bold, intervals are on a second line."""
    from rich.table import Table

    from authface_train.evaluation.summary import format_cell, heading

    rich_table = Table(show_lines=True)
    for title in ("method", "pictures", *map(heading, table.metrics)):
        rich_table.add_column(title, overflow="fold")
    for method, cells in table.cells.items():
        texts = []
        for name in table.metrics:
            text = format_cell(cells.get(name), name)
            text = escape(text.replace(" [", "\n[").replace(", ", "\n "))
            texts.append(f"[bold]{text}[/]" if table.best.get(name) == method else text)
        rich_table.add_row(escape(method), str(table.counts.get(method, "")), *texts)
    return rich_table


def _print_evaluation(evaluation: Evaluation, table: Summary, output: Path | None) -> None:
    """Print the table and the first messages of each kind."""
    from authface_train.evaluation.fid import MIN_PICTURES

    console.print(_make_table(table))
    reference = evaluation.fid_reference
    if reference is not None:
        is_small = min(reference.count, *table.counts.values()) < MIN_PICTURES
        bias = f"; with fewer than {MIN_PICTURES} pictures it is biased upwards" if is_small else ""
        console.print(f"FID against {escape(reference.description)}{bias}")
    for messages in (evaluation.notes, evaluation.unmatched, evaluation.failed):
        for message in messages[:MAX_MESSAGES]:
            console.print(message, markup=False)
        if len(messages) > MAX_MESSAGES:
            console.print(f"... and {len(messages) - MAX_MESSAGES} more messages of this kind")
    if output is not None:
        console.print(
            f"The report is {quote_path(output / 'report.html')}; the table is in the same folder "
            "as table.md, table.tex and table.csv"
        )


def _raise_if_incomplete(evaluation: Evaluation, allow_missing: bool) -> None:
    """Raise PartialFailureError if a picture or a metric was not measured."""
    problems = []
    if evaluation.failed:
        problems.append(
            f"{count_of(len(evaluation.failed), 'picture')} not measured: {evaluation.failed[0]}"
        )
    if evaluation.missing and not allow_missing:
        for message in evaluation.missing.values():
            error_console.print(message, markup=False)
        problems.append(
            f"{', '.join(evaluation.missing)} not measured, because weights are missing "
            "(--allow-missing ends with 0)"
        )
    if problems:
        raise PartialFailureError("; ".join(problems))
