"""Latents and prompts are made once: keyed, memory-mapped, resumable, shared by processes."""

import json
import shutil

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from safetensors import safe_open

from authface_train.data import cache as cache_module
from authface_train.data.cache import Cache, fill
from authface_train.data.captions import captions_of
from authface_train.data.latents import cached_latents, sample_latent
from authface_train.data.prompts import TOGETHER, cached_prompts, encode
from authface_train.models.sdxl import load_vae, tiny_sdxl
from manifests.support.errors import UserError
from manifests.training_view import training_view
from manifests.workspace import Workspace


def quiet(*_):
    return None


@pytest.fixture(scope="module")
def accelerator():
    return Accelerator(cpu=True)


@pytest.fixture(scope="module")
def pipeline():
    return tiny_sdxl(0)


class Stop(BaseException):
    """Stands for a kill: nothing catches it."""


def records(keys, made=None):
    for key in keys:
        if made is not None:
            made.append(key)
        yield {"x": torch.full((2, 3), float(int(key, 16))), "y": torch.tensor([int(key, 16)])}


def test_what_is_there_is_not_made_again_and_parts_are_plain_files(
    workspace, accelerator, monkeypatch
):
    monkeypatch.setattr(cache_module, "PART_RECORDS", 2)
    made = []
    fill(
        Cache(workspace, "cache/x"),
        ["1", "2", "3", "2"],
        lambda keys: records(keys, made),
        accelerator,
        quiet,
    )
    assert made == ["1", "2", "3"]
    again = Cache(workspace, "cache/x")
    fill(again, ["3", "4", "1"], lambda keys: records(keys, made), accelerator, quiet)
    assert made == ["1", "2", "3", "4"]
    assert all(torch.equal(again[key]["x"], torch.full((2, 3), float(key))) for key in "1234")
    parts = workspace.list("cache/x")
    assert len(parts) == 3
    with safe_open(workspace.local(f"cache/x/{parts[0]}"), framework="pt") as part:
        keys = json.loads(part.metadata()["keys"])
        assert part.get_tensor("x").shape == (len(keys), 2, 3)
    with pytest.raises(KeyError):
        again["5"]


def test_stopped_in_the_middle_it_keeps_what_it_has_and_goes_on(
    workspace, accelerator, monkeypatch
):
    monkeypatch.setattr(cache_module, "PART_RECORDS", 2)

    def until_five(keys):
        for key, record in zip(keys, records(keys), strict=True):
            if key == "5":
                raise Stop
            yield record

    with pytest.raises(Stop):
        fill(Cache(workspace, "cache/x"), list("12345678"), until_five, accelerator, quiet)
    made = []
    fill(
        Cache(workspace, "cache/x"),
        list("12345678"),
        lambda keys: records(keys, made),
        accelerator,
        quiet,
    )
    assert made == list("5678")


def test_each_process_makes_its_share(workspace, monkeypatch):
    class Two:
        num_processes = 2

        def __init__(self, index):
            self.process_index = index

    monkeypatch.setattr(cache_module, "gather_object", lambda refusals: refusals)
    made = [[], []]
    for rank in (0, 1):
        cache = Cache(workspace, "cache/x")
        monkeypatch.setattr(
            cache, "missing", lambda keys: list(keys)
        )  # both look before either has made any
        fill(
            cache,
            list("12345"),
            lambda keys, rank=rank: records(keys, made[rank]),
            Two(rank),
            quiet,
        )
    assert made == [list("135"), list("24")]
    assert Cache(workspace, "cache/x").missing("12345") == []


@pytest.fixture
def mine(filled, tmp_path):
    shutil.copytree(filled, tmp_path / "ws", symlinks=True)
    return Workspace(tmp_path / "ws")


def test_latents_are_cached_per_crop_and_both_flips(mine, pipeline, accelerator, monkeypatch):
    view = training_view(mine)
    made = cached_latents(mine, pipeline.vae, view[1:], 128, accelerator, quiet)
    assert (len(made), made[0].shape) == (len(view) - 1, (2, 2, 4, 16, 16))
    encoded = []
    encode_ = pipeline.vae.encode
    monkeypatch.setattr(pipeline.vae, "encode", lambda x: encoded.append(x) or encode_(x))
    again = cached_latents(mine, pipeline.vae, view, 128, accelerator, quiet)  # one face has come
    assert len(encoded) == 1
    assert encoded[0].shape == (2, 3, 128, 128)
    assert torch.equal(encoded[0][0].flip(-1), encoded[0][1])
    assert encoded[0].min() >= -1
    assert all(torch.equal(again[place + 1], made[place]) for place in range(len(made)))
    posterior = encode_(encoded[0]).latent_dist
    assert torch.allclose(again[0], torch.stack([posterior.mean, posterior.std], 1))


def test_another_vae_or_size_has_latents_of_its_own(mine, pipeline, accelerator):
    view = training_view(mine)[:1]
    small = cached_latents(mine, pipeline.vae, view, 64, accelerator, quiet)
    other = cached_latents(mine, load_vae("tiny", None, 1), view, 64, accelerator, quiet)
    assert small[0].shape == other[0].shape == (2, 2, 4, 8, 8)
    assert not torch.allclose(small[0], other[0])
    cached_latents(mine, pipeline.vae, view, 128, accelerator, quiet)
    assert len(mine.list("cache/latents")) == 3
    assert torch.equal(
        load_vae("tiny", None, 0).encoder.conv_in.weight, pipeline.vae.encoder.conv_in.weight
    )


def test_a_vae_that_gives_nan_is_refused(mine, pipeline, accelerator, monkeypatch):
    encode_ = pipeline.vae.encode
    monkeypatch.setattr(pipeline.vae, "encode", lambda x: encode_(x * float("nan")))
    with pytest.raises(UserError, match="NaN"):
        cached_latents(mine, pipeline.vae, training_view(mine), 128, accelerator, quiet)


def test_a_sample_is_scale_times_mean_plus_std_times_noise():
    cached = torch.randn(2, 2, 4, 8, 8)
    noise = torch.randn((4, 8, 8), generator=torch.Generator().manual_seed(3))
    made = sample_latent(cached, True, torch.Generator().manual_seed(3), 0.13025)
    assert torch.allclose(made, 0.13025 * (cached[1, 0] + cached[1, 1] * noise))


def test_prompts_are_both_encoders_second_last_states_and_the_empty_one_is_encoded(
    workspace, pipeline, accelerator
):
    made = cached_prompts(workspace, pipeline, ["a face", "", "a face"], accelerator, quiet)
    assert len(made) == 3
    assert made[0].embeds.shape == (77, 64)
    assert made[0].pooled.shape == (32,)
    assert torch.equal(made[0].embeds, made[2].embeds)
    states = []
    for tokenizer, encoder in (
        (pipeline.tokenizer, pipeline.text_encoder), (pipeline.tokenizer_2, pipeline.text_encoder_2),
    ):  # fmt: skip
        ids = tokenizer(
            ["a face"], padding="max_length", max_length=77, return_tensors="pt"
        ).input_ids
        out = encoder(ids, output_hidden_states=True)
        states.append(out.hidden_states[-2])
    assert torch.allclose(made[0].embeds, torch.cat(states, -1)[0], atol=1e-6)
    assert torch.allclose(made[0].pooled, out.text_embeds[0], atol=1e-6)
    assert float(made[1].embeds.abs().sum()) > 0  # encoded, not zeros


def test_a_changed_caption_alone_is_encoded_again(workspace, pipeline, accelerator, monkeypatch):
    asked = []
    encode_ = pipeline.encode_prompt
    monkeypatch.setattr(
        pipeline,
        "encode_prompt",
        lambda prompt, **given: asked.append(prompt) or encode_(prompt, **given),
    )
    cached_prompts(workspace, pipeline, ["a man", "a woman", ""], accelerator, quiet)
    cached_prompts(workspace, pipeline, ["a man", "a girl", ""], accelerator, quiet)
    assert [[text for text in batch if text] for batch in asked] == [
        ["a man", "a woman"],
        ["a girl"],
    ]
    assert all(len(batch) == TOGETHER for batch in asked)


def test_a_captions_embedding_does_not_depend_on_its_company(pipeline):
    device = torch.device("cpu")
    alone = encode(pipeline, ["black hair, soft light"], device)[0]
    company = [f"person {number}" for number in range(TOGETHER - 1)]
    for place in (1, 7, TOGETHER - 1):
        among = encode(
            pipeline, [*company[:place], "black hair, soft light", *company[place:]], device
        )[place]
        assert torch.equal(among["embeds"], alone["embeds"])
        assert torch.equal(among["pooled"], alone["pooled"])


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
    assert (
        captions_of(pipeline, tags[::-1], ["c", "b", "a"], 4, 0)[0][8:] == shuffled[:4]
    )  # a face's orders are its own


def test_what_the_encoders_would_not_see_is_left_out_in_whole_tags(pipeline):
    tags = [f"remarkable tag number {number}" for number in range(30)]
    (caption,), cut = captions_of(pipeline, [tags], ["a"], 1, 0)
    assert cut == 1
    kept = caption.split(", ")
    assert kept == tags[: len(kept)]
    lengths = [
        len(pipeline.tokenizer(text, truncation=False).input_ids)
        for text in (caption, f"{caption}, {tags[len(kept)]}")
    ]
    assert lengths[0] <= 77 < lengths[1]


def test_the_tiny_model_is_the_same_for_the_same_seed_and_leaves_the_global_generator():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    a, b, c = tiny_sdxl(0), tiny_sdxl(0), tiny_sdxl(1)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(a.unet.conv_in.weight, b.unet.conv_in.weight)
    assert not torch.equal(a.unet.conv_in.weight, c.unet.conv_in.weight)
    assert a.tokenizer_2.pad_token == "!"
    assert np.isfinite(a.unet.conv_in.weight.detach().numpy()).all()
