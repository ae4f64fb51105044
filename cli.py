"""The `authface` command: assembles the commands, holds no logic."""

import typer

from authface_data.commands import (
    caption,
    collect,
    demo,
    export_captions,
    filter,
    hashes,
    review,
    rights,
    tags,
    workspace,
)
from authface_train.commands import degrade, evaluate, export, reproduce, restore, study, train
from manifests.support.console import AuthfaceGroup

app = typer.Typer(
    cls=AuthfaceGroup,
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    rich_markup_mode="markdown",
    help="Curate and annotate face photographs, and train a face prior and a blind face restorer on them.",
)

DATA, TRAIN, LOOK = "Make the data", "Train and restore", "Look and look after"
app.command(rich_help_panel=DATA)(workspace.init)
app.command(rich_help_panel=DATA)(collect.collect)
app.command(rich_help_panel=DATA)(filter.filter)
app.add_typer(review.app, name="review", rich_help_panel=DATA)
app.command(rich_help_panel=DATA)(caption.caption)
app.add_typer(tags.app, name="tags", rich_help_panel=DATA)
app.command(name="export-captions", rich_help_panel=DATA)(export_captions.export_captions)
app.command(rich_help_panel=TRAIN)(train.train_prior)
app.command(rich_help_panel=TRAIN)(train.train_restore)
app.command(rich_help_panel=TRAIN)(degrade.degrade)
app.command(rich_help_panel=TRAIN)(restore.restore)
app.command(rich_help_panel=TRAIN)(evaluate.evaluate)
app.command(rich_help_panel=TRAIN)(export.export)
app.add_typer(study.app, name="study", rich_help_panel=TRAIN)
app.command(rich_help_panel=TRAIN)(reproduce.reproduce)
app.command(rich_help_panel=LOOK)(workspace.status)
app.command(rich_help_panel=LOOK)(workspace.explain)
app.command(rich_help_panel=LOOK)(workspace.report)
app.command(rich_help_panel=LOOK)(rights.licences)
app.command(rich_help_panel=LOOK)(rights.forget)
app.command(rich_help_panel=LOOK)(hashes.hashes)
app.command(rich_help_panel=LOOK)(workspace.migrate)
app.command(rich_help_panel=LOOK)(demo.demo)

if __name__ == "__main__":
    app()
