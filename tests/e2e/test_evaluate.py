"""`authface evaluate` on the command line."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from random_networks import use_torch_home

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folders(tmp_path_factory, filled, authface_here):
    """Folders `clean`, `degraded`, `blurred`, and `odd`, an incomplete method with odd pictures."""
    root = tmp_path_factory.mktemp("evaluate")
    clean = root / "clean"
    degraded = root / "degraded"
    blurred = root / "blurred"
    odd = root / "odd"
    for folder in (clean, blurred, odd / "deep"):
        folder.mkdir(parents=True)
    crops = sorted((filled / "faces").iterdir())[:4]
    for number, path in enumerate(crops):
        with Image.open(path) as image:
            image.resize((256, 256)).save(clean / f"face-{number}.png")
    completed = authface_here("degrade", "--input", clean, "--output", degraded)
    assert completed.returncode == 0
    for path in sorted(clean.iterdir()):
        with Image.open(degraded / path.name) as image:
            picture = image.resize((256, 256))
        picture.save(degraded / path.name)
        picture.resize((64, 64)).resize((256, 256)).save(blurred / path.name)

    pictures = [Image.open(path) for path in sorted(clean.iterdir())]
    pictures[0].convert("L").save(odd / "deep/face-0.png")
    deep = np.asarray(pictures[1].convert("L")).astype(np.uint16) * 257
    Image.fromarray(deep).save(odd / "deep/face-1.png")
    pictures[2].resize((128, 128)).save(odd / "face-2.png")
    pictures[3].convert("RGBA").save(odd / "unknown.png")
    return root


def test_several_methods_are_compared_in_table_and_report(folders, authface_here, tmp_path):
    output = tmp_path / "out"
    completed = authface_here(
        "evaluate",
        "--restored",
        f"perfect={folders / 'clean'}",
        "--restored",
        folders / "blurred",
        "--reference",
        folders / "clean",
        "--degraded",
        folders / "degraded",
        "--set",
        "celeba-test",
        "--metrics",
        "psnr,ssim,piqe,identity,landmarks",
        "--draws",
        folders / "degraded/draws.parquet",
        "--output",
        output,
    )
    assert completed.returncode == 0, completed.stderr
    assert "AuthFace, as printed" in completed.stdout
    scores = pd.read_parquet(output / "scores.parquet")
    assert scores["method"].tolist() == ["degraded"] * 4 + ["perfect"] * 4 + ["blurred"] * 4
    perfect = scores[scores["method"] == "perfect"]
    assert (perfect["psnr"] == 100).all()
    assert (perfect["identity"] == 0).all()

    summary = json.loads((output / "summary.json").read_text())
    assert summary["methods"]["perfect"]["psnr"] > summary["methods"]["degraded"]["psnr"]
    low, high = summary["intervals"]["blurred"]["psnr"]
    assert low <= summary["methods"]["blurred"]["psnr"] <= high

    page = (output / "report.html").read_text()
    assert 'src="http' not in page
    for place in ("worst 1", "worst 2", "best 1", "best 2"):
        assert page.count(f"<td>{place}</td>") == 2  # a row per method
    assert re.findall(r'<th class="picture">(\w+)', page)[:3] == ["Degraded", "Restored", "Clean"]
    assert "Skin tone and pose" in page
    # Four pictures make one point, which is no curve.
    assert "Response to degradations" not in page
    assert not (output / "curves.png").exists()
    for name in ("table.md", "table.tex", "table.csv", "curves.csv"):
        assert (output / name).stat().st_size > 50


def test_odd_pictures_are_reported(folders, authface_here):
    completed = authface_here(
        "evaluate",
        "--restored",
        folders / "odd",
        "--reference",
        folders / "clean",
        "--metrics",
        "psnr",
    )
    assert completed.returncode == 4
    for message in (
        "odd: face-0: grey expanded to RGB",
        "odd: face-1: 16 bits reduced to 8",
        "odd: unknown has no reference",
        "odd: no restored picture for face-3",
        "odd: face-2 is 128x128 and its reference 256x256: not compared",
    ):
        assert message in completed.stdout
    assert "1 picture not measured" in completed.stderr


def test_metrics_without_weights_are_skipped(folders, authface_here, monkeypatch):
    use_torch_home(folders / "nothing", monkeypatch)
    offline = {
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "https_proxy": "http://127.0.0.1:9",
    }
    arguments = (
        "evaluate",
        "--restored",
        folders / "blurred",
        "--reference",
        folders / "clean",
        "--metrics",
        "psnr,lpips,musiq",
        "--json",
    )
    completed = authface_here(*arguments, env=offline)
    assert completed.returncode == 4, completed.stderr
    summary = json.loads(completed.stdout)
    assert list(summary["methods"]["blurred"]) == ["psnr"]
    assert set(summary["missing"]) == {"lpips", "musiq"}
    assert "alexnet-owt-7be5be79.pth" in completed.stderr
    assert "musiq_koniq_ckpt" in completed.stderr
    assert authface_here(*arguments, "--allow-missing", env=offline).returncode == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--metrics", "fid"), "--fid-reference DIR"),
        (("--metrics", "psnr"), "--reference DIR"),
        (("--metrics", "pnsr"), "unknown metric 'pnsr'"),
        (("--set", "celeba-test"), "CelebA-Test has clean pictures"),
        (("--restored", "x=nowhere"), "nowhere is not a folder"),
        (("--restored", "blurred=."), "two methods are named blurred"),
        (
            ("--draws", "nowhere.parquet", "--metrics", "piqe"),
            "`authface degrade` writes draws.parquet",
        ),
    ],
)
def test_usage_errors_are_one_line(folders, authface_here, options, message):
    completed = authface_here("evaluate", "--restored", folders / "blurred", *options)
    assert completed.returncode == 2
    assert message in completed.stderr
    assert completed.stderr.count("\n") == 1
