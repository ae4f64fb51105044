"""Loads the parts of a pipeline from folders; a damaged part is named in one line.

Weights are read from safetensors files or, without any, from `.bin` files, which torch
unpickles with `weights_only=True`. The files may be of a variant, such as `*.fp16.safetensors`.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import diffusers
import torch
import transformers

from authface_train.models.config_check import check_config

# diffusers finds the class of a saved PixelUnshuffle only if its module is imported already.
from authface_train.models.pixel_unshuffle import PixelUnshuffle
from manifests.support.clip_tokens import MAX_TOKENS, clip_vocabulary
from manifests.support.errors import UserError
from manifests.support.model_folder import (
    ADVICE,
    check_config_files,
    explain_loading,
    read_index,
    read_weights_header,
)
from manifests.support.text import excerpt

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

logger = logging.getLogger(__name__)

NETWORKS: dict[str, type[Any]] = {
    "unet": diffusers.UNet2DConditionModel,
    "controlnet": diffusers.ControlNetModel,
    "vae": diffusers.AutoencoderKL,
    "text_encoder": transformers.CLIPTextModel,
    "text_encoder_2": transformers.CLIPTextModelWithProjection,
}
"""Classes of the networks of SDXL by the names of their folders."""
SDXL_NETWORKS = ("unet", "vae", "text_encoder", "text_encoder_2")
CLIP_VOCABULARY_SIZE = 49408
PAD_TOKENS = {"tokenizer": "<|endoftext|>", "tokenizer_2": "!"}
"""Padding tokens of SDXL's tokenizers."""

CONTROLNET_RELATIONS = (
    "in_channels",
    "cross_attention_dim",
    "block_out_channels",
    "layers_per_block",
    "addition_embed_type",
    "addition_time_embed_dim",
)
"""Values that a ControlNet shares with its U-Net."""

WEIGHTS_PATTERN = re.compile(
    r"(?P<stem>diffusion_pytorch_model|model|pytorch_model)"
    r"(\.(?P<variant>\w+))?(-\d{5}-of-(?P<shards>\d{5}))?(\.(?P<old_variant>\w+))?"
    r"\.(?P<format>safetensors|bin)"
)
VARIANTS = ("", "fp32", "fp16", "bf16")
"""Preferred variants of weight files, best first."""


HALF_DTYPES = {"F16": torch.float16, "BF16": torch.bfloat16}
"""Names of the half-precision dtypes in safetensors files."""


@dataclass(frozen=True)
class WeightFiles:
    """The weight files of a part that are loaded."""

    paths: list[Path]
    variant: str | None
    is_safetensors: bool
    dtype: torch.dtype
    """float16 or bfloat16 if all weights are stored so, otherwise float32."""


def find_weights(folder: Path) -> WeightFiles:
    """Choose the weight files of a part and check the headers of safetensors files.

    Args:
        folder: Folder of the part.

    Raises:
        UserError: If the folder has no weights, a shard is missing, or a file is damaged.
    """
    groups: dict[tuple[bool, str], list[Path]] = {}
    num_shards: dict[tuple[bool, str], int] = {}
    for path in sorted(folder.iterdir()):
        match = WEIGHTS_PATTERN.fullmatch(path.name)
        if match:
            variant = match["variant"] or match["old_variant"] or ""
            group = (match["format"] == "safetensors", variant)
            groups.setdefault(group, []).append(path)
            num_shards[group] = int(match["shards"] or 1)
    if not groups:
        raise UserError(f"{folder} has no weights (*.safetensors or *.bin); {ADVICE}")

    def rank(group: tuple[bool, str]) -> tuple[bool, int, str]:
        is_safetensors, variant = group
        order = VARIANTS.index(variant) if variant in VARIANTS else len(VARIANTS)
        return (not is_safetensors, order, variant)

    best = min(groups, key=rank)
    paths = groups[best]
    if len(paths) < num_shards[best]:
        raise UserError(
            f"{folder} has {len(paths)} of the {num_shards[best]} files of its weights; {ADVICE}"
        )
    stored: set[str] = set()
    if best[0]:
        for path in paths:
            stored |= {info.dtype for info in read_weights_header(path).tensors.values()}
    return WeightFiles(paths, best[1] or None, best[0], stored_dtype(stored))


def stored_dtype(names: Collection[str]) -> torch.dtype:
    """The dtype in which weights of a file are loaded without a conversion.

    Args:
        names: Names of the dtypes of its tensors, as in safetensors files.

    Returns:
        float16 or bfloat16 if all tensors are stored so, otherwise float32.
    """
    return HALF_DTYPES.get(next(iter(names)), torch.float32) if len(names) == 1 else torch.float32


def part_class(folder: Path, name: str) -> type[Any]:
    """Class of a part of a pipeline folder.

    Args:
        folder: Folder of the pipeline.
        name: Name of the part, a key of `NETWORKS` or "scheduler".

    Raises:
        UserError: If the folder names a class that does not fit SDXL.
    """
    index = read_index(folder).get(name)
    class_name = index[1] if isinstance(index, list) and len(index) == 2 else None
    if name == "scheduler":
        return scheduler_class(class_name, folder / name)
    if name == "vae" and PixelUnshuffle.is_vae_of(str(folder)):
        return PixelUnshuffle
    expected = NETWORKS[name]
    if class_name not in (None, expected.__name__):
        raise UserError(
            f"{folder / name} is a {excerpt(str(class_name), 60)}; SDXL has a {expected.__name__}. "
            "Use another model"
        )
    return expected


def scheduler_class(class_name: object, scheduler: object) -> type[Any]:
    """Find a scheduler class of diffusers.

    Args:
        class_name: Its name; None for the class that the authors of DDPM-based models use.
        scheduler: The scheduler, for the message.

    Raises:
        UserError: If diffusers has no such scheduler.
    """
    found = getattr(diffusers, str(class_name or "DDPMScheduler"), None)
    if isinstance(found, type) and issubclass(found, diffusers.SchedulerMixin):
        return found
    name = excerpt(str(class_name), 60)
    raise UserError(f"{scheduler} cannot be loaded (diffusers has no scheduler {name}); {ADVICE}")


def check_part(folder: Path, name: str) -> dict[str, Any]:
    """Check the configuration of a part without loading it.

    Args:
        folder: Folder of the pipeline.
        name: Name of the part, a key of `NETWORKS` or "scheduler".

    Returns:
        The complete configuration of the part.

    Raises:
        UserError: If the part is missing, or a value does not fit its class.
    """
    if not (folder / name).is_dir():
        raise UserError(f"{folder} has no folder {name}; {ADVICE}")
    return check_config(folder / name, part_class(folder, name))


def load_part(folder: Path, name: str, dtype: torch.dtype | None) -> Any:
    """Load a network of a pipeline folder.

    Args:
        folder: Folder of the pipeline.
        name: Name of the network, a key of `NETWORKS`.
        dtype: Data type of the weights in memory. None loads half precision as it is stored: the
            file is mapped into memory, which takes no time.

    Raises:
        UserError: If the part cannot be loaded, or lacks weights.
    """
    check_part(folder, name)
    part = folder / name
    weights = find_weights(part)
    try:
        with explain_loading(part):
            network, loaded = part_class(folder, name).from_pretrained(
                part,
                dtype=dtype or weights.dtype,
                variant=weights.variant,
                use_safetensors=weights.is_safetensors,
                output_loading_info=True,
                local_files_only=True,
            )
    except OSError as error:
        raise UserError(f"{part} cannot be loaded ({excerpt(str(error))}); {ADVICE}") from error
    missing = sorted(loaded["missing_keys"])
    if missing:
        raise UserError(
            f"{part} lacks {len(missing)} weights, such as {excerpt(missing[0], 80)}; {ADVICE}"
        )
    return network


def load_scheduler(folder: Path) -> diffusers.SchedulerMixin:
    """Load the scheduler of a pipeline folder.

    Raises:
        UserError: If it is missing, or a value of its configuration does not fit.
    """
    check_part(folder, "scheduler")
    with explain_loading(folder / "scheduler"):
        scheduler = part_class(folder, "scheduler").from_pretrained(folder / "scheduler")
        # Some wrong values are noticed only when the schedule is used.
        diffusers.DDPMScheduler.from_config(scheduler.config).set_timesteps(1)
        return scheduler


def load_tokenizer(folder: Path, name: str, vocabulary_size: int) -> CLIPTokenizer:
    """Load a tokenizer of a pipeline folder, or build CLIP's if the folder has none.

    Args:
        folder: Folder of the pipeline.
        name: "tokenizer" or "tokenizer_2".
        vocabulary_size: Number of tokens that the text encoder knows.

    Raises:
        UserError: If the tokenizer is damaged or does not fit the text encoder.
    """
    part = folder / name
    if not part.is_dir():
        if vocabulary_size != CLIP_VOCABULARY_SIZE:
            raise UserError(
                f"{folder} has no folder {name}, and its text encoder does not use CLIP's "
                f"vocabulary; {ADVICE}"
            )
        logger.info("%s has no folder %s; using CLIP's vocabulary, as SDXL does", folder, name)
        return clip_tokenizer(name)
    try:
        check_config_files(part)
        with explain_loading(part):
            tokenizer = transformers.CLIPTokenizer.from_pretrained(part, local_files_only=True)
            tokenizer("a")
    except OSError as error:
        raise UserError(f"{part} cannot be loaded ({excerpt(str(error))}); {ADVICE}") from error
    if len(tokenizer) > vocabulary_size:
        raise UserError(
            f"{part} has {len(tokenizer):,} tokens, and the text encoder knows "
            f"{vocabulary_size:,}; {ADVICE}"
        )
    return tokenizer


def clip_tokenizer(name: str) -> CLIPTokenizer:
    """Build a tokenizer of SDXL from CLIP's vocabulary.

    Args:
        name: "tokenizer" or "tokenizer_2", which pads with "!".
    """
    vocabulary, merges = clip_vocabulary()
    return transformers.CLIPTokenizer(
        vocab=vocabulary,
        merges=merges,
        model_max_length=MAX_TOKENS,
        pad_token=PAD_TOKENS[name],
    )


def load_parts(
    folder: Path,
    dtype: torch.dtype,
    *,
    with_controlnet: bool = False,
    unet_as_stored: bool = False,
) -> dict[str, Any]:
    """Load the parts of an SDXL from a folder, with or without `model_index.json`.

    Args:
        folder: Folder of the pipeline.
        dtype: Data type of the networks in memory.
        with_controlnet: Load the ControlNet of a restorer as well.
        unet_as_stored: Load the U-Net in the dtype of its file, see `load_part`.

    Returns:
        The arguments of the constructor of a pipeline.

    Raises:
        UserError: If a part is missing or damaged. The message names it.
    """
    # Everything that can be refused quickly is refused before weights are read.
    configs = check_parts(folder, with_controlnet=with_controlnet)
    parts: dict[str, Any] = {"scheduler": load_scheduler(folder)}
    for name, encoder in (("tokenizer", "text_encoder"), ("tokenizer_2", "text_encoder_2")):
        parts[name] = load_tokenizer(folder, name, configs[encoder]["vocab_size"])
    for name in configs:
        if name in NETWORKS:
            as_stored = unet_as_stored and name == "unet"
            parts[name] = load_part(folder, name, None if as_stored else dtype)
    zeros = read_index(folder).get("force_zeros_for_empty_prompt", True)
    parts["force_zeros_for_empty_prompt"] = zeros is not False
    return parts


def check_parts(
    folder: Path, *, with_controlnet: bool = False, with_weights: bool = True
) -> dict[str, dict[str, Any]]:
    """Check the networks of an SDXL in a folder without loading them.

    Args:
        folder: Folder of the pipeline.
        with_controlnet: Check the ControlNet of a restorer as well.
        with_weights: Check the headers of the weights as well.

    Returns:
        The complete configurations by the names of the parts.

    Raises:
        UserError: If a part is missing or damaged, or does not fit the others.
    """
    names = (*SDXL_NETWORKS, "controlnet") if with_controlnet else SDXL_NETWORKS
    configs = {name: check_part(folder, name) for name in names}
    check_relations(configs, str(folder))
    if with_weights:
        for name in names:
            find_weights(folder / name)
    return configs


def check_relations(configs: dict[str, dict[str, Any]], model: str) -> None:
    """Check that the sizes of the parts of an SDXL fit each other.

    Args:
        configs: Complete configurations by the names of the parts.
        model: The model, for messages.

    Raises:
        UserError: If two sizes do not fit.
    """
    unet = configs["unet"]
    encoder_2 = configs["text_encoder_2"]
    width = configs["text_encoder"]["hidden_size"] + encoder_2["hidden_size"]
    time_width = unet["addition_time_embed_dim"] or 0
    pairs = {
        "cross_attention_dim": (unet["cross_attention_dim"], width),
        "projection_class_embeddings_input_dim": (
            unet["projection_class_embeddings_input_dim"],
            encoder_2["projection_dim"] + 6 * time_width,
        ),
        "addition_embed_type": (unet["addition_embed_type"], "text_time"),
        "in_channels": (unet["in_channels"], configs["vae"]["latent_channels"]),
        "out_channels": (unet["out_channels"], unet["in_channels"]),
    }
    for name, (found, expected) in pairs.items():
        if found != expected:
            raise UserError(
                f"{model}: {name} of unet is {found}, and the other parts need {expected}; {ADVICE}"
            )
    controlnet = configs.get("controlnet")
    if controlnet is None:
        return
    for name in CONTROLNET_RELATIONS:
        # A list from JSON equals a tuple that is the default of the class.
        if json.dumps(controlnet[name]) != json.dumps(unet[name]):
            raise UserError(
                f"{model}: {name} is {controlnet[name]} in controlnet and {unet[name]} in unet; "
                f"{ADVICE}"
            )
