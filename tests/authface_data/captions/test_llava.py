"""The captioner `llava` with a tiny random LLaVA-NeXT, saved as a checkpoint and loaded by name."""

import functools

import numpy as np
import pytest
import tiny_llava
from PIL import Image

from authface_data.captions import llava, prompts
from authface_data.captions.compose import NoTags
from authface_data.captions.llava import MAX_NEW_TOKENS, LlavaStage
from authface_data.engine.stage import Item
from authface_data.images.encode import encode_lossless
from authface_data.images.open import Photo
from manifests.settings import Captions
from manifests.support.errors import MissingResourceError, UserError

QUESTION = "What is shown in this image?"
# Prompts from the documentation of LLaVA-NeXT in transformers.
EXPECTED_PROMPTS = {
    "mistral": f"[INST] <image>\n{QUESTION} [/INST]",
    "vicuna": "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions. "
    f"USER: <image>\n{QUESTION} ASSISTANT:",
    "34b": "<|im_start|>system\nAnswer the questions.<|im_end|><|im_start|>user\n"
    f"<image>\n{QUESTION}<|im_end|><|im_start|>assistant\n",
}
# All LLaVA-1.6 checkpoints use tiles of 336 px. A square crop becomes two by two tiles, with a
# newline token per row of patches, and a tile of the whole crop.
GRID = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
IMAGE_TOKENS = 24 * 24 + 48 * (48 + 1)


@pytest.fixture(scope="module", params=["vicuna", "mistral"])
def checkpoint(request, tmp_path_factory):
    return tiny_llava.save(tmp_path_factory.mktemp("llava"), request.param)


def load_stage(checkpoint, **settings):
    stage = LlavaStage(Captions(model=str(checkpoint), **settings), None)
    stage.setup("cpu")
    return stage


def random_crops(count):
    rng = np.random.default_rng(0)
    return [rng.integers(0, 255, (64, 64, 3), np.uint8) for _ in range(count)]


def make_item(key, crop, **row):
    data = encode_lossless(crop, "png")
    return Item(key, row, Photo(lambda: data))


def make_config(family):
    """A configuration with the language model of a family."""
    hidden_size = prompts.HIDDEN_SIZE_34B if family == "34b" else 32
    text_config = tiny_llava.text_config(family, hidden_size=hidden_size)
    return type("Config", (), {"text_config": text_config})


def test_answers_do_not_depend_on_the_batch(checkpoint):
    stage = load_stage(checkpoint)
    answers = stage.model.predict(random_crops(3))
    assert answers == [stage.model.predict([crop])[0] for crop in random_crops(3)]
    assert len({tuple(crop_answers) for crop_answers in answers}) > 1  # they depend on the image
    assert all(len(crop_answers) == 2 for crop_answers in answers)
    assert all(crop_answers[0] != crop_answers[1] for crop_answers in answers)


def test_shared_encoding_gives_the_same_answers_as_separate_questions(checkpoint):
    """The reference asks one question at a time, each with its image."""
    import torch

    stage = load_stage(checkpoint)
    calls = []
    original = stage.model._model.model.get_image_features

    @functools.wraps(original)
    def count_call(*args, **options):
        calls.append(1)
        return original(*args, **options)

    stage.model._model.model.get_image_features = count_call
    (answers,) = stage.model.predict(random_crops(1))
    assert len(calls) == 1
    image = Image.fromarray(random_crops(1)[0])
    for question, answer in zip(prompts.QUESTIONS, answers, strict=True):
        text = prompts.build_prompt(stage.model._processor, stage.model._model.config, question)
        inputs = stage.model._processor(images=[image], text=[text], return_tensors="pt")
        with torch.inference_mode():
            output = stage.model._model.generate(
                **inputs, max_new_tokens=MAX_NEW_TOKENS, do_sample=False
            )
        new_tokens = output[:, inputs["input_ids"].shape[1] :]
        expected = stage.model._processor.batch_decode(new_tokens, skip_special_tokens=True)
        assert expected[0].strip() == answer
        assert "ASSISTANT" not in answer  # the prompt is not part of the answer


def test_row_contains_answers_model_and_contradictions(checkpoint):
    stage = load_stage(checkpoint)
    answers = ["Woman, Long black hair", "Black and white, smiling"]
    stage.model.predict = lambda crops: [answers for _ in crops]
    colour = {"facet": "colour", "tag": "colour photograph", "value": 40.0, "confidence": 0.99}
    item = make_item("a", random_crops(1)[0], measurements=[colour])
    (result,) = stage.process([item], lambda *_: None)
    (row,) = result.rows
    assert row["captioner"] == "llava"
    assert row["model"] == str(checkpoint)
    assert len(row["prompt_hash"]) == 16
    assert row["raw_answers"] == answers
    assert row["caption"] == "woman, long black hair, smile"
    assert row["contradictions"] == [
        {"tag": "black and white", "against": "colour photograph", "confidence": 0.99}
    ]
    assert row["measured_tags"] == []  # "colour photograph" is a hidden tag


def test_answers_without_tags_raise(checkpoint):
    stage = load_stage(checkpoint)
    stage.model.predict = lambda crops: [[" , ", ""] for _ in crops]
    with pytest.raises(NoTags):
        stage.process([make_item("a", random_crops(1)[0])], lambda *_: None)


def test_out_of_memory_halves_the_batch(checkpoint):
    import torch

    stage = load_stage(checkpoint)
    batch_sizes = []
    original = stage.model._answer_batch

    def answer_at_most_two(images):
        batch_sizes.append(len(images))
        if len(images) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(images)

    def run_out_of_memory(images):
        raise torch.OutOfMemoryError("CUDA out of memory")

    stage.model._answer_batch = answer_at_most_two
    assert stage.model.predict(random_crops(5)) == load_stage(checkpoint).model.predict(
        random_crops(5)
    )
    assert batch_sizes == [5, 2, 2, 1]
    stage.model._answer_batch = run_out_of_memory
    with pytest.raises(torch.OutOfMemoryError):
        stage.model.predict(random_crops(2))


@pytest.mark.parametrize("batch_size", [1, 5])
def test_batch_size_follows_from_free_memory(checkpoint, monkeypatch, batch_size):
    """Two layers, two heads of size 8 and fp32 take 256 bytes per token of prompt and answer."""
    stage = load_stage(checkpoint)
    free_bytes = batch_size * 256 * (300 + 200) / 0.7 + 1
    monkeypatch.setattr(llava, "available_bytes", lambda: free_bytes)
    assert stage.model._affordable_batch_size(300) == batch_size


@pytest.mark.parametrize("family", ["mistral", "vicuna", "34b"])
def test_prompt_follows_the_format_of_the_training(family):
    config = make_config(family)
    assert prompts.model_family(config) == family
    processor = tiny_llava.processor()
    assert prompts.build_prompt(processor, config, QUESTION) == EXPECTED_PROMPTS[family]
    # The checkpoint's chat template has priority.
    processor.chat_template = "template: {{ messages[0]['content'][1]['text'] }}"
    assert prompts.build_prompt(processor, config, QUESTION) == f"template: {QUESTION}"


@pytest.mark.parametrize("family", ["mistral", "vicuna", "34b"])
@pytest.mark.parametrize("size", [512, 1024, 2048])
def test_square_crop_has_2928_image_tokens_and_one_start_token(family, size):
    processor = tiny_llava.processor(336, GRID)
    text = prompts.build_prompt(processor, make_config(family), prompts.SEMANTIC_QUESTION)
    image = Image.new("RGB", (size, size), "grey")
    ids = processor(images=[image], text=[text], return_tensors="pt")["input_ids"][0].tolist()
    assert ids.count(processor.image_token_id) == IMAGE_TOKENS == 2928
    assert ids.count(processor.tokenizer.bos_token_id) == 1
    assert ids[0] == processor.tokenizer.bos_token_id


def test_template_that_repeats_the_start_token_is_refused(tmp_path):
    template = "<s>[INST] <image>\n{{ messages[0]['content'][1]['text'] }} [/INST]"
    stage = load_stage(tiny_llava.save(tmp_path, template=template))
    with pytest.raises(ValueError, match="2 start tokens"):
        stage.model.predict(random_crops(1))


def test_missing_weights_raise():
    with pytest.raises(
        MissingResourceError, match=r"llava-hf/llava-v1\.6-mistral-7b-hf.*Hugging Face hub"
    ):
        LlavaStage(Captions(), None).setup("cpu")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", b"[]"),
        ("config.json", b"[" * 100_000),
        ("config.json", b'{"model_type": "llava_next", "text_config": "small"}'),
        ("config.json", b'{"model_type": "llava_next", "text_config": {"num_hidden_layers": 1e9}}'),
        ("processor_config.json", b'{"patch_size": [1], "image_processor": 7}'),
        ("tokenizer_config.json", b"null"),
        ("tokenizer.json", b"{}"),
        ("model.safetensors", b"\0" * 100),
    ],
)
def test_damaged_checkpoint_is_one_line(tmp_path, name, content):
    folder = tiny_llava.save(tmp_path)
    (folder / name).write_bytes(content)
    with pytest.raises((UserError, MissingResourceError)) as error:
        load_stage(folder)
    assert str(folder) in str(error.value)
    assert str(error.value).isprintable()


def test_quantization_needs_a_gpu(checkpoint):
    with pytest.raises(UserError, match="4bit needs a GPU"):
        load_stage(checkpoint, precision="4bit")


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["bf16", "8bit", "4bit"])
def test_answers_on_a_gpu_do_not_depend_on_the_batch(checkpoint, precision):
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA card here")
    stage = LlavaStage(Captions(model=str(checkpoint), precision=precision), None)
    stage.setup("cuda:0")
    beginnings = [answers[0][:8] for answers in stage.model.predict(random_crops(3))]
    assert beginnings == [stage.model.predict([crop])[0][0][:8] for crop in random_crops(3)]
