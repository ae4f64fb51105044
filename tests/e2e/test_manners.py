"""Small manners of the commands: counts, suggestions, the next command, folders that are mistyped."""

import json
import re
import shutil

import pandas as pd
import pytest

from authface_data.commands.explanation import _describe_camera
from authface_data.report.status import collect_status
from manifests.support.text import count_of
from manifests.workspace import Workspace


@pytest.fixture
def pictures(tmp_path, photos):
    """A folder with one photograph."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    shutil.copy(photos["obama.jpg"], folder)
    return folder


def test_count_of():
    assert count_of(1, "photograph") == "1 photograph"
    assert count_of(2000, "face") == "2,000 faces"
    assert count_of(0, "hash", "hashes") == "0 hashes"


@pytest.mark.parametrize(
    ("make", "model", "expected"),
    [
        ("Canon", "Canon EOS 5D", "Canon EOS 5D"),
        ("NIKON CORPORATION", "NIKON D750", "NIKON D750"),
        ("SONY", "ILCE-7M3", "SONY ILCE-7M3"),
        (None, "X100", "X100"),
        ("Leica", None, "Leica"),
        (None, None, ""),
    ],
)
def test_camera_names_its_maker_once(make, model, expected):
    assert _describe_camera(make, model) == expected


def test_hashes_and_exclusions_count_the_same(authface_here, workspace, pictures, tmp_path):
    file = tmp_path / "hashes.txt"
    hashed = authface_here("hashes", "--path", pictures, "--output", file)
    assert hashed.stdout.startswith("2 hashes of 1 picture written")
    result = authface_here("filter", "-w", workspace.root, "--exclude-hashes", file)
    assert "2 new hashes added to the exclusions" in result.stdout


def test_regate_as_json(filled, authface_here, tmp_path):
    shutil.copytree(filled, tmp_path / "ws")
    result = authface_here("filter", "--regate", "--json", "-w", tmp_path / "ws")
    summary = json.loads(result.stdout)
    assert summary["faces"] == len(pd.read_parquet(filled / "manifests/faces"))
    assert 0 < summary["kept_faces"] <= summary["faces"]


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("prior-tiny", "authface train-prior --preset tiny --resume"),
        ("mine", "authface train-prior --output runs/mine --resume"),
    ],
)
def test_status_resumes_an_interrupted_run(filled, tmp_path, name, command):
    shutil.copytree(filled, tmp_path / "ws")
    folder = tmp_path / "ws/runs" / name
    folder.mkdir(parents=True)
    (folder / "run.json").write_text('{"stage": "prior", "settings": {"steps": 9}}')
    assert collect_status(Workspace(tmp_path / "ws")).next == command


@pytest.mark.parametrize("command", ["collect", "caption", "licences"])
def test_output_has_no_plural_of_one(authface_here, workspace, pictures, command):
    """With one photograph, no line counts "1 photographs" or "1 faces"."""
    source = ("--source", "folder", "--path", pictures, "--licence-basis", "own")
    outputs = [authface_here("collect", "-w", workspace.root, *source)]
    if command != "collect":
        options = ("--captioner", "measured") if command == "caption" else ()
        outputs.append(authface_here(command, "-w", workspace.root, *options))
    for result in outputs:
        assert not re.search(r"\b1 \w+s\b", result.stdout + result.stderr), result.stdout
