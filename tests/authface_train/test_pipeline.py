"""Restoring agrees with training: with a perfect noise prediction the clean latents come back."""

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionXLControlNetPipeline

from authface_train.pipeline import Restorer
from authface_train.restorer import make_controlnet
from authface_train.sdxl import tiny_sdxl


@pytest.fixture
def restorer(tmp_path):
    base = tiny_sdxl(0)
    controlnet = make_controlnet(base.unet, 0, 8)
    StableDiffusionXLControlNetPipeline(**base.components, controlnet=controlnet).save_pretrained(tmp_path)
    (tmp_path / "authface.json").write_text('{"resolution_px": 128, "time_ids": [128, 128, 0, 0, 128, 128]}')
    return Restorer(str(tmp_path))


def test_latents_beyond_one_are_not_clipped(restorer, monkeypatch):
    """An oracle stands for the U-Net: eps = (z_t - sqrt(abar) z_0) / sqrt(1 - abar). z_0 reaches 3."""
    clean = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    assert clean.abs().max() > 2
    abar = restorer.pipeline.scheduler.alphas_cumprod
    seen = {}

    def oracle(sample, t, encoder_hidden_states=None, added_cond_kwargs=None, **_):
        seen.update(embeds=encoder_hidden_states, time_ids=added_cond_kwargs["time_ids"])
        share = abar[int(t)]
        return ((sample - share.sqrt() * clean) / (1 - share).sqrt(),)

    decoded = []
    monkeypatch.setattr(restorer.pipeline.unet, "forward", oracle)
    decode = restorer.pipeline.vae.decode
    monkeypatch.setattr(restorer.pipeline.vae, "decode", lambda z: decoded.append(z) or decode(z))
    (made,) = restorer.restore([np.zeros((128, 128, 3), np.uint8)], steps=20, seed=1)
    assert made.shape == (128, 128, 3)
    assert torch.allclose(decoded[0] * restorer.pipeline.vae.config.scaling_factor, clean, atol=1e-3)
    assert seen["time_ids"].tolist() == [[128, 128, 0, 0, 128, 128]]
    encoded, *_ = restorer.pipeline.encode_prompt("", device="cpu", do_classifier_free_guidance=False)
    assert torch.equal(seen["embeds"], encoded)  # the null prompt is the encoded ""


def test_half_latents_are_decoded_in_fp32(restorer, monkeypatch):
    restorer.pipeline.unet.to(torch.bfloat16)
    restorer.pipeline.controlnet.to(torch.bfloat16)
    restorer.pipeline.text_encoder.to(torch.bfloat16)
    restorer.pipeline.text_encoder_2.to(torch.bfloat16)
    seen = []
    decode = restorer.pipeline.vae.decode
    monkeypatch.setattr(restorer.pipeline.vae, "decode", lambda z: seen.append(z.dtype) or decode(z))
    (made,) = restorer.restore([np.zeros((128, 128, 3), np.uint8)], steps=2, seed=1)
    assert seen == [torch.float32]
    assert made.std() > 0
