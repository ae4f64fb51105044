"""Tables 2 and 4 at small scale: paired differences, their intervals, and the report."""

import json

import numpy as np
import pandas as pd
import pytest

from authface_train.evaluation.intervals import bootstrap_interval
from authface_train.reproduce.ablation import compare_rows, report
from authface_train.reproduce.rows import ABLATIONS, METRICS, TABLE2_ROWS


def make_scores(row, seed, gain, num_people=6):
    """Two pictures per person whose metrics are `gain` above a level of the person."""
    levels = np.random.default_rng(0).normal(20, 3, num_people)
    scores = []
    for person, level in enumerate(levels):
        for drawn in range(2):
            value = float(level + drawn + gain + 0.01 * person)
            picture = {"file": f"{person}.jpg", "person": str(person), "face": 0, "drawn": drawn}
            scores.append({"row": row, "seed": seed, **picture, **dict.fromkeys(METRICS, value)})
    return scores


def write_result(folder, row, seed, gain):
    """Write the result file of a run."""
    scores = make_scores(row, seed, gain)
    images = pd.DataFrame(scores).drop(columns=["row", "seed"]).to_dict("records")
    record = {
        "row": row,
        "seed": seed,
        "split": "test",
        "latent": "unshuffle",
        "machine": "a test",
        "gate": {"reconstruction_db": 60.0, "degraded_db": 21.0},
        "scale": {"degradation": "codeformer-large", "drawn_per_face": 2, "restorer": 10},
        "images": images,
    }
    (folder / f"{row}-{seed}.json").write_text(json.dumps(record))


def test_differences_are_paired_with_intervals_over_people():
    table = pd.DataFrame(
        make_scores("b", 0, 0.0)
        + make_scores("d", 0, 0.5)
        + make_scores("b", 1, 0.0)
        + make_scores("d", 1, 0.7)
    )
    difference = compare_rows(table, "d", "b", "psnr")
    assert difference is not None
    assert difference.mean == pytest.approx(0.6)
    assert difference.low == pytest.approx(0.6), "the gain is the same for every person"
    assert difference.seeds == pytest.approx((0.5, 0.7))
    assert difference.num_people == 6
    assert difference.is_better is True

    distance = compare_rows(table, "d", "b", "descriptor")
    assert distance is not None
    assert distance.is_better is False, "a larger distance is worse"


def test_interval_that_contains_zero_resolves_no_difference():
    rng = np.random.default_rng(3)
    low, high = bootstrap_interval(rng.normal(0, 1, 12))
    assert low < 0 < high

    table = pd.DataFrame(make_scores("b", 0, 0.0))
    other = table.assign(row="d", psnr=table["psnr"] + np.tile([0.3, 0.3, -0.3, -0.3], 3))
    difference = compare_rows(pd.concat([table, other], ignore_index=True), "d", "b", "psnr")
    assert difference is not None
    assert difference.is_better is None


def test_report_marks_restorers_that_do_not_beat_their_input(tmp_path):
    write_result(tmp_path, "LQ", None, 0.0)
    write_result(tmp_path, "d", 0, -1.0)
    write_result(tmp_path, "b", 0, 1.0)
    table = report(tmp_path)
    assert "| d - LQ | PSNR dB | -1.000 | -1.000 to -1.000 | -1.000 | FAIL |" in table
    assert "| b - LQ | PSNR dB | +1.000 | +1.000 to +1.000 | +1.000 | PASS |" in table
    assert "| d - b | PSNR dB | -2.000 |" in table
    assert "beats regression" not in table

    write_result(tmp_path, "regression", 7, -0.5)
    table = report(tmp_path)
    assert "| d - regression | PSNR dB | -0.500 | -0.500 to -0.500 | -0.500 | FAIL |" in table
    assert "not a VAE" in table


def test_show_prints_the_table_of_a_folder_of_results(authface, authface_here, tmp_path):
    write_result(tmp_path, "LQ", None, 0.0)
    write_result(tmp_path, "d", 0, 1.0)
    result = authface("reproduce", "table2", "--show", tmp_path)
    assert result.returncode == 0
    assert "| d | face prior, time-aware weight | 1 |" in result.stdout
    assert not result.stderr, "a library has warned"

    result = authface_here("reproduce", "table2", "--show", tmp_path / "none")
    assert result.returncode == 2
    assert "no results" in result.stderr


def test_options_are_checked_before_anything_runs(authface_here, tmp_path):
    output = tmp_path / "reproduction"
    result = authface_here("reproduce", "table2", "--row", "e", "--output", output)
    assert result.returncode == 2
    assert 'unknown row "e"; choose from: a, b, c, c\', d' in result.stderr

    result = authface_here("reproduce", "table1", "--row", "d", "--output", output)
    assert result.returncode == 2
    assert "--row is only valid with table2" in result.stderr
    assert not output.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("table2", "--size", 100), "--size 100 is not a multiple of 16; use 96 or 112"),
        (("table3", "--size", 128), "--size is only valid with table2"),
        (("table2", "--size", 128, "--scale", "paper"), "only valid with --scale small"),
    ],
)
def test_wrong_size_is_one_line(authface_here, tmp_path, arguments, message):
    result = authface_here("reproduce", *arguments, "--output", tmp_path / "small")
    assert result.returncode == 2
    assert message in result.stderr
    assert not list(tmp_path.iterdir())


def test_figure14_saves_a_plot(authface_here, tmp_path):
    result = authface_here("reproduce", "figure14", "--output", tmp_path / "weights.png")
    assert result.returncode == 0
    assert (tmp_path / "weights.png").stat().st_size > 10_000


def test_rows_of_table2_differ_in_facial_loss_or_prior_only():
    weights = {row.weight for row in TABLE2_ROWS.values()}
    assert weights == {"off", "constant", "constant-matched", "time-aware"}
    bases = [row.base for row in TABLE2_ROWS.values()]
    assert bases == ["generic", "prior", "prior", "prior", "prior", "prior"]
    conditioned = [row.name for row in TABLE2_ROWS.values() if row.timestep_conditioning]
    assert conditioned == ["d'"]
    assert set(ABLATIONS["table2"].compared) >= {("c'", "b"), ("d", "c'"), ("d", "b")}
