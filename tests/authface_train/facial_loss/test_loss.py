"""The facial loss: golden weights, plain numpy versions of every formula, and where gradients go."""

import math

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler

from authface_train.facial_loss.discriminator import PatchDiscriminator
from authface_train.facial_loss.loss import FacialLoss, Visible, gram, predicted_latents
from authface_train.facial_loss.regions import cut, flip_boxes
from authface_train.facial_loss.weight import time_aware_weight, weight_table
from authface_train.settings import FacialSettings

GOLDEN = {
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


@pytest.mark.parametrize(("t", "value"), GOLDEN.items())
def test_golden_weights(t, value):
    assert float(
        time_aware_weight(torch.tensor(t, dtype=torch.float64), -0.5, 1.0)
    ) == pytest.approx(value, abs=1e-6)


def test_the_weight_is_a_density_with_its_mode_where_it_is():
    table = weight_table("time-aware", -0.5, 1.0, ABAR)
    assert float(table.double().mean()) == pytest.approx(1.0, abs=1e-6)
    t = torch.linspace(0.01, 0.99, 98001, dtype=torch.float64)
    weights = time_aware_weight(t, -0.5, 1.0)
    assert float(t[weights.argmax()]) == pytest.approx(0.2815, abs=1e-4)
    assert float(weights.max()) == pytest.approx(1.7928, abs=1e-4)


def test_constant_matched_pulls_as_much_as_time_aware():
    matched = weight_table("constant-matched", -0.5, 1.0, ABAR)
    assert float(matched[0]) == pytest.approx(0.502, abs=5e-4)
    assert float(matched.std()) == 0
    assert weight_table("off", -0.5, 1.0, ABAR).sum() == 0
    assert (weight_table("constant", -0.5, 1.0, ABAR) == 1).all()


def test_predicted_latents_use_one_minus_abar():
    rng = np.random.default_rng(0)
    clean, noise = rng.normal(size=(2, 3, 4, 4, 4))[:2]
    abar = np.array([0.9, 0.2, 0.5])
    shape = (-1, 1, 1, 1)
    noisy = np.sqrt(abar).reshape(shape) * clean + np.sqrt(1 - abar).reshape(shape) * noise
    back = predicted_latents(*(torch.from_numpy(x) for x in (noisy, noise, abar)))
    assert back.dtype == torch.float32
    assert np.abs(back.numpy() - clean).max() < 1e-5
    scheduled = SCHEDULER.add_noise(
        torch.from_numpy(clean), torch.from_numpy(noise), torch.tensor([10, 500, 990])
    )
    again = predicted_latents(scheduled, torch.from_numpy(noise), ABAR[[10, 500, 990]])
    assert np.abs(again.numpy() - clean).max() < 1e-3


def test_half_precision_inputs_are_computed_in_fp32():
    made = predicted_latents(
        torch.ones(1, 4, 2, 2).half(), torch.ones(1, 4, 2, 2).half(), torch.tensor([0.005]).double()
    )
    assert made.dtype == torch.float32
    assert float(made[0, 0, 0, 0]) == pytest.approx(
        (1 - math.sqrt(0.995)) / math.sqrt(0.005), rel=1e-4
    )


def test_gram_is_the_plain_one():
    features = np.random.default_rng(1).normal(size=(2, 3, 4, 5))
    expected = np.zeros((2, 3, 3))
    for n in range(2):
        for i in range(3):
            for j in range(3):
                expected[n, i, j] = (features[n, i] * features[n, j]).sum() / (3 * 4 * 5)
    assert np.allclose(gram(torch.from_numpy(features)).numpy(), expected)


def test_flipping_boxes_twice_is_the_identity():
    boxes = torch.tensor([[10.0, 20, 30, 40], [60, 20, 80, 40], [20, 60, 70, 90]])
    visible = torch.tensor([True, False, True])
    once, seen = flip_boxes(boxes, visible, 100)
    assert once.tolist() == [[20, 20, 40, 40], [70, 20, 90, 40], [30, 60, 80, 90]]
    assert seen.tolist() == [False, True, True]
    twice, again = flip_boxes(once, seen, 100)
    assert torch.equal(twice, boxes)
    assert torch.equal(again, visible)


def test_patches_lie_where_the_boxes_are():
    """On a linear ramp, the mean of a patch is the ramp's value at the box's centre: cells are 8 px, centres at 4."""
    columns = torch.arange(64.0).expand(1, 1, 64, 64).clone()
    boxes = torch.tensor([[[80.0, 100, 160, 180], [240, 100, 320, 180], [120, 300, 280, 460]]])
    eyes, mouth = cut(columns, boxes, torch.ones(1, 3, dtype=torch.bool), (10, 15), 8)
    assert eyes.pixels.shape == (2, 1, 10, 10)
    assert mouth.pixels.shape == (1, 1, 15, 15)
    assert float(eyes.pixels[0].mean()) == pytest.approx(120 / 8 - 0.5, abs=1e-4)
    assert float(mouth.pixels.mean()) == pytest.approx(200 / 8 - 0.5, abs=1e-4)
    assert eyes.pixels[0, 0, 0, 0] < eyes.pixels[0, 0, 0, -1]
    assert eyes.pixels[1, 0, 0, 0] > eyes.pixels[1, 0, 0, -1]  # the right eye is mirrored


def test_mirrored_latents_and_boxes_give_the_same_eyes_changed_round():
    latents = torch.randn(1, 4, 64, 64, generator=torch.Generator().manual_seed(0))
    boxes = torch.tensor([[80.0, 100, 160, 180], [300, 100, 390, 190], [120, 300, 280, 460]])
    there = torch.ones(3, dtype=torch.bool)
    eyes, mouth = cut(latents, boxes[None], there[None], (10, 15), 8)
    turned, _ = flip_boxes(boxes, there, 512)
    eyes2, mouth2 = cut(latents.flip(-1), turned[None], there[None], (10, 15), 8)
    assert torch.allclose(eyes.pixels, eyes2.pixels[[1, 0]], atol=1e-5)
    assert torch.allclose(mouth.pixels, mouth2.pixels.flip(-1), atol=1e-5)


FIVE, NONE = Visible({"eyes": 3, "mouth": 2}), Visible({"eyes": 0, "mouth": 0})


def facial(**settings) -> FacialLoss:
    torch.manual_seed(0)
    options = {"discriminator_width": 4, "eye_cells": 4, "mouth_cells": 5, **settings}
    return FacialLoss(
        FacialSettings(**options), channels=4, vae_scale_factor=8, alphas_cumprod=ABAR
    )


def batch(visible=((True, True, True), (True, False, True))):
    generator = torch.Generator().manual_seed(1)
    clean, noisy, prediction = torch.randn(3, 2, 4, 16, 16, generator=generator)
    boxes = torch.tensor([[20.0, 40, 50, 70], [70, 40, 100, 70], [40, 80, 90, 120]]).expand(2, 3, 4)
    return noisy, prediction, clean, torch.tensor([100, 700]), boxes, torch.tensor(visible)


def test_the_loss_is_the_sum_over_visible_patches_written_out():
    loss = facial(lambda_d=0.3, lambda_s=7.0)
    noisy, prediction, clean, steps, boxes, visible = batch()
    pairs = loss.pairs(noisy, prediction, clean, steps, boxes, visible)
    assert [len(pair.fake) for pair in pairs] == [3, 2]  # two left eyes, one right eye; two mouths
    total, parts = loss.generator(pairs, FIVE)

    expected = 0.0
    for pair in pairs:
        judge = loss.eyes if pair.name == "eyes" else loss.mouth
        for n in range(len(pair.fake)):
            logit, made = judge(pair.fake[n : n + 1])
            _, true = judge(pair.real[n : n + 1])
            style = 0.0
            for share, a, b in zip((0.5, 1.0), made, true, strict=True):
                a, b = (x.detach().numpy()[0].reshape(x.shape[1], -1) for x in (a, b))
                style += share * np.abs(a @ a.T / a.size - b @ b.T / b.size).mean()
            adversarial = math.log1p(math.exp(-float(logit)))
            expected += float(pair.weight[n]) * (0.3 * adversarial + 7.0 * style)
    assert float(total) == pytest.approx(expected / 5, rel=1e-5)
    assert float(0.3 * parts["adversarial"] + 7.0 * parts["style"]) == pytest.approx(
        float(total), rel=1e-5
    )
    weights = weight_table("time-aware", -0.5, 1.0, ABAR)
    assert pairs[1].weight.tolist() == [float(weights[100]), float(weights[700])]


def test_the_papers_literal_form_is_log_of_one_minus_d():
    loss = facial(adversarial="paper-literal")
    logits = torch.tensor([-2.0, 0.3, 4.0])
    expected = [math.log(1 - 1 / (1 + math.exp(-float(x)))) for x in logits]
    assert loss._adversarial(logits).tolist() == pytest.approx(expected, rel=1e-5)


def test_the_discriminators_loss_and_its_gradients():
    loss = facial()
    noisy, prediction, clean, steps, boxes, visible = batch()
    prediction.requires_grad_(True)
    pairs = loss.pairs(noisy, prediction, clean, steps, boxes, visible)
    total, parts = loss.discriminator(pairs, FIVE)
    expected = 0.0
    for pair in pairs:
        judge = loss.eyes if pair.name == "eyes" else loss.mouth
        fake, real = judge(pair.fake)[0], judge(pair.real)[0]
        for w, f, r in zip(pair.weight, fake, real, strict=True):
            expected += float(w) * (
                math.log1p(math.exp(float(f))) + math.log1p(math.exp(-float(r)))
            )
    assert float(total) == pytest.approx(expected / 5, rel=1e-5)
    assert float(parts["discriminator_eyes"] + parts["discriminator_mouth"]) == pytest.approx(
        float(total), rel=1e-5
    )
    right = int((loss.eyes(pairs[0].fake)[0] < 0).sum()) + int(
        (loss.eyes(pairs[0].real)[0] > 0).sum()
    )
    assert float(parts["accuracy_eyes"]) == pytest.approx(right / 6)
    total.backward()
    assert prediction.grad is None  # the generator is left untouched
    assert all(parameter.grad is not None for parameter in loss.parameters())


def test_the_generators_gradient_reaches_the_prediction_and_never_the_discriminators():
    loss = facial()
    noisy, prediction, clean, steps, boxes, visible = batch()
    prediction.requires_grad_(True)
    total, _ = loss.generator(loss.pairs(noisy, prediction, clean, steps, boxes, visible), FIVE)
    total.backward()
    assert prediction.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in loss.parameters())
    assert all(parameter.requires_grad for parameter in loss.parameters())
    outside = prediction.grad[..., 0, :]  # no region lies in the first row
    assert outside.abs().sum() == 0


def test_nothing_visible_gives_zero_that_can_be_derived():
    loss = facial()
    noisy, prediction, clean, steps, boxes, visible = batch(visible=((False,) * 3,) * 2)
    prediction.requires_grad_(True)
    pairs = loss.pairs(noisy, prediction, clean, steps, boxes, visible)
    total, _ = loss.generator(pairs, NONE)
    total.backward()
    assert float(total) == 0
    assert prediction.grad.abs().sum() == 0
    assert float(loss.discriminator(pairs, NONE)[0]) == 0
    assert float(loss.r1(pairs, NONE)) == 0


def test_r1_is_the_squared_gradient_on_true_patches():
    loss = facial(r1_gamma=2.0, r1_every=3)
    noisy, prediction, clean, steps, boxes, visible = batch()
    pairs = loss.pairs(noisy, prediction, clean, steps, boxes, visible)
    expected = 0.0
    for pair in pairs:
        judge = loss.eyes if pair.name == "eyes" else loss.mouth
        real = pair.real.clone().requires_grad_(True)
        judge(real)[0].sum().backward()
        expected += float(real.grad.square().sum())
    assert float(loss.r1(pairs, FIVE)) == pytest.approx(2.0 / 2 * 3 * expected / 5, rel=1e-4)


def test_the_ramp():
    loss = facial(start_step=10, discriminator_only_steps=5, ramp_steps=3)
    assert [loss.ramp(step) for step in (0, 14, 15, 16, 17, 18, 99)] == [
        0,
        0,
        0.25,
        0.5,
        0.75,
        1,
        1,
    ]


def test_the_discriminator_halves_once_and_gives_two_features():
    logits, features = PatchDiscriminator(4, 8)(torch.zeros(3, 4, 10, 10))
    assert logits.shape == (3,)
    assert [tuple(f.shape) for f in features] == [(3, 16, 5, 5), (3, 32, 5, 5)]
