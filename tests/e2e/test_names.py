"""`authface degrade`, `evaluate` and `study` on folders as people have them."""

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image


def save_noise(path, seed, size_px=64):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (size_px, size_px, 3), np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def clean(tmp_path):
    for seed, name in enumerate(("a", "b", "c", "d")):
        save_noise(tmp_path / f"clean/{name}.png", seed)
    return tmp_path / "clean"


def evaluate(authface_here, folder, clean, *options):
    return authface_here(
        "evaluate", "--restored", folder, "--reference", clean, "--metrics", "psnr", *options
    )


def test_pictures_of_other_tools_are_matched(authface_here, clean, tmp_path):
    folder = tmp_path / "tool"
    save_noise(folder / "a_restored.png", 0)
    save_noise(folder / "b_00.png", 1)
    save_noise(folder / "c_sr.png", 2)
    save_noise(folder / "d_00.png", 3)
    save_noise(folder / "d_01.png", 9)

    completed = evaluate(authface_here, folder, clean)
    assert completed.returncode == 0, completed.stderr
    assert "tool: d_00 and d_01 could match d: not matched; rename them\n" in completed.stdout
    assert "tool: c_sr has no reference\n" in completed.stdout
    completed = evaluate(authface_here, folder, clean, "--suffix", "_sr", "--json")
    summary = json.loads(completed.stdout)
    assert summary["methods"]["tool"]["psnr"] == 100
    assert summary["pictures"]["tool"] == 3


def test_folder_without_any_match_is_one_line(authface_here, clean, tmp_path):
    save_noise(tmp_path / "tool/d_00.png", 3)
    save_noise(tmp_path / "tool/d_01.png", 3)
    completed = evaluate(authface_here, tmp_path / "tool", clean)
    assert completed.returncode == 2
    assert "d_00 and d_01 could match d: not matched; rename them" in completed.stderr
    save_noise(tmp_path / "other/x.png", 3)
    completed = evaluate(authface_here, tmp_path / "other", clean)
    assert "--suffix TEXT is what the method appended" in completed.stderr
    assert completed.stderr.count("\n") == 1


def test_gains_without_reference_are_matched_to_the_degraded(authface_here, clean, tmp_path):
    for seed, name in enumerate(("a", "b", "c", "d")):
        save_noise(tmp_path / f"tool/{name}_00.png", seed)
    output = tmp_path / "report"
    completed = authface_here(
        "evaluate", "--restored", tmp_path / "tool", "--degraded", clean, "--metrics", "piqe",
        "--output", output,
    )  # fmt: skip
    assert completed.returncode == 0, completed.stderr
    scores = pd.read_parquet(output / "scores.parquet")
    assert scores.groupby("method")["name"].apply(list).to_dict() == {
        "degraded": ["a", "b", "c", "d"],
        "tool": ["a", "b", "c", "d"],
    }


def test_degrade_keeps_equal_stems_apart_and_names_each_failure(authface_here, tmp_path):
    folder, output = tmp_path / "in", tmp_path / "lq"
    for seed, name in enumerate(("a.jpg", "a.png", "b.png")):
        save_noise(folder / name, seed)
    for name in ("broken.jpg", "empty.png"):
        (folder / name).write_bytes(b"no picture")
    completed = authface_here("degrade", "--input", folder, "--output", output)
    assert completed.returncode == 4
    lines = completed.stderr.splitlines()
    messages = [line for line in lines if not line.startswith("degrade: ")]
    assert [line.split()[0] for line in messages] == ["broken.jpg", "empty.png", "authface:"]
    assert lines[-1].endswith("2 of 5 pictures not degraded")
    assert sorted(path.name for path in output.glob("*.png")) == [
        "a.jpg.png",
        "a.png.png",
        "b.png",
    ]

    (folder / "broken.jpg").unlink()
    (folder / "empty.png").unlink()
    completed = authface_here(
        "evaluate", "--restored", output, "--reference", folder, "--metrics", "psnr",
        "--draws", output / "draws.parquet", "--output", tmp_path / "report",
    )  # fmt: skip
    scores = pd.read_parquet(tmp_path / "report/scores.parquet")
    assert scores["name"].tolist() == ["a.jpg", "a.png", "b"]


@pytest.mark.parametrize("seed", [-1, 2**63, 2**128 - 1])
@pytest.mark.parametrize("command", ["degrade", "study create"])
def test_seed_out_of_range_is_one_line(authface_here, clean, tmp_path, command, seed):
    inputs = ("--input", clean) if command == "degrade" else ("--a", clean, "--b", clean)
    completed = authface_here(*command.split(), *inputs, "--output", tmp_path / "x", "--seed", seed)
    assert completed.returncode == 2
    assert "Invalid value for '--seed'" in completed.stderr
    assert completed.stderr.count("\n") == 1


def test_largest_seed_is_recorded(authface_here, clean, tmp_path):
    options = ("--output", tmp_path / "lq", "--seed", 2**63 - 1)
    completed = authface_here("degrade", "--input", clean / "a.png", *options)
    assert completed.returncode == 0, completed.stderr
    assert pd.read_parquet(tmp_path / "lq/draws.parquet")["seed"].tolist() == [2**63 - 1]
