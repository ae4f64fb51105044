"""SIGKILL at twenty seeded random moments, then run again: the same final rows as an undisturbed run, none twice."""

import os
import random
import re
import shutil
import signal
import time
from pathlib import Path

import pandas as pd
import pytest
from killed import run
from PIL import Image

from manifests.schema import MANIFESTS

pytestmark = pytest.mark.slow
SETTINGS = [
    "filter",
    "--metrics",
    "",
]  # our own artefact measures: IQA would only make the test longer


def operations(done) -> int:
    assert done.returncode == 0, done.stdout
    return int(re.search(r"operations (\d+)", done.stdout)[1])


def state(root: Path) -> dict:
    """Rows of every manifest as a plain reader sees them, sorted by key, times left out; and the files of pixels."""
    found = {}
    for name, manifest in MANIFESTS.items():
        frame = pd.read_parquet(root / "manifests" / name)
        assert not frame.duplicated(list(manifest.key)).any(), f"{name} holds a row twice"
        frame = frame.drop(columns=["created_at", "collected_at"], errors="ignore")
        found[name] = frame.sort_values(list(manifest.key)).astype(str).to_dict("records")
        assert not [part for part in os.listdir(root / "manifests" / name) if part.startswith(".")]
    for folder in ("photos", "faces"):
        found[f"{folder} files"] = sorted(
            (path.name, path.read_bytes()) for path in (root / folder).iterdir()
        )
    found["left over"] = list((root / ".tmp").iterdir()) if (root / ".tmp").exists() else []
    found["lock"] = (root / ".lock").exists()
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory, photos) -> Path:
    """Twelve small photographs: the demo's and their mirror images; and a broken file."""
    folder = tmp_path_factory.mktemp("many")
    for name, path in photos.items():
        with Image.open(path) as image:
            image = image.convert("RGB")
            image.thumbnail((1500, 1500))
            image.save(folder / f"{path.stem}.png")
            image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(
                folder / f"{path.stem}-mirrored.png"
            )
        assert name
    (folder / "broken.jpg").write_bytes(b"no picture")
    return folder


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, folder):
    """Snapshots of a workspace before each command, its state after, how many operations and seconds each took."""
    base = tmp_path_factory.mktemp("undisturbed")
    root = base / "ws"
    assert run(["init", root, "--preset", "embedded"]).returncode == 0
    stages = {}
    for name, words in (
        (
            "collect",
            [
                "collect",
                "-w",
                root,
                "--source",
                "folder",
                "--path",
                folder,
                "--licence-basis",
                "own",
            ],
        ),
        ("filter", [*SETTINGS, "-w", root]),
        ("caption", ["caption", "-w", root]),
    ):
        shutil.copytree(root, base / f"before-{name}")
        started = time.monotonic()
        count = operations(run(words))
        stages[name] = {
            "before": base / f"before-{name}",
            "count": count,
            "seconds": time.monotonic() - started,
            "after": state(root),
        }
    return stages


def moments() -> list[tuple[str, str, float]]:
    """Twenty: (command, kind of moment, where as a share). Most before an operation of the workspace, some by the clock."""
    rng = random.Random(20261124)
    made = []
    for name, count in (("collect", 6), ("filter", 8), ("caption", 6)):
        for number in range(count):
            made.append(
                (name, "clock" if number % 4 == 3 else "operation", rng.uniform(0.05, 0.98))
            )
    return made


@pytest.mark.parametrize(("name", "kind", "share"), moments())
def test_killed_and_run_again_is_as_undisturbed(undisturbed, folder, tmp_path, name, kind, share):
    stage = undisturbed[name]
    root = tmp_path / "ws"
    words = {
        "collect": [
            "collect",
            "-w",
            root,
            "--source",
            "folder",
            "--path",
            folder,
            "--licence-basis",
            "own",
        ],
        "filter": [*SETTINGS, "-w", root],
        "caption": ["caption", "-w", root],
    }[name]
    for sooner in (
        1.0,
        0.6,
        0.3,
        0.1,
    ):  # a machine that was slow before may be done before the clock strikes
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(stage["before"], root)
        if kind == "operation":
            killed = run(words, stop=1 + int(share * stage["count"]))
        else:
            killed = run(words, kill_after=share * sooner * 0.9 * stage["seconds"])
        if killed.returncode == -signal.SIGKILL:
            break
    assert killed.returncode == -signal.SIGKILL, killed.stdout
    again = run(words)
    assert again.returncode == 0, again.stdout
    assert state(root) == stage["after"]


def test_there_is_something_to_kill(undisturbed):
    """Several commits and a compaction in each command: what the random moments fall between."""
    assert len(moments()) == 20
    assert all(stage["count"] > 7 for stage in undisturbed.values())
    assert len(undisturbed["filter"]["after"]["faces"]) >= 12
    assert set(undisturbed["filter"]["after"]["faces"][0]) > {"face_id", "score"}  # rows, not files
    assert len(undisturbed["caption"]["after"]["captions"]) >= 8


@pytest.fixture(scope="module")
def trained(tmp_path_factory, filled):
    """Both stages trained without disturbance: the runs, and how many operations each took."""
    root = tmp_path_factory.mktemp("trained") / "ws"
    shutil.copytree(filled, root, symlinks=True)
    counts = {}
    for stage, words in training(root).items():
        counts[stage] = operations(run(words))
    return root, counts


def training(root, resume=False, prior=None):
    common = [
        "--preset",
        "tiny",
        "--steps",
        9,
        "--set",
        "checkpoint_every=2",
        "-w",
        root,
        *(["--resume"] if resume else []),
    ]
    on = prior or root / "runs" / "prior-tiny"
    watched = ["--set", "audit=false", "--set", "draw.every=4", "--set", "ema_decay=0.9"]
    return {
        "prior": ["train-prior", *common, *watched],
        "restorer": ["train-restore", *common, "--prior", on],
    }


@pytest.mark.parametrize(("stage", "share"), [("prior", 0.06), ("prior", 0.7), ("restorer", 0.7)])
def test_a_killed_and_resumed_trainer_gives_the_same_bits(
    trained, filled, tmp_path, authface_here, stage, share
):
    root, counts = trained
    mine = tmp_path / "ws"
    shutil.copytree(filled, mine, symlinks=True)
    rng = random.Random(f"{stage} {share}")
    stop = max(1, int((share + rng.uniform(-0.05, 0.05)) * counts[stage]))
    prior = root / "runs" / "prior-tiny"
    killed = run(training(mine, prior=prior)[stage], stop=stop)
    assert killed.returncode == -signal.SIGKILL, killed.stdout
    resumed = authface_here(*training(mine, resume=True, prior=prior)[stage])
    assert resumed.returncode == 0, resumed.stderr
    ours, theirs = mine / "runs" / f"{stage}-tiny", root / "runs" / f"{stage}-tiny"
    last = "checkpoints/step-00000009"
    files = [path.relative_to(theirs) for path in theirs.rglob("*.safetensors")]
    assert any(str(path).startswith(last) for path in files)
    for file in files:
        assert (ours / file).read_bytes() == (theirs / file).read_bytes(), file
    assert (ours / "metrics.csv").read_text() == (theirs / "metrics.csv").read_text()
    import torch

    for name in ["unet"] if stage == "prior" else ["controlnet", "discriminators"]:
        a, b = (
            torch.load(run_ / last / f"{name}.optimiser.pt", weights_only=True)
            for run_ in (ours, theirs)
        )
        for key, moments_ in a["state"].items():
            assert all(
                torch.equal(value, b["state"][key][what]) for what, value in moments_.items()
            )
