"""`authface reproduce`: the paper's tables and figures again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from manifests.command_line import WorkspaceOption, console, shown
from manifests.errors import DoneInPart, UserMistake

if TYPE_CHECKING:
    from authface_train.reproduce.paper_runs import Which
    from authface_train.reproduce.small_runs import Experiment

app = typer.Typer(no_args_is_help=True, help="The paper's tables and figures again.", rich_markup_mode="markdown")
SEEDS = (0, 1, 2)

ScaleOption = Annotated[
    Literal["small", "paper"],
    typer.Option(help="What a laptop can do (real faces of 64 px, models of 2 M), or the paper's own runs."),
]
OutputOption = Annotated[Path, typer.Option(help="Where everything goes; what is there is not made again.")]
PhotosOption = Annotated[list[Path] | None, typer.Option(help="Small: a folder of more photographs with faces. Repeatable.")]
DegradedOption = Annotated[Path | None, typer.Option(help="Paper: the test set's degraded faces.")]
ReferenceOption = Annotated[Path | None, typer.Option(help="Paper: its clean faces.")]
SetNameOption = Annotated[str | None, typer.Option("--test-set", help="Paper: which it is, as `authface evaluate --set` says.")]
BaseOption = Annotated[str, typer.Option(help="Paper: SDXL, hub id or folder.")]
PresetOption = Annotated[str, typer.Option(help="Paper: of the trainers, for your cards: paper, 1x24gb, 1x80gb, …")]
StepsOption = Annotated[int | None, typer.Option(min=1, help="Paper: of each training run, to try the way there.")]
ChangesOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Paper: a setting of the trainers.")
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Paper: only say what it would run, and what that takes.")]
OUTPUT, SDXL = Path("reproduction"), "stabilityai/stable-diffusion-xl-base-1.0"


@app.command()
def table1(
    scale: ScaleOption = "small", output: OutputOption = OUTPUT, photos: PhotosOption = None,
    degraded: DegradedOption = None, reference: ReferenceOption = None, test_set: SetNameOption = "celeba-test",
    base: BaseOption = SDXL, preset: PresetOption = "paper", steps: StepsOption = None, set_: ChangesOption = None,
    dry_run: DryRunOption = False, workspace: WorkspaceOption = None,
) -> None:  # fmt: skip
    """The restorer on test sets (Table 1)."""
    if scale == "paper":
        return _paper("table1", workspace, output, degraded, reference, test_set, base, preset, steps, set_, dry_run)
    from authface_train.reproduce import small_tables

    small_tables.table1(_experiment(output, photos, "unshuffle"))


@app.command()
def table2(
    scale: ScaleOption = "small", output: OutputOption = OUTPUT, photos: PhotosOption = None,
    row: Annotated[list[str] | None, typer.Option(help="Small: a, b, c, c' or d. Repeatable; default d.")] = None,
    seed: Annotated[list[int] | None, typer.Option(help="Small: repeatable; default 0.")] = None,
    grid: Annotated[bool, typer.Option("--grid", help="Small: all rows over three seeds: some hours.")] = False,
    tune: Annotated[bool, typer.Option("--tune", help="Small: only try weights of that loss on validation people.")] = False,
    latent: Annotated[
        Literal["unshuffle", "vae"], typer.Option(help="Small: pixels side by side, or a VAE trained here.")
    ] = "unshuffle",
    show: Annotated[Path | None, typer.Option(help="Only print the table of a folder of results.")] = None,
    degraded: DegradedOption = None, reference: ReferenceOption = None, test_set: SetNameOption = "celeba-test",
    base: BaseOption = SDXL, preset: PresetOption = "paper", steps: StepsOption = None, set_: ChangesOption = None,
    dry_run: DryRunOption = False, workspace: WorkspaceOption = None,
) -> None:  # fmt: skip
    """Ablation of the facial loss (Table 2), each row and seed a run with a result file of its own."""
    from authface_train.reproduce import ablation
    from authface_train.reproduce.rows import ROWS

    if show is not None:
        return print(ablation.report(show))
    if scale == "paper":
        return _paper("table2", workspace, output, degraded, reference, test_set, base, preset, steps, set_, dry_run)
    if unknown := [name for name in row or [] if name not in ROWS]:
        raise UserMistake(f"no row {unknown[0]!r} in Table 2: there are {', '.join(ROWS)}")
    experiment = _experiment(output, photos, latent)
    if tune:
        experiment.tune()
    else:
        _rows(experiment, "table2", list(ROWS) if grid else (row or ["d"]), list(SEEDS) if grid else (seed or [0]))
    if not grid:
        console.print(f"Next: [bold]authface reproduce table2 --output {shown(output)} --grid[/] fills in the rest")


@app.command()
def table3(
    scale: ScaleOption = "small", output: OutputOption = OUTPUT, photos: PhotosOption = None,
    reference: ReferenceOption = None, base: BaseOption = SDXL, preset: PresetOption = "paper",
    steps: StepsOption = None, set_: ChangesOption = None, dry_run: DryRunOption = False, workspace: WorkspaceOption = None,
) -> None:  # fmt: skip
    """What the captions of Stage I are good for (Table 3)."""
    if scale == "paper":
        return _paper("table3", workspace, output, reference, reference, None, base, preset, steps, set_, dry_run)
    from authface_train.reproduce import small_tables

    _write(small_tables.table3(_experiment(output, photos, "unshuffle")), output / "table3.md")


@app.command()
def table4(
    scale: ScaleOption = "small", output: OutputOption = OUTPUT, photos: PhotosOption = None,
    degraded: DegradedOption = None, reference: ReferenceOption = None, test_set: SetNameOption = "celeba-test",
    base: BaseOption = SDXL, preset: PresetOption = "paper", steps: StepsOption = None, set_: ChangesOption = None,
    dry_run: DryRunOption = False, workspace: WorkspaceOption = None,
) -> None:  # fmt: skip
    """Settings of the weight over time (Table 4)."""
    if scale == "paper":
        return _paper("table4", workspace, output, degraded, reference, test_set, base, preset, steps, set_, dry_run)
    from authface_train.reproduce.rows import TABLE4

    _rows(_experiment(output, photos, "unshuffle"), "table4", list(TABLE4), [0])


@app.command()
def table5(
    scale: ScaleOption = "small", output: OutputOption = OUTPUT, photos: PhotosOption = None,
    answers: Annotated[list[Path] | None, typer.Option(help="CSVs that raters have saved. Repeatable.")] = None,
    degraded: DegradedOption = None, base: BaseOption = SDXL, preset: PresetOption = "paper",
    steps: StepsOption = None, set_: ChangesOption = None, dry_run: DryRunOption = False, workspace: WorkspaceOption = None,
) -> None:  # fmt: skip
    """The user study (Table 5): its page first; then, with --answers, what people said."""
    if answers:
        from authface_train.study.tally import read, report, tally

        return _write(report(tally(read(answers))), output / "table5.md")
    if scale == "paper":
        return _paper("table5", workspace, output, degraded, None, None, base, preset, steps, set_, dry_run)
    from authface_train.reproduce import small_tables

    small_tables.table5(_experiment(output, photos, "unshuffle"))


@app.command()
def timestep(
    scale: ScaleOption = "small", output: OutputOption = OUTPUT, photos: PhotosOption = None,
    degraded: DegradedOption = None, reference: ReferenceOption = None,
    detector: Annotated[str, typer.Option(help="retinaface-mobile | retinaface.")] = "retinaface-mobile",
    base: BaseOption = SDXL, preset: PresetOption = "paper", steps: StepsOption = None, set_: ChangesOption = None,
    dry_run: DryRunOption = False, workspace: WorkspaceOption = None,
) -> None:  # fmt: skip
    """When a detector sees a face in the predicted picture (the appendix, from which the paper chose m)."""
    if scale == "paper":
        _paper("timestep", workspace, output, degraded, reference, None, base, preset, steps, set_, dry_run)
        if dry_run:
            return
        if degraded is None or reference is None:
            raise UserMistake("the predicted picture is of clean faces under noise: --degraded DIR --reference DIR")
        model = output / "models" / "restorer-d"
    else:
        from authface_train.reproduce.rows import ROWS

        experiment = _experiment(output, photos, "unshuffle")
        experiment.row(ROWS["d"], 0)
        model = experiment.folder / "runs" / "d-0"
        degraded, reference = experiment.folder / "pictures" / "LQ", experiment.folder / "pictures" / "clean"
    from authface_train.pipeline import Restorer
    from authface_train.reproduce import timestep as measuring
    from authface_train.sampling import Sampling

    table = measuring.measure(Restorer(str(model), Sampling()), degraded, reference, detector, None)
    table.to_csv(output / "timestep.csv", index=False)
    measuring.draw(table).save(output / "timestep.png")
    _write(measuring.report(table), output / "timestep.md")


@app.command()
def figure14(
    output: Annotated[Path, typer.Option(help="The picture, PNG.")] = Path("figure14.png"),
) -> None:
    """The weight of the facial loss over time for the paper's four settings (Figure 14)."""
    from authface_train.facial_loss.plot import plot

    plot().save(output)
    console.print(f"The weights over time are in {shown(output)}")


@app.command()
def draw(
    model: Annotated[str, typer.Option(help="A prior: a run of train-prior, or any SDXL.")],
    output: Annotated[Path, typer.Option(help="Where the pictures go.")],
    count: Annotated[int, typer.Option(min=1, help="How many.")] = 1000,
    workspace: WorkspaceOption = None,
) -> None:
    """Draw held-out people's captions by a prior: what Table 3 measures."""
    from authface_train.commands.train import _quiet
    from authface_train.reproduce.drawn import draw_pictures
    from manifests.workspace import Workspace

    _quiet()
    draw_pictures(Workspace.find(workspace), model, output, count)
    console.print(f"{count} pictures are in {shown(output)}, their captions in captions.csv")


def _experiment(output: Path, photos: list[Path] | None, latent: Literal["unshuffle", "vae"]) -> Experiment:
    """The small experiment, its models trained."""
    from authface_train.commands.train import _quiet
    from authface_train.reproduce.small_runs import Experiment, Scale

    for folder in photos or []:
        if not folder.is_dir():
            raise UserMistake(f"--photos {folder} is no folder")
    _quiet()
    experiment = Experiment(output, photos or [], latent, Scale())
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
    _write(ablation.report(experiment.results, which), experiment.folder / f"{which}.md")
    console.print(f"Results are in {shown(experiment.results)}")


def _write(words: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{words}\n")
    print(words)
    console.print(f"The table is in {shown(path)}")


def _paper(
    which: Which, workspace: Path | None, output: Path, degraded: Path | None, reference: Path | None, test_set: str | None,
    base: str, preset: str, steps: int | None, set_: list[str] | None, dry_run: bool,
) -> None:  # fmt: skip
    """Print the plan with what it takes; then run it."""
    from authface_train.reproduce import paper_runs
    from manifests.workspace import Workspace

    if degraded is None:
        raise UserMistake(
            f"{which} at the paper's scale is of a test set: --{'reference' if which == 'table3' else 'degraded'} DIR"
        )
    for folder in (degraded, reference):
        if folder is not None and not folder.is_dir():
            raise UserMistake(f"{folder} is no folder")
    root = Path(Workspace.find(workspace).root)
    given = paper_runs.Given(
        root, base, preset, output.absolute(), degraded.absolute(), reference and reference.absolute(), test_set, steps,
        tuple(set_ or []),
    )  # fmt: skip
    plan = paper_runs.steps(which, given)
    fits = paper_runs.show(plan, given)
    if dry_run:
        return
    if not fits:
        raise DoneInPart("as it is planned it does not fit here: another --preset, or a larger card")
    paper_runs.run(plan)
    console.print(f"Everything of {which} is in {shown(output)}")
