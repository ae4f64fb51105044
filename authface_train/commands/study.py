"""`authface study`: asks people which of two methods looks better."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from authface_train.commands.input_images import parse_named_folder
from manifests.support.console import (
    CommandGroup,
    JsonOption,
    console,
    print_json,
    quote_path,
)
from manifests.support.errors import UserError
from manifests.support.options import MAX_SEED
from manifests.support.text import count_of

app = typer.Typer(
    cls=CommandGroup,
    no_args_is_help=True,
    help="Run a user study of two methods on one offline page.",
    rich_markup_mode="markdown",
)


@app.command()
def create(
    a: Annotated[str, typer.Option(help="Pictures of the first method: DIR or NAME=DIR.")],
    b: Annotated[str, typer.Option(help="Pictures of the second method, matched by name.")],
    output: Annotated[Path, typer.Option(help="Folder for study.html.")] = Path("study"),
    degraded: Annotated[
        Path | None,
        typer.Option(help="Folder of the degraded pictures, shown above each pair. Default: none."),
    ] = None,
    count: Annotated[
        int | None, typer.Option(min=1, help="Number of pairs, drawn at random. Default: all.")
    ] = None,
    seed: Annotated[
        int,
        typer.Option(min=0, max=MAX_SEED, help="Seed of the choice, order and sides of pairs."),
    ] = 0,
) -> None:
    """Create a page that asks people which of two methods they prefer.

    Pairs appear in random order and on random sides. Raters answer by mouse or keyboard; the
    browser keeps their answers until they save them as a CSV file.

    ```
    authface study create --a ours=restored --b theirs=other --degraded lq --output study
    ```
    """
    from authface_train.study.create import Method, create_study

    method_a = Method(*parse_named_folder("--a", a))
    method_b = Method(*parse_named_folder("--b", b))
    if method_a.name == method_b.name:
        raise UserError(
            f"both methods are named {method_a.name}; use --a NAME=DIR and --b NAME=DIR"
        )
    study = create_study(method_a, method_b, output, degraded=degraded, seed=seed, count=count)
    console.print(
        f"{count_of(study.pairs, 'pair')} in {quote_path(study.path)}; open it or send it to your raters"
    )
    console.print("Next: [bold]authface study tally FILE.csv ...[/] with the files that they save")


@app.command()
def create_ranking(
    method: Annotated[
        list[str],
        typer.Option(help="Pictures of a method: DIR or NAME=DIR. Two to nine, matched by name."),
    ],
    prompts: Annotated[
        Path | None,
        typer.Option(
            help="CSV file with the prompt of each picture (columns file, caption), shown above "
            "the pictures; one picture per prompt is drawn. Default: none."
        ),
    ] = None,
    output: Annotated[Path, typer.Option(help="Folder for study.html.")] = Path("study"),
    count: Annotated[
        int | None,
        typer.Option(min=1, help="Largest number of prompts, drawn at random. Default: all."),
    ] = None,
    seed: Annotated[
        int,
        typer.Option(min=0, max=MAX_SEED, help="Seed of the choice and order of pictures."),
    ] = 0,
) -> None:
    """Create a page on which people rank the pictures of several methods, as for Table 3.

    ```
    authface study create-ranking --method none=a --method semantic=b --method both=c --count 10
    ```
    """
    from authface_train.evaluation.prompts import read_prompts
    from authface_train.study.create import Method
    from authface_train.study.create_ranking import create_ranking

    methods = [Method(*parse_named_folder("--method", value)) for value in method]
    names = [item.name for item in methods]
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise UserError(f"two methods are named {repeated}; use --method NAME=DIR")
    study = create_ranking(
        methods,
        output,
        prompts=None if prompts is None else read_prompts(prompts),
        seed=seed,
        count=count,
    )
    console.print(
        f"{count_of(study.pairs, 'ranking')} of {len(methods)} pictures in "
        f"{quote_path(study.path)}; open it or send it to your raters"
    )
    console.print("Next: [bold]authface study tally FILE.csv ...[/] with the files that they save")


@app.command()
def tally(
    files: Annotated[list[Path], typer.Argument(help="CSV files that raters have saved.")],
    json: JsonOption = False,
) -> None:
    """Print the result of a study, with intervals.

    For pairs: the share of each answer and a sign test, as in Table 5. For rankings: the mean rank
    of each method.

    ```
    authface study tally anna.csv ben.csv
    ```
    """
    from authface_train.study import ranking_tally
    from authface_train.study import tally as pair_tally

    if ranking_tally.is_ranking(files[0]):
        ranks = ranking_tally.tally_rankings(ranking_tally.read_rankings(files))
        _print_result(ranks, ranking_tally.format_report(ranks), json)
        return
    shares = pair_tally.tally_answers(pair_tally.read_answers(files))
    _print_result(shares, pair_tally.format_report(shares), json)


def _print_result(result: object, report: str, as_json: bool) -> None:
    if as_json:
        print_json(result)
    else:
        console.print(report, markup=False)
