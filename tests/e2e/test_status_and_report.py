"""The commands that inspect a workspace: `filter --what-if`, `explain` and `report`."""

import json
import os
import re
import shutil

import pytest
from PIL import Image

from manifests.schema import FACES, VERDICTS
from manifests.store import Store
from manifests.workspace import Workspace

pytestmark = pytest.mark.slow


@pytest.fixture
def root(filled, tmp_path):
    """A copy of the filled workspace."""
    shutil.copytree(filled, tmp_path / "ws")
    return tmp_path / "ws"


def test_what_if_shows_changed_faces_and_changes_nothing(root, authface_here):
    before = Store(Workspace(root), VERDICTS).read()
    result = authface_here("filter", "-w", root, "--what-if", "qsize_px >= 450", "--json")
    assert result.returncode == 0, result.stderr
    change = json.loads(result.stdout)
    assert change["replaced"] == ["face_size"]
    assert change["kept_now"] - change["kept_then"] == len(change["lost"]) > 0

    faces = Store(Workspace(root), FACES).read_pandas(["face_id", "qsize_px"])
    sizes = faces.set_index("face_id")["qsize_px"]
    assert all(224 <= sizes[face_id] < 450 for face_id in change["lost"])
    assert sizes[change["lost"]].is_monotonic_decreasing  # nearest to the threshold first
    with Image.open(root / change["picture"]) as sheet:
        assert sheet.width > 1000
    assert Store(Workspace(root), VERDICTS).read().equals(before)

    new_gate = authface_here("filter", "-w", root, "--what-if", "niqe<=1")
    assert "(a new gate): 0 faces kept" in new_gate.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--what-if", "sharp"], "use a measurement, a comparison and a number"),
        (["--what-if", "sharpnes>=0.5"], "unknown measurement"),
        (["--what-if", "sharpness>=0.5", "--regate"], "can only be combined with --json"),
        (["--json"], "--json is only valid with --regate and --what-if"),
    ],
)
def test_invalid_what_if_is_one_line(filled, authface_here, options, message):
    result = authface_here("filter", "-w", filled, *options)
    assert result.returncode == 2
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_explain_shows_what_means_something(filled, authface_here):
    """Reasons in words, rounded values with units, and nothing unknown or internal."""
    faces = Store(Workspace(filled), FACES).read_pandas(["face_id", "photo_id", "qsize_px"])
    smallest = faces.loc[faces["qsize_px"].idxmin()]
    output = authface_here("explain", smallest["face_id"], "-w", filled).stdout
    size = f"{smallest['qsize_px']:.0f} px"
    for text in (
        f"Face {smallest['face_id']}: dropped",
        "licence: own",
        f"dropped by face_size: face too small: {size}, 224 needed",
        "landmarks by dlib",
    ):
        assert text in output
    assert re.search(rf"face size +{size} +>= 224 px +face_size", output)
    assert re.search(r"freedom from noise +[01]\.\d\d +>= 0.5 +noise", output)
    for internal in ("None", "nan", "fingerprint", "all_gates", "any_face", "qsize_px", "cpu"):
        assert internal not in output
    assert not re.search(r"\d\.\d{3}", output)


def test_what_if_all_counts_what_each_gate_drops(filled, authface_here):
    costs = json.loads(authface_here("filter", "-w", filled, "--what-if", "all", "--json").stdout)
    verdicts = Store(Workspace(filled), VERDICTS).read_pandas()
    faces = verdicts[(verdicts["subject"] == "face") & (verdicts["verdict"] != "kept")]
    by_gate = faces[faces["gate"] != "all_gates"].groupby("gate")["id"].agg(set)
    for row in costs["gates"]:
        dropped = by_gate.get(row["gate"], set())
        others = set().union(*by_gate.drop(row["gate"], errors="ignore"))
        assert (row["dropped"], row["only"]) == (len(dropped), len(dropped - others)), row
    assert costs["kept"] == costs["faces"] - len(set().union(*by_gate))
    table = authface_here("filter", "-w", filled, "--what-if", "all").stdout
    assert "face_size" in table
    assert "by it alone" in table


def test_explain_json_shows_the_faces_of_a_photo(filled, authface_here):
    faces = Store(Workspace(filled), FACES).read_pandas(["face_id", "photo_id", "qsize_px"])
    smallest = faces.loc[faces["qsize_px"].idxmin()]
    output = authface_here("explain", smallest["photo_id"], "-w", filled, "--json").stdout
    explanation = json.loads(output)
    assert list(explanation) == ["photo", "verdicts", "faces", "runs", "unreadable_runs"]
    (face,) = explanation["faces"]
    assert face["face"]["face_id"] == smallest["face_id"]
    assert face["kept"] is False
    metrics = {row["metric"] for row in face["scores"]}
    assert metrics >= {"pepper", "skin", "niqe", "skin_tone"}
    assert {row["device"] for row in face["scores"]} == {"cpu"}


def test_explain_refuses_unknown_ids(filled, authface_here):
    unknown = authface_here("explain", "fs_nobody", "-w", filled)
    assert unknown.returncode == 2
    assert "no photograph or face 'fs_nobody'" in unknown.stderr
    assert authface_here("explain", os.fsdecode(b"fs_\xff"), "-w", filled).returncode == 2


def test_explain_tells_that_a_photo_was_forgotten(root, authface_here):
    photo_id = Store(Workspace(root), FACES).read_pandas(["photo_id"])["photo_id"].iloc[0]
    assert authface_here("forget", photo_id, "-w", root, "--why", "asked", "--yes").returncode == 0
    result = authface_here("explain", photo_id, "-w", root)
    assert result.returncode == 2
    assert "was forgotten here" in result.stderr


def test_report_json_has_the_balance(root, authface_here):
    report = json.loads(authface_here("report", "-w", root, "--json").stdout)
    facets = {facet["name"]: facet for facet in report["balance"]}
    assert {"Skin tone", "View", "Tilt", "Light from", "Lightness", "Tags: view"} <= set(facets)
    for name in ("Skin tone", "View"):
        num_in_groups = sum(share["found"] for share in facets[name]["shares"])
        assert num_in_groups == facets[name]["found"]
    assert any(line.startswith("view: profile") for line in report["missing"])
    assert "Composition of the data set" in (root / "reports/report.html").read_text()


def test_report_prints_underrepresented_groups(root, authface_here):
    output = authface_here("report", "-w", root).stdout
    assert "Under-represented groups (fewer than 5 % of the kept faces)" in output
    assert "view: profile" in output
    assert output.splitlines()[-1] == f"Report: {root}/reports/report.html"
