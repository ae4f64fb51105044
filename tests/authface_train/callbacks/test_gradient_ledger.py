"""The gradient ledger, calibration's advice, and the warning that a discriminator has won."""

import math
import shutil

import pytest
import torch
from accelerate import Accelerator

from authface_train.callbacks.gradient_ledger import GradientLedger, draw, overall, read, write
from authface_train.data.latents import cached_latents
from authface_train.data.prompts import cached_prompts
from authface_train.data.sample_keys import SampleKey
from authface_train.models.sdxl import detach_core, tiny_sdxl
from authface_train.presets import load_preset
from authface_train.stages.restorer import RestorerTrainer, make_controlnet, stacked
from authface_train.training.metrics_logger import COLLAPSE_WINDOW, DiscriminatorMonitor
from manifests.training_view import training_view
from manifests.workspace import Workspace


@pytest.fixture(scope="module")
def trainer(filled, tmp_path_factory):
    root = tmp_path_factory.mktemp("ledger") / "ws"  # a copy: latents are written into its cache
    shutil.copytree(filled, root)
    workspace = Workspace(root)
    view = training_view(workspace)
    settings = load_preset(
        "restorer", "tiny", ["facial.start_step=0", "facial.discriminator_only_steps=0"]
    )
    pipeline, accelerator = tiny_sdxl(0), Accelerator(cpu=True)
    latents = cached_latents(
        workspace, pipeline.vae, view, settings.resolution_px, accelerator, lambda *_: None
    )
    null_prompt = cached_prompts(workspace, pipeline, [""], accelerator, lambda *_: None)[0]
    core = detach_core(pipeline)
    controlnet = make_controlnet(core.unet, 0, core.vae_scale_factor)
    return RestorerTrainer(
        settings, core, controlnet, workspace, view, latents, null_prompt, accelerator
    )


def test_the_noise_pull_is_twice_the_error_over_its_size(trainer, tmp_path):
    ledger = GradientLedger(trainer, tmp_path)
    entry = ledger.measure()[3]
    batch = stacked([trainer.sample(SampleKey(0, face)) for face in ledger.faces])
    batch["t_step"] = torch.full_like(batch["t_step"], 350)
    with torch.no_grad():
        _, eps = trainer.predict(trainer.parts["controlnet"].module, batch)
    error = (2 * (eps - batch["noise"]) / eps.numel()).flatten(1).norm(dim=1).mean()
    assert entry["noise"] == pytest.approx(float(error), rel=1e-4)


def test_the_facial_pull_is_that_of_a_step(trainer, tmp_path):
    """By a finite difference along the gradient: what the loss gains when eps moves is what the ledger says it pulls with."""
    ledger = GradientLedger(trainer, tmp_path)
    entry = ledger.measure()[5]
    batch = stacked([trainer.sample(SampleKey(0, face)) for face in ledger.faces])
    t_step = torch.full_like(batch["t_step"], 550)
    with torch.no_grad():
        noisy, eps = trainer.predict(
            trainer.parts["controlnet"].module, {**batch, "t_step": t_step}
        )
    visible = trainer.facial.count(batch["visible"])

    def style(prediction):
        pairs = trainer.facial.pairs(
            noisy, prediction, batch["latent"], t_step, batch["boxes_px"], batch["visible"]
        )
        return trainer.settings.facial.lambda_s * trainer.facial.terms(pairs, visible)[1]

    leaf = eps.clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(style(leaf), leaf)
    assert entry["style"] == pytest.approx(float(slope.flatten(1).norm(dim=1).mean()), rel=1e-4)
    step = 1e-2 * slope / slope.norm()
    gained = float(style(eps + step) - style(eps - step)) / 2e-2
    assert gained == pytest.approx(float(slope.norm()), rel=0.05)


def test_measuring_changes_nothing(trainer, tmp_path):
    before = {
        name: value.clone()
        for part in trainer.parts.values()
        for name, value in part.module.state_dict().items()
    }
    ledger = GradientLedger(trainer, tmp_path)
    assert ledger.measure() == ledger.measure()
    after = {
        name: value
        for part in trainer.parts.values()
        for name, value in part.module.state_dict().items()
    }
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert all(
        parameter.grad is None
        for part in trainer.parts.values()
        for parameter in part.module.parameters()
    )


def test_entries_are_kept_and_drawn(tmp_path):
    entries = [
        {"step": float(step), "band": float(band), "noise": 2.0, "adversarial": 0.1, "style": 0.1, "ratio": 0.05 * band,
         "cosine_adversarial": 0.5, "cosine_style": -0.5}
        for step in (0, 100)
        for band in range(10)
    ]  # fmt: skip
    assert read(tmp_path) == []
    write(tmp_path, entries)
    assert read(tmp_path) == entries
    assert overall(entries[:10]) == pytest.approx(0.05 * sum(range(10)) / 10)
    picture = draw(entries)
    assert picture.width > picture.height > 200


def test_a_discriminator_that_has_won_is_told_of_once_until_it_loses_again(capsys):
    collapse = DiscriminatorMonitor()

    def steps(first, accuracy):
        for step in range(first, first + COLLAPSE_WINDOW):
            collapse.check(
                step, {"accuracy_eyes": accuracy, "accuracy_mouth": 0.7, "loss": math.pi}
            )

    steps(0, 0.9)
    assert capsys.readouterr().out == ""
    steps(200, 1.0)
    said = capsys.readouterr().out
    assert said.count("discriminator of the eyes") == 1
    assert "mouth" not in said
    steps(400, 1.0)
    assert capsys.readouterr().out == ""
    steps(600, 0.6)
    steps(800, 1.0)
    assert "discriminator of the eyes" in capsys.readouterr().out
