"""`authface reproduce` at small scale, from photographs to tables, with a few training steps."""

import functools
import json
import os
import shutil

import pandas as pd
import pytest
from commands import CommandRunner

from authface_train.reproduce import small_data, small_settings, small_table3, small_tables

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not os.environ.get("AUTHFACE_LONG_TESTS"),
        reason="takes more than ten minutes; AUTHFACE_LONG_TESTS=1 runs it",
    ),
]
TINY_SCALE = functools.partial(
    small_settings.Scale,
    generic=2,
    prior=2,
    trunk=2,
    restorer=5,
    regression=2,
    tuning=5,
    faces_per_person=1,
    sampling=2,
    few_steps=(1,),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The experiment's folder, which all tables share."""
    return tmp_path_factory.mktemp("small")


@pytest.fixture
def reproduce(folder, weights, authface_here, monkeypatch):
    """Runs `authface reproduce`; returns its output and the names of the commands it has run."""
    run_command = CommandRunner(authface_here)
    for module in (small_data, small_table3, small_tables):
        monkeypatch.setattr(module, "run_command", run_command)
    monkeypatch.setattr(small_settings, "Scale", TINY_SCALE)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def reproduce(*options):
        run_command.names.clear()
        result = authface_here("reproduce", *options, "--output", folder)
        assert result.returncode == 0, result.stderr
        return result.stdout, list(run_command.names)

    return reproduce


def test_tables_are_made_from_photographs_and_share_their_models(reproduce, folder):
    output, _ = reproduce("table2", "--row", "d", "--seed", "0")
    record = json.loads((folder / "results/d-0.json").read_text())
    assert len(record["images"]) == 21, "a face of each test person"
    assert (folder / "results/trade/d-0-1.json").is_file()
    assert (folder / "runs/trunk-prior/controlnet").is_dir()
    assert "| d | face prior, time-aware weight | 1 |" in (folder / "table2.md").read_text()
    assert "d - LQ | PSNR dB" in output

    _, commands = reproduce("table1")
    assert commands == ["evaluate"], "row d has been trained for table2"
    scores = pd.read_parquet(folder / "table1/scores.parquet")
    assert {"row d, small", "plain regression"} < set(scores["method"])

    _, commands = reproduce("table3", "--seed", "0")
    assert commands.count("filter") == 8, "drawn and real pictures of four models"
    assert "| photographic tags |" in (folder / "table3.md").read_text()

    # Training row b would take half a minute, so row d's results replace it.
    shutil.copytree(folder / "pictures/d-0", folder / "pictures/b-0")
    shutil.copy(folder / "results/d-0.json", folder / "results/b-0.json")
    _, commands = reproduce("table5")
    assert commands == ["study"]
    assert list((folder / "table5").glob("*.html"))

    _, commands = reproduce("table2", "--row", "d", "--row", "b", "--seed", "0")
    assert commands == [], "all results exist"
