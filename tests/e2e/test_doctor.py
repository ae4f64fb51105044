"""`authface doctor` and `authface clean` on real workspaces, and the light installation."""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pandas as pd
import pytest
import typer.main
from commands import init_workspace

import cli
from authface_data.captions.server import API_KEY_VARIABLE
from authface_data.doctor.installation import KEYS
from authface_data.doctor.weight_files import DETECTOR_WEIGHTS
from authface_data.sources.unsplash.client import KEY_VARIABLE
from manifests import names
from manifests.support import extras
from manifests.support.console import leaf_commands

ROOT = Path(__file__).parents[2]
BASE_ONLY = ROOT / "tests/support/base_only.py"
COMMANDS = [name for name, _ in leaf_commands(typer.main.get_command(cli.app))]


@pytest.fixture
def root(filled, tmp_path):
    """A copy of the filled workspace."""
    copy = tmp_path / "ws"
    shutil.copytree(filled, copy)
    return copy


@pytest.fixture
def empty(tmp_path, authface_here):
    """A new workspace."""
    assert authface_here(*init_workspace(tmp_path / "ws")).returncode == 0
    return tmp_path / "ws"


def examine(authface_here, *options):
    """Run `authface doctor --json`; returns the exit code and the result."""
    result = authface_here("doctor", "--json", *options)
    return result.returncode, json.loads(result.stdout)


def test_installation_and_weights(authface_here, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    code, result = examine(authface_here)
    assert code == 0
    installation = result["installation"]
    assert installation["missing"]["data"] == installation["missing"]["train"] == []
    assert installation["keys"]["HF_TOKEN"] is True
    assert installation["keys"]["WANDB_API_KEY"] is False
    assert [command["command"] for command in result["commands"]] == COMMANDS
    assert all(command["ready"] for command in result["commands"])
    assert result["workspace"] is None
    paper = {state["file"]: state for state in result["weights"]["paper"]}
    assert "stabilityai/stable-diffusion-xl-base-1.0" in paper
    detector = paper["retinaface_resnet50_2020-07-20-f168fae3c.zip"]
    assert detector["source"].startswith("https://github.com/ternaus")
    assert detector["place"].endswith(detector["file"])

    text = authface_here("doctor").stdout
    assert "hf_secret" not in text
    assert "HF_TOKEN: set" in text
    assert "authface[data]: installed" in text
    assert f"missing {detector['file']}: from {detector['source']}\n" in text
    assert f"put the files into {Path(detector['place']).parent}, and" in " ".join(text.split())


def test_weights_of_hpsv2_count_only_if_the_metric_is_installed(authface_here, monkeypatch):
    _, result = examine(authface_here)
    files = [state["file"] for state in result["weights"]["evaluate"]]
    assert ("HPS_v2_compressed.pt" in files) == (importlib.util.find_spec("open_clip") is not None)
    monkeypatch.setitem(extras.MODULES, "hps", ("no_such_module",))
    _, result = examine(authface_here)
    files = [state["file"] for state in result["weights"]["evaluate"]]
    assert files
    assert "HPS_v2_compressed.pt" not in files


def test_names_are_those_of_the_code():
    assert {KEY_VARIABLE, API_KEY_VARIABLE} <= KEYS.keys()
    assert tuple(DETECTOR_WEIGHTS) == names.DETECTORS


def test_weights_dir_of_the_workspace(authface_here, empty, tmp_path):
    settings = empty / "authface.toml"
    settings.write_text(f'weights_dir = "{tmp_path}"\n' + settings.read_text())
    (tmp_path / "niqe_pris_params.npz").touch()
    code, result = examine(authface_here, "-w", empty)
    assert code == 0
    states = {state["file"]: state for state in result["weights"]["this workspace"]}
    assert states["niqe_pris_params.npz"]["found"] == str(tmp_path / "niqe_pris_params.npz")
    assert result["workspace"]["problems"] == []


def test_problems_of_a_workspace_name_the_repair(authface_here, root):
    photos = pd.read_parquet(root / "manifests/photos").dropna(subset="path")
    faces = pd.read_parquet(root / "manifests/faces")
    (root / photos["path"].iloc[0]).unlink()
    crops = [root / path for path in faces["crop_path"].dropna()]
    crops[0].unlink()
    crops[1].write_bytes(crops[1].read_bytes()[:-100])
    (root / "runs/stopped").mkdir(parents=True)
    (root / "runs/stopped/run.json").write_text('{"stage": "prior"}')
    part = next((root / "manifests/captions").glob("*.parquet"))
    part.write_bytes(part.read_bytes()[:-20])

    code, result = examine(authface_here, "-w", root)
    assert code == 4
    problems = {problem["what"]: problem["repair"] for problem in result["workspace"]["problems"]}
    for pattern, repair in (
        (r"captions.* is damaged", "authface caption"),
        (r"1 photograph has no file", "authface collect"),
        (r"1 face has no crop", "authface filter"),
        (r"1 file of faces damaged", "authface filter"),
        (r"the run stopped is not finished", "train-prior --output runs/stopped --resume"),
    ):
        found = [what for what in problems if re.search(pattern, what)]
        assert found, (pattern, problems)
        assert repair in problems[found[0]]

    text = authface_here("doctor", "-w", root)
    assert "to repair: authface filter" in text.stdout
    assert text.stderr.splitlines()[-1] == f"authface: 5 problems in {root}"


def test_doctor_refuses_a_folder_that_is_no_workspace(authface_here, tmp_path):
    result = authface_here("doctor", "-w", tmp_path)
    assert result.returncode == 2
    assert "is not a workspace" in result.stderr


def test_clean_is_dry_by_default_and_keeps_data(authface_here, empty):
    make_run(empty / "runs/done", steps=(10, 20, 30), finished=True)
    make_run(empty / "runs/going", steps=(10, 20), finished=False)
    (empty / "cache/latents/key").mkdir(parents=True)
    (empty / "cache/latents/key/a.safetensors").write_bytes(bytes(5000))
    (empty / "cache/answers").mkdir()
    (empty / "cache/answers/paid").write_bytes(bytes(9))
    (empty / "cache/downloads").mkdir()
    (empty / "cache/downloads/half").write_bytes(bytes(70))
    (empty / "manifests/.before-20260101T000000").mkdir()
    before = files_of(empty)

    dry = authface_here("clean", "-w", empty)
    assert dry.returncode == 0
    assert "cache/latents" in dry.stdout
    assert "5.0 kB" in dry.stdout
    assert "repeat the command with --yes" in dry.stdout
    assert files_of(empty) == before

    assert authface_here("clean", "checkpoints", "-w", empty, "--yes").returncode == 0
    assert names_in(empty / "runs/done/checkpoints") == ["step-00000030"]
    assert names_in(empty / "runs/going/checkpoints") == ["step-00000010", "step-00000020"]
    assert (empty / "cache/latents").exists()

    result = authface_here("clean", "-w", empty, "--yes", "--json")
    items = json.loads(result.stdout)["items"]
    assert {item["kind"] for item in items} == {"cache", "temporary", "copies"}
    assert not (empty / "cache/latents").exists()
    assert not (empty / "cache/downloads/half").exists()
    assert (empty / "cache/answers/paid").exists()
    assert "There is nothing to remove." in authface_here("clean", "-w", empty).stdout


def make_run(folder: Path, steps: tuple[int, ...], *, finished: bool) -> None:
    for step in steps:
        checkpoint = folder / f"checkpoints/step-{step:08d}"
        checkpoint.mkdir(parents=True)
        (checkpoint / "unet.safetensors").write_bytes(bytes(step))
    (folder / "run.json").write_text('{"stage": "prior"}')
    if finished:
        (folder / "model_index.json").write_text("{}")


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def files_of(folder: Path) -> dict[str, int]:
    """Every file of a folder with its time of change, except locks."""
    return {
        str(path): path.stat().st_mtime_ns
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".lock")
    }


# Command -> its arguments in the light installation. {ws} is a filled workspace, {tmp} a folder.
NEEDS_EXTRAS = {
    "collect": "--source folder --path {tmp}/in --licence-basis own -w {ws}",
    "filter": "-w {ws}",
    "caption": "--captioner measured -w {ws}",
    "serve": "-w {ws}",
    "push": "--dataset --repo me/faces -w {ws}",
    "hashes": "--input {tmp}/in --output {tmp}/hashes.txt",
    "demo": "-w {tmp}/demo",
    "train-prior": "--preset tiny -w {ws}",
    "train-restore": "--preset tiny -w {ws}",
    "degrade": "--input {tmp}/in --output {tmp}/out",
    "restore": "--model {tmp}/model --input {tmp}/in --output {tmp}/out",
    "evaluate": "--restored {tmp}/in --output {tmp}/out",
    "export": "{ws}/runs/x",
    "reproduce": "table1 --output {tmp}/out",
}
LIGHT = {
    "init": "{tmp}/new",
    "status": "-w {ws}",
    "explain": "{face} -w {ws}",
    "report": "-w {ws}",
    "review export": "--csv {tmp}/review.csv -w {ws}",
    "review import": "{tmp}/review.csv --reviewer anna -w {ws}",
    "review sheet": "-w {ws}",
    "review agreement": "-w {ws}",
    "tags": "-w {ws}",
    "tags rename": "nothing something -w {ws}",
    "tags remove": "nothing -w {ws}",
    "tags restore": "nothing -w {ws}",
    "export-captions": "--format jsonl --output {tmp}/captions -w {ws}",
    "licences": "-w {ws} --credits {tmp}/credits.md",
    "forget": "nobody -w {ws}",
    "doctor": "-w {ws}",
    "clean": "-w {ws}",
    "migrate": "-w {ws}",
    "study create": "--a a={tmp}/in --b b={tmp}/in --output {tmp}/study",
    "study create-ranking": "--method a={tmp}/in --method b={tmp}/in --output {tmp}/study2",
    "study tally": "{tmp}/nothing.csv",
}
MISSING_INPUT = {"review agreement", "tags rename", "tags remove", "tags restore", "forget"}
"""Light commands that the inputs above give nothing to do: exit code 2."""


@pytest.fixture
def run_light(tmp_path, filled, photos):
    """Runs command lines in an environment without the extras."""
    (tmp_path / "in").mkdir()
    shutil.copy(photos["obama.jpg"], tmp_path / "in")

    def run(lines: list[str]) -> list[tuple[int, str, str]]:
        face = pd.read_parquet(filled / "manifests/faces")["face_id"].iloc[0]
        arguments = [
            line.format(tmp=tmp_path, ws=tmp_path / "ws", face=face).split() for line in lines
        ]
        completed = subprocess.run(
            [sys.executable, "-P", BASE_ONLY, ""],
            input=json.dumps(arguments),
            capture_output=True,
            text=True,
            check=True,
        )
        return json.loads(completed.stdout)

    return run


def test_light_installation(root, run_light, tmp_path):
    """Every command either works without the extras, or says which one it needs."""
    assert sorted([*NEEDS_EXTRAS, *LIGHT]) == sorted(COMMANDS)
    before = files_of(root / "manifests/photos") | files_of(root / "manifests/captions")
    needing = [f"{name} {options}" for name, options in NEEDS_EXTRAS.items()]
    lines = [f"{name} {options}" for name, options in LIGHT.items()]
    results = run_light([*needing, *lines, "filter --regate -w {ws}", "status -w s3://bucket/name"])
    for name, (code, stdout, stderr) in zip(NEEDS_EXTRAS, results, strict=False):
        assert code == 3, (name, stdout, stderr)
        assert re.fullmatch(r"authface: .* needs authface\[\S+\]: pip install .*\n", stderr), stderr
    # Nothing was written.
    assert files_of(root / "manifests/photos") | files_of(root / "manifests/captions") == before
    assert names_in(tmp_path) == ["captions", "credits.html", "credits.md", "in", "new"] + [
        "review.csv",
        "study",
        "study2",
        "ws",
    ]

    *light, regate, s3 = results[len(NEEDS_EXTRAS) :]
    for name, (code, stdout, stderr) in zip(LIGHT, light, strict=True):
        expected = 2 if name in MISSING_INPUT or name == "study tally" else 0
        assert code == expected, (name, stdout, stderr)
        assert "Traceback" not in stderr
    assert regate[0] == 0, regate
    assert s3[0] == 3
    assert "needs authface[s3]" in s3[2]
    doctor = dict(zip(LIGHT, light, strict=True))["doctor"][1]
    assert re.search(r"\btrain-prior +no +needs authface\[data,train\]", doctor)
    assert re.search(r"\bfilter +yes +in part; the rest needs authface\[data\]", doctor)


def test_modules_of_extras_are_found_here():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(extras.MODULES) == project["optional-dependencies"].keys() - {"dev", "docs"}
    for extra in ("data", "train", "ray", "s3", "xlsx"):
        assert extras.missing_modules(extra) == []
