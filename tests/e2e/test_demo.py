"""`authface demo`, whole, and its report in a real browser."""

import re
import shutil
import subprocess

import pandas as pd
import pytest
from PIL import Image

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def demo(tmp_path_factory, photos, weights, authface):
    root = tmp_path_factory.mktemp("demo") / "ws"
    done = authface("demo", "-w", root, "--steps", 6)
    assert done.returncode == 0, done.stdout + done.stderr
    return root, done.stdout


def test_it_ends_with_the_reports_path(demo):
    root, out = demo
    assert out.strip().splitlines()[-1] == f"Report: {root}/reports/report.html"
    for command in (
        "init",
        "collect",
        "filter",
        "caption",
        "train-prior",
        "train-restore",
        "degrade",
        "restore",
        "status",
        "report",
    ):
        assert f"$ authface {command} " in out


def test_the_report_shows_photographs_credits_reasons_and_curves(demo):
    root, _ = demo
    page = (root / "reports/report.html").read_text()
    assert not re.search(r"(src|href)=\"(?!data:)", page)  # self-contained
    for words in (
        "NASA",
        "public-domain",
        "other:US government portrait (unverified)",
        "face_size: qsize_px &lt; 224",
        "Untrained",
    ):
        assert words in page
    assert page.count("<figure>") == 6
    assert page.count("<polyline") >= 8
    assert len(pd.read_parquet(root / "manifests/photos")) >= 5
    assert (root / "reports/demo-restored/strip.jpg").is_file()
    assert Image.open(root / "reports/anatomy.jpg").width > 1000


def test_the_report_in_chromium(demo, tmp_path):
    browser = (
        shutil.which("chromium")
        or shutil.which("chromium-browser")
        or shutil.which("google-chrome")
    )
    if browser is None:
        pytest.skip("no Chromium on this machine (`apt-get install chromium`)")
    root, _ = demo
    shot = tmp_path / "report.png"
    subprocess.run(
        [
            browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
            f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1280,3600", f"--screenshot={shot}",
            (root / "reports/report.html").as_uri(),
        ],
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    with Image.open(shot) as image:
        assert image.size == (1280, 3600)
        colours = image.convert("RGB").getcolors(maxcolors=2**24)
        assert len(colours) > 20_000  # photographs are there, not only a page of text


def test_a_second_demo_makes_it_anew_and_never_over_another_workspace(
    demo, tmp_path, authface, workspace
):
    refused = authface("demo", "-w", workspace.root)
    assert refused.returncode == 2
    assert "not the demo's" in refused.stderr
