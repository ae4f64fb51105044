"""The questions that captioning models answer, and the prompt format of LLaVA-1.6.

Two short questions give better tags than one long question.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from manifests.support.fingerprint import fingerprint

if TYPE_CHECKING:
    from transformers import LlavaNextConfig, LlavaNextProcessor

SEMANTIC_QUESTION = (
    "List short tags for the person in this photograph, separated by commas: "
    "kind of person, gender, age group, clothes, hair, "
    "accessories, background. Tags only: no sentences, no prepositions, no adverbs."
)
PHOTOGRAPHIC_QUESTION = (
    "List short tags for how this portrait was photographed, separated by commas: "
    "expression, gaze, skin texture, makeup, "
    "lighting, focus, view, framing, style. Tags only: no sentences, no prepositions, no adverbs."
)
QUESTIONS = (SEMANTIC_QUESTION, PHOTOGRAPHIC_QUESTION)

LlavaFamily = Literal["mistral", "vicuna", "34b"]
HIDDEN_SIZE_34B = 7168

# Chat templates for checkpoints without one. They reproduce the formats of the LLaVA-1.6 training.
_MESSAGE = "{% set message = messages[0] %}"
_QUESTION = (
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}"
)
CHAT_TEMPLATES: dict[LlavaFamily, str] = {
    "mistral": _MESSAGE + "[INST] <image>\n" + _QUESTION + " [/INST]",
    "vicuna": (
        _MESSAGE + "A chat between a curious human and an artificial intelligence assistant. "
        "The assistant gives helpful, detailed, and polite answers to the human's questions. "
        "USER: <image>\n" + _QUESTION + " ASSISTANT:"
    ),
    "34b": (
        _MESSAGE
        + "<|im_start|>system\nAnswer the questions.<|im_end|><|im_start|>user\n<image>\n"
        # The newline is an expression, because Jinja removes a newline at the end of a template.
        + _QUESTION
        + "<|im_end|><|im_start|>assistant{{ '\n' }}"
    ),
}


def prompt_hash() -> str:
    """Return the fingerprint of the questions, which is stored with every caption."""
    return fingerprint(semantic=SEMANTIC_QUESTION, photographic=PHOTOGRAPHIC_QUESTION)


def model_family(config: LlavaNextConfig) -> LlavaFamily:
    """Determine which language model a LLaVA-1.6 checkpoint is built on."""
    if config.text_config.model_type == "mistral":
        return "mistral"
    return "34b" if config.text_config.hidden_size == HIDDEN_SIZE_34B else "vicuna"


def build_prompt(processor: LlavaNextProcessor, config: LlavaNextConfig, question: str) -> str:
    """Build the whole prompt of a question about one image.

    Args:
        processor: The checkpoint's processor. Its chat template is used if it has one.
        config: The checkpoint's configuration; it selects the template otherwise.
        question: The question.

    Returns:
        The prompt with one image placeholder.
    """
    content = [{"type": "image"}, {"type": "text", "text": question}]
    template = getattr(processor, "chat_template", None)
    template = template or getattr(processor.tokenizer, "chat_template", None)
    template = template or CHAT_TEMPLATES[model_family(config)]
    return processor.apply_chat_template(
        [{"role": "user", "content": content}],
        chat_template=template,
        add_generation_prompt=True,
        tokenize=False,
    )
