"""`authface study`: which of two methods do people like better."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from authface_train.commands.input_images import named_folder
from manifests.support.console import console, quote_path
from manifests.support.errors import UserError

app = typer.Typer(
    no_args_is_help=True,
    help="A user study of two methods, as one offline page.",
    rich_markup_mode="markdown",
)


@app.command()
def create(
    a: Annotated[str, typer.Option(help="One method's pictures: DIR or NAME=DIR.")],
    b: Annotated[str, typer.Option(help="The other's, matched by name.")],
    output: Annotated[Path, typer.Option(help="A folder for study.html.")] = Path("study"),
    degraded: Annotated[
        Path | None, typer.Option(help="What both were made from, shown above them.")
    ] = None,
    count: Annotated[
        int | None, typer.Option(min=1, help="How many pairs, drawn at random [all].")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the pairs, their order and sides.")] = 0,
) -> None:
    """Make the page: pairs in random order and on random sides, three answers, by mouse or keyboard, kept in the browser."""
    from authface_train.study.create import PAGE, Method, draw_pairs, page

    methods = [Method(*named_folder(option, given)) for option, given in (("--a", a), ("--b", b))]
    if methods[0].name == methods[1].name:
        raise UserError(f"both methods are named {methods[0].name}: --a NAME=DIR --b NAME=DIR")
    pairs = draw_pairs(methods[0], methods[1], degraded, seed, count)
    output.mkdir(parents=True, exist_ok=True)
    (output / PAGE).write_text(page(methods[0], methods[1], pairs, seed))
    console.print(
        f"{len(pairs)} pairs are in {quote_path(output / PAGE)}: open it, or send it to your raters"
    )
    console.print("Next: [bold]authface study tally FILE.csv ...[/] of what they save")


@app.command()
def tally(
    files: Annotated[list[Path], typer.Argument(help="The CSVs that raters have saved.")],
    json: Annotated[bool, typer.Option("--json", help="Print what a machine reads.")] = False,
) -> None:
    """Table 5: shares of each answer with intervals, and a sign test."""
    import dataclasses
    import json as json_

    from authface_train.study.tally import read, report
    from authface_train.study.tally import tally as count

    made = count(read(files))
    print(json_.dumps(dataclasses.asdict(made), indent=1) if json else report(made))
