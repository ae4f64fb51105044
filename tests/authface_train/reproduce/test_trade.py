"""The trade of distortion and detail: rows at the same PSNR, and the plot."""

import json

import numpy as np
import pandas as pd
import pytest

from authface_train.reproduce import ablation, trade
from authface_train.reproduce.rows import ABLATIONS, METRICS, TRADE

STEPS = (1, 4, 12)


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch):
    monkeypatch.setattr(trade, "RESAMPLES", 50)


def scores_of(row, psnr_gain, feature_gain):
    """Scores of 8 people on a line: each dB of PSNR costs .1 of feature distance."""
    rng = np.random.default_rng(1)
    rows = []
    for person, level in enumerate(rng.normal(22, 2, 8)):
        for number, steps in enumerate(STEPS):
            psnr = level - number + psnr_gain
            values = dict.fromkeys(METRICS, 0.5) | {
                "psnr": psnr,
                "features": 0.3 + 0.1 * (psnr - 22) + feature_gain,
            }
            picture = {"file": f"{person}.jpg", "person": str(person), "drawn": 0}
            rows.append({"row": row, "seed": 0, "steps": steps, **picture, **values})
    return rows


def test_rows_on_one_curve_do_not_differ_at_equal_psnr():
    table = pd.DataFrame(scores_of("d", -0.5, 0.0) + scores_of("c'", 0.0, 0.0))
    difference = trade.at_equal_psnr(table, "d", "c'", "features")
    assert difference is not None
    assert difference == pytest.approx((0, 0, 0), abs=1e-9)

    better = pd.DataFrame(scores_of("d", -0.5, -0.02) + scores_of("c'", 0.0, 0.0))
    difference = trade.at_equal_psnr(better, "d", "c'", "features")
    assert difference == pytest.approx((-0.02, -0.02, -0.02), abs=1e-9)


def test_rows_without_common_psnr_are_not_compared():
    table = pd.DataFrame(scores_of("d", -9.0, 0.0) + scores_of("c'", 0.0, 0.0))
    assert trade.at_equal_psnr(table, "d", "c'", "features") is None


def test_report_and_plot_show_every_number_of_steps(tmp_path):
    (tmp_path / TRADE).mkdir()
    base = {"split": "test", "latent": "unshuffle", "machine": "a test", "seed": 0}
    base["gate"] = {"reconstruction_db": 60.0, "degraded_db": 21.0}
    base["scale"] = {
        "degradation": "gfpgan",
        "drawn_per_face": 1,
        "restorer": 10,
        "sampling": STEPS[-1],
    }
    for row, gain in (("c'", 0.0), ("d", -0.01)):
        table = pd.DataFrame(scores_of(row, 0.0, gain))
        for steps, scores in table.groupby("steps"):
            images = scores.drop(columns=["row", "seed", "steps"]).to_dict("records")
            record = {**base, "row": row, "images": images, "sampling_steps": int(steps)}
            name = f"{row}-0.json" if steps == STEPS[-1] else f"{TRADE}/{row}-0-{steps}.json"
            (tmp_path / name).write_text(json.dumps(record))

    report = ablation.report(tmp_path)
    for steps in STEPS:
        assert f"| d | {steps} |" in report
    assert "| d - c' | feature distance | -0.010 | -0.010 to -0.010 | better |" in report

    images = ablation.read_results(tmp_path)
    assert "at equal PSNR" in trade.trade_report(tmp_path, images, ABLATIONS["table2"])
    one_row = images[images["row"] == "d"]
    for path in tmp_path.rglob("c'-0*.json"):
        path.unlink()
    assert "at equal PSNR" not in trade.trade_report(tmp_path, one_row, ABLATIONS["table2"])
    assert trade.plot_trade(tmp_path, images, ABLATIONS["table2"]).width > 1000
