"""`authface reproduce` at small scale, from photographs to tables: all that it does, in a few steps instead of thousands."""

import functools
import json
import os
import shutil

import pandas as pd
import pytest

from authface_train.reproduce import small_data, small_runs, small_settings, small_tables

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not os.environ.get("AUTHFACE_LONG_TESTS"),
        reason="four minutes: AUTHFACE_LONG_TESTS=1 runs it",
    ),
]
TINY = functools.partial(
    small_settings.Scale,
    generic=2,
    prior=2,
    restorer=5,
    tuning=5,
    drawn_per_face=2,
    sampling=1,
    lambda_times=0.3,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """All tables share what lies there."""
    return tmp_path_factory.mktemp("small")


@pytest.fixture
def reproduce(folder, weights, authface_here, monkeypatch):
    """Commands run in this process: each would be started anew otherwise, which takes longer than what it does."""
    ran = []

    def run_command(*words, launcher=()):
        ran.append(words[0])
        done = authface_here(*words)
        assert done.returncode == 0, (words, done.stderr)

    for module in (small_data, small_runs, small_tables):
        monkeypatch.setattr(module, "run_command", run_command)
    monkeypatch.setattr(small_settings, "Scale", TINY)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def reproduce(*words):
        ran.clear()
        done = authface_here("reproduce", *words, "--output", folder)
        assert done.returncode == 0, done.stderr
        return done.stdout, list(ran)

    return reproduce


def test_the_small_tables_from_photographs_on(reproduce, folder):
    said, ran = reproduce("table2")
    assert ran[-2:] == ["train-prior", "train-restore"]
    record = json.loads((folder / "results/d-0.json").read_text())
    assert len(record["images"]) == 22, "two draws of each test person"
    assert "| d | face prior, time-aware weight | 1 |" in (folder / "table2.md").read_text()
    assert "d - LQ | PSNR dB" in said

    _, ran = reproduce("table1")
    assert ran == ["evaluate"], "row d was there"
    scores = pd.read_parquet(folder / "table1/scores.parquet")
    assert {"row d, small", "plain regression"} < set(scores["method"])

    _, ran = reproduce("table3")
    assert ran == ["train-prior", "train-prior"]
    assert "| photographic tags |" in (folder / "table3.md").read_text()

    shutil.copytree(
        folder / "pictures/d-0", folder / "pictures/b-0"
    )  # another restorer would take half a minute
    shutil.copy(folder / "results/d-0.json", folder / "results/b-0.json")
    _, ran = reproduce("table5")
    assert ran == ["study"]
    assert list((folder / "table5").glob("*.html"))

    _, ran = reproduce("table2", "--row", "d", "--row", "b")
    assert ran == [], "nothing is made again"
