"""The docs' tables are the settings' own docstrings."""

from pathlib import Path

import pytest

from authface_train.settings import STAGES
from authface_train.settings_table import table, written

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("name", ["train-prior.md", "train-restore.md"])
def test_the_docs_have_every_setting_as_it_is(name):
    """If this fails: python -m authface_train.settings_table docs/NAME"""
    text = (DOCS / name).read_text()
    assert "| `warmup_steps` | `0` | ours |" in text
    assert written(text) == text


def test_the_papers_settings_are_marked():
    assert "| `learning_rate` | `5e-07` | paper |" in table("prior")
    assert "| `facial.m` | `-0.5` | paper |" in table("restorer")


@pytest.mark.parametrize("stage", STAGES)
def test_every_setting_says_what_it_is(stage):
    rows = [line.split(" | ") for line in table(stage).splitlines()[2:]]
    assert all(len(row[3].rstrip(" |")) > 6 for row in rows), [row[0] for row in rows]
