"""The restorer agrees with training and with diffusers' own pipeline."""

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

SIZE_PX = 128


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_restorer.save_tiny_restorer(tmp_path_factory.mktemp("model"), SIZE_PX)


@pytest.fixture
def make_restorer(model):
    """Makes restorers of the tiny model with different sampling settings."""

    def make(**settings):
        return Restorer(str(model), Sampling(**{"steps": 2, "seed": 1, **settings}))

    return make


def random_faces(count):
    shape = (SIZE_PX, SIZE_PX, 3)
    return [np.random.default_rng(seed).integers(0, 255, shape, np.uint8) for seed in range(count)]


def black_face():
    return np.zeros((SIZE_PX, SIZE_PX, 3), np.uint8)


@pytest.mark.slow
def test_latents_beyond_one_are_not_clipped(make_restorer, model, monkeypatch):
    """An oracle replaces the U-Net: eps = (z_t - sqrt(abar) z_0) / sqrt(1 - abar).

    z_0 reaches 3. With a perfect prediction it must be recovered.
    """
    restorer = make_restorer(steps=20)
    clean = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    assert clean.abs().max() > 2
    alphas_cumprod = restorer.pipeline.scheduler.alphas_cumprod
    inputs = {}

    def oracle(sample, t, encoder_hidden_states=None, added_cond_kwargs=None, **_):
        inputs["embeds"] = encoder_hidden_states
        inputs["time_ids"] = added_cond_kwargs["time_ids"]
        abar = alphas_cumprod[int(t)]
        return ((sample - abar.sqrt() * clean) / (1 - abar).sqrt(),)

    decoded = []
    vae = restorer.pipeline.vae
    decode = vae.decode
    monkeypatch.setattr(restorer.pipeline.unet, "forward", oracle)
    monkeypatch.setattr(vae, "decode", lambda z: decoded.append(z) or decode(z))
    (restored,) = restorer.restore([black_face()])
    assert restored.shape == (128, 128, 3)
    assert torch.allclose(decoded[0] * vae.config.scaling_factor, clean, atol=1e-3)
    assert inputs["time_ids"].tolist() == [[128, 128, 0, 0, 128, 128]]

    # The null prompt is the encoded empty string, not zeros.
    pipeline = StableDiffusionXLControlNetPipeline.from_pretrained(model)
    embeds, *_ = pipeline.encode_prompt("", device="cpu", do_classifier_free_guidance=False)
    assert torch.equal(inputs["embeds"], embeds)


@pytest.mark.slow
def test_half_precision_latents_are_decoded_in_fp32(model, monkeypatch):
    restorer = Restorer(str(model), Sampling(steps=2), precision="bf16")
    assert restorer.pipeline.unet.dtype == restorer.pipeline.controlnet.dtype == torch.bfloat16
    dtypes = []
    vae = restorer.pipeline.vae
    decode = vae.decode
    monkeypatch.setattr(vae, "decode", lambda z: dtypes.append(z.dtype) or decode(z))
    (restored,) = restorer.restore([black_face()])
    assert dtypes == [torch.float32]
    assert restored.std() > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings", [{}, {"guidance": 3.0, "prompt": "a face", "negative_prompt": "blurred"}]
)
def test_result_equals_that_of_plain_pipeline(make_restorer, model, settings):
    """Encoded prompts, separate decoding and batches do not change the result."""
    faces = random_faces(2)
    restored_faces = make_restorer(**settings).restore(faces)
    pipeline = StableDiffusionXLControlNetPipeline.from_pretrained(model)
    pipeline.scheduler = DDPMScheduler.from_config(
        pipeline.scheduler.config, clip_sample=False, thresholding=False
    )
    for face, restored in zip(faces, restored_faces, strict=True):
        (expected,) = pipeline(
            prompt=settings.get("prompt", ""),
            negative_prompt=settings.get("negative_prompt", ""),
            image=Image.fromarray(face),
            num_inference_steps=2,
            guidance_scale=settings.get("guidance", 1.0),
            generator=torch.Generator().manual_seed(1),
        ).images
        assert np.abs(np.asarray(expected).astype(int) - restored).max() <= 1


def record_unet_inputs(restorer, monkeypatch):
    """Record (sample, timestep) of each call of the U-Net."""
    inputs = []
    unet = restorer.pipeline.unet
    forward = unet.forward

    def recording_forward(sample, timestep, *args, **kwargs):
        inputs.append((sample, timestep))
        return forward(sample, timestep, *args, **kwargs)

    monkeypatch.setattr(unet, "forward", recording_forward)
    return inputs


@pytest.mark.slow
def test_unet_sees_each_face_once_without_guidance(make_restorer, monkeypatch):
    for guidance, rows in ((1.0, 2), (2.0, 4)):
        restorer = make_restorer(guidance=guidance)
        inputs = record_unet_inputs(restorer, monkeypatch)
        restorer.restore(random_faces(2))
        assert [len(sample) for sample, _ in inputs] == [rows, rows]
        # Text encoders are not needed once the prompts are encoded.
        assert restorer.pipeline.text_encoder is None


@pytest.mark.slow
def test_seed_and_scheduler_change_result(make_restorer):
    (face,) = random_faces(1)
    restored = make_restorer().restore([face])[0]
    assert np.array_equal(restored, make_restorer().restore([face])[0])
    schedulers = ("ddim", "dpm++", "euler", "unipc")
    for different in (
        make_restorer(seed=2).restore([face])[0],
        make_restorer().restore([face], seed=2)[0],
        *(make_restorer(scheduler=name).restore([face])[0] for name in schedulers),
    ):
        assert not np.array_equal(restored, different)
    with pytest.raises(UserError, match="unknown scheduler 'ddmp'"):
        make_restorer(scheduler="ddmp")


@pytest.mark.slow
def test_start_from_degraded_face_adds_noise_of_first_step(make_restorer, monkeypatch):
    (face,) = random_faces(1)
    for scheduler in ("ddpm", "euler"):
        restorer = make_restorer(start="degraded", scheduler=scheduler, steps=20)
        inputs = record_unet_inputs(restorer, monkeypatch)
        restorer.restore([face])
        noisy, t_step = inputs[0]

        vae = restorer.pipeline.vae
        hint = torch.from_numpy(face).permute(2, 0, 1)[None].float() / 127.5 - 1
        clean = vae.encode(hint).latent_dist.mean * vae.config.scaling_factor
        noise = torch.randn(clean.shape[1:], generator=torch.Generator().manual_seed(1))
        schedule = DDPMScheduler.from_config(restorer.pipeline.scheduler.config)
        abar = schedule.alphas_cumprod[int(t_step)]
        expected = abar.sqrt() * clean[0] + (1 - abar).sqrt() * noise
        assert int(t_step) > 900
        assert torch.allclose(noisy[0], expected, atol=1e-4)


@pytest.mark.slow
def test_authors_layout_loads_with_and_without_index(model, tmp_path):
    """The authors' folder has the parts side by side, and no notes."""
    folder = tmp_path / "AuthFace"
    for part in (
        "text_encoder",
        "text_encoder_2",
        "tokenizer",
        "tokenizer_2",
        "vae",
        "unet",
        "controlnet",
        "scheduler",
    ):
        shutil.copytree(model / part, folder / part)
    sampling = dataclasses.replace(PRESETS["authors"], steps=1)
    assert sampling.guidance == 8
    assert sampling.seed == 123
    assert sampling.scheduler == "ddpm"
    assert sampling.colour_fix == "wavelet"

    restorer = Restorer(str(folder), sampling)
    assert restorer.size_px == 512
    assert restorer.notes["time_ids"] == [512, 512, 0, 0, 512, 512]
    (restored,) = restorer.restore(random_faces(1))
    shutil.copy(model / "model_index.json", folder)
    (with_index,) = Restorer(str(folder), sampling).restore(random_faces(1))
    assert np.array_equal(with_index, restored)

    shutil.rmtree(folder / "controlnet")
    with pytest.raises(UserError, match="has no controlnet"):
        Restorer(str(folder), sampling)
    with pytest.raises(MissingResourceError, match="Ethanliang99/AuthFace"):
        Restorer("Ethanliang99/AuthFace", sampling)
