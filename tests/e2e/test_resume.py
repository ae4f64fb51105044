"""A resumed run equals an uninterrupted one bit for bit; settings that break that are refused."""

import json
import shutil
from collections import namedtuple

import pytest
import torch
from commands import set_options
from safetensors.torch import load_file

pytestmark = pytest.mark.slow

TRAIN_PRIOR = [
    "train-prior",
    "--preset",
    "tiny",
    *set_options("checkpoint_every=2", "audit=false", "draw.every=0"),
]


@pytest.fixture(scope="module")
def root(filled, tmp_path_factory):
    copy = tmp_path_factory.mktemp("resume") / "workspace"
    shutil.copytree(filled, copy)
    return copy


def assert_same_run(expected, actual):
    """Compare all weights and the metrics of two runs bit for bit."""
    for file in sorted(path.relative_to(expected) for path in expected.rglob("*.safetensors")):
        expected_tensors = load_file(expected / file)
        actual_tensors = load_file(actual / file)
        assert expected_tensors.keys() == actual_tensors.keys()
        for name, value in expected_tensors.items():
            assert torch.equal(value, actual_tensors[name]), (file, name)
    for file in sorted(path.relative_to(expected) for path in expected.rglob("*.optimiser.pt")):
        assert (expected / file).read_bytes() == (actual / file).read_bytes(), file
    assert (expected / "metrics.csv").read_text() == (actual / "metrics.csv").read_text()


@pytest.mark.parametrize(
    "changes",
    [
        ("ema_decay=0.9", "warmup_steps=3", "checkpoint_in_background=true"),
        ("optimiser=adamw-8bit", "caption_dropout=0.5", "tag_order=shuffled"),
        (
            "optimiser=adamw-8bit-bf16",
            "checkpoint_in_background=true",
            "mixed_precision=bf16",
            "batch=1",
            "micro_batch=1",
            "resolution_px=64",
        ),
        (
            "step_in_backward=true",
            "checkpoint_in_background=true",
            "clip_norm=0",
            "offset_noise=0.1",
            "min_snr_gamma=5",
        ),
        ("lora_rank=4", "micro_batch=2", "gradient_checkpointing=true"),
        ("schedule=cosine", "workers=2"),
    ],
    ids=lambda changes: changes[0],
)
def test_resumed_run_equals_an_uninterrupted_one(root, tmp_path, authface_here, changes):
    command = [*TRAIN_PRIOR, *set_options(*changes), "-w", root]
    whole = tmp_path / "whole"
    resumed = tmp_path / "resumed"

    def train(output, steps, *options):
        completed = authface_here(*command, "--steps", steps, "--output", output, *options)
        assert completed.returncode == 0, completed.stderr

    with torch.compiler.set_stance("force_eager"):
        train(whole, 5)
        if "checkpoint_in_background=true" in changes:
            # The last checkpoint of a command is not written in the background.
            train(resumed, 3)
            shutil.rmtree(resumed / "checkpoints/step-00000003")
        elif "schedule=cosine" in changes:
            # The cosine depends on the last step, so the run is cut back to its checkpoint at 4.
            train(resumed, 5)
            shutil.rmtree(resumed / "checkpoints/step-00000005")
        else:
            train(resumed, 3)
        train(resumed, 5, "--resume")

    for checkpoint in (resumed / "checkpoints").iterdir():
        if checkpoint.name not in {"step-00000004", "step-00000005"}:
            shutil.rmtree(checkpoint)
    assert_same_run(whole, resumed)


@pytest.fixture(scope="module")
def started_run(root, tmp_path_factory, authface_here):
    run = tmp_path_factory.mktemp("started") / "run"
    options = ["--steps", 3, "--output", run, *set_options("schedule=cosine")]
    completed = authface_here(*TRAIN_PRIOR, "-w", root, *options)
    assert completed.returncode == 0, completed.stderr
    return run


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("micro_batch=2", "micro_batch was 4 and is 2 now"),
        ("batch=8", "batch was 4 and is 8 now"),
        ("caption_dropout=0.1", "caption_dropout was 0.0 and is 0.1 now"),
        ("ema_decay=0.9", "ema_decay was 0.0 and is 0.9 now"),
        ("seed=1", "seed was 0 and is 1 now"),
        ("steps=9", "steps was 3 and is 9 now"),  # the cosine depends on the last step
        ("compile=true", "compile was False and is True now"),
    ],
)
def test_change_that_breaks_exactness_is_refused_by_name(
    root, started_run, authface_here, change, message
):
    options = set_options("steps=3", "schedule=cosine", change)
    completed = authface_here(
        *TRAIN_PRIOR, "-w", root, "--output", started_run, "--resume", *options
    )
    assert completed.returncode == 2
    assert message in completed.stderr


def test_resumed_run_keeps_its_derived_micro_batch(root, tmp_path, authface_here, monkeypatch):
    from authface_train import presets
    from authface_train.training import setup

    stage_values = presets._stage_values

    def without_micro_batch(preset, stage):
        return {k: v for k, v in stage_values(preset, stage).items() if k != "micro_batch"}

    monkeypatch.setattr(presets, "_stage_values", without_micro_batch)

    def set_memory(capacity_bytes):
        monkeypatch.setattr(setup, "memory_capacity", lambda *_: capacity_bytes)

    run = tmp_path / "run"

    def recorded_micro_batch():
        return json.loads((run / "run.json").read_text())["settings"]["micro_batch"]

    command = [*TRAIN_PRIOR, "-w", root, "--output", run]
    set_memory(25e6)
    completed = authface_here(*command, "--steps", 1)
    assert completed.returncode == 0, completed.stderr
    micro_batch = recorded_micro_batch()
    assert micro_batch in (1, 2)
    assert f"batch 4 = {micro_batch} x {4 // micro_batch} accumulated" in completed.stderr

    set_memory(400e9)
    assert authface_here(*command, "--steps", 2, "--resume").returncode == 0
    assert recorded_micro_batch() == micro_batch

    set_memory(1e6)
    completed = authface_here(*TRAIN_PRIOR, "-w", root, "--output", tmp_path / "other")
    assert completed.returncode == 2
    assert "a micro-batch of one sample needs" in completed.stderr
    assert not (tmp_path / "other").exists()


def test_fp16_loss_scaler_is_resumed(filled, tmp_path, monkeypatch):
    """The scaler works without a GPU: it halves its scale at every overflow."""
    from accelerate import Accelerator

    from authface_train.runs import checkpoint
    from authface_train.runs.checkpoint_saver import CheckpointSaver
    from authface_train.training.trainable_model import TrainableModel

    def make_model():
        accelerator = Accelerator(cpu=True)
        accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=64.0, growth_interval=2)
        torch.manual_seed(0)
        linear = torch.nn.Linear(3, 3)
        sgd = torch.optim.SGD(linear.parameters(), lr=0.1)
        module, optimizer = accelerator.prepare(linear, sgd)
        return accelerator, TrainableModel(module, optimizer)

    def take_step(accelerator, model, factor):
        accelerator.backward((model.module(torch.ones(2, 3)) * factor).sum())
        model.optimizer.step()
        model.optimizer.zero_grad()

    accelerator, model = make_model()
    for factor in (1.0, float("inf"), 1.0):
        take_step(accelerator, model, factor)
    assert accelerator.scaler.get_scale() == 32
    CheckpointSaver(tmp_path, accelerator, keep=1).save(3, {"unet": model})

    resumed_accelerator, resumed_model = make_model()
    step = checkpoint.load_latest(tmp_path, {"unet": resumed_model}, resumed_accelerator)
    assert step == 3
    take_step(accelerator, model, 1.0)
    take_step(resumed_accelerator, resumed_model, 1.0)
    assert accelerator.scaler.get_scale() == 64
    assert resumed_accelerator.scaler.get_scale() == 64
    assert torch.equal(model.module.weight, resumed_model.module.weight)


def test_full_disk_is_refused_before_the_run_starts(root, tmp_path, authface_here, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1, 1, 1000))
    completed = authface_here(*TRAIN_PRIOR, "-w", root, "--output", tmp_path / "run")
    assert completed.returncode == 2
    assert "0.0 GB free" in completed.stderr
    assert not (tmp_path / "run").exists()


def test_diverging_run_stops_and_keeps_its_last_good_checkpoint(root, tmp_path, authface_here):
    run = tmp_path / "run"
    options = set_options("learning_rate=1e12", "checkpoint_every=1")
    completed = authface_here(*TRAIN_PRIOR, "-w", root, *options, "--steps", 40, "--output", run)
    assert completed.returncode == 4
    assert "training has stopped and the last checkpoint is kept" in completed.stderr
    step = int(completed.stderr.rsplit("step ", 1)[1].split(":")[0])
    assert step > 1
    assert (run / f"checkpoints/step-{step - 1:08d}/state.json").is_file()
    assert not (run / f"checkpoints/step-{step:08d}").exists()
    assert not (run / "model_index.json").exists()


def test_out_of_memory_is_a_one_line_error(root, tmp_path, authface_here, monkeypatch):
    from authface_train.stages.prior import PriorTrainer

    def run_out_of_memory(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(PriorTrainer, "step", run_out_of_memory)
    completed = authface_here(*TRAIN_PRIOR, "-w", root, "--output", tmp_path / "run")
    assert completed.returncode == 2
    assert "out of GPU memory with micro_batch 4" in completed.stderr
