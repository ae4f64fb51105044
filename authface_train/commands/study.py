"""`authface study`: asks people which of two methods looks better."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from authface_train.commands.input_images import MAX_SEED, parse_named_folder
from manifests.support.console import (
    CommandGroup,
    JsonOption,
    console,
    print_json,
    quote_path,
)
from manifests.support.errors import UserError
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
    """Create the page.

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
def tally(
    files: Annotated[list[Path], typer.Argument(help="CSV files that raters have saved.")],
    json: JsonOption = False,
) -> None:
    """Print the share of each answer with intervals and a sign test, as in Table 5.

    ```
    authface study tally anna.csv ben.csv
    ```
    """
    from authface_train.study.tally import format_report, read_answers, tally_answers

    result = tally_answers(read_answers(files))
    if json:
        print_json(result)
    else:
        console.print(format_report(result), markup=False)
