"""`authface demo` as a whole, and its report in a real browser."""

import json
import re
import subprocess
from pathlib import Path

import demo_picture
import pandas as pd
import pytest
from browser import HEADLESS_FLAGS, find_chromium
from PIL import Image

from authface_data.commands import demo as demo_command
from manifests.support import console
from manifests.workspace import Workspace

ROOT = Path(__file__).parents[2]
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")

pytestmark = pytest.mark.slow

COMMANDS = (
    "collect",
    "filter",
    "licences",
    "caption",
    "train-prior",
    "train-restore",
    "degrade",
    "restore",
    "report",
)
PROCESS_COMMANDS = ("init", "status")
"""Commands that the tested demo runs in new processes, as its users do; all would take a minute."""


@pytest.fixture(scope="module")
def demo(tmp_path_factory, photos, weights, authface_here):
    """The workspace of a demo, what it printed, and the outputs of its commands by name."""
    root = tmp_path_factory.mktemp("demo") / "ws"
    outputs = {}

    def run_command(*arguments):
        if arguments[0] in PROCESS_COMMANDS:
            console.run_command(*arguments)
            return
        result = authface_here(*arguments)
        assert result.returncode == 0, (arguments, result.stderr)
        outputs[arguments[0]] = result.stdout

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo_command, "run_command", run_command)
        completed = authface_here("demo", "-w", root, "--steps", 6)
    assert completed.returncode == 0, completed.stdout + completed.stderr
    return root, completed.stdout, outputs


def test_demo_runs_every_command_and_ends_with_the_path_of_the_report(demo):
    root, stdout, outputs = demo
    assert outputs["report"].strip().splitlines()[-1] == f"Report: {root}/reports/report.html"
    assert list(outputs)[-1] == "report"
    assert set(outputs) == set(COMMANDS)
    for command in PROCESS_COMMANDS:
        assert f"$ authface {command} " in stdout


def test_report_shows_photographs_credits_reasons_and_curves(demo):
    root, *_ = demo
    page = (root / "reports/report.html").read_text()
    assert not re.search(r"(src|href)=\"(?!data:|#)", page)  # self-contained
    for text in (
        "NASA",
        "public-domain",
        "other:US government portrait (unverified)",
        'title="face_size: qsize_px &lt; 224"',
        "face too small: ",
        "Untrained",
    ):
        assert text in page
    assert page.count("<figure>") == 6 + 2  # faces; a photograph and its crop
    assert page.count("<polyline") >= 8
    assert len(pd.read_parquet(root / "manifests/photos")) >= 5
    assert (root / "reports/demo-restored/strip.jpg").is_file()
    assert Image.open(root / "reports/anatomy.jpg").width > 1000


def test_report_is_rendered_by_chromium(demo, tmp_path):
    chromium = find_chromium()
    root, *_ = demo
    screenshot = tmp_path / "report.png"
    options = [
        "--hide-scrollbars",
        f"--user-data-dir={tmp_path / 'profile'}",
        "--window-size=1280,3600",
        f"--screenshot={screenshot}",
    ]
    url = (root / "reports/report.html").as_uri()
    command = [chromium, *HEADLESS_FLAGS, *options, url]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    with Image.open(screenshot) as image:
        assert image.size == (1280, 3600)
        colours = image.convert("RGB").getcolors(maxcolors=2**24)
        assert len(colours) > 20_000  # photographs are shown, not only text


def test_picture_of_the_readme_shows_what_the_demo_finds(demo):
    """If it does not: `python benchmarks/demo_picture.py WORKSPACE`."""
    root, *_ = demo
    facts = demo_picture.read_facts(Workspace(root))
    shown = json.loads((ROOT / "docs/demo.json").read_text())["facts"]
    assert [NUMBER.sub("", fact) for fact in facts] == [NUMBER.sub("", fact) for fact in shown]
    numbers = [float(number) for number in NUMBER.findall("\n".join(facts))]
    # Processors round differently.
    expected = [float(number) for number in NUMBER.findall("\n".join(shown))]
    assert numbers == pytest.approx(expected, rel=0.02, abs=0.02)

    readme = (ROOT / "README.md").read_text()
    figures = re.findall(r"\d+ px", readme)
    assert len(figures) == 2
    (reason,) = [fact for fact in facts if fact.startswith("Dropped")]
    assert (
        reason == f"Dropped: face too small: {figures[0]}, {figures[1].removesuffix(' px')} needed"
    )
    with (
        Image.open(ROOT / "docs/demo.jpg") as committed,
        Image.open(root / "reports/anatomy.jpg") as drawn,
    ):
        assert committed.size == drawn.size


def test_demo_does_not_replace_another_workspace(authface_here, workspace):
    refused = authface_here("demo", "-w", workspace.root)
    assert refused.returncode == 2
    assert "not the demo's" in refused.stderr
