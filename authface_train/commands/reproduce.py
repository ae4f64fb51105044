"""`authface reproduce`: the paper's tables and figures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from authface_train.commands.silence_libraries import silence_libraries
from authface_train.models.sdxl_config import SDXL
from authface_train.reproduce.small_settings import SIZE_PX
from manifests.support.console import (
    JsonOption,
    WorkspaceOption,
    console,
    print_json,
    quote_path,
)
from manifests.support.errors import PartialFailureError, UserError
from manifests.support.extras import needs_extras
from manifests.support.options import DetectorName, TrainPreset
from manifests.support.text import count_of

if TYPE_CHECKING:
    from authface_train.reproduce.paper_runs import PaperRequest, PlannedCommand
    from authface_train.reproduce.small_runs import Experiment

SEEDS = (0, 1, 2)
MAX_SIZE_PX = 128
"""Largest side of the small experiment's faces: its pieces of photographs have 128 px."""
DEFAULT_ROWS = ("b", "c'", "d")
"""Rows of Table 2 at small scale that test the time-aware weight."""
SMALL_PANEL = "Small scale"
PAPER_PANEL = "Paper scale"
DRAW_PANEL = "draw"

Target = Literal["table1", "table2", "table3", "table4", "table5", "timestep", "figure14", "draw"]


@dataclass(frozen=True)
class ReproduceOptions:
    """Options of `authface reproduce`, named as on the command line; see `reproduce`."""

    scale: Literal["small", "paper"]
    output: Path
    photos: list[Path]
    rows: list[str]
    seeds: list[int]
    grid: bool
    tune: bool
    latent: Literal["unshuffle", "vae"]
    size: int
    answers: list[Path]
    detector: str
    degraded: Path | None
    reference: Path | None
    fid_reference: Path | None
    test_set: str | None
    base: str
    preset: str
    steps: int | None
    changes: list[str]
    allow_unknown_licence: bool
    dry_run: bool
    as_json: bool
    workspace: str | None


@needs_extras("data", "train")
def reproduce(
    target: Annotated[
        Target,
        typer.Argument(
            help="table1 to table5, timestep (when a detector sees a face), figure14 (the weight "
            "over time), or draw (images of a prior, as table3 measures them)."
        ),
    ],
    scale: Annotated[
        Literal["small", "paper"],
        typer.Option(help="What a laptop can do (small faces, models of 2 M), or the paper's."),
    ] = "small",
    output: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the results, reused by later calls. Default: reproduction; "
            "for figure14 the picture, figure14.png."
        ),
    ] = None,
    row: Annotated[
        list[str] | None,
        typer.Option(
            help="table2: row to compute: a, b, c, c', d or d'. Repeatable. Default: b, c', d.",
            rich_help_panel=SMALL_PANEL,
        ),
    ] = None,
    seed: Annotated[
        list[int] | None,
        typer.Option(
            help="table2, table3: seed of the training. Repeatable. Default: 0, 1, 2.",
            rich_help_panel=SMALL_PANEL,
        ),
    ] = None,
    grid: Annotated[
        bool,
        typer.Option(
            "--grid",
            help="table2: all rows.",
            rich_help_panel=SMALL_PANEL,
        ),
    ] = False,
    tune: Annotated[
        bool,
        typer.Option(
            "--tune",
            help="table2: only try weights of the facial loss on the tuning people.",
            rich_help_panel=SMALL_PANEL,
        ),
    ] = False,
    latent: Annotated[
        Literal["unshuffle", "vae"],
        typer.Option(
            help="table2: lossless pixel-unshuffle, or a VAE trained here.",
            rich_help_panel=SMALL_PANEL,
        ),
    ] = "unshuffle",
    size: Annotated[
        int,
        typer.Option(
            min=SIZE_PX,
            max=MAX_SIZE_PX,
            help="table2: side of the faces in pixels, a multiple of 16. Smaller faces are "
            "enlarged. Twice the side takes four times as long.",
            rich_help_panel=SMALL_PANEL,
        ),
    ] = SIZE_PX,
    show: Annotated[
        Path | None,
        typer.Option(
            help="table2, table3: only print the table of a folder of results. Default: run it.",
            rich_help_panel=SMALL_PANEL,
        ),
    ] = None,
    photos: Annotated[
        list[Path] | None,
        typer.Option(
            help="A folder of additional photographs. Repeatable.", rich_help_panel=SMALL_PANEL
        ),
    ] = None,
    answers: Annotated[
        list[Path] | None,
        typer.Option(help="table3, table5: a CSV saved by a rater. Repeatable."),
    ] = None,
    detector: Annotated[
        DetectorName, typer.Option(help="timestep: face detector.")
    ] = "retinaface-mobile",
    degraded: Annotated[
        Path | None,
        typer.Option(
            help="Degraded faces of the test set. Required but for table3.",
            rich_help_panel=PAPER_PANEL,
        ),
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(
            help="Clean faces of the test set. Default: none.", rich_help_panel=PAPER_PANEL
        ),
    ] = None,
    fid_reference: Annotated[
        Path | None,
        typer.Option(
            help="Real faces that FID is measured against. Default: --reference.",
            rich_help_panel=PAPER_PANEL,
        ),
    ] = None,
    test_set: Annotated[
        str | None,
        typer.Option(
            help="Name of the test set, as for `evaluate --set`. Default for tables 1, 2 and 4 "
            "with --reference: celeba-test.",
            rich_help_panel=PAPER_PANEL,
        ),
    ] = None,
    base: Annotated[
        str, typer.Option(help="SDXL, hub id or folder.", rich_help_panel=PAPER_PANEL)
    ] = SDXL,
    preset: Annotated[
        TrainPreset,
        typer.Option(
            help="Preset of the trainers: the paper's, or that of your GPUs.",
            rich_help_panel=PAPER_PANEL,
        ),
    ] = "paper",
    steps: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Steps of each training run, to try the procedure. Default: those of the preset.",
            rich_help_panel=PAPER_PANEL,
        ),
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change a setting of both trainers, or of one: prior.KEY=VALUE, "
            "restorer.KEY=VALUE. Repeatable.",
            rich_help_panel=PAPER_PANEL,
        ),
    ] = None,
    allow_unknown_licence: Annotated[
        bool,
        typer.Option(
            "--allow-unknown-licence",
            help="Train on faces without a licence basis, such as FFHQ without its JSON.",
            rich_help_panel=PAPER_PANEL,
        ),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Print the commands with time, memory and disk; run none.",
            rich_help_panel=PAPER_PANEL,
        ),
    ] = False,
    model: Annotated[
        str | None,
        typer.Option(
            help="A prior: a run of train-prior, or any SDXL. Required.", rich_help_panel=DRAW_PANEL
        ),
    ] = None,
    count: Annotated[
        int, typer.Option(min=1, help="Number of images.", rich_help_panel=DRAW_PANEL)
    ] = 1000,
    as_json: JsonOption = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Reproduce the paper's tables and figures.

    ```
    authface reproduce table2 --output reproduction
    authface reproduce table1 --scale paper --degraded lq --reference hq --dry-run
    authface reproduce figure14
    ```
    """
    only_table2 = {
        "--row": row,
        "--grid": grid,
        "--tune": tune,
        "--latent": latent != "unshuffle",
        "--size": size != SIZE_PX,
    }
    for option, value in only_table2.items():
        if value and target != "table2":
            raise UserError(f"{option} is only valid with table2")
    if size % 16:
        lower = size // 16 * 16
        raise UserError(f"--size {size} is not a multiple of 16; use {lower} or {lower + 16}")
    if size != SIZE_PX and scale == "paper":
        raise UserError("--size is only valid with --scale small")
    for option, given in {"--seed": seed, "--show": show}.items():
        if given and target not in ("table2", "table3"):
            raise UserError(f"{option} is only valid with table2 and table3")

    if target == "figure14":
        _figure14(output or Path("figure14.png"))
        return
    if target == "draw":
        _draw(model, output, count, workspace)
        return
    if show is not None:
        silence_libraries()
        from authface_train.reproduce import ablation, small_table3

        print(small_table3.report(show) if target == "table3" else ablation.report(show))
        return

    options = ReproduceOptions(
        scale=scale,
        output=output or Path("reproduction"),
        photos=photos or [],
        rows=row or [],
        seeds=seed or [],
        grid=grid,
        tune=tune,
        latent=latent,
        size=size,
        answers=answers or [],
        detector=detector,
        degraded=degraded,
        reference=reference,
        fid_reference=fid_reference,
        test_set=test_set,
        base=base,
        preset=preset,
        steps=steps,
        changes=changes or [],
        allow_unknown_licence=allow_unknown_licence,
        dry_run=dry_run,
        as_json=as_json,
        workspace=workspace,
    )
    if target in ("table3", "table5") and options.answers:
        _tally(target, options)
    elif target == "timestep":
        _timestep(options)
    elif scale == "paper":
        _run_paper(target, options)
    else:
        _run_small(target, options)


def _figure14(output: Path) -> None:
    from authface_train.facial_loss.plot import plot_weights

    plot_weights().save(output)
    console.print(f"The weights over time are plotted in {quote_path(output)}")


def _draw(model: str | None, output: Path | None, count: int, workspace: str | None) -> None:
    if model is None or output is None:
        raise UserError("draw needs --model and --output")
    silence_libraries()
    from authface_train.reproduce.prior_samples import draw_samples
    from manifests.workspace import Workspace

    draw_samples(Workspace.find(workspace), model, output, count)
    console.print(
        f"{count_of(count, 'image')} in {quote_path(output)}, with their captions in captions.csv"
    )


def _tally(target: Target, options: ReproduceOptions) -> None:
    """Tally the ranking of Table 3, or Table 5, from the raters' answers."""
    from authface_train.study import ranking_tally, tally

    if target == "table3":
        rankings = ranking_tally.read_rankings(options.answers)
        table = ranking_tally.format_report(ranking_tally.tally_rankings(rankings))
        _save_table(table, options.output / "table3-ranking.md")
        return
    answers = tally.read_answers(options.answers)
    _save_table(tally.format_report(tally.tally_answers(answers)), options.output / "table5.md")


def _timestep(options: ReproduceOptions) -> None:
    """Measure a detector's confidence on the predicted images by timestep."""
    if options.scale == "paper":
        root = _run_paper("timestep", options)
        if root is None:
            return
        model = root / "models" / "restorer-d"
        degraded = options.degraded
        clean = options.reference
    else:
        from authface_train.reproduce.rows import TABLE2_ROWS

        experiment = _small_experiment(options)
        experiment.run_row(TABLE2_ROWS["d"], 0)
        model = experiment.folder / "runs" / "d-0"
        degraded = experiment.folder / "pictures" / "LQ"
        clean = experiment.folder / "pictures" / "clean"

    from authface_train.reproduce import timestep
    from authface_train.restore.pipeline import Restorer
    from authface_train.restore.runner import find_weights_dir
    from authface_train.restore.sampling import Sampling

    assert degraded is not None
    assert clean is not None
    weights_dir = find_weights_dir(options.workspace)
    restorer = Restorer(str(model), Sampling(), weights_dir)
    table = timestep.measure_confidence(restorer, degraded, clean, options.detector, weights_dir)
    table.to_csv(options.output / "timestep.csv", index=False)
    timestep.plot_confidence(table).save(options.output / "timestep.png")
    _save_table(timestep.format_report(table), options.output / "timestep.md")


def _run_small(target: Target, options: ReproduceOptions) -> None:
    """Run a table at small scale."""
    from authface_train.reproduce.rows import TABLE2_ROWS, TABLE4_ROWS

    unknown = [name for name in options.rows if name not in TABLE2_ROWS]
    if unknown:
        raise UserError(f'unknown row "{unknown[0]}"; choose from: {", ".join(TABLE2_ROWS)}')

    experiment = _small_experiment(options)
    from authface_train.reproduce import small_table3, small_tables

    seeds = options.seeds or list(SEEDS)
    if target == "table1":
        small_tables.run_table1(experiment)
    elif target == "table3":
        table = small_table3.run_table3(experiment, seeds)
        _save_table(table, options.output / "table3.md")
    elif target == "table5":
        folder = small_tables.create_table5_study(experiment)
        _print_study_hint(folder)
    elif target == "table4":
        _run_ablation(experiment, "table4", list(TABLE4_ROWS), [0])
    elif options.tune:
        experiment.tune()
    else:
        rows = list(TABLE2_ROWS) if options.grid else (options.rows or list(DEFAULT_ROWS))
        _run_ablation(experiment, "table2", rows, seeds)
    if target == "table2" and not (options.grid or options.rows or options.tune):
        command = f"authface reproduce table2 --output {quote_path(options.output)} --grid"
        for folder in options.photos:
            command += f" --photos {quote_path(folder)}"
        for seed in options.seeds:
            command += f" --seed {seed}"
        if options.latent != "unshuffle":
            command += f" --latent {options.latent}"
        if options.size != SIZE_PX:
            command += f" --size {options.size}"
        console.print(f"Next: [bold]{command}[/] adds rows a, c and d'")


def _small_experiment(options: ReproduceOptions) -> Experiment:
    """Create the small experiment, train its models and score its baselines."""
    for folder in options.photos:
        if not folder.is_dir():
            raise UserError(f"--photos {folder} is not a folder")
    silence_libraries()
    from authface_train.reproduce.small_runs import Experiment
    from authface_train.reproduce.small_settings import Scale

    experiment = Experiment(
        options.output, options.photos, options.latent, Scale(size_px=options.size)
    )
    experiment.train_models()
    experiment.score_baselines()
    return experiment


def _run_ablation(experiment: Experiment, name: str, rows: list[str], seeds: list[int]) -> None:
    from authface_train.reproduce.ablation import report
    from authface_train.reproduce.rows import ABLATIONS

    for seed in seeds:
        experiment.run_regression(seed)
        for row in rows:
            experiment.run_row(ABLATIONS[name].rows[row], seed)
    _save_table(report(experiment.results, name), experiment.folder / f"{name}.md")
    console.print(f"The results of each run are in {quote_path(experiment.results)}")


def _run_paper(target: Target, options: ReproduceOptions) -> Path | None:
    """Print the plan of a table at the paper's scale, then run it.

    Returns:
        The folder with all results, or None if only the plan was requested.

    Raises:
        UserError: If the test set is missing.
        PartialFailureError: If a training run does not fit on this machine.
    """
    silence_libraries()
    from authface_train.reproduce import paper_runs

    request = _paper_request(target, options)
    commands = paper_runs.plan_commands(target, request)
    plans = paper_runs.dry_runs(commands, request)
    fits = all(plan["fits"] for plan in plans if plan is not None)
    if options.as_json:
        print_json(
            [
                {"command": command.arguments, "done": command.is_done, "plan": plan}
                for command, plan in zip(commands, plans, strict=True)
            ]
        )
    else:
        _print_plan(commands, plans)
    if options.dry_run or options.as_json:
        if not paper_runs.has_base(request):
            raise paper_runs.missing_base_error(request)
        return None
    if not fits:
        raise PartialFailureError(
            "a training run does not fit here; use another --preset or a larger GPU"
        )

    paper_runs.run_commands(commands, request)
    table = paper_runs.report(target, request)
    if table:
        _save_table(table, request.test_folder / f"{target}.md")
    if target == "table3":
        _print_study_hint(request.test_folder / target / "ranking", target)
    if target == "table5":
        _print_study_hint(request.test_folder / target, target)
    return request.root


def _paper_request(target: Target, options: ReproduceOptions) -> PaperRequest:
    from authface_train.reproduce.paper_runs import PaperRequest
    from manifests.workspace import Workspace

    required = {"degraded": options.degraded}
    if target == "table3":
        required = {"reference": options.fid_reference or options.reference}
    elif target == "timestep":
        required["reference"] = options.reference
    for option, folder in required.items():
        if folder is None:
            raise UserError(f"{target} at the paper's scale needs a test set: --{option} DIR")
    for folder in (options.degraded, options.reference, options.fid_reference):
        if folder is not None and not folder.is_dir():
            raise UserError(f"{folder} is not a folder")

    test_set = options.test_set
    if test_set is None and options.reference and target in ("table1", "table2", "table4"):
        # The paper's ablations use CelebA-Test.
        test_set = "celeba-test"
    degraded = options.degraded
    clean = options.reference
    fid_reference = options.fid_reference
    return PaperRequest(
        workspace=Workspace.find(options.workspace).local_path(""),
        base=options.base,
        preset=options.preset,
        output=options.output.absolute(),
        degraded=degraded.absolute() if degraded else None,
        clean=clean.absolute() if clean else None,
        fid_reference=fid_reference.absolute() if fid_reference else None,
        test_set=test_set,
        steps=options.steps,
        changes=tuple(options.changes),
        allow_unknown_licence=options.allow_unknown_licence,
    )


def _print_plan(commands: list[PlannedCommand], plans: list[dict[str, Any] | None]) -> None:
    """Print the commands with duration, memory and disk space of each training run."""
    from rich.table import Table

    table = Table("command", "faces", "hours", "GB per GPU", "disk GB", "fits")
    total_hours = 0.0
    total_disk_gb = 0.0
    for command, plan in zip(commands, plans, strict=True):
        if plan is None:
            table.add_row(command.label, "", "", "", "", "done" if command.is_done else "")
            continue
        hours = plan["hours"]
        total_hours += hours or 0
        total_disk_gb += plan["disk_gb"] or 0
        table.add_row(
            command.label,
            f"{plan['faces']:,} {plan['source']}",
            "?" if hours is None else f"{hours:.1f}",
            f"{plan['memory_total_gb']:.1f} of {plan['memory_there_gb']:.1f}",
            f"{plan['disk_gb']:.1f}",
            "yes" if plan["fits"] else "no",
        )
    console.print(table)
    console.print(
        f"Training takes {total_hours:.1f} hours and {total_disk_gb:.1f} GB in total, without "
        "restoring and scoring"
    )


def _print_study_hint(folder: Path, target: Target = "table5") -> None:
    from authface_train.study.create import PAGE_FILE

    console.print(
        f"Next: let raters open {quote_path(folder / PAGE_FILE)}, then run "
        f"[bold]authface reproduce {target} --answers FILE.csv[/] with the file of each"
    )


def _save_table(markdown: str, path: Path) -> None:
    """Print a table and write it to a file."""
    from manifests.support.files import write_atomic

    write_atomic(path, f"{markdown}\n")
    print(markdown)
    console.print(f"The table is in {quote_path(path)}")
