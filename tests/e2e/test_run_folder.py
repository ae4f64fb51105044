"""Run folders as their owners meet them: one writer, damage, full disks, exported checkpoints."""

import json
import os
import shutil
import subprocess
import sys
from collections import namedtuple

import pandas as pd
import pytest
import torch
from commands import set_options
from diffusers import DiffusionPipeline
from full_disk import file_size_limit
from processes import finish, launch
from safetensors.torch import load_file

pytestmark = pytest.mark.slow

TRAIN_PRIOR = [
    "train-prior",
    "--preset",
    "tiny",
    *set_options("checkpoint_every=1", "audit=false", "draw.every=0"),
]
UNET_FILE = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def root(filled, tmp_path_factory):
    copy = tmp_path_factory.mktemp("runs") / "workspace"
    shutil.copytree(filled, copy)
    return copy


@pytest.fixture(scope="module")
def train(root, authface_here):
    """Runs `train-prior` with further options and returns the ended command."""

    def run(output, *options):
        return authface_here(*TRAIN_PRIOR, "-w", root, "--output", output, *options)

    return run


@pytest.fixture(scope="module")
def prior(train, tmp_path_factory):
    """A run of three steps with an EMA and all its checkpoints."""
    folder = tmp_path_factory.mktemp("prior") / "run"
    options = set_options("keep_checkpoints=9", "ema_decay=0.9")
    assert train(folder, "--steps", 3, *options).returncode == 0
    return folder


RESUME_PRIOR = ["--resume", *set_options("keep_checkpoints=9", "ema_decay=0.9")]


def assert_same_tensors(expected, actual):
    expected_tensors = load_file(expected)
    actual_tensors = load_file(actual)
    assert expected_tensors.keys() == actual_tensors.keys()
    for name, value in expected_tensors.items():
        assert torch.equal(value, actual_tensors[name]), name


@pytest.fixture
def broken(prior, tmp_path):
    """A copy of the run whose newest checkpoint has lost half of its optimiser state."""
    run = tmp_path / "run"
    shutil.copytree(prior, run)
    moments = run / "checkpoints/step-00000003/unet.optimiser.pt"
    os.truncate(moments, moments.stat().st_size // 2)
    return run


def test_run_continues_from_the_checkpoint_before_a_damaged_one(prior, broken, train):
    completed = train(broken, "--steps", 3, *RESUME_PRIOR)
    assert completed.returncode == 0, completed.stderr
    lines = [line for line in completed.stderr.splitlines() if "damaged" in line]
    assert len(lines) == 1
    assert "step-00000003 is damaged (unet.optimiser.pt: " in lines[0]
    assert lines[0].endswith("; continuing from step-00000002")
    assert (broken / "metrics.csv").read_text() == (prior / "metrics.csv").read_text()
    for file in (UNET_FILE, "checkpoints/step-00000003/unet.safetensors"):
        assert_same_tensors(prior / file, broken / file)


def test_two_processes_agree_on_the_checkpoint_and_on_a_write_error(broken, root, tmp_path):
    for step in (2, 3):
        os.truncate(broken / f"checkpoints/step-0000000{step}/unet.safetensors", 1000)
    sharded = set_options("exact_resume=false", "sharding=full", "micro_batch=2")
    resume = [*TRAIN_PRIOR, "-w", root, "--output", broken, "--steps", 3, *RESUME_PRIOR, *sharded]
    unwritable = tmp_path / "unwritable"
    shutil.copytree(broken, unwritable)
    shutil.rmtree(unwritable / "checkpoints")
    (unwritable / "checkpoints").write_text("")
    fail = [unwritable if argument == broken else argument for argument in resume]

    results = finish(launch(2, [resume, fail], tmp_path / "log"), 200)
    assert [code for code, _ in results] == [2, 2], results
    output = "".join(output for _, output in results)
    assert output.count("; continuing from step-00000001") == 1
    assert pd.read_csv(broken / "metrics.csv")["step"].tolist() == [1, 2, 3]
    for _, output in results:
        assert output.splitlines()[-1].startswith(f"authface: cannot write {unwritable}/check")


HOLD = """
import sys, time
from pathlib import Path
from manifests.lock import LocalFolder, WriterLock
WriterLock(LocalFolder(Path(sys.argv[1])), "train-prior").acquire()
print("held", flush=True)
time.sleep(60)
"""


def test_second_writer_of_a_run_is_refused(prior, train, tmp_path, authface_here):
    holder = subprocess.Popen([sys.executable, "-c", HOLD, prior], stdout=subprocess.PIPE)
    try:
        holder.stdout.readline()
        before = sorted(path.name for path in prior.rglob("*"))
        completed = train(prior, "--steps", 4, *RESUME_PRIOR)
        assert completed.returncode == 2
        assert completed.stderr.splitlines()[-1].startswith(
            f"authface: {prior} is being written by `authface train-prior` (process {holder.pid}"
        )
        assert sorted(path.name for path in prior.rglob("*")) == before
        # Readers need no lock.
        output = tmp_path / "model"
        options = ["--format", "folder", "--output", output, "--checkpoint", 1]
        assert authface_here("export", prior, *options).returncode == 0
    finally:
        holder.kill()
        holder.wait()


def test_lock_is_released_after_an_error(train, tmp_path, monkeypatch):
    from authface_train.stages.prior import PriorTrainer

    def fail(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(PriorTrainer, "step", fail)
    assert train(tmp_path / "run", "--steps", 1).returncode == 2
    assert not (tmp_path / "run/.lock").exists()


@pytest.mark.parametrize("step", [1, 3])
def test_exported_checkpoint_is_the_model_of_its_step(prior, train, tmp_path, authface_here, step):
    output = tmp_path / "model"
    result = authface_here(
        "export", prior, "--checkpoint", step, "--format", "folder", "--output", output
    )
    assert result.returncode == 0, result.stderr
    if step == 3:
        assert_same_tensors(prior / UNET_FILE, output / UNET_FILE)  # the averaged weights
    else:
        weights = load_file(output / UNET_FILE)["conv_in.weight"]
        average = load_file(prior / "checkpoints/step-00000001/unet.ema.safetensors")
        assert any(torch.equal(weights, value) for value in average.values())
    assert json.loads((output / "authface.json").read_text())["steps"] == step
    card = (output / "README.md").read_text()
    assert f"Checkpoint of step {step} of a run of 3 steps." in card
    lineage = pd.read_parquet(output / "lineage.parquet")
    assert lineage.equals(pd.read_parquet(prior / "lineage.parquet"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]
    DiffusionPipeline.from_pretrained(output)


def test_checkpoint_of_an_unfinished_lora_run_is_one_file(train, tmp_path, authface_here):
    run = tmp_path / "run"
    options = set_options("lora_rank=2", "keep_checkpoints=9")
    assert train(run, "--steps", 2, *options).returncode == 0
    merged = load_file(run / UNET_FILE)
    (run / "model_index.json").unlink()
    shutil.rmtree(run / "unet")

    completed = authface_here("export", run)
    assert completed.returncode == 2
    assert "export a checkpoint with --checkpoint STEP" in completed.stderr
    completed = authface_here("export", run, "--checkpoint", 2)
    assert completed.returncode == 0, completed.stderr
    file = tmp_path / "run-step-2.safetensors"
    assert f"wrote {file}" in completed.stdout
    name = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q.weight"
    exported = load_file(file)
    query = [key for key in exported if key.endswith("attn1.to_q.weight")]
    assert any(torch.equal(exported[key], merged[name]) for key in query)
    assert "Checkpoint of step 2 of a run of 2 steps." in file.with_suffix(".md").read_text()


def test_refused_exports_are_one_line(prior, broken, tmp_path, authface_here):
    record = json.loads((broken / "run.json").read_text())
    export = ["export", broken, "--output", tmp_path / "x.safetensors", "--checkpoint"]

    def refuse(*arguments):
        completed = authface_here(*arguments)
        assert completed.returncode == 2
        assert completed.stderr.count("\n") == 1
        return completed.stderr

    assert "no checkpoint of step 7; choose from: 1, 2, 3" in refuse(*export, 7)
    assert "0003 is damaged (unet.optimiser.pt: " in refuse(*export, 3)
    record["base_digest"] = "0"
    (broken / "run.json").write_text(json.dumps(record))
    assert "tiny is not the model that" in refuse(*export, 1)
    assert "--base belongs to --checkpoint" in refuse("export", broken, "--base", "tiny")

    # The base has moved: the record names a folder that is gone.
    original = json.loads((prior / "run.json").read_text())
    original["base"] = str(tmp_path / "gone")
    (broken / "run.json").write_text(json.dumps(original))
    completed = authface_here(*export, 1)
    assert completed.returncode == 3
    assert "name that model with --base" in completed.stderr
    completed = authface_here(*export, 1, "--base", "tiny")
    assert completed.returncode == 0, completed.stderr
    for suffix in (".safetensors", ".md", ".lineage.parquet"):
        (tmp_path / "x").with_suffix(suffix).unlink()
    assert "holds no run" in refuse("export", tmp_path, "--checkpoint", 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


def test_full_disk_while_saving_is_one_line_and_the_run_can_be_resumed(train, tmp_path):
    run = tmp_path / "run"
    assert train(run, "--steps", 1).returncode == 0
    moments = run / "checkpoints/step-00000001/unet.optimiser.pt"
    with file_size_limit(moments.stat().st_size // 2):
        completed = train(run, "--steps", 2, "--resume")
    assert completed.returncode == 2
    assert f"cannot write {run}/checkpoints/step-00000002: File" in completed.stderr
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-00000001"]
    completed = train(run, "--steps", 2, "--resume")
    assert completed.returncode == 0, completed.stderr
    assert "steps 1 to 2" in completed.stderr
    assert not (run / ".lock").exists()


def test_full_disk_in_the_background_stops_the_run_before_the_next_checkpoint(train, tmp_path):
    run = tmp_path / "run"
    assert train(run, "--steps", 1).returncode == 0
    moments = run / "checkpoints/step-00000001/unet.optimiser.pt"
    options = set_options("checkpoint_in_background=true", "checkpoint_every=30")
    with file_size_limit(moments.stat().st_size // 2):
        completed = train(run, "--steps", 90, "--resume", *options)
    assert completed.returncode == 2
    assert "no checkpoint was written in the background: cannot write" in completed.stderr
    assert f"cannot write {run}/checkpoints/step-000000" in completed.stderr.splitlines()[-1]
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-00000001"]
    assert 30 < len((run / "metrics.csv").read_text().splitlines()) < 60
    assert not (run / ".lock").exists()


def test_space_is_checked_on_resume(prior, train, monkeypatch):
    usage = namedtuple("usage", "total used free")
    checkpoint = prior / "checkpoints/step-00000001"
    checkpoint_bytes = sum(path.stat().st_size for path in checkpoint.iterdir())

    def set_free(num_bytes):
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1, 1, num_bytes))

    set_free(0.9 * checkpoint_bytes)
    options = ["--resume", *set_options("keep_checkpoints=2", "ema_decay=0.9")]
    completed = train(prior, "--steps", 4, *options)
    assert completed.returncode == 2
    assert "checkpoints and model need 0.0 GB" in completed.stderr
    assert "free some space" in completed.stderr
