"""Looking at what was decided: explain, --what-if, the report for machines."""

import json
import os
import shutil

import pytest
from PIL import Image

from manifests.schema import FACES, VERDICTS
from manifests.store import Store
from manifests.workspace import Workspace

pytestmark = pytest.mark.slow


@pytest.fixture
def root(filled, tmp_path):
    shutil.copytree(filled, tmp_path / "ws")
    return tmp_path / "ws"


def test_what_if_shows_and_changes_nothing(root, authface_here):
    before = Store(Workspace(root), VERDICTS).read()
    done = authface_here("filter", "-w", root, "--what-if", "qsize_px >= 450", "--json")
    assert done.returncode == 0, done.stderr
    change = json.loads(done.stdout)
    assert change["replaced"] == ["face_size"]
    sizes = (
        Store(Workspace(root), FACES)
        .read_pandas(["face_id", "qsize_px"])
        .set_index("face_id")["qsize_px"]
    )
    assert change["kept_now"] - change["kept_then"] == len(change["lost"]) > 0
    assert all(224 <= sizes[one] < 450 for one in change["lost"])
    assert sizes[change["lost"]].is_monotonic_decreasing  # nearest to the threshold first
    with Image.open(root / change["picture"]) as sheet:
        assert sheet.width > 1000
    assert Store(Workspace(root), VERDICTS).read().equals(before)
    added = authface_here("filter", "-w", root, "--what-if", "niqe<=1")
    assert "(a new gate): 0 faces kept" in added.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--what-if", "sharp"], "use a measurement, a comparison and a number"),
        (["--what-if", "sharpnes>=0.5"], "unknown measurement"),
        (["--what-if", "sharpness>=0.5", "--regate"], "can only be combined with --json"),
        (["--json"], "--json is only valid with --what-if"),
    ],
)
def test_what_if_that_cannot_be(filled, authface_here, words, said):
    done = authface_here("filter", "-w", filled, *words)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_faces_whole_story(filled, authface_here):
    faces = Store(Workspace(filled), FACES).read_pandas(["face_id", "photo_id", "qsize_px"])
    small = faces.loc[faces["qsize_px"].idxmin()]
    told = authface_here("explain", small["face_id"], "-w", filled).stdout
    for words in (
        f"Face {small['face_id']}: dropped", "licence: own", "dropped at face_size: qsize_px < 224", "landmarks by dlib",
        "kept at pepper_noise",
    ):  # fmt: skip
        assert words in told
    story = json.loads(authface_here("explain", small["photo_id"], "-w", filled, "--json").stdout)
    assert [one["face"]["face_id"] for one in story["faces"]] == [small["face_id"]]
    assert story["faces"][0]["kept"] is False
    assert {row["metric"] for row in story["faces"][0]["scores"]} >= {
        "pepper",
        "skin",
        "niqe",
        "skin_tone",
    }
    assert {row["device"] for row in story["faces"][0]["scores"]} == {"cpu"}
    unknown = authface_here("explain", "fs_nobody", "-w", filled)
    assert unknown.returncode == 2
    assert "no photograph or face 'fs_nobody'" in unknown.stderr
    assert authface_here("explain", os.fsdecode(b"fs_\xff"), "-w", filled).returncode == 2


def test_what_was_forgotten_is_not_told(root, authface_here):
    photo_id = Store(Workspace(root), FACES).read_pandas(["photo_id"])["photo_id"].iloc[0]
    assert authface_here("forget", photo_id, "-w", root, "--why", "asked", "--yes").returncode == 0
    done = authface_here("explain", photo_id, "-w", root)
    assert done.returncode == 2
    assert "was forgotten here" in done.stderr


def test_the_report_tells_the_balance(root, authface_here):
    done = authface_here("report", "-w", root, "--json")
    found = json.loads(done.stdout)
    facets = {facet["name"]: facet for facet in found["balance"]}
    assert {"Skin tone", "View", "Tilt", "Light from", "Lightness", "Tags: view"} <= set(facets)
    assert all(
        sum(share["found"] for share in facets[name]["shares"]) == facets[name]["found"]
        for name in ("Skin tone", "View")
    )
    assert any(line.startswith("view: profile") for line in found["missing"])
    assert "What the set is made of" in (root / "reports/report.html").read_text()
