"""The captioner `llava`: LLaVA-1.6 through transformers answers two questions about each crop.

A crop has about 2,900 image tokens, and a question about 60. Both questions therefore share one
encoding of the image and one pass of the language model over its tokens. Prompts of square crops
have equal lengths. A batch therefore needs no padding, and an answer does not depend on the other
members of its batch.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from authface_data.captions import prompts
from authface_data.captions.compose import caption_columns
from authface_data.engine.stage import Dropped, Item, Model, Rows, WritePixels
from manifests.schema import CAPTIONS
from manifests.settings import Captions
from manifests.support import hub
from manifests.support.errors import MissingResourceError, UserError
from manifests.support.host_memory import available_bytes
from manifests.support.model_folder import check_model_files, explain_loading
from manifests.verdicts import Subject

if TYPE_CHECKING:
    import torch
    from transformers import BatchFeature, DynamicCache

BATCH_SIZE = 16
MAX_NEW_TOKENS = 96
"""Largest number of tokens in an answer."""
CACHE_MEMORY_SHARE = 0.7
"""Share of the free memory that keys and values may use. The rest is for activations."""
TEXT_TOKENS = 200
"""Upper estimate of the tokens of a question and its answer, besides the first prompt."""


class LlavaStage:
    """Stage that captions faces with a LLaVA-1.6 checkpoint.

    Args:
        settings: The section `captions` of the workspace's settings.
        weights_dir: Folder that is searched for the checkpoint before the hub's cache.
    """

    name = "llava"
    version = 2  # 2: both questions share one encoding of the image
    subject: Subject = "face"
    manifest = CAPTIONS
    input_hash_column = "crop_sha256"
    batch_size = BATCH_SIZE
    libraries = ("torch", "transformers")

    def __init__(self, settings: Captions, weights_dir: str | None) -> None:
        self._captions = settings
        self.model: Model = LlavaModel(settings.model, settings.precision, weights_dir)

    def settings(self) -> dict[str, Any]:
        """Return what the answers depend on."""
        return {
            "model": self._captions.model,
            "prompts": prompts.prompt_hash(),
            "max_new_tokens": MAX_NEW_TOKENS,
            "precision": self._captions.precision,
        }

    def setup(self, device: str) -> None:
        """Load the checkpoint."""
        self.model.load(device)

    def process(self, batch: Sequence[Item], write_pixels: WritePixels) -> list[Rows | Dropped]:
        """Caption every crop of the batch."""
        answers = self.model.predict([item.picture.pixels() for item in batch])
        return [
            Rows([self._row(item, item_answers)])
            for item, item_answers in zip(batch, answers, strict=True)
        ]

    def _row(self, item: Item, answers: list[str]) -> dict[str, Any]:
        return {
            "face_id": item.key,
            "captioner": self.name,
            "model": self._captions.model,
            "model_revision": self.model.revision,
            "prompt_hash": prompts.prompt_hash(),
            **caption_columns(answers, item.row.get("measurements"), self._captions),
        }


class LlavaModel:
    """A LLaVA-1.6 checkpoint that answers all questions about crops, as the model of a stage.

    Decoding is greedy, so that the same crop always gets the same answers.

    Args:
        name: A llava-hf 1.6 checkpoint: a hub id or a folder.
        precision: Precision of the weights: "bf16", "8bit" or "4bit".
        weights_dir: Folder that is searched for the checkpoint before the hub's cache.
    """

    uses_gpu = True

    def __init__(self, name: str, precision: str, weights_dir: str | None) -> None:
        self.name = name
        self.precision = precision
        self.weights_dir = weights_dir
        self.device = ""
        self.revision: str | None = None

    def load(self, device: str) -> None:
        """Load the checkpoint: in bf16 on a GPU unless quantized, in fp32 on the CPU.

        Args:
            device: "cpu" or a CUDA device.

        Raises:
            MissingResourceError: If the checkpoint is not available.
            UserError: If the device does not support the configured precision.
        """
        import torch
        from transformers import LlavaNextForConditionalGeneration, LlavaNextProcessor

        self.device = device
        precision = self.precision
        source = hub.resolve_model(self.name, self.weights_dir)
        is_cuda = device.startswith("cuda")
        options: dict[str, Any] = {"dtype": torch.bfloat16 if is_cuda else torch.float32}
        if precision != "bf16":
            options |= _quantization_options(precision, device)
        if Path(source).is_dir():
            check_model_files(Path(source))
        try:
            with explain_loading(source):
                self._processor = LlavaNextProcessor.from_pretrained(source)
                model = LlavaNextForConditionalGeneration.from_pretrained(source, **options)
        except OSError as error:
            raise hub.missing_model_error(
                self.name, "config, tokenizer and *.safetensors", self.weights_dir, error
            ) from error

        # With padding on the right, the new tokens of a shorter prompt would follow its padding.
        self._processor.tokenizer.padding_side = "left"
        if precision == "bf16":
            model = model.to(device)
        self._model = model.eval()
        self.revision = getattr(model.config, "_commit_hash", None)
        # transformers 5.2x names the argument `cache`, earlier versions `past_key_values`.
        parameters = inspect.signature(model.forward).parameters
        self._cache_argument = "cache" if "cache" in parameters else "past_key_values"
        self._max_batch_size = BATCH_SIZE

    def predict(self, inputs: Sequence[np.ndarray]) -> list[list[str]]:
        """Answer all questions about crops, in batches as large as memory allows.

        Args:
            inputs: The crops, arrays of one shape (size, size, 3), uint8 sRGB.

        Returns:
            For each crop one answer per question.
        """
        import torch

        answers: list[list[str]] = []
        while len(answers) < len(inputs):
            batch = inputs[len(answers) : len(answers) + self._max_batch_size]
            try:
                answers += self._answer_batch([Image.fromarray(crop) for crop in batch])
            except torch.OutOfMemoryError:
                if len(batch) == 1:
                    raise
                self._max_batch_size = len(batch) // 2
            else:
                continue
            # This is not in the handler because the exception keeps the tensors alive.
            torch.cuda.empty_cache()
        return answers

    def _answer_batch(self, images: list[Image.Image]) -> list[list[str]]:
        """Answer all questions about images; split the batch if the cache would not fit."""
        import torch

        first_prompt = prompts.build_prompt(
            self._processor, self._model.config, prompts.QUESTIONS[0]
        )
        inputs = self._processor(
            images=images,
            text=[first_prompt] * len(images),
            padding=True,
            return_tensors="pt",
        )
        prompt_ids = self._tokenize_prompts(inputs["input_ids"])
        batch_size = self._affordable_batch_size(len(prompt_ids[0]))
        if len(images) > batch_size:
            return [
                *self._answer_batch(images[:batch_size]),
                *self._answer_batch(images[batch_size:]),
            ]

        prefix_length = _common_prefix_length(prompt_ids)
        answers: list[list[str]] = [[] for _ in images]
        with torch.inference_mode():
            cache = self._encode_prefix(inputs, prompt_ids[0][:prefix_length])
            for ids in prompt_ids:
                extra_tokens = cache.get_seq_length() - prefix_length
                if extra_tokens > 0:  # left over from the previous question
                    cache.crop(-extra_tokens)
                texts = self._generate(cache, ids, len(images))
                for image_answers, text in zip(answers, texts, strict=True):
                    image_answers.append(text.strip())
        return answers

    def _encode_prefix(self, inputs: BatchFeature, prefix: list[int]) -> DynamicCache:
        """Encode the images and the tokens that all prompts begin with; return keys and values."""
        import torch

        image_count = len(inputs["input_ids"])
        ids = torch.tensor(prefix, device=self.device).expand(image_count, -1)
        output = self._model(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            pixel_values=inputs["pixel_values"].to(self.device, self._model.dtype),
            image_sizes=inputs["image_sizes"].to(self.device),
            use_cache=True,
            logits_to_keep=1,
        )
        return output[self._cache_argument]

    def _generate(self, cache: DynamicCache, prompt: list[int], image_count: int) -> list[str]:
        """Generate the answers to one prompt, whose beginning is in the cache, for all images."""
        import torch

        ids = torch.tensor(prompt, device=self.device).expand(image_count, -1)
        output = self._model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=MAX_NEW_TOKENS,
            do_sample=False,
            **{self._cache_argument: cache},
        )
        new_tokens = output[:, ids.shape[1] :]
        return self._processor.batch_decode(new_tokens, skip_special_tokens=True)

    def _tokenize_prompts(self, first_prompt_ids: torch.Tensor) -> list[list[int]]:
        """Tokenize the prompts of all questions, image tokens included, and check them.

        Args:
            first_prompt_ids: (batch, length) int64; the first question's prompt for every image.

        Returns:
            The token ids of each question's prompt; they are the same for every image.

        Raises:
            ValueError: If the prompts of the images differ, or if a prompt has a wrong number of
                image tokens or start tokens.
        """
        tokenizer = self._processor.tokenizer
        config = self._model.config
        image_token_id = config.image_token_id
        if not all((row == first_prompt_ids[0]).all() for row in first_prompt_ids):
            counts = sorted({int((row == image_token_id).sum()) for row in first_prompt_ids})
            raise ValueError(
                f"the prompts of crops of one size differ (image tokens: {counts}); check the "
                "processor of the checkpoint"
            )

        num_image_tokens = int((first_prompt_ids[0] == image_token_id).sum())
        image_token = self._processor.image_token
        prompt_ids = [first_prompt_ids[0].tolist()]
        for question in prompts.QUESTIONS[1:]:
            text = prompts.build_prompt(self._processor, config, question)
            expanded = text.replace(image_token, image_token * num_image_tokens)
            prompt_ids.append(tokenizer(expanded).input_ids)

        start_id = tokenizer.bos_token_id
        adds_start_token = tokenizer("").input_ids[:1] == [start_id]
        valid_start_counts = (1,) if adds_start_token else (0, 1)
        for ids in prompt_ids:
            image_count = ids.count(image_token_id)
            start_count = ids.count(start_id)
            if image_count != num_image_tokens or start_count not in valid_start_counts:
                raise ValueError(
                    f"a prompt has {image_count} image tokens (expected: {num_image_tokens}) and "
                    f"{start_count} start tokens (expected: 1); check the chat template of the "
                    "checkpoint"
                )
        return prompt_ids

    def _affordable_batch_size(self, prompt_tokens: int) -> int:
        """Return the number of crops, at least 1, whose keys and values fit into free memory."""
        text_config = self._model.config.text_config
        attention_heads = text_config.num_attention_heads
        key_value_heads = getattr(text_config, "num_key_value_heads", None) or attention_heads
        head_dim = getattr(text_config, "head_dim", None)
        head_dim = head_dim or text_config.hidden_size // attention_heads

        values_per_layer = 2 * key_value_heads * head_dim  # a key and a value per head
        values_per_token = text_config.num_hidden_layers * values_per_layer
        bytes_per_token = values_per_token * self._model.dtype.itemsize
        bytes_per_crop = bytes_per_token * (prompt_tokens + TEXT_TOKENS)
        affordable = int(CACHE_MEMORY_SHARE * self._free_memory_bytes() / bytes_per_crop)
        return max(1, min(self._max_batch_size, affordable))

    def _free_memory_bytes(self) -> int:
        """Return the memory in bytes that is available to tensors on the device."""
        if not self.device.startswith("cuda"):
            return int(available_bytes())
        import torch

        allocated = torch.cuda.memory_allocated(self.device)
        reserved_but_unused = torch.cuda.memory_reserved(self.device) - allocated
        return torch.cuda.mem_get_info(self.device)[0] + reserved_but_unused


def _quantization_options(precision: str, device: str) -> dict[str, Any]:
    """Return the options of `from_pretrained` that load weights in 8 or 4 bits."""
    import importlib.util

    import torch
    from transformers import BitsAndBytesConfig

    if not device.startswith("cuda"):
        raise UserError(
            f"captions.precision {precision} needs a GPU; use bf16, which means fp32 on the CPU"
        )
    if importlib.util.find_spec("bitsandbytes") is None:
        raise MissingResourceError(
            f"captions.precision {precision} needs bitsandbytes; run `pip install bitsandbytes`"
        )
    if precision == "4bit":
        config = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_compute_dtype=torch.bfloat16,
        )
    else:
        config = BitsAndBytesConfig(load_in_8bit=True)
    return {"quantization_config": config, "device_map": {"": device}}


def _common_prefix_length(prompt_ids: Sequence[Sequence[int]]) -> int:
    """Return how many first tokens all prompts share, less than the length of the shortest."""
    limit = min(len(ids) for ids in prompt_ids) - 1
    for position in range(limit):
        if len({ids[position] for ids in prompt_ids}) > 1:
            return position
    return limit
