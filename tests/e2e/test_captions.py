"""Caption commands: killed and resumed captioners, tag decisions, and exports."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
import tiny_llava
from caption_server import CaptionServer
from killable import run_killable

from manifests.captions import current_tags
from manifests.schema import CAPTIONS, DECISIONS
from manifests.store import Store
from manifests.workspace import Workspace

pytestmark = pytest.mark.slow


@pytest.fixture
def root(filled, tmp_path):
    shutil.copytree(filled, tmp_path / "ws", symlinks=True)
    return tmp_path / "ws"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return tiny_llava.save(tmp_path_factory.mktemp("llava"))


def read_captions(root, captioner):
    """The rows of a captioner, without their time."""
    frame = pd.read_parquet(root / "manifests/captions")
    frame = frame[frame["captioner"] == captioner].sort_values("face_id")
    return frame.drop(columns="created_at").astype(str).to_dict("records")


def add_settings(root, text):
    path = root / "authface.toml"
    path.write_text(f"{path.read_text()}\n{text}\n")


def photographic_tags_in_use(root):
    return [tag for tags in current_tags(Workspace(root)).values() for tag in tags.photographic]


def test_killed_llava_run_resumes_with_the_remaining_faces(root, filled, tmp_path, checkpoint):
    reference = tmp_path / "reference"
    shutil.copytree(filled, reference, symlinks=True)
    command = ["caption", "--captioner", "llava", "--model", checkpoint]
    complete = run_killable([*command, "-w", reference])
    assert complete.returncode == 0, complete.stdout
    assert "4 faces captioned by llava, " in complete.stdout
    assert " images/s, of 4 kept faces" in complete.stdout

    killed = run_killable([*command, "-w", root], kill_at=2)  # after three rows were committed
    assert killed.returncode == -signal.SIGKILL, killed.stdout
    committed = len(read_captions(root, "llava"))
    assert 0 < committed < 4
    resumed = run_killable([*command, "-w", root])
    assert re.search(rf"\b{4 - committed} faces? captioned by llava", resumed.stdout)
    assert read_captions(root, "llava") == read_captions(reference, "llava")
    repeated = run_killable([*command, "-w", root])
    assert "0 faces captioned by llava, of 4 kept faces" in repeated.stdout


def test_killed_server_run_pays_for_each_answer_once(root, authface_here):
    with CaptionServer(delay_s=0.4) as server:
        command = ["caption", "--captioner", "server", "--base-url", server.url, "-w", str(root)]
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "cli", *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        add_settings(root, "[captions.server]\nconcurrency = 2")
        deadline = time.monotonic() + 60
        while server.answered < 3 and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert read_captions(root, "server") == []

        time.sleep(1)
        server.delay_s = 0.0
        requests_before = len(server.requests)
        result = authface_here(*command)
        assert result.returncode == 0, result.stderr
        # Answers from before the kill are read from the workspace.
        assert len(server.requests) - requests_before <= 8 - 2

    assert len(read_captions(root, "server")) == 4
    assert not list((root / "cache/answers").iterdir())
    captions = current_tags(Workspace(root)).values()
    assert all(tags.semantic == ["woman", "black hair", "red dress"] for tags in captions)


def test_tags_contradicting_the_picture_are_reported(root, authface_here):
    with CaptionServer() as server:
        add_settings(root, f'[captions.server]\nbase_url = "{server.url}"')
        server.photographic = '{"tags": ["black and white", "smile"]}'
        result = authface_here("caption", "--captioner", "server", "-w", root)
    assert "4 contradictions between tags and picture: left out of the captions" in result.stdout

    report = json.loads(authface_here("report", "-w", root, "--json").stdout)
    assert report["contradictions"] == [
        {
            "captioner": "server",
            "tag": "black and white",
            "against": "colour photograph",
            "count": 4,
        }
    ]
    facets = {facet["facet"]: facet["faces"] for facet in report["coverage"]}
    assert (facets["person"], facets["expression"], facets["colour"]) == (4, 4, 0)
    page = (root / "reports/report.html").read_text()
    assert "Tags in the captions" in page
    row = re.search(r"<td>server</td><td>black and white</td>(.*?)</tr>", page, re.DOTALL)
    assert row is not None
    assert re.findall(r">([^<>\n]+)</td>", row[1]) == ["colour photograph", "4"]


def test_tags_are_counted_renamed_removed_and_restored(root, authface_here):
    listing = authface_here("tags", "-w", root)
    assert "4 captions in use" in listing.stdout
    assert "front view" in listing.stdout
    assert re.findall(r"unknown, (\w+) ", listing.stdout) == ["semantic", "photographic"]

    captions_before = Store(Workspace(root), CAPTIONS).read()
    result = authface_here("tags", "rename", "front view", "facing us", "-w", root)
    assert result.returncode == 0, result.stderr
    result = authface_here("tags", "remove", "close-up", "-w", root, "--reviewer", "anna")
    assert result.returncode == 0
    tags = photographic_tags_in_use(root)
    assert "facing us" in tags
    assert not {"front view", "close-up"} & set(tags)
    assert Store(Workspace(root), CAPTIONS).read().equals(captions_before)
    listing = json.loads(authface_here("tags", "-w", root, "--json").stdout)
    assert {(item["tag"], item["renamed_to"]) for item in listing["decisions"]} == {
        ("front view", "facing us"),
        ("close-up", None),
    }

    # Decisions about tags are not decisions about faces.
    assert authface_here("filter", "-w", root, "--regate").returncode == 0
    assert authface_here("tags", "restore", "close-up", "-w", root).returncode == 0
    assert "close-up" in photographic_tags_in_use(root)
    assert Store(Workspace(root), DECISIONS).read().num_rows == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("rename", "zebra", "horse"), "no caption in use has the tag 'zebra'"),
        (("restore", "zebra"), "no decision about the tag 'zebra'"),
        (("rename", "front view", "a, b"), "is not a tag"),
    ],
)
def test_invalid_tag_decisions_are_refused(root, authface_here, arguments, message):
    refused = authface_here("tags", *arguments, "-w", root)
    assert refused.returncode == 2
    assert message in refused.stderr


def test_export_for_other_trainers(root, authface_here, tmp_path):
    output = tmp_path / "out"
    command = ["export-captions", "--format", "kohya", "--output", output, "-w", root]
    result = authface_here(*command)
    assert result.returncode == 0, result.stderr
    crops = list(output.rglob("*.png"))
    assert len(crops) == 4
    assert all(path.with_suffix(".txt").read_text().strip() for path in crops)
    refused = authface_here(*command)
    assert refused.returncode == 2
    assert "not an empty folder" in refused.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--captioner", "blip"), "is not one of 'llava', 'server', 'measured'"),
        (
            ("--captioner", "measured", "--model", "x"),
            "--model is only valid with --captioner llava or server",
        ),
        (
            ("--captioner", "llava", "--base-url", "http://x"),
            "--base-url is only valid with --captioner server",
        ),
        (("--captioner", "server", "--base-url", "x"), "must start with http:// or https://"),
    ],
)
def test_invalid_options_are_refused(filled, authface_here, options, message):
    result = authface_here("caption", *options, "-w", filled)
    assert result.returncode == 2
    assert message in result.stderr
