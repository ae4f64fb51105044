"""Latents and prompts are computed once: keyed, memory-mapped, resumable, shared by processes."""

import json
import pickle
import re
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from accelerate import Accelerator
from safetensors import safe_open

from authface_train.data import cache as cache_module
from authface_train.data import crops as crops_module
from authface_train.data import latents as latents_module
from authface_train.data.cache import Cache, fill_cache
from authface_train.data.captions import captions_of_view
from authface_train.data.crops import Crops, cache_crops, crops_cache
from authface_train.data.degradation import REFERENCE_PX
from authface_train.data.latents import cached_latents, encode_in_batches, sample_latent
from authface_train.data.pairs import DegradedPairs
from authface_train.data.prompts import BATCH_SIZE, cached_prompts, encode_prompts
from authface_train.data.sample_keys import SampleKey
from authface_train.models.sdxl import load_vae, tiny_sdxl
from authface_train.training import processes
from manifests.captions import caption_text
from manifests.support.errors import UserError
from manifests.training_view import training_view
from manifests.workspace import Workspace


def ignore_progress(done, total):
    pass


@pytest.fixture
def accelerator():
    return Accelerator(cpu=True)


@pytest.fixture(scope="module")
def pipeline():
    return tiny_sdxl(0)


class Kill(BaseException):
    """Represents a kill: no handler catches it."""


def make_records(keys, computed=None):
    for key in keys:
        if computed is not None:
            computed.append(key)
        yield {"x": torch.full((2, 3), float(int(key, 16))), "y": torch.tensor([int(key, 16)])}


def fill(workspace, keys, accelerator, computed=None):
    cache = Cache(workspace, "cache/x")
    fill_cache(
        cache, keys, lambda missing: make_records(missing, computed), accelerator, ignore_progress
    )
    return cache


def test_cached_records_are_not_computed_again(workspace, accelerator, monkeypatch):
    monkeypatch.setattr(cache_module, "PART_RECORDS", 2)
    computed = []
    fill(workspace, ["1", "2", "3", "2"], accelerator, computed)
    assert computed == ["1", "2", "3"]
    cache = fill(workspace, ["3", "4", "1"], accelerator, computed)
    assert computed == ["1", "2", "3", "4"]
    assert all(torch.equal(cache[key]["x"], torch.full((2, 3), float(key))) for key in "1234")
    with pytest.raises(KeyError):
        cache["5"]


def test_parts_are_plain_safetensors_files(workspace, accelerator, monkeypatch):
    monkeypatch.setattr(cache_module, "PART_RECORDS", 2)
    fill(workspace, ["1", "2", "3"], accelerator)
    fill(workspace, ["4"], accelerator)
    parts = workspace.list_names("cache/x")
    assert len(parts) == 3
    with safe_open(workspace.local_path(f"cache/x/{parts[0]}"), framework="pt") as part:
        keys = json.loads(part.metadata()["keys"])
        assert part.get_tensor("x").shape == (len(keys), 2, 3)


def test_large_records_are_divided_by_their_bytes(workspace, accelerator, monkeypatch):
    record_bytes = sum(tensor.nbytes for tensor in next(make_records("1")).values())
    monkeypatch.setattr(cache_module, "PART_BYTES", 2 * record_bytes)
    fill(workspace, list("12345"), accelerator)
    assert len(workspace.list_names("cache/x")) == 3


def test_interrupted_cache_keeps_records_and_continues(workspace, accelerator, monkeypatch):
    monkeypatch.setattr(cache_module, "PART_RECORDS", 2)

    def kill_at_five(keys):
        for key, record in zip(keys, make_records(keys), strict=True):
            if key == "5":
                raise Kill
            yield record

    cache = Cache(workspace, "cache/x")
    with pytest.raises(Kill):
        fill_cache(cache, list("12345678"), kill_at_five, accelerator, ignore_progress)
    computed = []
    fill(workspace, list("12345678"), accelerator, computed)
    assert computed == list("5678")


@pytest.fixture
def fill_as_process(workspace, monkeypatch):
    """Fills a cache as one of two processes, whose main process has none of the records yet."""
    keys = list("12345")
    monkeypatch.setattr(processes, "gather_object", lambda errors: errors)
    monkeypatch.setattr(cache_module, "broadcast_object_list", lambda _: [keys])

    def fill(rank):
        computed = []
        accelerator = SimpleNamespace(num_processes=2, process_index=rank)
        cache = Cache(workspace, "cache/x")
        fill_cache(
            cache, keys, lambda keys: make_records(keys, computed), accelerator, ignore_progress
        )
        assert cache.missing(keys) == []
        return computed

    return fill


def test_processes_divide_the_missing_records_and_wait_for_those_of_others(fill_as_process):
    """The second process starts when the first has written its records."""
    with ThreadPoolExecutor(max_workers=1) as executor:
        first = executor.submit(fill_as_process, 0)
        time.sleep(0.3)
        assert not first.done()
        assert fill_as_process(1) == list("24")
        assert first.result() == list("135")


def test_records_that_another_machine_does_not_share_are_named(fill_as_process, monkeypatch):
    monkeypatch.setattr(processes, "SHARED_DISK_DELAY_S", 0.3)
    with pytest.raises(UserError, match=r"does not see the records .* to .*/cache/x; it must be"):
        fill_as_process(0)


@pytest.fixture
def copied_workspace(filled, tmp_path):
    shutil.copytree(filled, tmp_path / "ws", symlinks=True)
    return Workspace(tmp_path / "ws")


def test_latents_are_cached_per_crop_with_their_mirror_image(
    copied_workspace, pipeline, accelerator, monkeypatch
):
    view = training_view(copied_workspace)
    first = cached_latents(
        copied_workspace, pipeline.vae, view[1:], 128, accelerator, ignore_progress
    )
    assert len(first) == len(view) - 1
    assert first[0].shape == (2, 2, 4, 16, 16)

    encoded = []
    original_encode = pipeline.vae.encode

    def record_encode(images):
        encoded.append(images)
        return original_encode(images)

    monkeypatch.setattr(pipeline.vae, "encode", record_encode)
    second = cached_latents(copied_workspace, pipeline.vae, view, 128, accelerator, ignore_progress)
    assert len(encoded) == 1  # the view has one more face
    assert encoded[0].shape == (2, 3, 128, 128)
    assert torch.equal(encoded[0][0].flip(-1), encoded[0][1])
    assert encoded[0].min() >= -1
    assert all(torch.equal(second[index + 1], first[index]) for index in range(len(first)))
    posterior = original_encode(encoded[0]).latent_dist
    assert torch.allclose(second[0], torch.stack([posterior.mean, posterior.std], 1))


def test_samples_read_cached_crops_and_decode_nothing(copied_workspace, accelerator, monkeypatch):
    view = training_view(copied_workspace)
    keys = [SampleKey(0, index) for index in range(len(view))]

    def make_pairs():
        return DegradedPairs(copied_workspace, view, 128, "gfpgan", 0)

    without_cache = [make_pairs().make_pair(key, True).degraded for key in keys]
    decoded = list(Crops(copied_workspace, view, REFERENCE_PX))
    cache_crops(copied_workspace, view, REFERENCE_PX, accelerator, ignore_progress)

    def refuse(*arguments):
        raise AssertionError("a crop is decoded")

    monkeypatch.setattr(crops_module, "read_stored_picture", refuse)
    cache_crops(copied_workspace, view, REFERENCE_PX, accelerator, ignore_progress)
    pairs = pickle.loads(pickle.dumps(make_pairs()))
    assert all(map(np.array_equal, pairs.reference_crops, decoded))
    for key, degraded in zip(keys, without_cache, strict=True):
        assert torch.equal(pairs.make_pair(key, True).degraded, degraded)


def test_damaged_crop_is_named_while_crops_are_cached(copied_workspace, accelerator):
    view = training_view(copied_workspace)
    copied_workspace.local_path(view["crop_path"][1]).write_bytes(b"no picture")
    with pytest.raises(UserError, match=re.escape(view["crop_path"][1])):
        cache_crops(copied_workspace, view, REFERENCE_PX, accelerator, ignore_progress)
    cached = crops_cache(copied_workspace, REFERENCE_PX)
    assert view["crop_sha256"][0] in cached  # what was decoded before is kept


def test_another_vae_or_size_has_separate_latents(copied_workspace, pipeline, accelerator):
    view = training_view(copied_workspace)[:1]

    def encode(vae, size_px):
        return cached_latents(copied_workspace, vae, view, size_px, accelerator, ignore_progress)

    small = encode(pipeline.vae, 64)
    other = encode(load_vae("tiny", None, 1), 64)
    assert small[0].shape == other[0].shape == (2, 2, 4, 8, 8)
    assert not torch.allclose(small[0], other[0])
    encode(pipeline.vae, 128)
    assert len(copied_workspace.list_names("cache/latents")) == 3


def test_load_vae_gives_the_vae_of_the_whole_pipeline(pipeline):
    alone = load_vae("tiny", None, 0).encoder.conv_in.weight
    assert torch.equal(alone, pipeline.vae.encoder.conv_in.weight)


def test_vae_that_returns_nan_is_refused(copied_workspace, pipeline, accelerator, monkeypatch):
    original_encode = pipeline.vae.encode
    monkeypatch.setattr(pipeline.vae, "encode", lambda x: original_encode(x * float("nan")))
    view = training_view(copied_workspace)
    with pytest.raises(UserError, match="NaN"):
        cached_latents(copied_workspace, pipeline.vae, view, 128, accelerator, ignore_progress)


def encode(vae, crops, monkeypatch, batch_size=1, dtype=torch.float32):
    monkeypatch.setattr(latents_module, "batch_size", lambda size_px, device: batch_size)
    monkeypatch.setattr(latents_module, "working_dtype", lambda device: dtype)
    device = torch.device("cpu")
    return torch.stack(list(encode_in_batches(vae, iter(crops), crops.shape[1], device)))


@pytest.fixture(scope="module")
def random_crops():
    return np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), np.uint8)


def test_batches_give_the_latents_of_single_crops(pipeline, random_crops, monkeypatch):
    alone = encode(pipeline.vae, random_crops, monkeypatch)
    batched = encode(pipeline.vae, random_crops, monkeypatch, batch_size=3)
    assert alone.shape == batched.shape == (5, 2, 2, 4, 8, 8)
    assert torch.allclose(batched, alone, rtol=1e-4, atol=1e-5)
    # The second crop beside others, in a batch that is filled up.
    others = encode(pipeline.vae, random_crops[[3, 1]], monkeypatch, batch_size=3)
    assert torch.equal(others[1], batched[1])


def test_latents_in_bf16_are_within_2_percent(pipeline, random_crops, monkeypatch):
    exact = encode(pipeline.vae, random_crops, monkeypatch)
    rounded = encode(pipeline.vae, random_crops, monkeypatch, 2, torch.bfloat16)
    assert rounded.dtype == torch.float32
    error = (rounded - exact).flatten(3).norm(dim=-1) / exact.flatten(3).norm(dim=-1)
    assert 0 < float(error.max()) < 0.02
    assert pipeline.vae.dtype == torch.float32  # a copy is rounded


def test_vae_that_breaks_in_bf16_encodes_in_fp32(pipeline, random_crops, monkeypatch, caplog):
    exact = encode(pipeline.vae, random_crops, monkeypatch, 2)
    original_encode = type(pipeline.vae).encode

    def overflow_in_bf16(vae, images):
        broken = images.dtype == torch.bfloat16
        return original_encode(vae, images * float("inf") if broken else images)

    monkeypatch.setattr(type(pipeline.vae), "encode", overflow_in_bf16)
    assert torch.equal(encode(pipeline.vae, random_crops, monkeypatch, 2, torch.bfloat16), exact)
    assert caplog.text.count("encoding in float32") == 1


def test_sampled_latent_is_scaled_mean_plus_std_times_noise():
    posterior = torch.randn(2, 2, 4, 8, 8)
    noise = torch.randn((4, 8, 8), generator=torch.Generator().manual_seed(3))
    latent = sample_latent(posterior, True, torch.Generator().manual_seed(3), 0.13025)
    assert torch.allclose(latent, 0.13025 * (posterior[1, 0] + posterior[1, 1] * noise))


def test_prompts_join_both_encoders_and_encode_the_empty_caption(workspace, pipeline, accelerator):
    captions = ["a face", "", "a face"]
    prompts = cached_prompts(workspace, pipeline, captions, accelerator, ignore_progress)
    assert len(prompts) == 3
    assert prompts[0].embeds.shape == (77, 64)
    assert prompts[0].pooled.shape == (32,)
    assert torch.equal(prompts[0].embeds, prompts[2].embeds)

    states = []
    for tokenizer, encoder in (
        (pipeline.tokenizer, pipeline.text_encoder),
        (pipeline.tokenizer_2, pipeline.text_encoder_2),
    ):
        tokens = tokenizer(["a face"], padding="max_length", max_length=77, return_tensors="pt")
        output = encoder(tokens.input_ids, output_hidden_states=True)
        states.append(output.hidden_states[-2])
    assert torch.allclose(prompts[0].embeds, torch.cat(states, -1)[0], atol=1e-6)
    assert torch.allclose(prompts[0].pooled, output.text_embeds[0], atol=1e-6)
    assert float(prompts[1].embeds.abs().sum()) > 0  # encoded, not zeros


def test_only_new_captions_are_encoded(workspace, pipeline, accelerator, monkeypatch):
    batches = []
    original_encode = pipeline.encode_prompt

    def record_encode(prompt, **options):
        batches.append(prompt)
        return original_encode(prompt, **options)

    monkeypatch.setattr(pipeline, "encode_prompt", record_encode)
    for captions in (["a man", "a woman", ""], ["a man", "a girl", ""]):
        cached_prompts(workspace, pipeline, captions, accelerator, ignore_progress)
    nonempty = [[caption for caption in batch if caption] for batch in batches]
    assert nonempty == [["a man", "a woman"], ["a girl"]]
    assert all(len(batch) == BATCH_SIZE for batch in batches)


def test_embedding_does_not_depend_on_the_other_captions_of_a_batch(pipeline):
    device = torch.device("cpu")
    caption = "black hair, soft light"
    alone = encode_prompts(pipeline, [caption], device)[0]
    other_captions = [f"person {number}" for number in range(BATCH_SIZE - 1)]
    for index in (1, 7, BATCH_SIZE - 1):
        batch = [*other_captions[:index], caption, *other_captions[index:]]
        in_batch = encode_prompts(pipeline, batch, device)[index]
        assert torch.equal(in_batch["embeds"], alone["embeds"])
        assert torch.equal(in_batch["pooled"], alone["pooled"])


def make_view(face_ids, tags):
    captions = [caption_text(face_tags) for face_tags in tags]
    return pd.DataFrame({"face_id": face_ids, "tags": tags, "caption": captions})


FACE_IDS = ["a", "b", "c"]
TAGS = [["woman", "black hair", "smile", "soft light", "close-up"], ["man", "beard"], []]


def test_captions_in_fixed_order_are_those_of_the_view(pipeline):
    captions, num_cut = captions_of_view(pipeline, make_view(FACE_IDS, TAGS), 1, 0)
    assert captions == ["woman, black hair, smile, soft light, close-up", "man, beard", ""]
    assert num_cut == 0


def test_face_without_a_caption_has_the_empty_caption(pipeline):
    view = pd.DataFrame({"face_id": ["a"], "tags": [None], "caption": [None]})
    assert captions_of_view(pipeline, view, 1, 0) == ([""], 0)


def test_shuffled_captions_depend_on_seed_and_face_only(pipeline):
    view = make_view(FACE_IDS, TAGS)
    shuffled, _ = captions_of_view(pipeline, view, 4, 0)
    assert len(shuffled) == 12
    assert len(set(shuffled[:4])) > 1
    assert all(sorted(caption.split(", ")) == sorted(TAGS[0]) for caption in shuffled[:4])
    assert captions_of_view(pipeline, view, 4, 0)[0] == shuffled
    assert captions_of_view(pipeline, view, 4, 1)[0] != shuffled
    reversed_captions, _ = captions_of_view(pipeline, view[::-1], 4, 0)
    assert reversed_captions[8:] == shuffled[:4]


def test_long_caption_loses_whole_tags(pipeline):
    tags = [f"remarkable tag number {number}" for number in range(30)]
    (caption,), num_cut = captions_of_view(pipeline, make_view(["a"], [tags]), 1, 0)
    assert num_cut == 1
    kept = caption.split(", ")
    assert kept == tags[: len(kept)]
    one_tag_more = f"{caption}, {tags[len(kept)]}"
    lengths = [
        len(pipeline.tokenizer(text, truncation=False).input_ids)
        for text in (caption, one_tag_more)
    ]
    assert lengths[0] <= 77 < lengths[1]


def test_tiny_model_depends_on_its_seed_and_restores_the_global_generator():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, repeated, other = tiny_sdxl(0), tiny_sdxl(0), tiny_sdxl(1)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(first.unet.conv_in.weight, repeated.unet.conv_in.weight)
    assert not torch.equal(first.unet.conv_in.weight, other.unet.conv_in.weight)
    assert first.tokenizer_2.pad_token == "!"
    assert np.isfinite(first.unet.conv_in.weight.detach().numpy()).all()


@pytest.mark.parametrize("content", [b"", b"\xff" * 100, b"\0" * 8, "truncated", "other metadata"])
def test_damaged_part_is_made_again(workspace, accelerator, caplog, content):
    fill(workspace, ["1", "2"], accelerator)
    (name,) = workspace.list_names("cache/x")
    path = workspace.local_path(f"cache/x/{name}")
    if content == "truncated":
        content = path.read_bytes()[:-10]
    elif content == "other metadata":
        content = path.read_bytes().replace(b'"keys"', b'"kees"')
    path.write_bytes(content)
    computed = []
    cache = fill(workspace, ["1", "2"], accelerator, computed)
    assert computed == ["1", "2"]
    assert torch.equal(cache["2"]["x"], torch.full((2, 3), 2.0))
    assert "is damaged" in caplog.text
