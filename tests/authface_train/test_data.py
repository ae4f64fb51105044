"""Counters, latents, prompts and degradations."""

import io

import cv2
import numpy as np
import pytest
import torch
from accelerate import Accelerator

from authface_train.data.counters import Draw, micro_batches, numpy_generator, step_draws, torch_generator
from authface_train.data.degrade import PRESETS, Drawn, blur_kernel, degrade, draw
from authface_train.data.latents import cached_latents, sample_latent
from authface_train.data.prompts import captions_of, encode_prompts, time_ids
from authface_train.prior import PriorTrainer
from authface_train.sdxl import tiny_sdxl
from authface_train.settings import load_preset
from manifests.views import training_view
from manifests.workspace import Workspace


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


@pytest.fixture(scope="module")
def pipeline():
    return tiny_sdxl(0)


def test_latents_are_cached_per_crop_and_both_flips(filled, pipeline, tmp_path, monkeypatch):
    import shutil

    shutil.copytree(filled, tmp_path / "ws", symlinks=True)
    workspace = Workspace(tmp_path / "ws")
    view = training_view(workspace)
    made = cached_latents(workspace, pipeline.vae, view, 128, torch.device("cpu"), lambda *_: None)
    assert made.shape == (len(view), 2, 2, 4, 16, 16)
    (folder,) = workspace.list("cache/latents")
    assert len(workspace.list(f"cache/latents/{folder}")) == len(view)
    encoded = []
    encode = pipeline.vae.encode
    monkeypatch.setattr(pipeline.vae, "encode", lambda x: encoded.append(x) or encode(x))
    again = cached_latents(workspace, pipeline.vae, view, 128, torch.device("cpu"), lambda *_: None)
    assert torch.equal(again, made)
    assert encoded == []
    workspace.remove(f"cache/latents/{folder}/{workspace.list(f'cache/latents/{folder}')[0]}")
    assert torch.equal(cached_latents(workspace, pipeline.vae, view, 128, torch.device("cpu"), lambda *_: None), made)
    assert len(encoded) == 1
    assert encoded[0].shape == (2, 3, 128, 128)
    assert torch.equal(encoded[0][0].flip(-1), encoded[0][1])
    assert encoded[0].min() >= -1


def test_a_vae_that_gives_nan_is_refused(filled, pipeline, monkeypatch, tmp_path):
    import shutil

    shutil.copytree(filled, tmp_path / "ws", symlinks=True)
    workspace = Workspace(tmp_path / "ws")
    encode = pipeline.vae.encode
    monkeypatch.setattr(pipeline.vae, "encode", lambda x: encode(x * float("nan")))
    with pytest.raises(RuntimeError, match="NaN"):
        cached_latents(workspace, pipeline.vae, training_view(workspace), 128, torch.device("cpu"), lambda *_: None)


def test_a_sample_is_scale_times_mean_plus_std_times_noise():
    cached = torch.randn(2, 2, 4, 8, 8)
    noise = torch.randn((4, 8, 8), generator=torch.Generator().manual_seed(3))
    made = sample_latent(cached, True, torch.Generator().manual_seed(3), 0.13025)
    assert torch.allclose(made, 0.13025 * (cached[1, 0] + cached[1, 1] * noise))


def test_prompts_are_both_encoders_second_last_states_and_the_empty_one_is_encoded(pipeline):
    made = encode_prompts(pipeline, ["a face", "", "a face"], torch.device("cpu"))
    assert made.embeds.shape == (2, 77, 64)
    assert made.pooled.shape == (2, 32)
    assert made.of_row == [0, 1, 0]
    states = []
    for tokenizer, encoder in (
        (pipeline.tokenizer, pipeline.text_encoder), (pipeline.tokenizer_2, pipeline.text_encoder_2),
    ):  # fmt: skip
        ids = tokenizer(["a face"], padding="max_length", max_length=77, return_tensors="pt").input_ids
        out = encoder(ids, output_hidden_states=True)
        states.append(out.hidden_states[-2])
    assert torch.allclose(made.embeds[0], torch.cat(states, -1)[0], atol=1e-6)
    assert torch.allclose(made.pooled[0], out.text_embeds[0], atol=1e-6)
    assert float(made.embeds[1].abs().sum()) > 0  # encoded, not zeros


def test_captions_keep_their_order_or_have_several(pipeline):
    tags = [["woman", "black hair", "smile", "soft light", "close-up"], ["man", "beard"], []]
    captions, cut = captions_of(pipeline, tags, ["a", "b", "c"], 1, 0)
    assert captions == ["woman, black hair, smile, soft light, close-up", "man, beard", ""]
    assert cut == 0
    shuffled, _ = captions_of(pipeline, tags, ["a", "b", "c"], 4, 0)
    assert len(shuffled) == 12
    assert len(set(shuffled[:4])) > 1
    assert all(sorted(one.split(", ")) == sorted(tags[0]) for one in shuffled[:4])
    assert captions_of(pipeline, tags, ["a", "b", "c"], 4, 0)[0] == shuffled
    assert captions_of(pipeline, tags, ["a", "b", "c"], 4, 1)[0] != shuffled
    assert captions_of(pipeline, tags[::-1], ["c", "b", "a"], 4, 0)[0][8:] == shuffled[:4]  # a face's orders are its own


def test_what_the_encoders_would_not_see_is_left_out_in_whole_tags(pipeline):
    tags = [f"remarkable tag number {number}" for number in range(30)]
    (caption,), cut = captions_of(pipeline, [tags], ["a"], 1, 0)
    assert cut == 1
    kept = caption.split(", ")
    assert kept == tags[: len(kept)]
    lengths = [len(pipeline.tokenizer(text, truncation=False).input_ids) for text in (caption, f"{caption}, {tags[len(kept)]}")]
    assert lengths[0] <= 77 < lengths[1]


def test_an_epoch_has_the_next_order_of_a_caption(filled, pipeline, tmp_path):
    view = training_view(Workspace(filled))
    settings = load_preset("prior", "tiny", ["tag_order=shuffled", "tag_orders=3"])
    captions, _ = captions_of(pipeline, view["tags"].tolist(), view["face_id"].tolist(), settings.orders, settings.seed)
    prompts = encode_prompts(pipeline, captions, torch.device("cpu"))
    latents = torch.zeros(len(view), 2, 2, 4, 16, 16)
    trainer = PriorTrainer(settings, pipeline, view, latents, prompts, Accelerator(cpu=True))
    assert len({prompts.of_row[place] for place in range(3)}) > 1
    for epoch in range(4):
        sample = trainer.sample(Draw(epoch, 1))
        assert torch.equal(sample["embeds"], prompts.embeds[prompts.of_row[3 + epoch % 3]])


def test_time_ids():
    assert time_ids(1024) == [1024, 1024, 0, 0, 1024, 1024]


def test_the_tiny_model_is_the_same_for_the_same_seed_and_leaves_the_global_generator():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    a, b, c = tiny_sdxl(0), tiny_sdxl(0), tiny_sdxl(1)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(a.unet.conv_in.weight, b.unet.conv_in.weight)
    assert not torch.equal(a.unet.conv_in.weight, c.unet.conv_in.weight)
    assert a.tokenizer_2.pad_token == "!"


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
