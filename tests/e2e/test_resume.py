"""Stopped and resumed is as uninterrupted, to the bit, whatever is switched on; what would break that is refused by name."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

pytestmark = pytest.mark.slow
WORDS = [
    "train-prior",
    "--preset",
    "tiny",
    "--set",
    "checkpoint_every=2",
    "--set",
    "audit=false",
    "--set",
    "draw.every=0",
]


@pytest.fixture(scope="module")
def root(filled, tmp_path_factory):
    root = tmp_path_factory.mktemp("resume") / "ws"
    shutil.copytree(filled, root)
    return root


def same(one, two):
    for file in sorted(path.relative_to(one) for path in one.rglob("*.safetensors")):
        a, b = load_file(one / file), load_file(two / file)
        assert a.keys() == b.keys()
        assert all(torch.equal(a[name], b[name]) for name in a), file
    assert (one / "metrics.csv").read_text() == (two / "metrics.csv").read_text()


@pytest.mark.parametrize(
    "changes",
    [
        ("ema_decay=0.9", "warmup_steps=3"),
        ("optimiser=adamw-8bit", "caption_dropout=0.5", "tag_order=shuffled"),
        (
            "optimiser=adamw-8bit-bf16",
            "mixed_precision=bf16",
            "batch=1",
            "micro_batch=1",
            "resolution_px=64",
        ),
        ("step_in_backward=true", "clip_norm=0", "offset_noise=0.1", "min_snr_gamma=5"),
        ("lora_rank=4", "micro_batch=2", "gradient_checkpointing=true"),
        ("schedule=cosine", "workers=2"),
    ],
    ids=lambda changes: changes[0],
)
def test_resumed_is_uninterrupted(root, tmp_path, authface_here, changes):
    words = [*WORDS, *(word for change in changes for word in ("--set", change)), "-w", root]
    cosine = "schedule=cosine" in changes
    with torch.compiler.set_stance("force_eager"):
        for run, steps in (("whole", 5), ("parts", 5 if cosine else 3), ("parts", 5)):
            if run == "parts" and cosine and (tmp_path / "parts").exists():
                shutil.rmtree(tmp_path / "parts/checkpoints/step-00000005")
            resume = ["--resume"] if (tmp_path / run).exists() else []
            done = authface_here(*words, "--steps", steps, "--output", tmp_path / run, *resume)
            assert done.returncode == 0, done.stderr
    for extra in {path.name for path in (tmp_path / "parts/checkpoints").iterdir()} - {
        "step-00000004",
        "step-00000005",
    }:
        shutil.rmtree(tmp_path / "parts/checkpoints" / extra)
    same(tmp_path / "whole", tmp_path / "parts")


@pytest.fixture(scope="module")
def begun(root, tmp_path_factory, authface_here):
    run = tmp_path_factory.mktemp("begun") / "run"
    done = authface_here(
        *WORDS, "-w", root, "--steps", 3, "--output", run, "--set", "schedule=cosine"
    )
    assert done.returncode == 0, done.stderr
    return run


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (["micro_batch=2"], "micro_batch was 4 and is 2 now"),
        (["batch=8"], "batch was 4 and is 8 now"),
        (["caption_dropout=0.1"], "caption_dropout was 0.0 and is 0.1 now"),
        (["ema_decay=0.9"], "ema_decay was 0.0 and is 0.9 now"),
        (["seed=1"], "seed was 0 and is 1 now"),
        (["steps=9"], "steps was 3 and is 9 now"),  # the cosine depends on where it ends
        (["compile=true"], "compile was False and is True now"),
    ],
)
def test_a_change_that_would_break_it_is_refused_by_name(root, begun, authface_here, changes, says):
    words = [
        word for change in ["steps=3", "schedule=cosine", *changes] for word in ("--set", change)
    ]
    done = authface_here(*WORDS, "-w", root, "--output", begun, "--resume", *words)
    assert done.returncode == 2
    assert says in done.stderr


def test_a_resumed_run_keeps_the_micro_batch_that_was_derived_for_it(
    root, tmp_path, authface_here, monkeypatch
):
    from authface_train import presets as preset
    from authface_train.training import setup as start

    tiny = preset._stage("tiny", "prior")
    monkeypatch.setattr(
        preset,
        "_stage",
        lambda *_: {key: value for key, value in tiny.items() if key != "micro_batch"},
    )
    monkeypatch.setattr(start, "capacity", lambda device, world: 25e6)  # a card of 25 MB
    words = [*WORDS, "-w", root, "--output", tmp_path / "run"]
    done = authface_here(*words, "--steps", 1)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "run/run.json").read_text())["settings"]
    assert record["micro_batch"] in (1, 2)
    assert (
        f"batch 4 = {record['micro_batch']} x {4 // record['micro_batch']} accumulated"
        in done.stdout
    )
    monkeypatch.setattr(start, "capacity", lambda device, world: 400e9)
    assert authface_here(*words, "--steps", 2, "--resume").returncode == 0
    assert (
        json.loads((tmp_path / "run/run.json").read_text())["settings"]["micro_batch"]
        == record["micro_batch"]
    )
    monkeypatch.setattr(start, "capacity", lambda device, world: 1e6)
    done = authface_here(*WORDS, "-w", root, "--output", tmp_path / "other")
    assert done.returncode == 2
    assert "one sample at a time takes" in done.stderr
    assert not (tmp_path / "other").exists()


def test_the_loss_scaler_of_fp16_is_resumed_too(filled, tmp_path, monkeypatch):
    """fp16 itself needs a card; the scaler does not: it halves its scale at every overflow, and that is part of the state."""
    from accelerate import Accelerator

    from authface_train.runs import checkpoint
    from authface_train.runs.checkpoint import TrainableModel

    def parts():
        accelerator = Accelerator(cpu=True)
        accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=64.0, growth_interval=2)
        torch.manual_seed(0)
        module = torch.nn.Linear(3, 3)
        module, optimiser = accelerator.prepare(
            module, torch.optim.SGD(module.parameters(), lr=0.1)
        )
        return accelerator, {"unet": TrainableModel(module, optimiser)}

    def step(accelerator, part, factor):
        accelerator.backward((part.module(torch.ones(2, 3)) * factor).sum())
        part.optimiser.step()
        part.optimiser.zero_grad()

    accelerator, mine = parts()
    for factor in (1.0, float("inf"), 1.0):
        step(accelerator, mine["unet"], factor)
    assert accelerator.scaler.get_scale() == 32
    checkpoint.save(tmp_path, 3, mine, accelerator, 1)
    other, theirs = parts()
    assert checkpoint.load_last(tmp_path, theirs, other) == 3
    for scaler, part in ((accelerator, mine["unet"]), (other, theirs["unet"])):
        step(scaler, part, 1.0)
    assert other.scaler.get_scale() == accelerator.scaler.get_scale() == 64
    assert torch.equal(mine["unet"].module.weight, theirs["unet"].module.weight)


def test_a_run_that_cannot_be_written_is_refused_before_it_begins(
    root, tmp_path, authface_here, monkeypatch
):
    from collections import namedtuple

    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1, 1, 1000))
    done = authface_here(*WORDS, "-w", root, "--output", tmp_path / "run")
    assert done.returncode == 2
    assert "GB are free" in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_run_that_diverges_stops_with_its_last_good_checkpoint(root, tmp_path, authface_here):
    words = [
        "--set",
        "learning_rate=1e12",
        "--set",
        "checkpoint_every=1",
        "--steps",
        40,
        "--output",
        tmp_path / "run",
    ]
    done = authface_here(*WORDS, "-w", root, *words)
    assert done.returncode == 4
    assert "is not a number; stopped, the last checkpoint is kept" in done.stderr
    step = int(done.stderr.split("step ")[1].split(":")[0])
    assert step > 1
    assert (tmp_path / f"run/checkpoints/step-{step - 1:08d}/state.json").is_file()
    assert not (tmp_path / f"run/checkpoints/step-{step:08d}").exists()
    assert not (tmp_path / "run/model_index.json").exists()


def test_out_of_memory_is_one_line(root, tmp_path, authface_here, monkeypatch):
    from authface_train.stages.prior import PriorTrainer

    def step(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(PriorTrainer, "step", step)
    done = authface_here(*WORDS, "-w", root, "--output", tmp_path / "run")
    assert done.returncode == 2
    assert "out of memory with micro_batch 4" in done.stderr
