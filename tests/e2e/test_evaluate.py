"""`authface evaluate` as its user runs it."""

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folders(tmp_path_factory, filled, authface_here):
    """Four clean crops, what degrading made of them, and two methods: blurred, and one that is not quite whole."""
    root = tmp_path_factory.mktemp("evaluate")
    for name in ("clean", "blurred", "odd/deep"):
        (root / name).mkdir(parents=True)
    crops = sorted((filled / "faces").iterdir())[:4]
    for number, path in enumerate(crops):
        with Image.open(path) as image:
            image.resize((256, 256)).save(root / f"clean/face-{number}.png")
    assert (
        authface_here(
            "degrade", "--input", root / "clean", "--output", root / "degraded"
        ).returncode
        == 0
    )
    for path in sorted((root / "clean").iterdir()):
        with Image.open(root / "degraded" / path.name) as image:
            degraded = image.resize((256, 256))
            degraded.save(root / "degraded" / path.name)
            degraded.resize((64, 64)).resize((256, 256)).save(root / "blurred" / path.name)
    pictures = [Image.open(path) for path in sorted((root / "clean").iterdir())]
    pictures[0].convert("L").save(root / "odd/deep/face-0.png")
    Image.fromarray(np.asarray(pictures[1].convert("L")).astype(np.uint16) * 257).save(
        root / "odd/deep/face-1.png"
    )
    pictures[2].resize((128, 128)).save(root / "odd/face-2.png")
    pictures[3].convert("RGBA").save(root / "odd/nobody.png")
    return root


def test_several_methods_side_by_side(folders, authface_here, tmp_path):
    words = (
        "--reference",
        folders / "clean",
        "--degraded",
        folders / "degraded",
        "--set",
        "celeba-test",
    )
    methods = ("--restored", f"perfect={folders / 'clean'}", "--restored", folders / "blurred")
    metrics = (
        "--metrics",
        "psnr,ssim,piqe,identity,landmarks",
        "--draws",
        folders / "degraded/draws.parquet",
    )
    done = authface_here("evaluate", *methods, *words, *metrics, "--output", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "AuthFace, as printed" in done.stdout
    scores = pd.read_parquet(tmp_path / "out/scores.parquet")
    assert scores["method"].tolist() == ["degraded"] * 4 + ["perfect"] * 4 + ["blurred"] * 4
    perfect = scores[scores["method"] == "perfect"]
    assert (perfect["psnr"] == 100).all()
    assert (perfect["identity"] == 0).all()
    said = json.loads((tmp_path / "out/summary.json").read_text())
    assert said["methods"]["perfect"]["psnr"] > said["methods"]["degraded"]["psnr"]
    low, high = said["intervals"]["blurred"]["psnr"]
    assert low <= said["methods"]["blurred"]["psnr"] <= high
    page = (tmp_path / "out/report.html").read_text()
    assert 'src="http' not in page
    assert page.count("<figure>") == 8  # two worst and two best of each method
    assert "Skin tone and pose" in page
    assert "Against the damage" in page
    for name in ("table.md", "table.tex", "table.csv", "curves.csv", "curves.png"):
        assert (tmp_path / "out" / name).stat().st_size > 50


def test_odd_pictures_get_a_line_each(folders, authface_here):
    done = authface_here(
        "evaluate",
        "--restored",
        folders / "odd",
        "--reference",
        folders / "clean",
        "--metrics",
        "psnr",
    )
    assert done.returncode == 4
    for line in (
        "odd: face-0: grey, taken as RGB",
        "odd: face-1: 16 bits, brought to 8",
        "odd: nobody has no reference",
        "odd: nothing restored for face-3",
        "odd: face-2 is 128x128 and its reference 256x256: not compared",
    ):
        assert line in done.stdout
    assert "1 pictures were not measured" in done.stderr


def test_missing_weights_skip_their_columns(folders, authface):
    offline = {
        "TORCH_HOME": str(folders / "nothing"),
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "https_proxy": "http://127.0.0.1:9",
    }
    words = (
        "evaluate",
        "--restored",
        folders / "blurred",
        "--reference",
        folders / "clean",
        "--metrics",
        "psnr,lpips,musiq",
        "--json",
    )
    done = authface(*words, env=offline)
    assert done.returncode == 4, done.stderr
    said = json.loads(done.stdout)
    assert list(said["methods"]["blurred"]) == ["psnr"]
    assert set(said["missing"]) == {"lpips", "musiq"}
    assert "alexnet-owt-7be5be79.pth" in done.stderr
    assert "musiq_koniq_ckpt" in done.stderr
    assert authface(*words, "--allow-missing", env=offline).returncode == 0


@pytest.mark.parametrize(
    ("words", "say"),
    [
        (("--metrics", "fid"), "--fid-reference DIR"),
        (("--metrics", "psnr"), "--reference DIR"),
        (("--metrics", "pnsr"), "no metric 'pnsr'"),
        (("--set", "celeba-test"), "CelebA-Test has clean pictures"),
        (("--restored", "x=nowhere"), "nowhere is no folder"),
        (("--restored", "blurred=."), "two methods are named blurred"),
        (
            ("--draws", "nowhere.parquet", "--metrics", "piqe"),
            "`authface degrade` writes draws.parquet",
        ),
    ],
)
def test_mistakes(folders, authface_here, words, say):
    done = authface_here("evaluate", "--restored", folders / "blurred", *words)
    assert done.returncode == 2
    assert say in done.stderr
    assert done.stderr.count("\n") == 1
