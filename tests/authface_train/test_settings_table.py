"""The tables of settings in the docs are generated from the settings."""

from pathlib import Path

import pytest

from authface_train.settings import STAGES
from authface_train.settings_table import settings_table, update_tables

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("name", ["train-prior.md", "train-restore.md"])
def test_docs_hold_the_present_table(name):
    """To repair it: python -m authface_train.settings_table docs/NAME"""
    text = (DOCS / name).read_text()
    assert "| `warmup_steps` | `0` | ours |" in text
    assert update_tables(text) == text


def test_settings_of_the_paper_are_marked():
    assert "| `learning_rate` | `5e-07` | paper |" in settings_table("prior")
    assert "| `facial.m` | `-0.5` | paper |" in settings_table("restorer")


@pytest.mark.parametrize("stage", STAGES)
def test_every_setting_has_a_description(stage):
    rows = [line.split(" | ") for line in settings_table(stage).splitlines()[2:]]
    undescribed = [row[0] for row in rows if len(row[3].rstrip(" |")) <= 6]
    assert undescribed == []
