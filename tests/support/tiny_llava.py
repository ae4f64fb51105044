"""A tiny LLaVA-NeXT from configuration, the real classes, saved as a checkpoint: its words are noise, the machinery is true."""

from __future__ import annotations

from pathlib import Path

SIDE, PATCH = 56, 14
GRID = [[56, 56], [56, 112], [112, 56], [112, 112]]
WORDS = ["<unk>", "<s>", "</s>", "<pad>", "<image>"]


def tokenizer():
    """Letters, one token each, with a beginning of a text as Llama's has."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = [*WORDS, *(chr(code) for code in range(32, 127)), "\n"]
    raw = Tokenizer(
        models.BPE(
            vocab={word: index for index, word in enumerate(words)}, merges=[], unk_token="<unk>"
        )
    )
    raw.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    raw.decoder = decoders.Fuse()
    raw.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>",
        additional_special_tokens=["<image>"], padding_side="right",
    )  # fmt: skip


def processor(side: int = SIDE, grid: list[list[int]] = GRID, template: str | None = None):
    from transformers import LlavaNextImageProcessor, LlavaNextProcessor

    return LlavaNextProcessor(
        image_processor=LlavaNextImageProcessor(
            size={"shortest_edge": side},
            crop_size={"height": side, "width": side},
            image_grid_pinpoints=grid,
        ),
        tokenizer=tokenizer(),
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template,
    )


def text_config(family: str = "vicuna", **more):
    from transformers import LlamaConfig, MistralConfig

    common = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "vocab_size": len(WORDS) + 96, "max_position_embeddings": 4096, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3,
        "initializer_range": 0.5,  # large enough for its words to depend on what it sees
    }  # fmt: skip
    if family == "mistral":
        return MistralConfig(**{**common, "sliding_window": None, **more})
    return LlamaConfig(**{**common, **more})


def save(folder: Path, family: str = "vicuna", template: str | None = None) -> Path:
    import torch
    from transformers import CLIPVisionConfig, LlavaNextConfig, LlavaNextForConditionalGeneration

    processor(template=template).save_pretrained(folder)
    torch.manual_seed(0)
    config = LlavaNextConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            image_size=SIDE,
            patch_size=PATCH,
        ),
        text_config=text_config(family),
        image_token_index=WORDS.index("<image>"),
        image_grid_pinpoints=GRID,
    )
    LlavaNextForConditionalGeneration(config).save_pretrained(folder)
    return folder
