"""A tiny LLaVA-NeXT checkpoint with random weights, made of the real transformers classes."""

from __future__ import annotations

from pathlib import Path

IMAGE_SIZE_PX = 56
PATCH_SIZE_PX = 14
GRID = [[56, 56], [56, 112], [112, 56], [112, 112]]
SPECIAL_TOKENS = ["<unk>", "<s>", "</s>", "<pad>", "<image>"]


def tokenizer():
    """Create a tokenizer with one token per ASCII character and a start token like Llama's."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    tokens = [*SPECIAL_TOKENS, *(chr(code) for code in range(32, 127)), "\n"]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    raw = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    raw.decoder = decoders.Fuse()
    raw.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        additional_special_tokens=["<image>"],
        padding_side="right",
    )


def processor(
    image_size: int = IMAGE_SIZE_PX,
    grid: list[list[int]] = GRID,
    template: str | None = None,
):
    """Create a processor.

    Args:
        image_size: Side of a tile in px.
        grid: Sizes (height, width) that images may be resized to, in px.
        template: The chat template; None for a checkpoint without one.
    """
    from transformers import LlavaNextImageProcessor, LlavaNextProcessor

    return LlavaNextProcessor(
        image_processor=LlavaNextImageProcessor(
            size={"shortest_edge": image_size},
            crop_size={"height": image_size, "width": image_size},
            image_grid_pinpoints=grid,
        ),
        tokenizer=tokenizer(),
        patch_size=PATCH_SIZE_PX,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template,
    )


def text_config(family: str = "vicuna", **overrides):
    """Create the configuration of a tiny language model of a LLaVA-1.6 family."""
    from transformers import LlamaConfig, MistralConfig

    options = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": len(SPECIAL_TOKENS) + 96,
        "max_position_embeddings": 4096,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 3,
        "initializer_range": 0.5,  # large enough for answers to depend on the image
    }
    if family == "mistral":
        return MistralConfig(**{**options, "sliding_window": None, **overrides})
    return LlamaConfig(**{**options, **overrides})


def save(folder: Path, family: str = "vicuna", template: str | None = None) -> Path:
    """Save a checkpoint with random weights.

    Args:
        folder: Where to save it.
        family: "vicuna", "mistral" or "34b".
        template: The chat template; None for a checkpoint without one.

    Returns:
        The folder.
    """
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
            image_size=IMAGE_SIZE_PX,
            patch_size=PATCH_SIZE_PX,
        ),
        text_config=text_config(family),
        image_token_index=SPECIAL_TOKENS.index("<image>"),
        image_grid_pinpoints=GRID,
    )
    LlavaNextForConditionalGeneration(config).save_pretrained(folder)
    return folder
