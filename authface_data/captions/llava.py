"""LLaVA-1.6 by transformers: tags in two families, from two questions about each crop.

A crop is some 2,900 image tokens and a question 60: both questions are asked over one encoding of the image and one pass of the
language model over its tokens. Prompts of square crops are equally long, so a batch needs no padding, and its answers are those
of its members alone.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from authface_data.captions import prompts
from authface_data.captions.compose import caption_columns
from authface_data.engine.stage import Dropped, Item, Rows, WritePixels
from manifests.schema import CAPTIONS
from manifests.settings import Captions
from manifests.support import hub
from manifests.support.errors import MissingResourceError, UserError
from manifests.verdicts import Subject

MAX_NEW_TOKENS = 96
MEMORY_SHARE = 0.7  # of what is free after loading, for keys and values: the rest is activations
ANSWER_TOKENS = 200  # a question and its answer, beside the image's tokens


class LlavaStage:
    """Greedy, so that the same crop gets the same words. Any llava-hf 1.6 checkpoint, hub id or folder."""

    name = "llava"
    version = 2  # 2: both questions over one encoding
    subject: Subject = "face"
    manifest = CAPTIONS
    input_hash_column = "crop_sha256"
    uses_gpu = True
    batch_size = 16

    def __init__(self, settings: Captions, weights_dir: str | None):
        self._captions, self.model_name, self.weights_dir = settings, settings.model, weights_dir

    def settings(self) -> dict[str, Any]:
        return {
            "model": self.model_name,
            "prompts": prompts.prompt_hash(),
            "max_new_tokens": MAX_NEW_TOKENS,
            "precision": self._captions.precision,
        }

    def setup(self, device: str) -> None:
        """Raises MissingResourceError where the checkpoint cannot be had, UserError for a precision that this machine has not."""
        import torch
        from transformers import LlavaNextForConditionalGeneration, LlavaNextProcessor

        where = hub.resolve_model(self.model_name, self.weights_dir)
        on_gpu = device.startswith("cuda")
        options: dict[str, Any] = {"dtype": torch.bfloat16 if on_gpu else torch.float32}
        if self._captions.precision != "bf16":
            options |= _quantised(self._captions.precision, device)
        try:
            self._processor = LlavaNextProcessor.from_pretrained(where)
            model = LlavaNextForConditionalGeneration.from_pretrained(where, **options)
        except OSError as error:
            raise hub.missing_model_error(
                self.model_name, "config, tokenizer and *.safetensors", self.weights_dir, error
            ) from error
        self._processor.tokenizer.padding_side = (
            "left"  # else the new tokens of a shorter prompt would follow padding
        )
        if self._captions.precision == "bf16":
            model = model.to(device)
        self._model = model.eval()
        self._revision = getattr(model.config, "_commit_hash", None)
        self._torch, self._device = torch, device
        # transformers 5.2x renames it
        self._cache_name = (
            "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"
        )
        self._at_once = self.batch_size

    def process(self, batch: Sequence[Item], write_pixels: WritePixels) -> list[Rows | Dropped]:
        pictures = [item.picture.pixels() for item in batch]
        return [
            Rows([self._row(item, said)])
            for item, said in zip(batch, self.answers(pictures), strict=True)
        ]

    def answers(self, crops: Sequence[np.ndarray]) -> list[list[str]]:
        """What the model says of each crop (H, H, 3) uint8, one answer per question. As many crops at once as memory holds."""
        said: list[list[str]] = []
        while len(said) < len(crops):
            some = crops[len(said) : len(said) + self._at_once]
            try:
                said += self._ask([Image.fromarray(crop) for crop in some])
            except self._torch.OutOfMemoryError:
                if len(some) == 1:
                    raise
                self._at_once = len(some) // 2
            else:
                continue
            self._torch.cuda.empty_cache()  # outside of the handler, which holds on to the tensors
        return said

    def _ask(self, pictures: list[Image.Image]) -> list[list[str]]:
        torch, model, config = self._torch, self._model, self._model.config
        inputs = self._processor(
            images=pictures,
            text=[prompts.build_prompt(self._processor, config, prompts.QUESTIONS[0])] * len(pictures),
            padding=True,
            return_tensors="pt",
        )
        questions = self._token_ids(inputs["input_ids"])
        if len(pictures) > (fits := self._fits(len(questions[0]))):
            return [
                answer for some in (pictures[:fits], pictures[fits:]) for answer in self._ask(some)
            ]
        shared = _common_length(questions)
        said: list[list[str]] = [[] for _ in pictures]
        with torch.inference_mode():
            ids = torch.tensor(questions[0][:shared], device=self._device).expand(len(pictures), -1)
            read = model(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                pixel_values=inputs["pixel_values"].to(self._device, model.dtype),
                image_sizes=inputs["image_sizes"].to(self._device),
                use_cache=True,
                logits_to_keep=1,
            )
            seen = read[self._cache_name]
            for question in questions:
                if (more := seen.get_seq_length() - shared) > 0:
                    seen.crop(-more)  # what the question before left behind
                ids = torch.tensor(question, device=self._device).expand(len(pictures), -1)
                made = model.generate(
                    input_ids=ids,
                    attention_mask=torch.ones_like(ids),
                    max_new_tokens=MAX_NEW_TOKENS,
                    do_sample=False,
                    **{self._cache_name: seen},
                )
                answers = self._processor.batch_decode(
                    made[:, ids.shape[1] :], skip_special_tokens=True
                )
                for own, answer in zip(said, answers, strict=True):
                    own.append(answer.strip())
        return said

    def _token_ids(self, first: Any) -> list[list[int]]:
        """Each question's whole prompt, image tokens included, given that of the first for every picture. Checks them."""
        tokenizer, image = self._processor.tokenizer, self._model.config.image_token_id
        counts = {int((row == image).sum()) for row in first}
        if len(counts) != 1 or any((row != first[0]).any() for row in first):
            raise ValueError(
                f"crops of one size have different numbers of image tokens: {sorted(counts)}"
            )
        token = self._processor.image_token
        told = [first[0].tolist()]
        for question in prompts.QUESTIONS[1:]:
            text = prompts.build_prompt(self._processor, self._model.config, question)
            told.append(tokenizer(text.replace(token, token * max(counts))).input_ids)
        begin = tokenizer.bos_token_id
        own = [begin] == tokenizer("").input_ids[:1]  # whether the tokenizer begins a text with it
        for ids in told:
            if ids.count(image) not in counts or ids.count(begin) not in ((1,) if own else (0, 1)):
                raise ValueError(
                    f"a prompt with {ids.count(image)} image tokens and {ids.count(begin)} beginnings of a text"
                )
        return told

    def _fits(self, prompt_tokens: int) -> int:
        """How many crops can be asked about at once: their keys and values must fit into what memory is free."""
        text = self._model.config.text_config
        heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
        head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        of_a_token = 2 * text.num_hidden_layers * heads * head * self._model.dtype.itemsize
        if self._device.startswith("cuda"):
            cuda = self._torch.cuda
            kept = cuda.memory_reserved(self._device) - cuda.memory_allocated(
                self._device
            )  # torch holds it, and nothing is in it
            free = cuda.mem_get_info(self._device)[0] + kept
        else:
            import psutil

            free = psutil.virtual_memory().available
        return max(
            1,
            min(
                self._at_once,
                int(MEMORY_SHARE * free / (of_a_token * (prompt_tokens + ANSWER_TOKENS))),
            ),
        )

    def _row(self, item: Item, said: list[str]) -> dict[str, Any]:
        return {
            "face_id": item.key,
            "captioner": self.name,
            "model": self.model_name,
            "model_revision": self._revision,
            "prompt_hash": prompts.prompt_hash(),
            **caption_columns(said, item.row.get("measurements"), self._captions),
        }


def _quantised(precision: str, device: str) -> dict[str, Any]:
    """What loading in 8 or 4 bits takes."""
    import importlib.util

    import torch
    from transformers import BitsAndBytesConfig

    if not device.startswith("cuda"):
        raise UserError(
            f"captions.precision {precision} needs a GPU: without one, leave it at bf16 (fp32 is used)"
        )
    if importlib.util.find_spec("bitsandbytes") is None:
        raise MissingResourceError(
            f"captions.precision {precision} needs bitsandbytes: `pip install bitsandbytes`"
        )
    bits = {
        "4bit": {
            "load_in_4bit": True,
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_compute_dtype": torch.bfloat16,
        }
    }
    return {
        "quantization_config": BitsAndBytesConfig(**bits.get(precision, {"load_in_8bit": True})),
        "device_map": {"": device},
    }


def _common_length(questions: Sequence[Sequence[int]]) -> int:
    """How many tokens all begin with; at least one token of each is left to be read."""
    shortest = min(map(len, questions)) - 1
    return next((at for at in range(shortest) if len({ids[at] for ids in questions}) > 1), shortest)
