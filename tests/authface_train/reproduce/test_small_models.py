"""Models of the small experiments: lossless latents and the initial U-Net."""

import pytest
import torch

from authface_train.models.pixel_unshuffle import PixelUnshuffle
from authface_train.models.sdxl import load_base, load_vae
from authface_train.reproduce import small_models


def test_pixel_unshuffle_is_lossless_and_survives_saving(tmp_path):
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    vae = PixelUnshuffle(scaling_factor=2.0)
    posterior = vae.encode(images).latent_dist
    assert posterior.mean.shape == (2, 48, 16, 16)
    assert float(posterior.std.max()) < 1e-6
    assert float(posterior.mean.norm()) == pytest.approx(float(images.norm()))
    assert torch.equal(vae.decode(posterior.mean).sample, images)

    small_models.make_base(tmp_path, vae, 64)
    for loaded in (load_base(str(tmp_path), None, 0).vae, load_vae(str(tmp_path), None, 0)):
        assert isinstance(loaded, PixelUnshuffle)
        assert loaded.config.scaling_factor == 2.0
        assert torch.equal(loaded.decode(posterior.mean).sample, images)


def test_base_of_larger_faces_has_larger_latents(tmp_path):
    small_models.make_base(tmp_path, PixelUnshuffle(scaling_factor=2.0), size_px=128)
    pipeline = load_base(str(tmp_path), None, 0)
    assert pipeline.unet.config.sample_size == 32
    assert pipeline.vae.encode(torch.zeros(1, 3, 128, 128)).latent_dist.mean.shape[-1] == 32


def test_initial_unet_predicts_its_input_as_noise(tmp_path):
    """At the last timestep the input is almost the noise, so the initial loss is small."""
    small_models.make_base(tmp_path, PixelUnshuffle(scaling_factor=2.0), 64)
    unet = load_base(str(tmp_path), None, 0).unet
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(2, 48, 16, 16, generator=generator)
    timesteps = torch.tensor([999, 500])
    conditions = {"text_embeds": torch.zeros(2, 32), "time_ids": torch.zeros(2, 6)}
    with torch.no_grad():
        prediction = unet(
            noise, timesteps, torch.zeros(2, 77, 64), added_cond_kwargs=conditions
        ).sample
    assert float((prediction - noise).square().mean()) < 0.01
