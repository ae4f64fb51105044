"""Two processes over gloo train like one, replicated or sharded, and save and stop together."""

import shutil
import signal
import time

import numpy as np
import pandas as pd
import pytest
import torch
from commands import set_options
from processes import finish, launch, launch_two_machines
from safetensors.torch import load_file

from manifests.schema import FACES
from manifests.store import Store
from manifests.workspace import Workspace

pytestmark = pytest.mark.slow

TRAIN_PRIOR = [
    "train-prior",
    "--preset",
    "tiny",
    "--steps",
    2,
    *set_options(
        "checkpoint_every=1",
        "audit=false",
        "draw.every=2",
        "draw.steps=2",
        "ema_decay=0.9",
        "micro_batch=2",
        "caption_dropout=0.3",
    ),
]
TRAIN_RESTORE = [
    "train-restore",
    "--preset",
    "tiny",
    "--steps",
    2,
    *set_options("facial.discriminator_only_steps=0", "micro_batch=2"),
]
BF16 = set_options("mixed_precision=bf16", "resolution_px=64", "micro_batch=1", "draw.every=0")
MODEL_FILE = "unet/diffusion_pytorch_model.safetensors"
CHECKPOINT = "checkpoints/step-00000002"


@pytest.fixture(scope="module")
def runs(filled, tmp_path_factory, authface_here):
    """Runs with one process and with two. Only one of the faces has a visible mouth.

    Runs are named after the number of processes, or after the sharding over two processes.
    """
    base = tmp_path_factory.mktemp("processes")
    root = base / "workspace"
    shutil.copytree(filled, root)
    store = Store(Workspace(root), FACES)
    rows = store.read().to_pylist()
    store.append([{**row, "mouth_visible": index == 0} for index, row in enumerate(rows)])
    store.compact()

    def prior(name, *options):
        return [*TRAIN_PRIOR, "-w", root, "--output", base / name, *options]

    def restorer(name):
        return [*TRAIN_RESTORE, "-w", root, "--prior", base / "one", "--output", base / name]

    for command in (prior("one"), restorer("one-restorer"), prior("one-bf16", *BF16)):
        completed = authface_here(*command)
        assert completed.returncode == 0, completed.stderr
    commands = [
        prior("two"),
        prior("full", *set_options("sharding=full", "checkpoint_in_background=true")),
        prior("gradients", *set_options("sharding=gradients")),
        restorer("two-restorer"),
        prior("two-bf16", *BF16),
        prior("full-bf16", *BF16, *set_options("sharding=full")),
        prior("planned", "--dry-run"),
    ]
    for exit_code, output in finish(launch(2, commands, base / "output")):
        assert exit_code == 0, output
    return base, root


@pytest.mark.parametrize(
    ("single", "double"),
    [("one", "two"), ("one", "full"), ("one", "gradients"), ("one-restorer", "two-restorer")],
)
def test_two_processes_have_the_losses_of_one(runs, single, double):
    base, _ = runs
    expected = pd.read_csv(base / single / "metrics.csv")
    actual = pd.read_csv(base / double / "metrics.csv")
    assert set(actual.columns) == set(expected.columns)
    for column in expected.columns:
        close = np.allclose(actual[column], expected[column], rtol=1e-5, atol=1e-7, equal_nan=True)
        assert close, column


@pytest.mark.parametrize("double", ["two-bf16", "full-bf16"])
def test_two_processes_in_bf16_train_like_one(runs, double):
    base, _ = runs
    expected = pd.read_csv(base / "one-bf16" / "metrics.csv")
    actual = pd.read_csv(base / double / "metrics.csv")
    for column in ("loss", "gradient_norm"):
        assert np.allclose(actual[column], expected[column], rtol=0.02), column

    name = "conv_in.weight"
    start, end, other = (
        load_file(base / run / "checkpoints" / step / "unet.safetensors")[name]
        for run, step in (
            ("one-bf16", "step-00000001"),
            ("one-bf16", "step-00000002"),
            (double, "step-00000002"),
        )
    )
    assert end.dtype == other.dtype == torch.float32
    # Adam's step has the size of the learning rate; few gradients change their sign by rounding.
    assert ((other - end).abs() < 0.5 * (end - start).abs()).float().mean() > 0.8


@pytest.mark.parametrize("name", ["two", "full", "gradients"])
def test_model_and_checkpoint_of_two_processes_are_those_of_one(runs, name):
    base, _ = runs
    # With sharding=full the first checkpoint was written in the background.
    checkpoints = ("checkpoints/step-00000001", CHECKPOINT)
    for file in (
        MODEL_FILE,
        *(f"{checkpoint}/unet.safetensors" for checkpoint in checkpoints),
        *(f"{checkpoint}/unet.ema.safetensors" for checkpoint in checkpoints),
    ):
        expected = load_file(base / "one" / file)
        actual = load_file(base / name / file)
        assert actual.keys() == expected.keys()
        difference = torch.cat([(actual[key] - expected[key]).abs().flatten() for key in expected])
        # Adam turns a gradient that is only rounding error into a full step, for a few weights.
        assert difference.max() <= 2 * 1e-4, file
        assert difference.mean() < 1e-7, file
        assert difference.median() < 1e-9, file

    for checkpoint in checkpoints:
        expected_state, actual_state = (
            torch.load(base / run / checkpoint / "unet.optimiser.pt", weights_only=True)["state"]
            for run in ("one", name)
        )
        assert actual_state.keys() == expected_state.keys()
        for key, state in expected_state.items():
            assert torch.allclose(actual_state[key]["exp_avg"], state["exp_avg"], atol=1e-6)
            assert actual_state[key]["step"] == state["step"]
    previews = sorted(path.name for path in (base / name / "drawn").iterdir())
    assert previews == [f"step-{step:08d}.png" for step in (0, 2)]


def test_only_the_main_process_prints_the_dry_run(runs):
    base, _ = runs
    tables = [(base / f"output/rank-{rank}.log").read_text().count("It fits") for rank in (0, 1)]
    assert tables == [1, 0]


def test_saved_model_holds_the_ema_weights(runs):
    base, _ = runs
    model = load_file(base / "one" / MODEL_FILE)
    checkpoint = load_file(base / "one" / CHECKPOINT / "unet.safetensors")
    assert not torch.equal(model["conv_in.weight"], checkpoint["conv_in.weight"])


def test_one_process_resumes_a_sharded_run_only_with_exact_resume_off(
    runs, tmp_path, authface_here
):
    base, root = runs
    run = tmp_path / "run"
    shutil.copytree(base / "full", run)
    shutil.rmtree(run / CHECKPOINT)
    options = ["-w", root, "--output", run, "--resume", *set_options("sharding=full")]
    completed = authface_here(*TRAIN_PRIOR, *options)
    assert completed.returncode == 2
    assert "processes was 2 and is 1 now" in completed.stderr

    completed = authface_here(*TRAIN_PRIOR, *options, *set_options("exact_resume=false"))
    assert completed.returncode == 0, completed.stderr
    resumed = pd.read_csv(run / "metrics.csv")
    expected = pd.read_csv(base / "one" / "metrics.csv")
    assert np.allclose(resumed["loss"], expected["loss"], rtol=1e-5)


def wait_for_steps(run, count, ranks):
    """Wait until the metrics of a run have so many rows."""
    metrics = run / "metrics.csv"
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline:
        if metrics.is_file() and len(metrics.read_text().splitlines()) > count:
            return
        assert all(rank.wait(0.05) is None for rank in ranks), ranks[0].log.read_text()
    pytest.fail("the run does not train")


def saved_step(run):
    """The last step of a run, which must have a checkpoint."""
    last_step = pd.read_csv(run / "metrics.csv")["step"].max()
    assert (run / f"checkpoints/step-{last_step:08d}/state.json").is_file()
    return last_step


def test_both_processes_save_and_stop_when_one_gets_a_signal(runs, tmp_path):
    """Slurm may signal a process that torchrun signals too: the second signal changes nothing."""
    base, root = runs
    run = tmp_path / "run"
    shutil.copytree(base / "full", run)
    options = ["--output", run, "--resume", "--steps", 100000, *set_options("sharding=full")]
    ranks = launch(2, [[*TRAIN_PRIOR, "-w", root, *options]], tmp_path)
    wait_for_steps(run, 4, ranks)
    ranks[1].send_signal(signal.SIGUSR1)
    for number in (signal.SIGUSR1, signal.SIGTERM):
        for rank in ranks:
            rank.send_signal(number)
    for exit_code, output in finish(ranks, 120):
        assert exit_code == 143, output
        assert "and saved; continue with --resume" in output
    saved_step(run)


def test_run_continues_on_two_machines_and_a_signal_to_one_saves_it(runs, tmp_path):
    base, root = runs
    run = tmp_path / "run"
    shutil.copytree(base / "full", run)
    command = [*TRAIN_PRIOR, "-w", root, "--output", run, "--resume", "--steps", 100000]
    machines = launch_two_machines(
        [*command, *set_options("sharding=full", "draw.every=0")], tmp_path
    )
    wait_for_steps(run, 3, machines)
    machines[1].send_signal(signal.SIGTERM)
    finish(machines, 120)
    step = saved_step(run)
    for machine in (0, 1):
        (log,) = (tmp_path / f"machine-{machine}/ranks").rglob("stderr.log")
        assert f"stopped after step {step} and saved" in log.read_text()


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGHUP, 143)])
def test_signal_saves_a_checkpoint_and_ends_with_its_code(runs, tmp_path, number, exit_code):
    _, root = runs
    run = tmp_path / "run"
    options = ["--steps", 100000, "--output", run, "-w", root]
    ranks = launch(
        1, [[*TRAIN_PRIOR, *options, *set_options("workers=1", "draw.every=0")]], tmp_path
    )
    wait_for_steps(run, 2, ranks)
    ranks[0].send_signal(number)
    ((code, output),) = finish(ranks, 60)
    assert code == exit_code, output
    assert f"stopped after step {saved_step(run)} and saved" in output
    assert "Traceback" not in output


def test_signal_before_the_first_step_ends_promptly_and_the_run_can_be_resumed(
    runs, tmp_path, authface_here
):
    """The first start has --resume as well, so that a requeued job repeats its command."""
    _, root = runs
    run = tmp_path / "run"
    # Latents of another size are not in the cache.
    options = ["--steps", 1, "--resume", "--output", run, "-w", root]
    command = [*TRAIN_PRIOR, *set_options("resolution_px=256", "draw.every=0"), *options]
    ranks = launch(2, [command], tmp_path)
    deadline = time.monotonic() + 100
    while not run.exists() and time.monotonic() < deadline:
        assert ranks[0].wait(0.02) is None, ranks[0].log.read_text()
    started = time.monotonic()
    for rank in ranks:
        rank.send_signal(signal.SIGTERM)
    for exit_code, output in finish(ranks, 60):
        assert exit_code == 143, output
        assert "Traceback" not in output
    assert time.monotonic() - started < 30
    assert not (run / "metrics.csv").exists()

    for exit_code, output in finish(launch(2, [command], tmp_path / "resumed")):
        assert exit_code == 0, output
    assert (run / "model_index.json").is_file()


def test_error_in_one_process_ends_the_other(runs, tmp_path):
    _, root = runs
    command = [*TRAIN_PRIOR, "-w", root, "--output", tmp_path / "run"]
    results = finish(launch(2, [command], tmp_path, failing_rank=1), 60)
    for (exit_code, output), (expected_code, message) in zip(
        results,
        [(4, "another process of the run has ended"), (2, "a face is damaged")],
        strict=True,
    ):
        assert exit_code == expected_code, output
        assert message in output
        assert "Traceback" not in output
