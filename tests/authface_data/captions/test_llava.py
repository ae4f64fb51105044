"""The llava captioner with the real classes: a tiny LLaVA-NeXT from configuration, saved as a checkpoint and loaded by name."""

import functools

import numpy as np
import pytest
import tiny_llava
from PIL import Image

from authface_data.captions import prompts
from authface_data.captions.compose import NoTags
from authface_data.captions.llava import MAX_NEW_TOKENS, LlavaStage
from authface_data.engine.stage import Item
from authface_data.faces.stage import encode_lossless
from authface_data.images.open import Photo
from manifests.settings import Captions
from manifests.support.errors import MissingResourceError, UserError

QUESTION = "What is shown in this image?"
# The prompts as the checkpoints' authors give them (documentation of LLaVA-NeXT in transformers).
GOLDEN = {
    "mistral": f"[INST] <image>\n{QUESTION} [/INST]",
    "vicuna": "A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    f"and polite answers to the human's questions. USER: <image>\n{QUESTION} ASSISTANT:",
    "34b": f"<|im_start|>system\nAnswer the questions.<|im_end|><|im_start|>user\n<image>\n{QUESTION}<|im_end|>"
    "<|im_start|>assistant\n",
}
# The tiling of all LLaVA-1.6 checkpoints: 336 px tiles, a square crop is cut into two by two and seen whole beside.
GRID = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
IMAGE_TOKENS = 24 * 24 + 48 * (48 + 1)


@pytest.fixture(scope="module", params=["vicuna", "mistral"])
def checkpoint(request, tmp_path_factory):
    return tiny_llava.save(tmp_path_factory.mktemp("llava"), request.param)


def stage_of(checkpoint, **settings):
    stage = LlavaStage(Captions(model=str(checkpoint), **settings), None)
    stage.setup("cpu")
    return stage


def crops(count):
    rng = np.random.default_rng(0)
    return [rng.integers(0, 255, (64, 64, 3), np.uint8) for _ in range(count)]


def item(key, crop, **row):
    data = encode_lossless(crop, "png")
    return Item(key, row, Photo(lambda: data))


def test_a_batch_is_captioned_as_its_members_alone(checkpoint):
    stage = stage_of(checkpoint)
    together = stage.answers(crops(3))
    assert together == [stage.answers([crop])[0] for crop in crops(3)]
    assert len({tuple(said) for said in together}) > 1  # it does look at the pictures
    assert all(len(said) == 2 and said[0] != said[1] for said in together)


def test_both_questions_over_one_encoding_are_answered_as_each_by_itself(checkpoint):
    """The plain way of transformers, one question with its image at a time, is the reference."""
    import torch

    stage = stage_of(checkpoint)
    seen = []
    original = stage._model.model.get_image_features

    @functools.wraps(original)
    def counted(*args, **options):
        seen.append(1)
        return original(*args, **options)

    stage._model.model.get_image_features = counted
    (said,) = stage.answers(crops(1))
    assert len(seen) == 1
    for question, answer in zip(prompts.QUESTIONS, said, strict=True):
        text = prompts.build_prompt(stage._processor, stage._model.config, question)
        inputs = stage._processor(
            images=[Image.fromarray(crops(1)[0])], text=[text], return_tensors="pt"
        )
        with torch.inference_mode():
            made = stage._model.generate(**inputs, max_new_tokens=MAX_NEW_TOKENS, do_sample=False)
        plain = stage._processor.batch_decode(
            made[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True
        )
        assert plain[0].strip() == answer
        assert "ASSISTANT" not in answer  # only what is new is decoded


def test_a_row_holds_what_was_said_and_by_whom(checkpoint):
    stage = stage_of(checkpoint)
    stage.answers = lambda crops: [
        ["Woman, Long black hair", "Black and white, smiling"] for _ in crops
    ]
    colour = {"facet": "colour", "tag": "colour photograph", "value": 40.0, "confidence": 0.99}
    (result,) = stage.process([item("a", crops(1)[0], measurements=[colour])], lambda *_: None)
    (row,) = result.rows
    assert (row["captioner"], row["model"], len(row["prompt_hash"])) == (
        "llava",
        str(checkpoint),
        16,
    )
    assert row["raw_answers"] == ["Woman, Long black hair", "Black and white, smiling"]
    assert row["caption"] == "woman, long black hair, smile"
    assert row["contradictions"] == [
        {"tag": "black and white", "against": "colour photograph", "confidence": 0.99}
    ]
    assert (
        row["measured_tags"] == []
    )  # that a picture has colour is measured, and said by no caption


def test_an_answer_without_tags_is_a_failure(checkpoint):
    stage = stage_of(checkpoint)
    stage.answers = lambda crops: [[" , ", ""] for _ in crops]
    with pytest.raises(NoTags):
        stage.process([item("a", crops(1)[0])], lambda *_: None)


def test_where_memory_is_short_fewer_are_asked_about_at_once(checkpoint):
    import torch

    stage, sizes = stage_of(checkpoint), []
    ask = stage._ask

    def short(pictures):
        sizes.append(len(pictures))
        if len(pictures) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return ask(pictures)

    stage._ask = short
    assert stage.answers(crops(5)) == stage_of(checkpoint).answers(crops(5))
    assert sizes == [5, 2, 2, 1]
    stage._ask = lambda pictures: (_ for _ in ()).throw(
        torch.OutOfMemoryError("CUDA out of memory")
    )
    with pytest.raises(torch.OutOfMemoryError):
        stage.answers(crops(2))


def test_as_many_at_once_as_their_keys_and_values_take(checkpoint, monkeypatch):
    """Two layers, two heads of 8, fp32: 256 bytes a token, for prompt and answer."""
    import psutil

    stage = stage_of(checkpoint)
    for fits in (1, 5):
        free = fits * 256 * (300 + 200) / 0.7 + 1
        monkeypatch.setattr(
            psutil, "virtual_memory", lambda free=free: type("Memory", (), {"available": free})
        )
        assert stage._fits(300) == fits


@pytest.mark.parametrize("family", ["mistral", "vicuna", "34b"])
def test_the_prompt_is_the_one_that_the_checkpoint_was_trained_with(family):
    config = type(
        "Config",
        (),
        {
            "text_config": tiny_llava.text_config(
                family, hidden_size=7168 if family == "34b" else 32
            )
        },
    )
    assert prompts.model_family(config) == family
    processor = tiny_llava.processor()
    assert prompts.build_prompt(processor, config, QUESTION) == GOLDEN[family]
    processor.chat_template = "own: {{ messages[0]['content'][1]['text'] }}"
    assert (
        prompts.build_prompt(processor, config, QUESTION) == f"own: {QUESTION}"
    )  # a checkpoint's own template goes first


@pytest.mark.parametrize("family", ["mistral", "vicuna", "34b"])
@pytest.mark.parametrize("size", [512, 1024, 2048])
def test_a_square_crop_is_2928_image_tokens_after_one_beginning(family, size):
    processor = tiny_llava.processor(336, GRID)
    config = type(
        "Config",
        (),
        {
            "text_config": tiny_llava.text_config(
                family, hidden_size=7168 if family == "34b" else 32
            )
        },
    )
    text = prompts.build_prompt(processor, config, prompts.SEMANTIC)
    image = Image.new("RGB", (size, size), "grey")
    ids = processor(images=[image], text=[text], return_tensors="pt")["input_ids"][0].tolist()
    assert ids.count(processor.image_token_id) == IMAGE_TOKENS == 2928
    assert ids.count(processor.tokenizer.bos_token_id) == 1
    assert ids[0] == processor.tokenizer.bos_token_id


def test_a_template_that_begins_the_text_twice_is_refused(tmp_path):
    doubled = "<s>[INST] <image>\n{{ messages[0]['content'][1]['text'] }} [/INST]"
    stage = stage_of(tiny_llava.save(tmp_path, template=doubled))
    with pytest.raises(ValueError, match="2 beginnings"):
        stage.answers(crops(1))


def test_missing_weights_are_missing():
    with pytest.raises(
        MissingResourceError, match=r"llava-hf/llava-v1\.6-mistral-7b-hf.*Hugging Face hub"
    ):
        LlavaStage(Captions(), None).setup("cpu")


def test_few_bits_need_a_gpu(checkpoint):
    with pytest.raises(UserError, match="4bit needs a GPU"):
        stage_of(checkpoint, precision="4bit")


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["bf16", "8bit", "4bit"])
def test_on_a_gpu_a_batch_equals_its_members(checkpoint, precision):
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA card here")
    stage = LlavaStage(Captions(model=str(checkpoint), precision=precision), None)
    stage.setup("cuda:0")
    together = stage.answers(crops(3))
    assert [said[0][:8] for said in together] == [
        stage.answers([crop])[0][0][:8] for crop in crops(3)
    ]
