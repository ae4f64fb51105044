"""The facial loss: golden weights, NumPy versions of every formula, and where gradients flow."""

import math

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler

from authface_train.facial_loss.discriminator import PatchDiscriminator
from authface_train.facial_loss.loss import (
    FacialLoss,
    RegionPair,
    VisibleCounts,
    gram_matrix,
    predict_clean_latents,
)
from authface_train.facial_loss.regions import cut_patches, flip_boxes
from authface_train.facial_loss.weight import time_aware_weight, weight_table
from authface_train.settings import FacialSettings

GOLDEN_WEIGHTS = {
    0.01: 0.009198,
    0.1: 1.049928,
    0.2: 1.683515,
    0.3: 1.788543,
    0.37: 1.710576,
    0.5: 1.408261,
    0.7: 0.766518,
    0.9: 0.116659,
}
SCHEDULER = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
ABAR = SCHEDULER.alphas_cumprod
M, S = -0.5, 1.0


@pytest.mark.parametrize(("t", "expected"), GOLDEN_WEIGHTS.items())
def test_golden_weights(t, expected):
    weight = time_aware_weight(torch.tensor(t, dtype=torch.float64), M, S)
    assert float(weight) == pytest.approx(expected, abs=1e-6)


def test_weight_is_a_density_with_the_known_mode():
    table = weight_table("time-aware", M, S, ABAR)
    assert float(table.double().mean()) == pytest.approx(1.0, abs=1e-6)
    t = torch.linspace(0.01, 0.99, 98001, dtype=torch.float64)
    weights = time_aware_weight(t, M, S)
    assert float(t[weights.argmax()]) == pytest.approx(0.2815, abs=1e-4)
    assert float(weights.max()) == pytest.approx(1.7928, abs=1e-4)


def test_constant_matched_has_the_pull_of_time_aware():
    matched = weight_table("constant-matched", M, S, ABAR)
    assert float(matched[0]) == pytest.approx(0.502, abs=5e-4)
    assert float(matched.std()) == 0
    assert weight_table("off", M, S, ABAR).sum() == 0
    assert (weight_table("constant", M, S, ABAR) == 1).all()


def test_clean_latents_are_recovered_from_the_true_noise():
    rng = np.random.default_rng(0)
    clean, noise = rng.normal(size=(2, 3, 4, 4, 4))[:2]
    abar = np.array([0.9, 0.2, 0.5])
    shape = (-1, 1, 1, 1)
    noisy = np.sqrt(abar).reshape(shape) * clean + np.sqrt(1 - abar).reshape(shape) * noise
    recovered = predict_clean_latents(*(torch.from_numpy(x) for x in (noisy, noise, abar)))
    assert recovered.dtype == torch.float32
    assert np.abs(recovered.numpy() - clean).max() < 1e-5

    timesteps = torch.tensor([10, 500, 990])
    noisy = SCHEDULER.add_noise(torch.from_numpy(clean), torch.from_numpy(noise), timesteps)
    recovered = predict_clean_latents(noisy, torch.from_numpy(noise), ABAR[timesteps])
    assert np.abs(recovered.numpy() - clean).max() < 1e-3


def test_half_precision_inputs_are_computed_in_fp32():
    latents = torch.ones(1, 4, 2, 2).half()
    predicted = predict_clean_latents(latents, latents, torch.tensor([0.005]).double())
    assert predicted.dtype == torch.float32
    expected = (1 - math.sqrt(0.995)) / math.sqrt(0.005)
    assert float(predicted[0, 0, 0, 0]) == pytest.approx(expected, rel=1e-4)


def test_gram_matrix_matches_the_definition():
    features = np.random.default_rng(1).normal(size=(2, 3, 4, 5))
    expected = np.zeros((2, 3, 3))
    for n in range(2):
        for i in range(3):
            for j in range(3):
                expected[n, i, j] = (features[n, i] * features[n, j]).sum() / (3 * 4 * 5)
    assert np.allclose(gram_matrix(torch.from_numpy(features)).numpy(), expected)


def test_flipping_boxes_twice_is_the_identity():
    boxes = torch.tensor([[10.0, 20, 30, 40], [60, 20, 80, 40], [20, 60, 70, 90]])
    visible = torch.tensor([True, False, True])
    flipped, flipped_visible = flip_boxes(boxes, visible, 100)
    assert flipped.tolist() == [[20, 20, 40, 40], [70, 20, 90, 40], [30, 60, 80, 90]]
    assert flipped_visible.tolist() == [False, True, True]
    twice, twice_visible = flip_boxes(flipped, flipped_visible, 100)
    assert torch.equal(twice, boxes)
    assert torch.equal(twice_visible, visible)


def cut_with_8px_cells(latents, boxes, visible):
    return cut_patches(latents, boxes, visible, eye_cells=10, mouth_cells=15, vae_scale_factor=8)


def test_patches_are_cut_at_the_boxes():
    """On a linear ramp, a patch's mean is the value at the box's centre; cell n is at 8n + 4 px."""
    ramp = torch.arange(64.0).expand(1, 1, 64, 64).clone()
    boxes = torch.tensor([[[80.0, 100, 160, 180], [240, 100, 320, 180], [120, 300, 280, 460]]])
    eyes, mouths = cut_with_8px_cells(ramp, boxes, torch.ones(1, 3, dtype=torch.bool))
    assert eyes.latents.shape == (2, 1, 10, 10)
    assert mouths.latents.shape == (1, 1, 15, 15)
    assert float(eyes.latents[0].mean()) == pytest.approx(120 / 8 - 0.5, abs=1e-4)
    assert float(mouths.latents.mean()) == pytest.approx(200 / 8 - 0.5, abs=1e-4)
    left_eye, right_eye = eyes.latents[:, 0, 0]
    assert left_eye[0] < left_eye[-1]
    assert right_eye[0] > right_eye[-1]  # right eyes are mirrored


def test_mirrored_latents_and_boxes_give_the_same_eyes():
    latents = torch.randn(1, 4, 64, 64, generator=torch.Generator().manual_seed(0))
    boxes = torch.tensor([[80.0, 100, 160, 180], [300, 100, 390, 190], [120, 300, 280, 460]])
    visible = torch.ones(3, dtype=torch.bool)
    eyes, mouths = cut_with_8px_cells(latents, boxes[None], visible[None])
    flipped_boxes, _ = flip_boxes(boxes, visible, 512)
    flipped_eyes, flipped_mouths = cut_with_8px_cells(
        latents.flip(-1), flipped_boxes[None], visible[None]
    )
    assert torch.allclose(eyes.latents, flipped_eyes.latents[[1, 0]], atol=1e-5)
    assert torch.allclose(mouths.latents, flipped_mouths.latents.flip(-1), atol=1e-5)


FIVE_VISIBLE = VisibleCounts({"eyes": 3, "mouth": 2})
NONE_VISIBLE = VisibleCounts({"eyes": 0, "mouth": 0})
each_reduction = pytest.mark.parametrize(
    ("reduction", "divisors"),
    [("region-sum", {"eyes": 3, "mouth": 2}), ("patch-mean", {"eyes": 5, "mouth": 5})],
)
"""Number that the sum over the patches of a region is divided by, for `FIVE_VISIBLE`."""


def make_loss(**settings) -> FacialLoss:
    torch.manual_seed(0)
    options = {"discriminator_width": 4, "eye_cells": 4, "mouth_cells": 5, **settings}
    return FacialLoss(
        FacialSettings(**options), channels=4, vae_scale_factor=8, alphas_cumprod=ABAR
    )


def make_pairs(
    loss, visible=((True, True, True), (True, False, True))
) -> tuple[list[RegionPair], torch.Tensor]:
    """Pairs of a random batch of two, and the noise prediction as a leaf of the graph."""
    generator = torch.Generator().manual_seed(1)
    clean, noisy, prediction = torch.randn(3, 2, 4, 16, 16, generator=generator)
    prediction.requires_grad_(True)
    boxes = torch.tensor([[20.0, 40, 50, 70], [70, 40, 100, 70], [40, 80, 90, 120]]).expand(2, 3, 4)
    pairs = loss.cut_pairs(
        noisy,
        prediction,
        clean=clean,
        timesteps=torch.tensor([100, 700]),
        boxes_px=boxes,
        visible=torch.tensor(visible),
    )
    return pairs, prediction


def discriminator_of(loss, pair):
    return loss.eyes if pair.name == "eyes" else loss.mouth


def style_distance(fake_features, real_features):
    """The style term of one patch, in NumPy."""
    total = 0.0
    for weight, fake, real in zip((0.5, 1.0), fake_features, real_features, strict=True):
        fake, real = (x.detach().numpy()[0].reshape(x.shape[1], -1) for x in (fake, real))
        total += weight * np.abs(fake @ fake.T / fake.size - real @ real.T / real.size).mean()
    return total


@each_reduction
def test_generator_loss_is_the_weighted_sum_over_regions(reduction, divisors):
    loss = make_loss(lambda_d=0.3, lambda_s=7.0, reduction=reduction)
    pairs, _ = make_pairs(loss)
    # Two left eyes and one right eye; two mouths.
    assert [len(pair.fake) for pair in pairs] == [3, 2]
    total, metrics = loss.generator_loss(pairs, FIVE_VISIBLE)

    expected = 0.0
    for pair in pairs:
        discriminator = discriminator_of(loss, pair)
        for n in range(len(pair.fake)):
            logit, fake_features = discriminator(pair.fake[n : n + 1], pair.timesteps[n : n + 1])
            _, real_features = discriminator(pair.real[n : n + 1], pair.timesteps[n : n + 1])
            adversarial = math.log1p(math.exp(-float(logit.detach())))
            style = style_distance(fake_features, real_features)
            weighted = float(pair.weight[n]) * (0.3 * adversarial + 7.0 * style)
            expected += weighted / divisors[pair.name]
    assert float(total) == pytest.approx(expected, rel=1e-5)
    terms = float(0.3 * metrics["adversarial"] + 7.0 * metrics["style"])
    assert terms == pytest.approx(float(total), rel=1e-5)


def test_patches_have_weight_and_timestep_of_their_samples():
    (eyes, mouth), _ = make_pairs(make_loss())
    weights = weight_table("time-aware", M, S, ABAR)
    assert mouth.weight.tolist() == [float(weights[100]), float(weights[700])]
    assert mouth.timesteps.tolist() == [100, 700]
    # The left eyes come first; the second sample's right eye is invisible.
    assert eyes.timesteps.tolist() == [100, 700, 100]


def test_paper_literal_form_is_log_of_one_minus_d():
    loss = make_loss(adversarial="paper-literal")
    logits = torch.tensor([-2.0, 0.3, 4.0])
    expected = [math.log(1 - 1 / (1 + math.exp(-float(x)))) for x in logits]
    assert loss._adversarial(logits).tolist() == pytest.approx(expected, rel=1e-5)


@each_reduction
def test_discriminator_loss_is_weighted_cross_entropy(reduction, divisors):
    loss = make_loss(reduction=reduction)
    pairs, prediction = make_pairs(loss)
    total, metrics = loss.discriminator_loss(pairs, FIVE_VISIBLE)

    expected = 0.0
    for pair in pairs:
        discriminator = discriminator_of(loss, pair)
        fake_logits, _ = discriminator(pair.fake, pair.timesteps)
        real_logits, _ = discriminator(pair.real, pair.timesteps)
        for weight, fake, real in zip(pair.weight, fake_logits, real_logits, strict=True):
            cross_entropy = math.log1p(math.exp(float(fake))) + math.log1p(math.exp(-float(real)))
            expected += float(weight) * cross_entropy / divisors[pair.name]
    assert float(total) == pytest.approx(expected, rel=1e-5)
    by_region = metrics["discriminator_eyes"] + metrics["discriminator_mouth"]
    assert float(by_region) == pytest.approx(float(total), rel=1e-5)

    eyes = pairs[0]
    num_correct = int((loss.eyes(eyes.fake, eyes.timesteps)[0] < 0).sum()) + int(
        (loss.eyes(eyes.real, eyes.timesteps)[0] > 0).sum()
    )
    assert float(metrics["accuracy_eyes"]) == pytest.approx(num_correct / 6)

    total.backward()
    assert prediction.grad is None  # the generator gets no gradient
    assert all(parameter.grad is not None for parameter in loss.parameters())


def test_generator_loss_gives_gradients_to_the_prediction_only():
    loss = make_loss()
    pairs, prediction = make_pairs(loss)
    total, _ = loss.generator_loss(pairs, FIVE_VISIBLE)
    total.backward()
    assert prediction.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in loss.parameters())
    assert all(parameter.requires_grad for parameter in loss.parameters())
    first_row = prediction.grad[..., 0, :]  # outside every region
    assert first_row.abs().sum() == 0


def test_only_conditioned_discriminators_learn_what_depends_on_the_timestep():
    """What is real at one timestep is generated at the other."""
    light, dark = torch.ones(4, 4, 6, 6), -torch.ones(4, 4, 6, 6)
    weight = torch.ones(4)
    pairs = [
        RegionPair("eyes", light, dark, weight, torch.full((4,), 100)),
        RegionPair("eyes", dark, light, weight, torch.full((4,), 900)),
    ]
    losses = []
    for is_conditioned in (True, False):
        loss = make_loss(timestep_conditioning=is_conditioned)
        optimizer = torch.optim.Adam(loss.parameters(), lr=1e-2)
        for _ in range(150):
            optimizer.zero_grad()
            total, _ = loss.discriminator_loss(pairs, VisibleCounts({"eyes": 8, "mouth": 0}))
            total.backward()
            optimizer.step()
        losses.append(float(total.detach()))
    assert losses[0] < 0.1
    assert losses[1] == pytest.approx(2 * math.log(2), abs=0.01)


def test_timestep_conditioning_leaves_the_other_initial_weights_as_they_are():
    plain, conditioned = (
        make_loss(timestep_conditioning=flag).state_dict() for flag in (False, True)
    )
    assert len(conditioned) > len(plain)
    assert all(torch.equal(value, conditioned[name]) for name, value in plain.items())


def test_an_untrained_discriminator_ignores_the_timestep():
    patches = torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    discriminator = PatchDiscriminator(4, 8, timestep_conditioning=True)
    logits = [discriminator(patches, torch.full((2,), t))[0] for t in (0, 999)]
    assert torch.equal(*logits)


def test_losses_without_visible_patches_are_zero():
    loss = make_loss()
    pairs, prediction = make_pairs(loss, visible=((False,) * 3,) * 2)
    total, _ = loss.generator_loss(pairs, NONE_VISIBLE)
    total.backward()
    assert float(total) == 0
    assert prediction.grad.abs().sum() == 0
    assert float(loss.discriminator_loss(pairs, NONE_VISIBLE)[0]) == 0
    assert float(loss.r1_penalty(pairs, NONE_VISIBLE)) == 0


@each_reduction
def test_r1_penalty_is_the_squared_gradient_on_real_patches(reduction, divisors):
    loss = make_loss(r1_gamma=2.0, r1_every=3, reduction=reduction)
    pairs, _ = make_pairs(loss)
    squared = 0.0
    for pair in pairs:
        real = pair.real.clone().requires_grad_(True)
        discriminator_of(loss, pair)(real, pair.timesteps)[0].sum().backward()
        squared += float(real.grad.square().sum()) / divisors[pair.name]
    expected = 2.0 / 2 * 3 * squared
    assert float(loss.r1_penalty(pairs, FIVE_VISIBLE)) == pytest.approx(expected, rel=1e-4)


def test_facial_loss_ramps_up_after_the_discriminators_start():
    loss = make_loss(start_step=10, discriminator_only_steps=5, ramp_steps=3)
    weights = [loss.ramp_weight(step) for step in (0, 14, 15, 16, 17, 18, 99)]
    assert weights == [0, 0, 0.25, 0.5, 0.75, 1, 1]


def test_discriminator_halves_once_and_returns_two_feature_maps():
    logits, features = PatchDiscriminator(4, 8)(
        torch.zeros(3, 4, 10, 10), torch.zeros(3, dtype=torch.long)
    )
    assert logits.shape == (3,)
    assert [tuple(feature.shape) for feature in features] == [(3, 16, 5, 5), (3, 32, 5, 5)]
