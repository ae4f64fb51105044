"""Stage II on the tiny SDXL: the initial ControlNet, and which weights a training step moves."""

import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from training_steps import first_batch, make_restorer_trainer, take_step

from authface_train.data.pairs import region_boxes
from authface_train.data.sample_keys import SampleKey, step_keys
from authface_train.presets import parse_set_option
from authface_train.stages.restorer import RestorerTrainer
from manifests.training_view import training_view
from manifests.workspace import Workspace


@pytest.fixture(scope="module")
def root(filled, tmp_path_factory):
    """A copy of the filled workspace: trainers write latents into its cache."""
    copy = tmp_path_factory.mktemp("restorer") / "workspace"
    shutil.copytree(filled, copy)
    return copy


@pytest.fixture(scope="module")
def view(root) -> pd.DataFrame:
    return training_view(Workspace(root))


def make_trainer(root, view, *options: str) -> RestorerTrainer:
    return make_restorer_trainer(Workspace(root), view, dict(map(parse_set_option, options)))


@pytest.fixture
def trainer(root, view):
    return make_trainer(root, view)


def step_losses(trainer, step=0, size=None):
    return take_step(trainer, step, size).means


def copy_weights(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def changed_names(module: torch.nn.Module, before: dict[str, torch.Tensor]) -> list[str]:
    """Names of the weights that differ from `before`."""
    after = module.state_dict()
    return [name for name, value in after.items() if not torch.equal(value, before[name])]


def predicted_pairs(trainer, batch):
    """The regions of predicted and clean latents that the facial loss compares."""
    noisy, prediction = trainer.predict(trainer.models["controlnet"].module, batch)
    return trainer.region_pairs(noisy, prediction, batch)


def test_controlnet_copies_the_unets_encoder_and_first_outputs_zero(trainer):
    unet = trainer.unet
    controlnet = trainer.models["controlnet"].module
    for name in ("conv_in", "time_embedding", "add_embedding", "down_blocks", "mid_block"):
        copied = getattr(controlnet, name).parameters()
        originals = getattr(unet, name).parameters()
        for copy, original in zip(copied, originals, strict=True):
            assert torch.equal(copy, original)

    batch = first_batch(trainer, batch=2)
    conditions = {
        "text_embeds": trainer.null_prompt.pooled.expand(2, -1),
        "time_ids": trainer.time_ids.expand(2, -1),
    }
    down_residuals, mid_residual = controlnet(
        batch["latent"],
        batch["timesteps"],
        trainer.null_prompt.embeds[None].expand(2, -1, -1),
        batch["degraded"],
        added_cond_kwargs=conditions,
        return_dict=False,
    )
    assert all(float(residual.abs().max()) == 0 for residual in [*down_residuals, mid_residual])


def facial_gradient_names(trainer) -> set[str]:
    """ControlNet parameters with a gradient from the facial loss alone."""
    controlnet = trainer.models["controlnet"].module
    batch = first_batch(trainer)
    visible = trainer.facial.count_visible(batch["visible"])
    loss, _ = trainer.facial.generator_loss(predicted_pairs(trainer, batch), visible)
    loss.backward()
    assert all(parameter.grad is None for parameter in trainer.unet.parameters())
    assert all(parameter.grad is None for parameter in trainer.facial.parameters())
    names = {
        name
        for name, parameter in controlnet.named_parameters()
        if parameter.grad is not None and float(parameter.grad.abs().max()) > 0
    }
    controlnet.zero_grad(set_to_none=True)
    return names


def test_facial_gradient_reaches_zero_convolutions_first_and_the_rest_after_a_step(trainer):
    first_names = facial_gradient_names(trainer)
    assert first_names
    zero_convolutions = {"controlnet_down_blocks", "controlnet_mid_block"}
    assert {name.split(".")[0] for name in first_names} <= zero_convolutions

    step_losses(trainer)
    later_modules = {name.split(".")[0] for name in facial_gradient_names(trainer)}
    assert {"conv_in", "down_blocks", "mid_block", "controlnet_cond_embedding"} <= later_modules


def test_step_moves_controlnet_and_discriminators_but_not_the_unet(trainer):
    before = {name: copy_weights(model.module) for name, model in trainer.models.items()}
    unet_before = copy_weights(trainer.unet)
    losses = step_losses(trainer)
    for name, model in trainer.models.items():
        assert changed_names(model.module, before[name]), name
    assert not changed_names(trainer.unet, unet_before)
    expected = {"loss", "noise_loss", "facial_loss", "adversarial", "style", "gradient_norm"}
    assert expected | {"discriminator_eyes"} <= set(losses)


def test_min_snr_weights_the_noise_loss_but_not_the_facial_loss(root, view):
    """The untrained ControlNet adds nothing, so both trainers make the same predictions."""
    losses = {}
    for gamma in (0, 0.05):
        trainer = make_trainer(root, view, f"min_snr_gamma={gamma}")
        keys = step_keys(0, 0, 4, trainer.num_faces)
        batch = first_batch(trainer)
        batch["timesteps"] = torch.full((4,), 360)
        losses[gamma] = trainer.step(0, keys, iter([batch])).means
    alpha_cumprod = trainer.scheduler.alphas_cumprod[360]
    weight = 0.05 / float(alpha_cumprod / (1 - alpha_cumprod))
    assert 0.02 < weight < 0.1
    noise_ratio = float(losses[0.05]["noise_loss"] / losses[0]["noise_loss"])
    facial_ratio = float(losses[0.05]["facial_loss"] / losses[0]["facial_loss"])
    assert noise_ratio == pytest.approx(weight, rel=1e-4)
    assert facial_ratio == pytest.approx(1, rel=1e-4)


def test_discriminator_step_leaves_the_controlnet_untouched(trainer):
    batch = first_batch(trainer)
    controlnet = trainer.models["controlnet"].module
    pairs = predicted_pairs(trainer, batch)
    controlnet_before = copy_weights(controlnet)
    discriminators_before = copy_weights(trainer.facial)
    visible = trainer.facial.count_visible(batch["visible"])
    trainer._discriminator_step(0, [pairs], visible, {})
    assert not changed_names(controlnet, controlnet_before)
    assert all(parameter.grad is None for parameter in controlnet.parameters())
    assert changed_names(trainer.facial, discriminators_before)


def test_facial_loss_computes_in_fp32_outside_autocast(trainer, monkeypatch):
    """Under bf16 autocast the prediction is bf16, but the facial loss's inputs are fp32."""

    def bf16_autocast():
        return torch.autocast("cpu", dtype=torch.bfloat16)

    monkeypatch.setattr(trainer.accelerator, "autocast", bf16_autocast)
    calls = []
    for name in ("generator_loss", "discriminator_loss", "r1_penalty"):
        original = getattr(trainer.facial, name)

        def spy(pairs, visible, original=original):
            dtypes = {pair.fake.dtype for pair in pairs} | {pair.real.dtype for pair in pairs}
            calls.append((torch.is_autocast_enabled("cpu"), dtypes))
            return original(pairs, visible)

        monkeypatch.setattr(trainer.facial, name, spy)
    prediction_dtypes = []
    predict = trainer.predict

    def spy_on_predict(controlnet, batch):
        noisy, prediction = predict(controlnet, batch)
        prediction_dtypes.append(prediction.dtype)
        return noisy, prediction

    monkeypatch.setattr(trainer, "predict", spy_on_predict)
    step_losses(trainer)
    assert prediction_dtypes == [torch.bfloat16]
    assert calls == [(False, {torch.float32})] * 3


def test_losses_have_the_same_names_without_a_visible_mouth(root, view):
    """Every process must report the same losses, whatever its faces show."""
    with_mouth = step_losses(make_trainer(root, view))
    without_mouth = step_losses(make_trainer(root, view.assign(mouth_visible=False)))
    assert set(with_mouth) == set(without_mouth)
    assert float(without_mouth["discriminator_mouth"]) == 0


def test_facial_weight_off_trains_no_discriminators(root, view):
    trainer = make_trainer(root, view, "facial.weight=off")
    losses = step_losses(trainer)
    assert set(trainer.models) == {"controlnet"}
    assert set(losses) == {"loss", "noise_loss", "gradient_norm"}
    assert float(losses["loss"]) == float(losses["noise_loss"])


def test_micro_batches_add_up_to_the_whole_batch(root, view):
    whole = step_losses(make_trainer(root, view))
    accumulated = step_losses(make_trainer(root, view), size=1)
    assert set(whole) == set(accumulated)
    for name, value in whole.items():
        assert float(accumulated[name]) == pytest.approx(float(value), rel=1e-4), name


def test_sample_depends_on_its_key_alone(trainer):
    keys = step_keys(0, 3, 4, trainer.num_faces)
    first = trainer.dataset[keys[0]]
    torch.manual_seed(99)
    np.random.seed(99)
    trainer.dataset[keys[1]]
    second = trainer.dataset[keys[0]]
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert float(first["degraded"].min()) >= 0
    assert float(first["degraded"].max()) <= 1


def test_mirrored_sample_has_mirrored_regions(trainer, view):
    boxes, visible = region_boxes(view, 128)
    assert visible.shape == (len(view), 3)
    x0, y0, x1, y1 = boxes[0, 2]
    mirrored_mouth = torch.stack([128 - x1, y0, 128 - x0, y1])
    orientations = set()
    for epoch in range(12):
        sample = trainer.dataset[SampleKey(epoch, 0)]
        is_straight = torch.equal(sample["boxes_px"], boxes[0])
        orientations.add(is_straight)
        if not is_straight:
            assert torch.allclose(sample["boxes_px"][2], mirrored_mouth)
    assert orientations == {True, False}


def test_faces_are_degraded_on_the_training_device(root, view):
    on_cpu = make_trainer(root, view)
    on_device = make_trainer(root, view, "degrade_on=gpu")
    batch = first_batch(on_device)
    expected = first_batch(on_cpu)
    assert "degraded" not in batch
    degraded = on_device.pairs.degrade_on_device(batch["crop"], batch["key"])
    assert degraded.shape == expected["degraded"].shape
    # The noise differs.
    assert float((degraded - expected["degraded"]).abs().mean()) < 0.05
    assert torch.equal(batch["boxes_px"], expected["boxes_px"])
    # A new ControlNet returns zeros, so the loss does not depend on the noise.
    losses = step_losses(on_device)
    assert torch.equal(losses["noise_loss"], step_losses(on_cpu)["noise_loss"])
