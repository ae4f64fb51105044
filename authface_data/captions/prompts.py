"""What a captioning model is asked: two short questions beat one long one. And how LLaVA-1.6 wants to be asked."""

from __future__ import annotations

from typing import Any

from manifests.support.fingerprint import fingerprint

SEMANTIC = (
    "List short tags for the person in this photograph, separated by commas: kind of person, gender, age group, clothes, hair, "
    "accessories, background. Tags only: no sentences, no prepositions, no adverbs."
)
PHOTOGRAPHIC = (
    "List short tags for how this portrait was photographed, separated by commas: expression, gaze, skin texture, makeup, "
    "lighting, focus, view, framing, style. Tags only: no sentences, no prepositions, no adverbs."
)
QUESTIONS = (SEMANTIC, PHOTOGRAPHIC)

# The formats that the LLaVA-1.6 checkpoints were trained with, for folders that come without a chat template of their own.
_TEXT = (
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}"
)
_ONE = "{% set message = messages[0] %}"
TEMPLATES = {
    "mistral": _ONE + "[INST] <image>\n" + _TEXT + " [/INST]",
    "vicuna": _ONE
    + "A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful, detailed, and "
    "polite answers to the human's questions. USER: <image>\n" + _TEXT + " ASSISTANT:",
    "34b": _ONE
    + "<|im_start|>system\nAnswer the questions.<|im_end|><|im_start|>user\n<image>\n"
    + _TEXT
    + "<|im_end|><|im_start|>assistant{{ '\n' }}",  # jinja drops a last newline
}
WIDTH_OF_34B = 7168


def prompt_hash() -> str:
    """Names the present wording."""
    return fingerprint(semantic=SEMANTIC, photographic=PHOTOGRAPHIC)


def model_family(config: Any) -> str:
    """mistral, vicuna or 34b: which language model a LLaVA-1.6 configuration is built on."""
    if config.text_config.model_type == "mistral":
        return "mistral"
    return "34b" if config.text_config.hidden_size == WIDTH_OF_34B else "vicuna"


def build_prompt(processor: Any, config: Any, question: str) -> str:
    """The whole prompt of a question about one image, by the checkpoint's own chat template, else by its family's."""
    talk = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}]
    own = getattr(processor, "chat_template", None) or getattr(
        processor.tokenizer, "chat_template", None
    )
    return processor.apply_chat_template(
        talk,
        chat_template=own or TEMPLATES[model_family(config)],
        add_generation_prompt=True,
        tokenize=False,
    )
