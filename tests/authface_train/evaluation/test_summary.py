"""The table, the groups of faces and the response curves of an evaluation."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from authface_train.evaluation import degraded_set, groups, response, summary
from authface_train.evaluation.evaluate import Evaluation
from manifests.support.errors import UserError

COUNT = 40


def make_evaluation():
    """Two methods over 40 pictures; `good` gains 2 dB on light skin and nothing on dark skin."""
    rng = np.random.default_rng(0)
    is_light = np.arange(COUNT) % 2 == 0
    before = rng.normal(22, 1, COUNT)
    psnr = {
        "degraded": before,
        "good": before + np.where(is_light, 2.0, 0.0),
        "bad": before - 1,
    }
    identity = {
        "degraded": np.full(COUNT, 0.5),
        "good": np.where(is_light, 0.3, 0.6),
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
            "ita_deg": np.where(is_light, 50.0, -40.0),
            "yaw_deg": np.where(is_light, 3.0, -60.0),
        }
    )
    return Evaluation(scores, ["psnr", "identity"], faces=faces)


def test_summary_in_every_format():
    evaluation = make_evaluation()
    table = summary.summarise(evaluation, "celeba-test")
    assert list(table.cells) == ["degraded", "good", "bad", summary.PAPER]
    # The degraded pictures do not compete, and `bad` has no identity.
    assert table.best == {"psnr": "good"}
    cell = table.cells["good"]["psnr"]
    assert cell.low < cell.mean < cell.high
    assert "identity" not in table.cells["bad"]
    assert table.cells[summary.PAPER]["psnr"].mean == 25.57

    markdown = summary.format_markdown(table)
    assert "| bad | 40 |" in markdown
    assert markdown.count("**") == 2
    latex = summary.format_latex(table)
    assert r"\textbf{" in latex
    assert r"PSNR $\uparrow$ & ID distance $\downarrow$" in latex
    lines = summary.format_csv(table).splitlines()
    assert lines[0] == "method,metric,mean,low,high,pictures"
    assert len(lines) == 1 + 2 + 2 + 1 + 1

    values = summary.as_json(evaluation, table, "celeba-test")
    assert values["methods"]["good"]["psnr"] == cell.mean
    assert summary.PAPER not in values["methods"]
    assert values["pictures"] == {"degraded": 40, "good": 40, "bad": 40}


def test_groups_compare_gain_and_identity_loss():
    compared = groups.compare_groups(make_evaluation())
    by_key = {
        (group.method, group.attribute, group.group, group.quantity): group for group in compared
    }
    light = by_key["good", "skin", "light", "gain, PSNR"]
    dark = by_key["good", "skin", "dark", "gain, PSNR"]
    assert light.mean == pytest.approx(2)
    assert light.faces == 20
    assert dark.mean == pytest.approx(0)
    frontal = by_key["good", "pose", "frontal", "gain, PSNR"]
    assert frontal.mean == pytest.approx(2)
    profile = by_key["good", "pose", "turned by 45° and more", "identity loss (distance)"]
    assert profile.mean == pytest.approx(0.6)

    # `bad` has no identity, and the degraded pictures are not a method to compare.
    assert ("bad", "skin", "dark", "identity loss (distance)") not in by_key
    assert all(group.method != "degraded" for group in compared)
    markdown = groups.format_markdown(compared)
    assert "| good | skin | light | 20 | gain, PSNR | 2.000 | 2.000 to 2.000 |" in markdown


def test_groups_of_faces_without_pose_are_formed_by_skin_only():
    evaluation = make_evaluation()
    evaluation.faces["yaw_deg"] = pd.Series([None] * COUNT, dtype=object)
    compared = groups.compare_groups(evaluation)
    assert {group.attribute for group in compared} == {"skin"}


def test_response_curves_follow_degradations(tmp_path):
    evaluation = make_evaluation()
    noise = np.linspace(0, 20, COUNT)
    evaluation.scores["psnr"] = np.tile(30 - noise, 3)
    record = pd.DataFrame(
        {
            "file": [f"face-{number}.png" for number in range(COUNT)],
            "sigmas_px": [(1.0, 4.0)] * COUNT,
            "down": 2.0,
            "noise": noise,
            "jpeg": 80,
        }
    )
    record.to_parquet(tmp_path / "draws.parquet")
    Image.new("RGB", (8, 8)).save(tmp_path / "face-3.png")
    degradations = degraded_set.read_degradations(tmp_path / "draws.parquet", [tmp_path])
    # The geometric mean of the sigmas of both axes.
    assert degradations["blur_px"].tolist() == [2.0] * COUNT

    curves = response.response_curves(evaluation, degradations)
    is_line = (
        (curves["method"] == "good") & (curves["metric"] == "psnr") & (curves["damage"] == "noise")
    )
    line = curves[is_line]
    assert line["pictures"].tolist() == [8] * 5
    assert line["mean"].to_numpy() == pytest.approx(30 - line["at"].to_numpy())
    assert (line["low"] < line["mean"]).all()
    # Only the noise differs between the pictures: the other panels would have one point.
    assert 200 < response.draw_curves(curves).width < 500
    assert response.draw_curves(curves[curves["damage"] == "down"]) is None


def test_record_of_other_pictures_is_refused(tmp_path):
    record = pd.DataFrame(
        {"file": ["face-3.png"], "sigmas_px": [(1.0, 4.0)], "down": 2.0, "noise": 1.0, "jpeg": 80}
    )
    record.to_parquet(tmp_path / "draws.parquet")
    Image.new("RGB", (8, 8)).save(tmp_path / "another.png")
    with pytest.raises(UserError, match="names no picture of the folders"):
        degraded_set.read_degradations(tmp_path / "draws.parquet", [tmp_path])
    pd.DataFrame({"file": ["a"]}).to_parquet(tmp_path / "other.parquet")
    with pytest.raises(UserError, match="not a record of degradations"):
        degraded_set.read_degradations(tmp_path / "other.parquet", [])
