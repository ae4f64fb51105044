"""Two processes over gloo: the losses of one, whether weights are copied or divided; and they stop and save together."""

import shutil
import signal
import time

import numpy as np
import pandas as pd
import pytest
import torch
from processes import finish, launch
from safetensors.torch import load_file

from manifests.schema import FACES
from manifests.store import Store
from manifests.workspace import Workspace

pytestmark = pytest.mark.slow
PRIOR = [
    "train-prior",
    "--preset",
    "tiny",
    "--steps",
    4,
    "--set",
    "checkpoint_every=2",
    "--set",
    "audit=false",
]
PRIOR += [
    "--set",
    "draw.every=2",
    "--set",
    "ema_decay=0.9",
    "--set",
    "micro_batch=2",
    "--set",
    "caption_dropout=0.3",
]
RESTORE = [
    "train-restore",
    "--preset",
    "tiny",
    "--steps",
    4,
    "--set",
    "facial.discriminator_only_steps=0",
]
RESTORE += ["--set", "micro_batch=2"]


@pytest.fixture(scope="module")
def runs(filled, tmp_path_factory, authface_here):
    """The same trainings by one process and by two; one of two eye-less shares shows no mouth."""
    base = tmp_path_factory.mktemp("processes")
    root = base / "ws"
    shutil.copytree(filled, root)
    store = Store(Workspace(root), FACES)
    rows = store.read().to_pylist()
    store.append([{**row, "mouth_visible": index == 0} for index, row in enumerate(rows)])
    store.compact()
    one = ["-w", root, "--output", base / "one"]
    done = authface_here(*PRIOR, *one)
    assert done.returncode == 0, done.stderr
    done = authface_here(
        *RESTORE, "-w", root, "--prior", base / "one", "--output", base / "one-restorer"
    )
    assert done.returncode == 0, done.stderr
    two = [[*PRIOR, "-w", root, "--output", base / "two"]]
    for sharding in ("full", "gradients"):
        two.append(
            [*PRIOR, "--set", f"sharding={sharding}", "-w", root, "--output", base / sharding]
        )
    two.append([*RESTORE, "-w", root, "--prior", base / "one", "--output", base / "two-restorer"])
    for code, out in finish(launch(2, two)):
        assert code == 0, out
    return base, root


@pytest.mark.parametrize(
    ("one", "two"),
    [("one", "two"), ("one", "full"), ("one", "gradients"), ("one-restorer", "two-restorer")],
)
def test_two_processes_give_the_losses_of_one(runs, one, two):
    base, _ = runs
    a, b = (pd.read_csv(base / name / "metrics.csv") for name in (one, two))
    assert set(a.columns) == set(b.columns)
    for column in a.columns:
        assert np.allclose(a[column], b[column], rtol=1e-5, atol=1e-7, equal_nan=True), column


@pytest.mark.parametrize("name", ["two", "full", "gradients"])
def test_their_models_and_checkpoints_are_those_of_one(runs, name):
    """The files are whole, whoever wrote them."""
    base, _ = runs
    for file in (
        "unet/diffusion_pytorch_model.safetensors",
        "checkpoints/step-00000004/unet.safetensors",
        "checkpoints/step-00000004/unet.ema.safetensors",
    ):
        a, b = (load_file(base / run / file) for run in ("one", name))
        assert a.keys() == b.keys()
        difference = torch.cat([(a[key] - b[key]).abs().flatten() for key in a])
        # Adam makes a step of the learning rate out of a gradient that is nothing but rounding: few weights, no further.
        assert difference.max() <= 4 * 1e-4, file
        assert difference.mean() < 1e-7, file
        assert difference.median() < 1e-9, file
    averaged, raw = (
        load_file(base / "one" / file)
        for file in (
            "unet/diffusion_pytorch_model.safetensors",
            "checkpoints/step-00000004/unet.safetensors",
        )
    )
    assert not torch.equal(
        averaged["conv_in.weight"], raw["conv_in.weight"]
    )  # the average is what is saved
    a, b = (
        torch.load(base / run / "checkpoints/step-00000004/unet.optimiser.pt", weights_only=True)[
            "state"
        ]
        for run in ("one", name)
    )
    assert a.keys() == b.keys()
    assert all(torch.allclose(a[key]["exp_avg"], b[key]["exp_avg"], atol=1e-6) for key in a)
    assert sorted(path.name for path in (base / name / "drawn").iterdir()) == [
        f"step-{n:08d}.png" for n in (0, 2, 4)
    ]


def test_a_divided_run_is_taken_up_by_one_process_only_when_asked(runs, tmp_path, authface_here):
    base, root = runs
    run = tmp_path / "run"
    shutil.copytree(base / "full", run)
    shutil.rmtree(run / "checkpoints/step-00000004")
    words = [*PRIOR, "-w", root, "--output", run, "--resume", "--set", "sharding=full"]
    done = authface_here(*words)
    assert done.returncode == 2
    assert "processes was 2 and is 1 now" in done.stderr
    done = authface_here(*words, "--set", "exact_resume=false")
    assert done.returncode == 0, done.stderr
    a, b = (pd.read_csv(folder / "metrics.csv") for folder in (run, base / "one"))
    assert np.allclose(a["loss"], b["loss"], rtol=1e-5)


def test_one_process_is_told_to_stop_and_both_save_and_stop(runs, tmp_path):
    base, root = runs
    run = tmp_path / "run"
    shutil.copytree(base / "full", run)
    words = [
        *PRIOR,
        "--set",
        "sharding=full",
        "-w",
        root,
        "--output",
        run,
        "--resume",
        "--steps",
        100000,
    ]
    processes = launch(2, [words])
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and len((run / "metrics.csv").read_text().splitlines()) < 8:
        time.sleep(0.1)
    processes[1].send_signal(signal.SIGTERM)
    ended = finish(processes, 120)
    assert [code for code, _ in ended] == [143, 143], ended
    step = pd.read_csv(run / "metrics.csv")["step"].max()
    assert (run / f"checkpoints/step-{step:08d}/state.json").is_file()
