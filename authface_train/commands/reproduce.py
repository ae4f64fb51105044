"""`authface reproduce`: the paper's tables and figures again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from authface_train.commands.reproduce_options import (
    ReproduceOptions,
    run_paper,
    with_options,
    write_table,
)
from authface_train.commands.silence_libraries import silence_libraries
from manifests.support.console import WorkspaceOption, console, quote_path
from manifests.support.errors import UserError

if TYPE_CHECKING:
    from authface_train.reproduce.small_runs import Experiment

app = typer.Typer(
    no_args_is_help=True, help="The paper's tables and figures again.", rich_markup_mode="markdown"
)
SEEDS = (0, 1, 2)


@app.command()
@with_options
def table1(asked: ReproduceOptions) -> None:
    """The restorer on test sets (Table 1)."""
    if asked.scale == "paper":
        run_paper("table1", asked)
        return
    from authface_train.reproduce import small_tables

    small_tables.table1(_experiment(asked))


@app.command()
@with_options
def table2(
    asked: ReproduceOptions,
    row: Annotated[
        list[str] | None, typer.Option(help="Small: a, b, c, c' or d. Repeatable; default d.")
    ] = None,
    seed: Annotated[list[int] | None, typer.Option(help="Small: repeatable; default 0.")] = None,
    grid: Annotated[
        bool, typer.Option("--grid", help="Small: all rows over three seeds: some hours.")
    ] = False,
    tune: Annotated[
        bool,
        typer.Option("--tune", help="Small: only try weights of that loss on validation people."),
    ] = False,
    latent: Annotated[
        Literal["unshuffle", "vae"],
        typer.Option(help="Small: pixels side by side, or a VAE trained here."),
    ] = "unshuffle",
    show: Annotated[
        Path | None, typer.Option(help="Only print the table of a folder of results.")
    ] = None,
) -> None:
    """Ablation of the facial loss (Table 2), each row and seed a run with a result file of its own."""
    from authface_train.reproduce import ablation
    from authface_train.reproduce.rows import ROWS

    if show is not None:
        return print(ablation.report(show))
    if asked.scale == "paper":
        run_paper("table2", asked)
        return
    if unknown := [name for name in row or [] if name not in ROWS]:
        raise UserError(f"no row {unknown[0]!r} in Table 2: there are {', '.join(ROWS)}")
    experiment = _experiment(asked, latent)
    if tune:
        experiment.tune()
    else:
        _rows(
            experiment,
            "table2",
            list(ROWS) if grid else (row or ["d"]),
            list(SEEDS) if grid else (seed or [0]),
        )
    if not grid:
        console.print(
            f"Next: [bold]authface reproduce table2 --output {quote_path(asked.output)} --grid[/] fills in the rest"
        )


@app.command()
@with_options
def table3(asked: ReproduceOptions) -> None:
    """What the captions of Stage I are good for (Table 3)."""
    if asked.scale == "paper":
        run_paper("table3", asked)
        return
    from authface_train.reproduce import small_tables

    write_table(small_tables.table3(_experiment(asked)), asked.output / "table3.md")


@app.command()
@with_options
def table4(asked: ReproduceOptions) -> None:
    """Settings of the weight over time (Table 4)."""
    if asked.scale == "paper":
        run_paper("table4", asked)
        return
    from authface_train.reproduce.rows import TABLE4

    _rows(_experiment(asked), "table4", list(TABLE4), [0])


@app.command()
@with_options
def table5(
    asked: ReproduceOptions,
    answers: Annotated[
        list[Path] | None, typer.Option(help="CSVs that raters have saved. Repeatable.")
    ] = None,
) -> None:
    """The user study (Table 5): its page first; then, with --answers, what people said."""
    if answers:
        from authface_train.study.tally import read, report, tally

        return write_table(report(tally(read(answers))), asked.output / "table5.md")
    if asked.scale == "paper":
        run_paper("table5", asked)
        return
    from authface_train.reproduce import small_tables

    small_tables.table5(_experiment(asked))


@app.command()
@with_options
def timestep(
    asked: ReproduceOptions,
    detector: Annotated[
        str, typer.Option(help="retinaface-mobile | retinaface.")
    ] = "retinaface-mobile",
) -> None:
    """When a detector sees a face in the predicted picture (the appendix, from which the paper chose m)."""
    degraded, reference = asked.degraded, asked.reference
    if asked.scale == "paper":
        root = run_paper("timestep", asked)
        if root is None:
            return
        model = root / "models" / "restorer-d"
    else:
        from authface_train.reproduce.rows import ROWS

        experiment = _experiment(asked)
        experiment.row(ROWS["d"], 0)
        model = experiment.folder / "runs" / "d-0"
        degraded, reference = (
            experiment.folder / "pictures" / "LQ",
            experiment.folder / "pictures" / "clean",
        )
    silence_libraries()
    from authface_train.reproduce import timestep as measuring
    from authface_train.restore.pipeline import Restorer
    from authface_train.restore.runner import weights_dir
    from authface_train.restore.sampling import Sampling

    assert degraded is not None
    assert reference is not None
    weights = weights_dir(asked.workspace)
    table = measuring.measure(
        Restorer(str(model), Sampling(), weights), degraded, reference, detector, weights
    )
    table.to_csv(asked.output / "timestep.csv", index=False)
    measuring.draw(table).save(asked.output / "timestep.png")
    write_table(measuring.report(table), asked.output / "timestep.md")


@app.command()
def figure14(
    output: Annotated[Path, typer.Option(help="The picture, PNG.")] = Path("figure14.png"),
    scale: Annotated[
        Literal["small", "paper"], typer.Option(help="A formula: the same at both.")
    ] = "small",
) -> None:
    """The weight of the facial loss over time for the paper's four settings (Figure 14)."""
    from authface_train.facial_loss.plot import plot

    plot().save(output)
    console.print(f"The weights over time are in {quote_path(output)}")


@app.command()
def draw(
    model: Annotated[str, typer.Option(help="A prior: a run of train-prior, or any SDXL.")],
    output: Annotated[Path, typer.Option(help="Where the pictures go.")],
    count: Annotated[int, typer.Option(min=1, help="How many.")] = 1000,
    workspace: WorkspaceOption = None,
) -> None:
    """Draw held-out people's captions by a prior: what Table 3 measures."""
    silence_libraries()
    from authface_train.reproduce.prior_samples import draw_pictures
    from manifests.workspace import Workspace

    draw_pictures(Workspace.find(workspace), model, output, count)
    console.print(f"{count} pictures are in {quote_path(output)}, their captions in captions.csv")


def _experiment(
    asked: ReproduceOptions, latent: Literal["unshuffle", "vae"] = "unshuffle"
) -> Experiment:
    """The small experiment, its models trained."""
    for folder in asked.photos or []:
        if not folder.is_dir():
            raise UserError(f"--photos {folder} is no folder")
    silence_libraries()
    from authface_train.reproduce.small_runs import Experiment
    from authface_train.reproduce.small_settings import Scale

    experiment = Experiment(asked.output, asked.photos or [], latent, Scale())
    experiment.models()
    experiment.baselines()
    return experiment


def _rows(experiment: Experiment, which: str, names: list[str], seeds: list[int]) -> None:
    from authface_train.reproduce import ablation
    from authface_train.reproduce.rows import ABLATIONS

    for seed in seeds:
        experiment.regression_row(seed)
        for name in names:
            experiment.row(ABLATIONS[which].rows[name], seed)
    write_table(ablation.report(experiment.results, which), experiment.folder / f"{which}.md")
    console.print(f"Results are in {quote_path(experiment.results)}")
