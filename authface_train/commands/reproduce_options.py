"""The options that all tables of `authface reproduce` share, and the way to the paper's own runs."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import typer

from manifests.support.console import JsonOption, WorkspaceOption, console, quote_path
from manifests.support.errors import PartialFailureError, UserError

if TYPE_CHECKING:
    from authface_train.reproduce.paper_runs import Which

SDXL = "stabilityai/stable-diffusion-xl-base-1.0"
SCALE = "What a laptop can do (real faces of 64 px, models of 2 M), or the paper's own runs."
STEPS = "Paper: of each training run, to try the way there."
UNKNOWN = "Paper: train on faces without a licence basis, as FFHQ's may be."


@dataclass(frozen=True)
class ReproduceOptions:
    """Each field is an option."""

    scale: Annotated[Literal["small", "paper"], typer.Option(help=SCALE)] = "small"
    output: Annotated[
        Path, typer.Option(help="Where everything goes; what is there is not made again.")
    ] = Path("reproduction")
    photos: Annotated[
        list[Path] | None, typer.Option(help="Small: a folder of more photographs. Repeatable.")
    ] = None
    degraded: Annotated[Path | None, typer.Option(help="Paper: the test set's degraded faces.")] = (
        None
    )
    reference: Annotated[Path | None, typer.Option(help="Paper: its clean faces.")] = None
    fid_reference: Annotated[
        Path | None, typer.Option(help="Paper: what FID is the distance to [the clean faces].")
    ] = None
    test_set: Annotated[
        str | None, typer.Option(help="Paper: which, as `evaluate --set` says [celeba-test].")
    ] = None
    base: Annotated[str, typer.Option(help="Paper: SDXL, hub id or folder.")] = SDXL
    preset: Annotated[
        str, typer.Option(help="Paper: of the trainers, for your cards: paper, 1x24gb, 1x80gb, …")
    ] = "paper"
    steps: Annotated[int | None, typer.Option(min=1, help=STEPS)] = None
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Paper: a setting of the trainers. Repeatable."
        ),
    ] = None
    unknown: Annotated[bool, typer.Option("--allow-unknown-licence", help=UNKNOWN)] = False
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Paper: only say what it would run, and what that takes."),
    ] = False
    as_json: JsonOption = False
    workspace: WorkspaceOption = None


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose parameter `asked` is filled from the options of `Asked`, beside options of its own."""
    hints, shared = (
        get_type_hints(command, include_extras=True),
        get_type_hints(ReproduceOptions, include_extras=True),
    )
    own = [one for one in inspect.signature(command).parameters.values() if one.name != "asked"]
    kind = inspect.Parameter.KEYWORD_ONLY
    parameters = [one.replace(kind=kind, annotation=hints[one.name]) for one in own]
    parameters += [
        inspect.Parameter(field.name, kind, default=field.default, annotation=shared[field.name])
        for field in fields(ReproduceOptions)
    ]

    def run(**given: Any) -> None:
        asked = ReproduceOptions(
            **{field.name: given.pop(field.name) for field in fields(ReproduceOptions)}
        )
        command(asked=asked, **given)

    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {one.name: one.annotation for one in parameters}
    return run


def run_paper(which: Which, asked: ReproduceOptions) -> Path | None:
    """Print the plan with what it takes; then run it, print ours beside the paper's, and return where everything lies.

    None where only the plan was asked for. Raises UserError for a test set that is missing, PartialFailureError where it does not fit.
    """
    from authface_train.reproduce import paper_runs
    from authface_train.study.create import PAGE
    from manifests.workspace import Workspace

    wanted = {"degraded": asked.degraded} if which != "table3" else {"reference": asked.reference}
    if which == "timestep":
        wanted["reference"] = asked.reference
    for option, folder in wanted.items():
        if folder is None:
            raise UserError(f"{which} at the paper's scale is of a test set: --{option} DIR")
    test = [asked.degraded or asked.reference, asked.reference, asked.fid_reference]
    for given_folder in test:
        if given_folder is not None and not given_folder.is_dir():
            raise UserError(f"{given_folder} is no folder")
    # Of the paper's own ablations, the set is CelebA-Test.
    test_set = asked.test_set or (
        "celeba-test" if asked.reference and which in ("table1", "table2", "table4") else None
    )
    degraded, clean, fid = (folder and folder.absolute() for folder in test)
    assert degraded is not None
    more = [word for change in asked.changes or [] for word in ("--set", change)]
    more += ["--allow-unknown-licence"] if asked.unknown else []
    given = paper_runs.Given(
        Path(Workspace.find(asked.workspace).root), asked.base, asked.preset, asked.output.absolute(), degraded, clean, fid,
        test_set, asked.steps, tuple(more),
    )  # fmt: skip
    plan = paper_runs.steps(which, given)
    fits = paper_runs.show(plan, given, asked.as_json)
    if asked.dry_run or asked.as_json:
        return None
    if not fits:
        raise PartialFailureError(
            "as it is planned it does not fit here: another --preset, or a larger card"
        )
    paper_runs.run(plan, given)
    if words := paper_runs.report(which, given):
        write_table(words, given.tested / f"{which}.md")
    if which == "table5":
        page = given.tested / which / PAGE
        console.print(
            f"Next: raters open {quote_path(page)}; then --answers FILE.csv for each of them"
        )
    return given.root


def write_table(words: str, path: Path) -> None:
    """Print a table and keep it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{words}\n")
    print(words)
    console.print(f"The table is in {quote_path(path)}")
