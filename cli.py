"""The `authface` command line: assembles the commands. It has no logic."""

import gc
from typing import Annotated

import typer

from authface_data.commands import (
    caption,
    clean,
    collect,
    demo,
    doctor,
    export_captions,
    filter,
    hashes,
    push,
    review,
    rights,
    serve,
    tags,
    workspace,
)
from authface_train.commands import degrade, evaluate, export, reproduce, restore, study, train
from manifests.support.console import AuthfaceGroup, print_version

app = typer.Typer(
    cls=AuthfaceGroup,
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    rich_markup_mode="markdown",
)


@app.callback()
def authface(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Show the version and exit.", callback=print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Curate photographs of people into a captioned face data set, and train restorers on it.

    Stage I fine-tunes SDXL into a face prior, Stage II trains a blind face restorer on it.
    """


# torch and diffusers create a million objects that stay. Python's default of a collection for every
# 700 new ones takes a tenth of the start.
gc.set_threshold(10_000, 10, 50)

# Panels of `authface --help`.
DATA = "Create the data set"
TRAINING = "Train, restore and evaluate"
INSPECTION = "Inspect and maintain"

app.command(rich_help_panel=DATA)(workspace.init)
app.command(rich_help_panel=DATA)(collect.collect)
app.command(rich_help_panel=DATA)(filter.filter)
app.add_typer(review.app, name="review", rich_help_panel=DATA)
app.command(rich_help_panel=DATA)(caption.caption)
app.add_typer(tags.app, name="tags", rich_help_panel=DATA)
app.command(name="export-captions", rich_help_panel=DATA)(export_captions.export_captions)
app.command(rich_help_panel=DATA)(push.push)
app.command(rich_help_panel=TRAINING)(train.train_prior)
app.command(rich_help_panel=TRAINING)(train.train_restore)
app.command(rich_help_panel=TRAINING)(degrade.degrade)
app.command(rich_help_panel=TRAINING)(restore.restore)
app.command(rich_help_panel=TRAINING)(evaluate.evaluate)
app.command(rich_help_panel=TRAINING)(export.export)
app.add_typer(study.app, name="study", rich_help_panel=TRAINING)
app.command(rich_help_panel=TRAINING)(reproduce.reproduce)
app.command(rich_help_panel=INSPECTION)(workspace.status)
app.command(rich_help_panel=INSPECTION)(workspace.explain)
app.command(rich_help_panel=INSPECTION)(workspace.report)
app.command(rich_help_panel=INSPECTION)(serve.serve)
app.command(rich_help_panel=INSPECTION)(rights.licences)
app.command(rich_help_panel=INSPECTION)(rights.forget)
app.command(rich_help_panel=INSPECTION)(doctor.doctor)
app.command(rich_help_panel=INSPECTION)(hashes.hashes)
app.command(rich_help_panel=INSPECTION)(clean.clean)
app.command(rich_help_panel=INSPECTION)(workspace.migrate)
app.command(rich_help_panel=INSPECTION)(demo.demo)

if __name__ == "__main__":
    app()
