"""The docs' tables are the settings' own docstrings."""

from pathlib import Path

import pytest

from authface_train.settings import STAGES
from authface_train.settings_table import table, written

DOCS = Path(__file__).parents[2] / "docs"


def test_the_docs_have_every_setting_as_it_is():
    """If this fails: python -m authface_train.settings_table docs/train-prior.md"""
    text = (DOCS / "train-prior.md").read_text()
    assert "| `learning_rate` | `5e-07` | paper |" in text
    assert "| `warmup_steps` | `0` | ours |" in text
    assert written(text) == text


@pytest.mark.parametrize("stage", STAGES)
def test_every_setting_says_what_it_is(stage):
    rows = [line.split(" | ") for line in table(stage).splitlines()[2:]]
    assert all(len(row[3].rstrip(" |")) > 6 for row in rows), [row[0] for row in rows]
