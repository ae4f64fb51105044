"""Restoring agrees with training: with a perfect noise prediction the clean latents come back."""

import dataclasses
import shutil

import numpy as np
import pytest
import tiny_restorer
import torch
from diffusers import DDPMScheduler, StableDiffusionXLControlNetPipeline
from PIL import Image

from authface_train.restore.pipeline import Restorer
from authface_train.restore.sampling import PRESETS, Sampling
from manifests.support.errors import MissingResourceError, UserError

PX = 128


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_restorer.save(tmp_path_factory.mktemp("model"), PX)


@pytest.fixture
def make(model):
    """A restorer of that model, asked in some way."""
    return lambda **asked: Restorer(str(model), Sampling(**{"steps": 2, "seed": 1, **asked}))


def faces(count):
    return [
        np.random.default_rng(number).integers(0, 255, (PX, PX, 3), np.uint8)
        for number in range(count)
    ]


@pytest.mark.slow
def test_latents_beyond_one_are_not_clipped(make, model, monkeypatch):
    """An oracle stands for the U-Net: eps = (z_t - sqrt(abar) z_0) / sqrt(1 - abar). z_0 reaches 3."""
    restorer = make(steps=20)
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
    (made,) = restorer.restore([np.zeros((PX, PX, 3), np.uint8)])
    assert made.shape == (128, 128, 3)
    assert torch.allclose(
        decoded[0] * restorer.pipeline.vae.config.scaling_factor, clean, atol=1e-3
    )
    assert seen["time_ids"].tolist() == [[128, 128, 0, 0, 128, 128]]
    whole = StableDiffusionXLControlNetPipeline.from_pretrained(model)
    encoded, *_ = whole.encode_prompt("", device="cpu", do_classifier_free_guidance=False)
    assert torch.equal(seen["embeds"], encoded)  # the null prompt is the encoded ""


@pytest.mark.slow
def test_half_latents_are_decoded_in_fp32(model, monkeypatch):
    restorer = Restorer(str(model), Sampling(steps=2), precision="bf16")
    assert restorer.pipeline.unet.dtype == restorer.pipeline.controlnet.dtype == torch.bfloat16
    seen = []
    decode = restorer.pipeline.vae.decode
    monkeypatch.setattr(
        restorer.pipeline.vae, "decode", lambda z: seen.append(z.dtype) or decode(z)
    )
    (made,) = restorer.restore([np.zeros((PX, PX, 3), np.uint8)])
    assert seen == [torch.float32]
    assert made.std() > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "asked", [{}, {"guidance": 3.0, "prompt": "a face", "negative_prompt": "blurred"}]
)
def test_it_is_the_plain_pipelines_result(make, model, asked):
    """Prompts encoded once, our decoding and batches change nothing of what diffusers' own pipeline makes."""
    pictures = faces(2)
    together = make(**asked).restore(pictures)
    pipeline = StableDiffusionXLControlNetPipeline.from_pretrained(model)
    pipeline.scheduler = DDPMScheduler.from_config(
        pipeline.scheduler.config, clip_sample=False, thresholding=False
    )
    for picture, made in zip(pictures, together, strict=True):
        (plain,) = pipeline(
            prompt=asked.get("prompt", ""), negative_prompt=asked.get("negative_prompt", ""), image=Image.fromarray(picture),
            num_inference_steps=2, guidance_scale=asked.get("guidance", 1.0), generator=torch.Generator().manual_seed(1),
        ).images  # fmt: skip
        assert np.abs(np.asarray(plain).astype(int) - made).max() <= 1


@pytest.mark.slow
def test_without_guidance_the_unet_sees_each_face_once(make, monkeypatch):
    for guidance, rows in ((1.0, 2), (2.0, 4)):
        restorer = make(guidance=guidance)
        seen = []
        forward = restorer.pipeline.unet.forward
        monkeypatch.setattr(
            restorer.pipeline.unet,
            "forward",
            lambda x, *a, f=forward, s=seen, **k: s.append(len(x)) or f(x, *a, **k),
        )
        restorer.restore(faces(2))
        assert seen == [rows, rows]
        assert restorer.pipeline.text_encoder is None  # it has said all it has to say


@pytest.mark.slow
def test_seeds_schedulers_and_scales_count(make):
    (face,) = faces(1)
    plain = make().restore([face])[0]
    assert np.array_equal(plain, make().restore([face])[0])
    for other in (
        make(seed=2).restore([face])[0],
        make().restore([face], seed=2)[0],
        *(make(scheduler=name).restore([face])[0] for name in ("ddim", "dpm++", "euler", "unipc")),
    ):
        assert not np.array_equal(plain, other)
    with pytest.raises(UserError, match="no scheduler 'ddmp'"):
        make(scheduler="ddmp")


@pytest.mark.slow
def test_a_start_from_the_degraded_face_has_it_under_the_first_steps_noise(make, monkeypatch):
    (face,) = faces(1)
    for scheduler in ("ddpm", "euler"):
        restorer = make(start="degraded", scheduler=scheduler, steps=20)
        seen = []
        forward = restorer.pipeline.unet.forward
        monkeypatch.setattr(
            restorer.pipeline.unet,
            "forward",
            lambda x, t, *a, f=forward, s=seen, **k: s.append((x, t)) or f(x, t, *a, **k),
        )
        restorer.restore([face])
        noisy, t_step = seen[0]
        vae = restorer.pipeline.vae
        hint = torch.from_numpy(face).permute(2, 0, 1)[None].float() / 127.5 - 1
        clean = vae.encode(hint).latent_dist.mean * vae.config.scaling_factor
        noise = torch.randn(clean.shape[1:], generator=torch.Generator().manual_seed(1))
        abar = DDPMScheduler.from_config(restorer.pipeline.scheduler.config).alphas_cumprod[
            int(t_step)
        ]
        assert int(t_step) > 900
        assert torch.allclose(
            noisy[0], abar.sqrt() * clean[0] + (1 - abar).sqrt() * noise, atol=1e-4
        )


@pytest.mark.slow
def test_the_authors_layout_with_and_without_an_index(model, tmp_path):
    """text_encoder(_2), tokenizer(_2), vae, unet, controlnet, scheduler side by side, and nothing of ours."""
    theirs = tmp_path / "AuthFace"
    parts = (
        "text_encoder",
        "text_encoder_2",
        "tokenizer",
        "tokenizer_2",
        "vae",
        "unet",
        "controlnet",
        "scheduler",
    )
    for part in parts:
        shutil.copytree(model / part, theirs / part)
    asked = dataclasses.replace(PRESETS["authors"], steps=1)
    assert (asked.guidance, asked.seed, asked.scheduler, asked.colour_fix) == (
        8,
        123,
        "ddpm",
        "wavelet",
    )
    restorer = Restorer(str(theirs), asked)
    assert restorer.size_px == 512
    assert restorer.notes["time_ids"] == [512, 512, 0, 0, 512, 512]
    (made,) = restorer.restore(faces(1))
    shutil.copy(model / "model_index.json", theirs)
    assert np.array_equal(Restorer(str(theirs), asked).restore(faces(1))[0], made)
    shutil.rmtree(theirs / "controlnet")
    with pytest.raises(UserError, match="has no controlnet"):
        Restorer(str(theirs), asked)
    with pytest.raises(MissingResourceError, match="Ethanliang99/AuthFace"):
        Restorer("Ethanliang99/AuthFace", asked)
