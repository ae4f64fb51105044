"""LLaVA-1.6 by transformers: tags in two families, from two questions about each crop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PIL import Image

from authface_data.captions import prompts, tokens
from authface_data.captions.vocabulary import tags_of
from authface_data.engine.stage import Dropped, Item, Rows, WritePixels
from manifests import hub
from manifests.ledger import Subject
from manifests.schema import CAPTIONS

MAX_NEW_TOKENS = 96


class LlavaStage:
    """model: a llava-hf 1.6 checkpoint, hub id or folder. Greedy, so that the same crop gets the same words."""

    name = "llava"
    version = 1
    subject: Subject = "face"
    gives = CAPTIONS
    input_mark = "crop_sha256"
    uses_gpu = True
    batch_size = 4

    def __init__(self, model: str, weights_dir: str | None):
        self.model_name, self.weights_dir = model, weights_dir

    def settings(self) -> dict[str, Any]:
        return {"model": self.model_name, "prompts": prompts.prompt_hash(), "max_new_tokens": MAX_NEW_TOKENS}

    def setup(self, device: str) -> None:
        """Raises Missing where the checkpoint cannot be had."""
        import torch
        from transformers import LlavaNextForConditionalGeneration, LlavaNextProcessor

        where = hub.locate(self.model_name, self.weights_dir)
        dtype = torch.bfloat16 if device.startswith("cuda") else torch.float32
        try:
            self._processor = LlavaNextProcessor.from_pretrained(where)
            model = LlavaNextForConditionalGeneration.from_pretrained(where, dtype=dtype)
        except OSError as error:
            raise hub.missing(self.model_name, "config, tokenizer and *.safetensors", self.weights_dir, error) from error
        self._processor.tokenizer.padding_side = "left"  # else the new tokens of short prompts follow padding
        self._model = model.to(device).eval()
        self._revision = getattr(model.config, "_commit_hash", None)
        self._torch, self._device = torch, device

    def process(self, batch: Sequence[Item], write_pixels: WritePixels) -> list[Rows | Dropped]:
        pictures = [Image.fromarray(item.picture.pixels()) for item in batch]
        semantic = self._ask(prompts.SEMANTIC, pictures)
        photographic = self._ask(prompts.PHOTOGRAPHIC, pictures)
        return [
            Rows([self._row(item.key, said, shown)]) for item, said, shown in zip(batch, semantic, photographic, strict=True)
        ]

    def _ask(self, question: str, pictures: list[Image.Image]) -> list[str]:
        """The model's answer about each picture."""
        talk = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}]
        prompt = self._processor.apply_chat_template(talk, add_generation_prompt=True)
        inputs = self._processor(images=pictures, text=[prompt] * len(pictures), padding=True, return_tensors="pt").to(
            self._device, self._model.dtype
        )
        with self._torch.inference_mode():
            made = self._model.generate(**inputs, max_new_tokens=MAX_NEW_TOKENS, do_sample=False)
        new = made[:, inputs["input_ids"].shape[1] :]
        return [answer.strip() for answer in self._processor.batch_decode(new, skip_special_tokens=True)]

    def _row(self, face_id: str, semantic: str, photographic: str) -> dict[str, Any]:
        tags = tags_of(semantic), tags_of(photographic)
        caption = ", ".join(dict.fromkeys([*tags[0], *tags[1]]))
        if not caption:
            raise ValueError(f"the model gave no tags: {semantic!r}, {photographic!r}")
        return {
            "face_id": face_id,
            "captioner": self.name,
            "semantic_tags": tags[0],
            "photographic_tags": tags[1],
            "measured_tags": [],
            "caption": caption,
            "raw_answers": [semantic, photographic],
            "model": self.model_name,
            "model_revision": self._revision,
            "prompt_hash": prompts.prompt_hash(),
            "token_count": tokens.count(caption),
        }
