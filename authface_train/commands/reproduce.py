"""`authface reproduce`: the paper's tables and figures again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from manifests.command_line import console, shown
from manifests.errors import UserMistake

app = typer.Typer(no_args_is_help=True, help="The paper's tables and figures again.", rich_markup_mode="markdown")
SEEDS = (0, 1, 2)


@app.command()
def table2(
    scale: Annotated[
        Literal["small"], typer.Option(help="What a laptop can do: real faces of 64 px, models of 1 M.")
    ] = "small",
    output: Annotated[Path, typer.Option(help="Where everything goes; what is there is not made again.")] = Path("table2"),
    photos: Annotated[list[Path] | None, typer.Option(help="A folder of more photographs with faces. Repeatable.")] = None,
    row: Annotated[list[str] | None, typer.Option(help="a, b, c, c' or d. Repeatable; default d.")] = None,
    seed: Annotated[list[int] | None, typer.Option(help="Repeatable; default 0.")] = None,
    grid: Annotated[bool, typer.Option("--grid", help="All rows over three seeds: some hours.")] = False,
    tune: Annotated[bool, typer.Option("--tune", help="Only try weights of the facial loss on validation people.")] = False,
    latent: Annotated[
        Literal["unshuffle", "vae"], typer.Option(help="Pixels side by side, or a VAE trained here.")
    ] = "unshuffle",
    show: Annotated[Path | None, typer.Option(help="Only print the table of a folder of results.")] = None,
) -> None:
    """Ablation of the facial loss (Table 2), each row and seed a run with a result file of its own."""
    from authface_train.reproduce import table2 as table

    if show is not None:
        return print(table.report(show))
    from authface_train.commands.train import _quiet
    from authface_train.reproduce.small_runs import ROWS, Experiment, Scale

    rows = list(ROWS) if grid else (row or ["d"])
    if unknown := [name for name in rows if name not in ROWS]:
        raise UserMistake(f"no row {unknown[0]!r} in Table 2: there are {', '.join(ROWS)}")
    for folder in photos or []:
        if not folder.is_dir():
            raise UserMistake(f"--photos {folder} is no folder")
    _quiet()
    experiment = Experiment(output, photos or [], latent, Scale())
    experiment.models()
    experiment.baselines()
    if tune:
        experiment.tune()
    else:
        for one in SEEDS if grid else (seed or [0]):
            experiment.regression_row(one)
            for name in rows:
                experiment.row(ROWS[name], one)
    words = table.report(experiment.results)
    (output / "table2.md").write_text(f"{words}\n")
    print(words)
    console.print(f"Results are in {shown(experiment.results)}, the table in {shown(output / 'table2.md')}")
    if not grid:
        console.print(f"Next: [bold]authface reproduce table2 --output {shown(output)} --grid[/] fills in the rest")


@app.command()
def figure14(
    output: Annotated[Path, typer.Option(help="The picture, PNG.")] = Path("figure14.png"),
) -> None:
    """The weight of the facial loss over time for the paper's four settings (Figure 14)."""
    from authface_train.facial_loss.plot import plot

    plot().save(output)
    console.print(f"The weights over time are in {shown(output)}")
