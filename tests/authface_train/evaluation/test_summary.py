"""What is said of scores: the table, groups, and curves."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from authface_train.evaluation import groups, response, summary
from authface_train.evaluation.evaluate import Evaluation
from manifests.support.errors import UserError

COUNT = 40


def evaluation():
    """Two methods over 40 pictures; `good` gains 2 dB where skin is light and nothing where it is dark."""
    rng = np.random.default_rng(0)
    light = np.arange(COUNT) % 2 == 0
    before = rng.normal(22, 1, COUNT)
    psnr = {"degraded": before, "good": before + np.where(light, 2.0, 0.0), "bad": before - 1}
    identity = {
        "degraded": np.full(COUNT, 0.5),
        "good": np.where(light, 0.3, 0.6),
        "bad": np.full(COUNT, np.nan),
    }
    names = [f"face-{number}" for number in range(COUNT)]
    scores = pd.concat(
        pd.DataFrame(
            {
                "method": method,
                "name": names,
                "path": "",
                "reference": "",
                "psnr": psnr[method],
                "identity": identity[method],
            }
        )
        for method in psnr
    )
    faces = pd.DataFrame(
        {
            "name": names,
            "ita_deg": np.where(light, 50.0, -40.0),
            "yaw_deg": np.where(light, 3.0, -60.0),
        }
    )
    return Evaluation(scores, ["psnr", "identity"], faces=faces)


def test_the_table_in_every_form():
    made = summary.summarise(evaluation(), "celeba-test")
    assert list(made.cells) == ["degraded", "good", "bad", summary.PAPER]
    assert made.best == {
        "psnr": "good"
    }  # what was given does not compete, and `bad` has no identity
    cell = made.cells["good"]["psnr"]
    assert cell.low < cell.mean < cell.high
    assert "identity" not in made.cells["bad"]
    assert made.cells[summary.PAPER]["psnr"].mean == 25.57
    assert "| bad | 40 |" in summary.markdown(made)
    assert summary.markdown(made).count("**") == 2
    assert r"\textbf{" in summary.latex(made)
    assert r"PSNR $\uparrow$ & ID distance $\downarrow$" in summary.latex(made)
    lines = summary.as_csv(made).splitlines()
    assert lines[0] == "method,metric,mean,low,high,pictures"
    assert len(lines) == 1 + 2 + 2 + 1 + 1
    said = summary.as_json(evaluation(), made, "celeba-test")
    assert said["methods"]["good"]["psnr"] == cell.mean
    assert summary.PAPER not in said["methods"]
    assert said["pictures"] == {"degraded": 40, "good": 40, "bad": 40}


def test_whom_a_method_serves_less():
    found = {
        (one.method, one.kind, one.group, one.what): one for one in groups.groups(evaluation())
    }
    light = found["good", "skin", "light", "gain, PSNR"]
    dark = found["good", "skin", "dark", "gain, PSNR"]
    assert (light.mean, light.faces) == (pytest.approx(2), 20)
    assert dark.mean == pytest.approx(0)
    assert found["good", "pose", "frontal", "gain, PSNR"].mean == pytest.approx(2)
    assert found[
        "good", "pose", "turned by 45° and more", "identity loss (distance)"
    ].mean == pytest.approx(0.6)
    assert ("bad", "skin", "dark", "identity loss (distance)") not in found  # of nobody is it known
    assert all(method != "degraded" for method, *_ in found)
    text = groups.markdown(groups.groups(evaluation()))
    assert "| good | skin | light | 20 | gain, PSNR | 2.000 | 2.000 to 2.000 |" in text


def test_curves_follow_what_was_drawn(tmp_path):
    found = evaluation()
    noise = np.linspace(0, 20, COUNT)
    found.scores["psnr"] = np.tile(30 - noise, 3)
    draws = pd.DataFrame(
        {
            "file": [f"face-{n}.png" for n in range(COUNT)],
            "sigmas_px": [(1.0, 4.0)] * COUNT,
            "down": 2.0,
            "noise": noise,
            "jpeg": 80,
        }
    )
    draws.to_parquet(tmp_path / "draws.parquet")
    Image.new("RGB", (8, 8)).save(tmp_path / "face-3.png")
    read = response.read_draws(tmp_path / "draws.parquet", [tmp_path])
    assert read["blur_px"].tolist() == [2.0] * COUNT  # the mean of both axes, as areas go
    table = response.curves(found, read)
    line = table[
        (table["method"] == "good") & (table["metric"] == "psnr") & (table["damage"] == "noise")
    ]
    assert line["pictures"].tolist() == [8] * 5
    assert line["mean"].to_numpy() == pytest.approx(30 - line["at"].to_numpy())
    assert (line["low"] < line["mean"]).all()
    assert response.draw(table).width > 1000
    (tmp_path / "face-3.png").rename(tmp_path / "someone.png")
    with pytest.raises(UserError, match="names none of the pictures"):
        response.read_draws(tmp_path / "draws.parquet", [tmp_path])
    pd.DataFrame({"file": ["a"]}).to_parquet(tmp_path / "other.parquet")
    with pytest.raises(UserError, match="no record of draws"):
        response.read_draws(tmp_path / "other.parquet", [])
