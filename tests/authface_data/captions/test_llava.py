"""The llava captioner with the real classes: a tiny LLaVA-NeXT from configuration, saved as a checkpoint and loaded by name."""

import numpy as np
import pytest

from authface_data.captions.llava import LlavaStage
from authface_data.engine.stage import Item
from authface_data.faces.stage import lossless
from authface_data.photo import Photo
from manifests.errors import Missing

TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }}: {% for c in m['content'] %}{% if c['type'] == 'image' %}<image>\n{% else %}"
    "{{ c['text'] }}{% endif %}{% endfor %} {% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import (
        CLIPVisionConfig,
        LlamaConfig,
        LlavaNextConfig,
        LlavaNextForConditionalGeneration,
        LlavaNextImageProcessor,
        LlavaNextProcessor,
        PreTrainedTokenizerFast,
    )

    folder = tmp_path_factory.mktemp("llava")
    letters = [chr(code) for code in range(32, 127)]
    words = ["<unk>", "<s>", "</s>", "<pad>", "<image>", *letters, "\n"]
    raw = Tokenizer(models.BPE(vocab={word: index for index, word in enumerate(words)}, merges=[], unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    raw.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>",
        additional_special_tokens=["<image>"], padding_side="right",
    )  # fmt: skip
    grid = [[56, 56], [56, 112], [112, 56]]
    processor = LlavaNextProcessor(
        image_processor=LlavaNextImageProcessor(
            size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56}, image_grid_pinpoints=grid
        ),
        tokenizer=tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    )
    processor.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlavaNextConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, image_size=56, patch_size=14
        ),
        text_config=LlamaConfig(
            hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=4,
            vocab_size=len(words), max_position_embeddings=4096, bos_token_id=1, eos_token_id=2, pad_token_id=3,
        ),
        image_token_index=4,
        image_grid_pinpoints=grid,
    )  # fmt: skip
    LlavaNextForConditionalGeneration(config).save_pretrained(folder)
    return folder


def item(key, level):
    rng = np.random.default_rng(level)
    pixels = rng.integers(0, 255, (64, 64, 3), np.uint8)
    data = lossless(pixels, "png")
    return Item(key, {}, Photo(lambda: data))


def test_a_batch_is_captioned_as_its_members_alone(checkpoint):
    stage = LlavaStage(str(checkpoint), None)
    stage.setup("cpu")
    items = [item("a", 1), item("b", 2)]
    together = [result.rows[0] for result in stage.process(items, lambda *_: None)]
    alone = [stage.process([one], lambda *_: None)[0].rows[0] for one in items]
    assert [row["raw_answers"] for row in together] == [row["raw_answers"] for row in alone]
    row = together[0]
    assert row["captioner"] == "llava"
    assert row["model"] == str(checkpoint)
    assert len(row["prompt_hash"]) == 16
    assert row["caption"]
    assert all("assistant" not in answer for answer in row["raw_answers"])  # the prompt is not in the answer


def test_an_answer_without_tags_is_a_failure(checkpoint):
    stage = LlavaStage(str(checkpoint), None)
    with pytest.raises(ValueError, match="no tags"):
        stage._row("a", " , ", "")


def test_missing_weights_are_missing():
    with pytest.raises(Missing, match=r"llava-hf/llava-v1\.6-mistral-7b-hf.*Hugging Face hub"):
        LlavaStage("llava-hf/llava-v1.6-mistral-7b-hf", None).setup("cpu")
