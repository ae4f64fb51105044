"""Memory estimates and dry runs: against measured memory, by setting, and on the command line."""

import json
from dataclasses import replace
from types import SimpleNamespace

import growth
import pytest
import torch
from accelerate import Accelerator
from diffusers import UNet2DConditionModel
from processes import Rank, finish

from authface_train.commands.dry_run_table import print_plan
from authface_train.facial_loss.discriminator import PatchDiscriminator
from authface_train.memory import dry_run
from authface_train.memory.estimator import MemoryEstimator, estimate_disk_use
from authface_train.memory.fake_tensor_pass import PriorPass, RestorerPass
from authface_train.memory.peak_cache import PeakCache
from authface_train.models.sdxl import tiny_sdxl
from authface_train.models.sdxl_config import SDXL_CONFIGURATION, arguments
from authface_train.presets import card_of, load_preset, parse_set_option, preset_names
from authface_train.training import setup
from authface_train.training.loop import accumulation_steps
from manifests.settings import preset_text
from manifests.support.errors import UserError
from manifests.workspace import Workspace

pytestmark = pytest.mark.slow  # a fake pass takes seconds
CPU = torch.device("cpu")


def test_estimate_is_within_a_quarter_of_the_measured_memory(tmp_path):
    settings = ["batch=2", "micro_batch=1", "ema_decay=0.9"]
    ((exit_code, output),) = finish([Rank(growth.main, (settings,), tmp_path / "log")])
    assert exit_code == 0, output
    result = json.loads(output.splitlines()[-1])
    assert result["measured_bytes"] > 1e9
    assert abs(result["estimated_bytes"] / result["measured_bytes"] - 1) < 0.25, result


@pytest.fixture(scope="module")
def unet():
    return tiny_sdxl(0).unet


@pytest.fixture(scope="module")
def peak_cache(tmp_path_factory):
    """Shared by the tests, since a pass takes seconds."""
    root = tmp_path_factory.mktemp("peaks") / "ws"
    return PeakCache(Workspace.create(root, preset_text("embedded")))


@pytest.fixture
def estimate_prior(unet, peak_cache):
    # A pass that accumulates gradients over two micro-batches takes twice as long as one of the batch.
    def estimate(*set_options, micro_batch=4, num_processes=1):
        settings = prior_settings(*set_options)
        estimator = MemoryEstimator(PriorPass(unet, settings, 8), CPU, peak_cache)
        return estimator.estimate(settings, micro_batch, num_processes)

    return estimate


def prior_settings(*set_options):
    return load_preset("prior", "tiny", dict(map(parse_set_option, set_options)))


def count_parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_weights_gradients_and_optimizer_state_follow_from_the_settings(unet, estimate_prior):
    n = count_parameters(unet)
    adamw = estimate_prior()
    assert adamw.parameters == 4 * n
    assert adamw.gradients == 4 * n
    assert adamw.optimiser == 8 * n
    assert adamw.average == 0

    adamw_8bit = estimate_prior("optimiser=adamw-8bit")
    assert (adamw_8bit.parameters, adamw_8bit.gradients) == (4 * n, 4 * n)
    assert 2 * n < adamw_8bit.optimiser < 2.1 * n

    masters = estimate_prior("mixed_precision=bf16")
    assert (masters.parameters, masters.gradients) == (6 * n, 4 * n)

    bfloat16 = estimate_prior("optimiser=adamw-8bit-bf16", "mixed_precision=bf16")
    assert (bfloat16.parameters, bfloat16.gradients) == (2 * n, 2 * n)

    step_in_backward = estimate_prior("step_in_backward=true", "clip_norm=0")
    assert step_in_backward.gradients == 0
    assert step_in_backward.total < adamw.total

    assert estimate_prior("ema_decay=0.9").average == 4 * n

    lora = estimate_prior("lora_rank=2")
    assert lora.optimiser < 0.1 * adamw.optimiser
    assert lora.parameters > adamw.parameters
    lora = estimate_prior("lora_rank=2", "mixed_precision=bf16")
    assert 2 * n < lora.parameters < 2.2 * n


def test_full_sharding_divides_weights_gradients_and_optimizer_state(estimate_prior):
    single = estimate_prior()
    full = estimate_prior("sharding=full", num_processes=4)
    for part in ("parameters", "gradients", "optimiser"):
        assert getattr(full, part) == getattr(single, part) / 4
    gradients = estimate_prior("sharding=gradients", num_processes=4)
    assert full.total < gradients.total < single.total


def test_activations_grow_with_the_micro_batch_and_shrink_with_checkpointing(estimate_prior):
    small = estimate_prior(micro_batch=4)
    large = estimate_prior(micro_batch=16)
    checkpointed = estimate_prior("gradient_checkpointing=true", micro_batch=16)
    assert large.activations > 3 * small.activations
    assert checkpointed.activations < 0.7 * large.activations


def test_micro_batch_follows_from_the_memory_and_keeps_the_batch(unet, peak_cache):
    settings = prior_settings()
    estimator = MemoryEstimator(PriorPass(unet, settings, 8), CPU, peak_cache)
    for micro_batch in (1, 2, 4):
        needed_bytes = estimator.estimate(settings, micro_batch, 1).total
        assert estimator.derive_micro_batch(settings, 1, needed_bytes) == micro_batch
        with_micro_batch = settings.model_copy(update={"micro_batch": micro_batch})
        assert micro_batch * accumulation_steps(with_micro_batch, 1) == settings.batch
    with pytest.raises(UserError, match="a micro-batch of one sample needs"):
        estimator.derive_micro_batch(settings, 1, 1e6)


class TwoPhasePass:
    """A pass whose peak is that of its activations or that of its gradients, as in Stage II."""

    num_trainable = 0
    frozen_bytes = 0.0
    models = "[]"

    def run(self, config, counter):
        counter.peak = max(5000 + config.micro_batch, 1600 * config.micro_batch)


def test_estimate_is_an_upper_bound_where_activations_overtake_the_gradients():
    estimator = MemoryEstimator(TwoPhasePass(), CPU)
    for micro_batch in (1, 3, 6, 16):
        peak = max(5000 + micro_batch, 1600 * micro_batch)
        assert peak <= estimator.estimate(prior_settings(), micro_batch, 1).total < 2 * peak


class CountingPass(PriorPass):
    """A pass that counts how often it runs."""

    num_runs = 0

    def run(self, config, counter):
        self.num_runs += 1
        super().run(config, counter)


def test_peaks_are_kept_in_the_workspace_for_later_runs(unet, tmp_path):
    workspace = Workspace.create(tmp_path / "ws", preset_text("embedded"))
    settings = prior_settings()

    def estimate(**changes):
        changed = settings.model_copy(update=changes)
        fake_pass = CountingPass(unet, changed, 8)
        estimator = MemoryEstimator(fake_pass, CPU, PeakCache(workspace))
        return estimator.estimate(changed, 4, 1), fake_pass.num_runs

    first, num_runs = estimate()
    assert num_runs == 2
    assert estimate(seed=7, learning_rate=1e-3) == (first, 0)
    larger, num_runs = estimate(resolution_px=256)
    assert num_runs == 2
    assert larger.activations > first.activations

    for path in (tmp_path / "ws/cache/memory").iterdir():
        path.write_bytes(b"\xff")
    assert estimate() == (first, 2)


def discriminator_bytes(channels, width) -> float:
    """Bytes of both discriminators with their gradients and moments."""
    return 2 * 16.0 * count_parameters(PatchDiscriminator(channels, width))


def test_restorer_estimate_includes_the_frozen_unet(unet):
    settings = load_preset("restorer", "tiny")
    estimator = MemoryEstimator(RestorerPass(unet, settings, 8), CPU)
    estimate = estimator.estimate(settings, 2, 1)
    num_frozen = count_parameters(unet)
    num_trained = estimate.gradients / 4
    weights = 4 * (num_frozen + num_trained)
    assert estimate.parameters == pytest.approx(weights + discriminator_bytes(4, 8))
    assert num_trained < num_frozen


@pytest.fixture(scope="module")
def sdxl_unet():
    """SDXL's U-Net from its published configuration, without weights: 2.567 B parameters."""
    with torch.device("meta"):
        return UNet2DConditionModel(**arguments(SDXL_CONFIGURATION, "unet"))


def test_size_of_the_paper_runs(sdxl_unet):
    settings = load_preset("prior", "paper")
    prior = PriorPass(sdxl_unet, settings, 8)
    assert prior.num_trainable == 2_567_463_684
    model_gb = prior.num_trainable * 4 / 1e9
    # Two newest checkpoints, the best one and a new one, each with the weights and two moments.
    disk_use = estimate_disk_use(prior, settings, model_gb * 1e9)
    assert disk_use.peak / 1e9 == pytest.approx(4 * 3 * model_gb, rel=0.01)
    without_audit = settings.model_copy(update={"audit": False, "keep_checkpoints": 1})
    disk_use = estimate_disk_use(prior, without_audit, model_gb * 1e9)
    assert disk_use.peak / 1e9 == pytest.approx(2 * 3 * model_gb, rel=0.01)

    restorer = RestorerPass(sdxl_unet, load_preset("restorer", "paper"), 8)
    assert restorer.num_trainable == pytest.approx(1.251e9, rel=0.001)
    assert restorer.frozen_bytes == 2 * prior.num_trainable + discriminator_bytes(4, 64)


@pytest.mark.parametrize("stage", ["prior", "restorer"])
def test_card_presets_train_as_the_paper_preset_does(stage):
    card_settings = {"optimiser", "sharding", "gradient_checkpointing", "micro_batch"}
    paper = load_preset(stage, "paper").model_dump(exclude=card_settings)
    cards = {name: card_of(name) for name in preset_names() if card_of(name) is not None}
    assert {name: (card.count, card.memory_gb) for name, card in cards.items()} == {
        "1x24gb": (1, 24),
        "1x80gb": (1, 80),
        "4x48gb": (4, 48),
        "8x80gb": (8, 80),
    }
    for name, card in cards.items():
        settings = load_preset(stage, name)
        assert settings.model_dump(exclude=card_settings) == paper
        assert settings.batch % card.count == 0
        assert settings.micro_batch is None


class ClockedTrainer:
    """A trainer whose samples take 1 s each, and its steps 5 s and 10 s per micro-batch."""

    num_faces = 8

    def __init__(self, clock):
        self.clock = clock
        self.dataset = self
        self.steps = set()

    def __getitem__(self, key):
        self.clock.now += 1
        return {"latent": torch.zeros(4, 2, 2)}

    def step(self, step, keys, micro_batches):
        self.steps.add(step)
        self.clock.now += 5 + 10 * len(list(micro_batches))


@pytest.mark.parametrize(("workers", "expected_s"), [(0, 25 + 4), (2, 25), (1, 25)])
def test_time_of_a_step_includes_its_samples_and_the_facial_loss(monkeypatch, workers, expected_s):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(dry_run.time, "perf_counter", lambda: clock.now)
    settings = load_preset("restorer", "tiny", {"micro_batch": 2, "workers": workers})
    trainer = ClockedTrainer(clock)
    step_s = dry_run.time_step(settings, lambda _: trainer, 2, Accelerator(cpu=True))
    assert step_s == expected_s
    assert trainer.steps == {settings.steps - 1}


def test_slow_samples_limit_the_speed_of_a_step(monkeypatch):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(dry_run.time, "perf_counter", lambda: clock.now)
    settings = load_preset("restorer", "tiny", {"batch": 60, "micro_batch": 60, "workers": 2})
    trainer = ClockedTrainer(clock)
    assert dry_run.time_step(settings, lambda _: trainer, 1, Accelerator(cpu=True)) == 30


@pytest.mark.parametrize("stage", ["prior", "restorer"])
def test_dry_run_reports_the_plan_and_writes_nothing(filled, tmp_path, authface_here, stage):
    command = ["train-prior"] if stage == "prior" else ["train-restore", "--base", "tiny"]
    command += ["--preset", "tiny", "-w", filled, "--output", tmp_path / "run", "--dry-run"]
    result = authface_here(*command, "--json")
    assert result.returncode == 0, result.stderr
    plan = json.loads(result.stdout)
    parts = {"parameters", "gradients", "optimiser", "average", "activations"}
    assert set(plan["memory_gb"]) == parts
    assert plan["memory_total_gb"] == pytest.approx(sum(plan["memory_gb"].values()))
    assert plan["fits"] is True
    assert plan["steps"] == 20
    assert plan["batch"] == 4
    assert plan["micro_batch"] == 4
    assert plan["accumulation"] == 1
    assert plan["hours"] == pytest.approx(plan["seconds_per_step"] * 20 / 3600)
    assert plan["images_per_second"] == pytest.approx(4 / plan["seconds_per_step"])
    assert plan["cache_gb"] > 0
    assert plan["disk_gb"] > plan["cache_missing_gb"]
    assert not (tmp_path / "run").exists()

    table = authface_here(*command)
    assert "It fits." in table.stdout
    assert "batch 4 = 4 x 1 accumulated x 1 processes" in table.stdout


def test_dry_run_of_a_run_that_does_not_fit_names_a_preset_that_fits(
    filled, tmp_path, authface_here, monkeypatch, capsys
):
    monkeypatch.setattr(setup, "memory_capacity", lambda device: 14e6)
    command = ["train-prior", "--preset", "tiny", "-w", filled, "--output", tmp_path / "run"]
    result = authface_here(*command, "--dry-run", "--json")
    assert result.returncode == 4
    assert "does not fit" in result.stderr
    plan = dry_run.Plan(**json.loads(result.stdout))
    assert plan.fits is False
    assert plan.preset_that_fits == "1x24gb"

    print_plan(plan)
    assert "--preset 1x24gb fits" in capsys.readouterr().out
    print_plan(replace(plan, preset_that_fits=None))
    assert "no preset does" in capsys.readouterr().out
