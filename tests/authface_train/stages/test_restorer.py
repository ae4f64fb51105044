"""Stage II on the tiny SDXL: the ControlNet's start, and what each step moves."""

import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from accelerate import Accelerator

from authface_train.data.latents import cached_latents
from authface_train.data.pairs import region_boxes
from authface_train.data.prompts import cached_prompts
from authface_train.data.sample_keys import step_keys
from authface_train.models.sdxl import detach_core, tiny_sdxl
from authface_train.presets import load_preset
from authface_train.stages.restorer import RestorerTrainer, make_controlnet
from authface_train.training.loop import Sample
from manifests.training_view import training_view
from manifests.workspace import Workspace


@pytest.fixture(scope="module")
def mine(filled, tmp_path_factory):
    """A copy: the trainers write latents into its cache."""
    root = tmp_path_factory.mktemp("restorer") / "ws"
    shutil.copytree(filled, root)
    return root


@pytest.fixture(scope="module")
def view(mine) -> pd.DataFrame:
    return training_view(Workspace(mine))


def make_trainer(root, view, *changes) -> RestorerTrainer:
    settings = load_preset(
        "restorer", "tiny", ["facial.start_step=0", "facial.discriminator_only_steps=0", *changes]
    )
    pipeline = tiny_sdxl(0)
    workspace = Workspace(root)
    accelerator = Accelerator(cpu=True)
    latents = cached_latents(
        workspace, pipeline.vae, view, settings.resolution_px, accelerator, lambda *_: None
    )
    null_prompt = cached_prompts(workspace, pipeline, [""], accelerator, lambda *_: None)[0]
    core = detach_core(pipeline)
    controlnet = make_controlnet(core.unet, 0, 8)
    return RestorerTrainer(
        settings, core, controlnet, workspace, view, latents, null_prompt, accelerator
    )


@pytest.fixture
def trainer(mine, view):
    return make_trainer(mine, view)


def micros(trainer, draws):
    samples = [trainer.sample(draw) for draw in draws]
    yield {name: torch.stack([sample[name] for sample in samples]) for name in samples[0]}


def take_step(trainer, step):
    draws = step_keys(trainer.settings.seed, step, trainer.settings.batch, trainer.faces)
    return trainer.step(step, draws, micros(trainer, draws)).means


def weights(module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def test_the_controlnet_is_the_unets_encoder_and_its_first_output_is_zero(trainer):
    unet, controlnet = trainer.unet, trainer.parts["controlnet"].module
    for name in ("conv_in", "time_embedding", "add_embedding", "down_blocks", "mid_block"):
        for ours, theirs in zip(
            getattr(controlnet, name).parameters(), getattr(unet, name).parameters(), strict=True
        ):
            assert torch.equal(ours, theirs)
    batch: Sample = next(micros(trainer, step_keys(0, 0, 2, trainer.faces)))
    added = {
        "text_embeds": trainer.null_prompt.pooled.expand(2, -1), "time_ids": trainer.time_ids.expand(2, -1),
    }  # fmt: skip
    embeds = trainer.null_prompt.embeds[None].expand(2, -1, -1)
    down, middle = controlnet(
        batch["latent"],
        batch["t_step"],
        embeds,
        batch["degraded"],
        added_cond_kwargs=added,
        return_dict=False,
    )
    assert all(float(residual.abs().max()) == 0 for residual in [*down, middle])


def gradient_names(trainer) -> set[str]:
    """Parameters of the ControlNet that a gradient of the facial loss alone reaches, and none of the U-Net."""
    controlnet = trainer.parts["controlnet"].module
    batch = next(micros(trainer, step_keys(0, 0, 4, trainer.faces)))
    noisy, prediction = trainer.predict(controlnet, batch)
    pairs = trainer.facial.pairs(
        noisy, prediction, batch["latent"], batch["t_step"], batch["boxes_px"], batch["visible"]
    )
    loss, _ = trainer.facial.generator(pairs, trainer.facial.count(batch["visible"]))
    assert prediction.requires_grad
    loss.backward()
    assert all(parameter.grad is None for parameter in trainer.unet.parameters())
    assert all(parameter.grad is None for parameter in trainer.facial.parameters())
    reached = {
        name
        for name, p in controlnet.named_parameters()
        if p.grad is not None and float(p.grad.abs().max()) > 0
    }
    controlnet.zero_grad(set_to_none=True)
    return reached


def test_the_facial_gradient_reaches_zero_convolutions_first_then_the_rest(trainer):
    zero_convolutions = {"controlnet_down_blocks", "controlnet_mid_block"}
    first = gradient_names(trainer)
    assert first
    assert {name.split(".")[0] for name in first} <= zero_convolutions
    take_step(trainer, 0)
    later = {name.split(".")[0] for name in gradient_names(trainer)}
    assert {"conv_in", "down_blocks", "mid_block", "controlnet_cond_embedding"} <= later


def test_a_step_moves_controlnet_and_discriminators_and_never_the_unet(trainer):
    before = {name: weights(part.module) for name, part in trainer.parts.items()}
    unet = weights(trainer.unet)
    losses = take_step(trainer, 0)
    for name, part in trainer.parts.items():
        moved = [
            key
            for key, value in part.module.state_dict().items()
            if not torch.equal(value, before[name][key])
        ]
        assert moved, name
    assert all(torch.equal(value, unet[key]) for key, value in trainer.unet.state_dict().items())
    assert {
        "loss",
        "noise_loss",
        "facial_loss",
        "adversarial",
        "style",
        "discriminator_eyes",
        "gradient_norm",
    } <= set(losses)


def test_min_snr_weights_the_noise_loss_and_not_the_facial_one(mine, view):
    """At the start the ControlNet adds nothing, so both trainers predict the same: gamma 0.05 of SNR about 1 is 0.05."""
    found = {}
    for gamma in (0, 0.05):
        trainer = make_trainer(mine, view, f"min_snr_gamma={gamma}")
        draws = step_keys(0, 0, 4, trainer.faces)
        batch = next(micros(trainer, draws))
        batch["t_step"] = torch.full((4,), 360)
        found[gamma] = trainer.step(0, draws, iter([batch])).means
    abar = trainer.draws.scheduler.alphas_cumprod[360]
    weight = 0.05 / float(abar / (1 - abar))
    assert 0.02 < weight < 0.1
    assert float(found[0.05]["noise_loss"] / found[0]["noise_loss"]) == pytest.approx(
        weight, rel=1e-4
    )
    assert float(found[0.05]["facial_loss"]) == pytest.approx(
        float(found[0]["facial_loss"]), rel=1e-4
    )


def test_the_discriminator_step_leaves_the_generator_untouched(trainer):
    draws = step_keys(0, 0, 4, trainer.faces)
    batch = next(micros(trainer, draws))
    controlnet = trainer.parts["controlnet"].module
    noisy, prediction = trainer.predict(controlnet, batch)
    pairs = trainer.facial.pairs(
        noisy, prediction, batch["latent"], batch["t_step"], batch["boxes_px"], batch["visible"]
    )
    before, judges = weights(controlnet), weights(trainer.facial)
    trainer._discriminator_step(0, [pairs], trainer.facial.count(batch["visible"]), {})
    assert all(torch.equal(value, before[key]) for key, value in controlnet.state_dict().items())
    assert all(parameter.grad is None for parameter in controlnet.parameters())
    assert any(
        not torch.equal(value, judges[key]) for key, value in trainer.facial.state_dict().items()
    )


def test_the_facial_loss_is_fp32_and_outside_autocast(trainer, monkeypatch):
    """Under bf16 autocast the prediction is half precision; what the facial loss computes with is not."""
    monkeypatch.setattr(
        trainer.accelerator, "autocast", lambda: torch.autocast("cpu", dtype=torch.bfloat16)
    )
    seen = []
    for name in ("generator", "discriminator", "r1"):
        original = getattr(trainer.facial, name)

        def spy(pairs, total, original=original):
            seen.append(
                (
                    torch.is_autocast_enabled("cpu"),
                    {pair.fake.dtype for pair in pairs} | {pair.real.dtype for pair in pairs},
                )
            )
            return original(pairs, total)

        monkeypatch.setattr(trainer.facial, name, spy)
    predicted = []
    predict = trainer.predict
    monkeypatch.setattr(
        trainer, "predict", lambda *args: predicted.append(predict(*args)) or predicted[-1]
    )
    take_step(trainer, 0)
    assert predicted[0][1].dtype == torch.bfloat16
    assert seen == [(False, {torch.float32})] * 3


def test_no_visible_mouth_leaves_the_same_losses(mine, view):
    """Every process must report the same losses, whatever its faces show."""
    hidden = view.assign(mouth_visible=False)
    both, eyes_only = (
        take_step(make_trainer(mine, view), 0),
        take_step(make_trainer(mine, hidden), 0),
    )
    assert set(both) == set(eyes_only)
    assert float(eyes_only["discriminator_mouth"]) == 0


def test_off_has_no_discriminators(mine, view):
    trainer = make_trainer(mine, view, "facial.weight=off")
    losses = take_step(trainer, 0)
    assert set(trainer.parts) == {"controlnet"}
    assert set(losses) == {"loss", "noise_loss", "gradient_norm"}
    assert float(losses["loss"]) == float(losses["noise_loss"])


def test_micro_batches_add_up_to_the_whole_batch(mine, view):
    """Four samples at once, or one by one: the same losses and, to rounding, the same gradients' norm."""

    def split(trainer, draws):
        for draw in draws:
            yield from micros(trainer, [draw])

    whole, pieces = (make_trainer(mine, view) for _ in range(2))
    draws = step_keys(0, 0, 4, whole.faces)
    a, b = (
        whole.step(0, draws, micros(whole, draws)).means,
        pieces.step(0, draws, split(pieces, draws)).means,
    )
    assert set(a) == set(b)
    for name in a:
        assert float(a[name]) == pytest.approx(float(b[name]), rel=1e-4), name


def test_a_sample_depends_on_its_draw_alone(trainer):
    draws = step_keys(0, 3, 4, trainer.faces)
    first = trainer.sample(draws[0])
    torch.manual_seed(99)
    np.random.seed(99)
    trainer.sample(draws[1])
    again = trainer.sample(draws[0])
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert 0 <= float(first["degraded"].min()) <= float(first["degraded"].max()) <= 1


def test_a_mirrored_sample_has_mirrored_regions(trainer, view):
    from authface_train.data.sample_keys import SampleKey

    boxes, visible = region_boxes(view, 128)
    seen = set()
    for epoch in range(12):
        sample = trainer.sample(SampleKey(epoch, 0))
        straight = torch.equal(sample["boxes_px"], boxes[0])
        if not straight:
            assert torch.allclose(
                sample["boxes_px"][2],
                torch.stack(
                    [128 - boxes[0, 2, 2], boxes[0, 2, 1], 128 - boxes[0, 2, 0], boxes[0, 2, 3]]
                ),
            )
        seen.add(straight)
    assert seen == {True, False}
    assert visible.shape == (len(view), 3)
