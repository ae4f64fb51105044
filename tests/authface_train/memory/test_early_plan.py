"""Plans without faces and weights: the architecture of SDXL and known peaks."""

import dataclasses
import json

import pytest
import torch

from authface_train.memory.dry_run import Plan
from authface_train.memory.early_plan import plan_from_architecture
from authface_train.memory.estimator import PASS_VERSION, MemoryEstimator, PassConfig, PeakKey
from authface_train.memory.known_peaks import load_known_peaks, make_pass
from authface_train.models.sdxl import is_on_this_machine, meta_networks
from authface_train.models.sdxl_config import SDXL, SDXL_CONFIGURATION
from authface_train.presets import card_of, load_preset, preset_names
from manifests.workspace import Workspace

no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="plans for the GPU of this machine")


def plan(authface_here, cwd, command, *options):
    """Plan with `--faces` outside a workspace; returns the exit code and the plan."""
    result = authface_here(command, "--dry-run", "--faces", 2000, "--json", *options, cwd=cwd)
    assert result.stdout, result.stderr
    return result.returncode, Plan(**json.loads(result.stdout))


@no_gpu
@pytest.mark.parametrize("command", ["train-prior", "train-restore"])
def test_plan_of_a_preset_on_day_one(authface_here, tmp_path, command):
    """No workspace, no faces, no weights, no GPU: the plan is for the preset's card."""
    code, result = plan(authface_here, tmp_path, command, "--preset", "1x24gb")
    assert "24 GB" in result.device
    assert result.memory_total_gb < result.memory_there_gb == pytest.approx(0.92 * 24)
    assert result.micro_batch is not None
    assert result.hours is None
    assert result.steps == 50_000
    assert code == (0 if result.fits else 4)
    # 2,000 latents: twice mean and deviation, of 4 channels at an eighth of the side, in float32.
    side = 128 if command == "train-prior" else 64
    assert result.cache_gb > 2000 * 4 * 4 * side**2 * 4 / 1e9
    assert list(tmp_path.iterdir()) == []


@no_gpu
def test_plan_that_does_not_fit_names_a_preset(authface_here, tmp_path):
    options = ("--preset", "1x24gb", "--set", "optimiser=adamw")
    code, result = plan(authface_here, tmp_path, "train-prior", *options)
    assert code == 4
    assert result.memory_total_gb > result.memory_there_gb
    assert result.preset_that_fits == "1x24gb"


def test_faces_option_is_for_dry_runs(authface_here, tmp_path):
    result = authface_here("train-prior", "--faces", 10, cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr == "authface: --faces is only valid with --dry-run\n"


def test_known_peaks_cover_the_presets():
    peaks = load_known_peaks()
    assert peaks, f"counted by another version than {PASS_VERSION}: run known_peaks.py again"
    networks = meta_networks(SDXL_CONFIGURATION)
    for stage in ("prior", "restorer"):
        for name in preset_names():
            card = card_of(name)
            if card is None:
                continue
            settings = load_preset(stage, name)
            estimator = Estimator(
                make_pass(settings, networks.unet, 8), torch.device("cpu"), known_peaks=peaks
            )
            memory = estimator.estimate(settings, 1, card.count)
            assert memory.total < card.memory_gb * 1e9


class Estimator(MemoryEstimator):
    """Runs no pass."""

    def _peak_bytes(self, config: PassConfig) -> int:
        return self.known_peaks[PeakKey.of(config)]


def test_early_plan_is_that_of_a_real_dry_run(filled, authface_here):
    """With `tiny` both can be made: the same memory by part, and the same size of the cache."""
    options = ("train-prior", "--preset", "tiny", "-w", filled, "--dry-run", "--json")
    real = Plan(**json.loads(authface_here(*options).stdout))
    settings = load_preset("prior", "tiny")
    workspace = Workspace(filled)
    early = plan_from_architecture(
        settings,
        preset="tiny",
        is_tiny=True,
        num_faces=4,
        folder=filled,
        workspace=workspace,
    )
    for name in ("memory_gb", "disk_gb", "cache_gb", "micro_batch"):
        assert getattr(early, name) == pytest.approx(getattr(real, name), rel=0.02), name
    assert dataclasses.replace(early, seconds_per_step=1.0).steps == real.steps


def test_weights_that_are_not_here_are_not_downloaded(tmp_path, filled, authface_here):
    assert not is_on_this_machine(SDXL, None)
    (tmp_path / SDXL / "unet").mkdir(parents=True)
    assert is_on_this_machine(SDXL, str(tmp_path))
    options = ("--preset", "1x24gb", "--source", "workspace", "--dry-run", "-w", filled, "--json")
    result = Plan(**json.loads(authface_here("train-restore", *options).stdout))
    assert result.hours is None
    assert result.memory_total_gb > 5
