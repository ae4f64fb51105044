"""Captions by the commands: models and servers killed and resumed, tags decided, sets handed on."""

import json
import shutil
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
import tiny_llava
from caption_server import CaptionServer
from killed import run

from manifests.schema import CAPTIONS, DECISIONS
from manifests.store import Store
from manifests.training_view import used_captions
from manifests.workspace import Workspace

pytestmark = pytest.mark.slow


@pytest.fixture
def root(filled, tmp_path):
    shutil.copytree(filled, tmp_path / "ws", symlinks=True)
    return tmp_path / "ws"


def said(root, captioner):
    frame = pd.read_parquet(root / "manifests/captions")
    frame = frame[frame["captioner"] == captioner].sort_values("face_id")
    return frame.drop(columns="created_at").astype(str).to_dict("records")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return tiny_llava.save(tmp_path_factory.mktemp("llava"))


def test_llava_killed_and_run_again_asks_only_about_the_rest(root, filled, tmp_path, checkpoint):
    whole = tmp_path / "whole"
    shutil.copytree(filled, whole, symlinks=True)
    words = ["caption", "--captioner", "llava", "--model", checkpoint]
    done = run([*words, "-w", whole])
    assert done.returncode == 0, done.stdout
    assert "4 faces captioned by llava, " in done.stdout
    assert " images/s; 4 are kept" in done.stdout
    killed = run([*words, "-w", root], stop=2)  # three rows are committed, the fourth is not
    assert killed.returncode == -signal.SIGKILL, killed.stdout
    there = len(said(root, "llava"))
    assert 0 < there < 4
    again = run([*words, "-w", root])
    assert f"{4 - there} faces captioned by llava" in again.stdout
    assert said(root, "llava") == said(whole, "llava")
    assert "0 faces captioned by llava; 4 are kept" in run([*words, "-w", root]).stdout


def test_a_server_killed_in_the_middle_is_paid_once(root, authface_here):
    with CaptionServer(delay_s=0.4) as server:
        words = ["caption", "--captioner", "server", "--base-url", server.url, "-w", str(root)]
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "cli", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        (root / "authface.toml").write_text(
            (root / "authface.toml").read_text() + "\n[captions.server]\nconcurrency = 2\n"
        )
        deadline = time.monotonic() + 60
        while server.answered < 3 and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert said(root, "server") == []
        time.sleep(1)
        server.delay_s, before = 0.0, len(server.requests)
        done = authface_here(*words)
        assert done.returncode == 0, done.stderr
        assert (
            len(server.requests) - before <= 8 - 2
        )  # what was answered before the kill came from the workspace
    rows = said(root, "server")
    assert len(rows) == 4
    assert not list((root / "cache/answers").iterdir())
    used = used_captions(Workspace(root))
    assert all(semantic == ["woman", "black hair", "red dress"] for semantic, _ in used.values())


def test_what_contradicts_the_picture_is_told(root, authface_here):
    with CaptionServer() as server:
        (root / "authface.toml").write_text(
            (root / "authface.toml").read_text()
            + f'\n[captions.server]\nbase_url = "{server.url}"\n'
        )
        server.photographic = '{"tags": ["black and white", "smile"]}'
        done = authface_here("caption", "--captioner", "server", "-w", root)
    assert "4 tags contradict the picture: left out of the captions" in done.stdout
    told = json.loads(authface_here("report", "-w", root, "--json").stdout)
    assert told["contradictions"] == [
        {
            "captioner": "server",
            "tag": "black and white",
            "against": "colour photograph",
            "count": 4,
        }
    ]
    facets = {facet["facet"]: facet["faces"] for facet in told["coverage"]}
    assert (facets["person"], facets["expression"], facets["colour"]) == (4, 4, 0)
    page = (root / "reports/report.html").read_text()
    assert "What the captions say" in page
    assert "server “black and white” against “colour photograph” 4" in page


def test_tags_are_counted_renamed_removed_and_restored(root, authface_here):
    listed = authface_here("tags", "-w", root)
    assert "4 captions in use" in listed.stdout
    assert "front view" in listed.stdout
    before = Store(Workspace(root), CAPTIONS).read()
    done = authface_here("tags", "rename", "front view", "facing us", "-w", root)
    assert done.returncode == 0, done.stderr
    assert (
        authface_here("tags", "remove", "close-up", "-w", root, "--reviewer", "anna").returncode
        == 0
    )
    used = [tag for _, tags in used_captions(Workspace(root)).values() for tag in tags]
    assert "facing us" in used
    assert not {"front view", "close-up"} & set(used)
    assert Store(Workspace(root), CAPTIONS).read().equals(before)
    told = json.loads(authface_here("tags", "-w", root, "--json").stdout)
    assert {(one["tag"], one["renamed_to"]) for one in told["decisions"]} == {
        ("front view", "facing us"),
        ("close-up", None),
    }
    assert (
        authface_here("filter", "-w", root, "--regate").returncode == 0
    )  # no face is missed for it
    assert authface_here("tags", "restore", "close-up", "-w", root).returncode == 0
    assert "close-up" in [
        tag for _, tags in used_captions(Workspace(root)).values() for tag in tags
    ]
    assert Store(Workspace(root), DECISIONS).read().num_rows == 3
    for words, message in (
        (("rename", "zebra", "horse"), "no caption in use has the tag 'zebra'"),
        (("restore", "zebra"), "nothing is decided about 'zebra'"),
        (("rename", "facing us", "a, b"), "is no tag"),
    ):
        refused = authface_here("tags", *words, "-w", root)
        assert refused.returncode == 2
        assert message in refused.stderr


def test_the_set_for_other_trainers(root, authface_here, tmp_path):
    done = authface_here(
        "export-captions", "--format", "kohya", "--output", tmp_path / "out", "-w", root
    )
    assert done.returncode == 0, done.stderr
    pictures = list((tmp_path / "out").rglob("*.png"))
    assert len(pictures) == 4
    assert all(path.with_suffix(".txt").read_text().strip() for path in pictures)
    again = authface_here(
        "export-captions", "--format", "kohya", "--output", tmp_path / "out", "-w", root
    )
    assert again.returncode == 2
    assert "not an empty folder" in again.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--captioner", "blip"), "there are llava, server, measured"),
        (
            ("--captioner", "measured", "--model", "x"),
            "--model means nothing to the captioner measured",
        ),
        (
            ("--captioner", "llava", "--base-url", "http://x"),
            "--base-url means nothing to the captioner llava",
        ),
        (("--captioner", "server", "--base-url", "x"), "is no address"),
    ],
)
def test_options_that_mean_nothing_are_refused(filled, authface_here, words, message):
    done = authface_here("caption", *words, "-w", filled)
    assert done.returncode == 2
    assert message in done.stderr
