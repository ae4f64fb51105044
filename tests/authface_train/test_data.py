"""Counters, latents, prompts and degradations."""

import io

import cv2
import numpy as np
import pytest
import torch

from authface_train.data.counters import micro_batches, numpy_generator, step_draws, torch_generator
from authface_train.data.degrade import PRESETS, Drawn, blur_kernel, degrade, draw
from authface_train.data.prompts import time_ids


def test_every_epoch_has_every_face_once_in_a_new_order():
    flat = [d for step in range(15) for d in step_draws(7, step, 4, 10)]
    by_epoch = [[d.index for d in flat if d.epoch == epoch] for epoch in range(6)]
    assert all(sorted(order) == list(range(10)) for order in by_epoch)
    assert len({tuple(order) for order in by_epoch}) == 6
    assert step_draws(7, 3, 4, 10) == step_draws(7, 3, 4, 10) != step_draws(8, 3, 4, 10)


@pytest.mark.parametrize(("world", "size"), [(1, 12), (1, 3), (2, 3), (4, 1), (3, 2)])
def test_processes_and_micro_batches_divide_the_global_batch(world, size):
    draws = step_draws(0, 5, 12, 7)
    parts = [piece for rank in range(world) for piece in micro_batches(draws, rank, world, size)]
    assert [draw for piece in parts for draw in piece] == draws
    assert all(len(piece) == size for piece in parts)


def test_generators_differ_by_each_counter_and_leave_the_global_one():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    base = torch.rand(3, generator=torch_generator(0, 0, "a", "noise"))
    assert torch.equal(base, torch.rand(3, generator=torch_generator(0, 0, "a", "noise")))
    for other in ((1, 0, "a", "noise"), (0, 1, "a", "noise"), (0, 0, "b", "noise"), (0, 0, "a", "degrade")):
        assert not torch.equal(base, torch.rand(3, generator=torch_generator(*other)))
    assert torch.equal(before, torch.get_rng_state())
    assert numpy_generator(0, 0, "a", "x").uniform() == numpy_generator(0, 0, "a", "x").uniform()


def test_time_ids():
    assert time_ids(1024) == [1024, 1024, 0, 0, 1024, 1024]


def picture():
    rng = np.random.default_rng(0)
    return cv2.GaussianBlur(rng.integers(0, 255, (256, 256, 3), np.uint8), (0, 0), 3)


def drawn(**changes) -> Drawn:
    plain = {
        "sigmas_px": (2.0, 2.0), "turn_rad": 0.0, "down": 2.0, "noise": 5.0, "noise_seed": 1, "jpeg": 80, "shift": None,
        "grey": False, "jitter": None, "jitter_order": (0, 1, 2, 3), "rounded": True,
    }  # fmt: skip
    return Drawn(**{**plain, **changes})


@pytest.mark.parametrize("name", PRESETS)
def test_presets_draw_within_their_ranges(name):
    ranges = PRESETS[name]
    draws = [draw(ranges, np.random.default_rng(seed)) for seed in range(400)]
    for key, bounds in (("down", ranges.down), ("noise", ranges.noise), ("jpeg", ranges.jpeg)):
        values = np.array([getattr(d, key) for d in draws])
        assert bounds[0] <= values.min()
        assert values.max() <= bounds[1]
        assert np.ptp(values) > 0.9 * (bounds[1] - bounds[0])
    assert all(isinstance(d.jpeg, int) for d in draws)
    round_share = np.mean([d.sigmas_px[0] == d.sigmas_px[1] for d in draws])
    assert 0.4 < round_share < 0.6
    for key, share in (("shift", ranges.p_shift), ("jitter", ranges.p_jitter)):
        assert np.mean([getattr(d, key) is not None for d in draws]) == pytest.approx(share, abs=0.08)


def test_the_same_draw_gives_the_same_picture_and_another_another():
    assert np.array_equal(degrade(picture(), drawn()), degrade(picture(), drawn()))
    for change in (
        {"noise_seed": 2},
        {"jpeg": 60},
        {"down": 3.0},
        {"sigmas_px": (4.0, 1.0)},
        {"grey": True},
        {"shift": (0.05, 0, 0)},
    ):
        assert not np.array_equal(degrade(picture(), drawn()), degrade(picture(), drawn(**change)))


def test_the_plain_steps_are_the_recipes():
    """Blur, halving, noise, JPEG and back, each written out with other tools."""
    from PIL import Image
    from scipy import ndimage

    made = degrade(picture(), drawn())
    image = picture().astype(np.float64) / 255
    image = np.stack(
        [ndimage.convolve(image[..., c], blur_kernel((2, 2), 0).astype(float), mode="mirror") for c in range(3)], -1
    )
    image = np.stack([(image[0::2, 0::2] + image[1::2, 0::2] + image[0::2, 1::2] + image[1::2, 1::2]) / 4], -1)[..., 0]
    noise = np.random.default_rng(1).standard_normal((128, 128, 3), np.float32) * 5 / 255
    image = np.clip(image + noise, 0, 1)
    out = io.BytesIO()
    Image.fromarray(np.rint(image * 255).astype(np.uint8)).save(out, "JPEG", quality=80, subsampling=2)
    image = np.asarray(Image.open(out).resize((256, 256), Image.Resampling.BILINEAR), float) / 255
    error = np.mean((made - image) ** 2)
    assert 10 * np.log10(1 / error) > 40


def test_an_upright_kernel_is_a_gaussian_and_a_turned_one_is_turned():
    kernel = blur_kernel((3.0, 1.0), 0.0)
    axis = np.arange(41) - 20
    plain = np.exp(-0.5 * (axis[None] ** 2 / 9 + axis[:, None] ** 2))
    assert np.abs(kernel - plain / plain.sum()).max() < 1e-6
    assert np.allclose(blur_kernel((3.0, 1.0), np.pi / 2), kernel.T, atol=1e-6)
    assert float(blur_kernel((8.0, 2.0), 0.7).sum()) == pytest.approx(1, abs=1e-5)
