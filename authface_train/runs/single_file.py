"""Converts a diffusers SDXL folder to the weight names of the original single-file release.

ComfyUI, A1111 and `from_single_file` of diffusers read these names. The layout is that of
https://github.com/Stability-AI/generative-models:

- The U-Net numbers its blocks consecutively: a level with L resnets takes L + 1 numbers, the last
  one for its down- or upsampler.
- The decoder of the VAE numbers its levels from the finest, and its attention layers are 1x1
  convolutions.
- The second text encoder has OpenCLIP's names, with query, key and value in one matrix.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

from manifests.support.model_folder import ADVICE
from manifests.support.parsing import read_json_object

StateDict = dict[str, torch.Tensor]

UNET_PREFIX = "model.diffusion_model."
VAE_PREFIX = "first_stage_model."
TEXT_ENCODER_PREFIX = "conditioner.embedders.0.transformer."
TEXT_ENCODER_2_PREFIX = "conditioner.embedders.1.model."

UNET_TOP = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
UNET_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
VAE_ATTENTION = {
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
}
OPEN_CLIP = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm": "ln_final",
    "encoder.layers": "transformer.resblocks",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}

UNET_MID_PATTERN = re.compile(
    r"mid_block\.(?P<kind>resnets|attentions)\.(?P<index>\d)\.(?P<rest>.*)"
)
UNET_BLOCK_PATTERN = re.compile(
    r"(?P<direction>down|up)_blocks\.(?P<level>\d+)\."
    r"(?P<kind>resnets|attentions|downsamplers|upsamplers)\.(?P<index>\d+)\.(?P<rest>.*)"
)
QUERY_PATTERN = re.compile(
    r"(?P<layer>encoder\.layers\.\d+)\.self_attn\.q_proj\.(?P<kind>weight|bias)"
)
IN_PROJECTION_PATTERN = re.compile(
    r"(?P<layer>encoder\.layers\.\d+)\.attn\.in_proj_(?P<kind>weight|bias)"
)


def original_state_dict(folder: Path) -> StateDict:
    """Load all weights of a diffusers SDXL folder under their original names.

    Args:
        folder: A saved `StableDiffusionXLPipeline`.

    Returns:
        Contiguous tensors by original name, in the precision they are stored in.
    """
    weights = {
        name: load_weights(folder / name)
        for name in ("unet", "vae", "text_encoder", "text_encoder_2")
    }
    return to_original_names(
        weights,
        layers_per_block=_read_config(folder / "unet")["layers_per_block"],
        vae_levels=len(_read_config(folder / "vae")["block_out_channels"]),
    )


def to_original_names(
    weights: dict[str, StateDict], *, layers_per_block: int, vae_levels: int
) -> StateDict:
    """Rename the weights of an SDXL.

    Args:
        weights: State dicts of diffusers and transformers by part.
        layers_per_block: Resnets per level of the U-Net's encoder.
        vae_levels: Number of resolution levels of the VAE.

    Returns:
        Contiguous tensors by original name.
    """
    state: StateDict = {}
    state.update(_unet_state(weights["unet"], layers_per_block))
    state.update(_vae_state(weights["vae"], vae_levels))
    for name, value in weights["text_encoder"].items():
        state[f"{TEXT_ENCODER_PREFIX}text_model.{name.removeprefix('text_model.')}"] = value
    for name, value in open_clip_weights(weights["text_encoder_2"]).items():
        state[TEXT_ENCODER_2_PREFIX + name] = value
    return {name: value.contiguous() for name, value in state.items()}


def load_weights(folder: Path) -> StateDict:
    """Load the tensors of a model folder, from one safetensors file or several shards."""
    from safetensors.torch import load_file

    weights: StateDict = {}
    for file in sorted(folder.glob("*.safetensors")):
        weights.update(load_file(file))
    return weights


def unet_name(name: str, layers_per_block: int, blocks_with_attention: set[str]) -> str:
    """Translate a weight name of the U-Net.

    Args:
        name: Name in diffusers.
        layers_per_block: Resnets per level of the encoder; the decoder has one more.
        blocks_with_attention: The `up_blocks.<level>` that have attention layers.

    Returns:
        The original name, without `UNET_PREFIX`.

    Raises:
        ValueError: If the name is not one of an SDXL U-Net.
    """
    for prefix, original_prefix in UNET_TOP.items():
        if name.startswith(f"{prefix}."):
            return original_prefix + name.removeprefix(prefix)

    match = UNET_MID_PATTERN.fullmatch(name)
    if match:
        position = 1 if match["kind"] == "attentions" else 2 * int(match["index"])
        return f"middle_block.{position}.{_layer_name(match['kind'], match['rest'])}"

    match = UNET_BLOCK_PATTERN.fullmatch(name)
    if match is None:
        raise ValueError(f"{name} is not a weight of an SDXL U-Net")
    kind = match["kind"]
    rest = match["rest"]
    first_number = int(match["level"]) * (layers_per_block + 1)

    if kind == "downsamplers":
        number = first_number + layers_per_block + 1
        return f"input_blocks.{number}.0.op.{rest.removeprefix('conv.')}"
    if kind == "upsamplers":
        has_attention = f"up_blocks.{match['level']}" in blocks_with_attention
        position = 2 if has_attention else 1
        return f"output_blocks.{first_number + layers_per_block}.{position}.{rest}"

    number = first_number + int(match["index"])
    position = 1 if kind == "attentions" else 0
    layer = _layer_name(kind, rest)
    if match["direction"] == "down":
        return f"input_blocks.{number + 1}.{position}.{layer}"
    return f"output_blocks.{number}.{position}.{layer}"


def vae_name(name: str, num_levels: int) -> str:
    """Translate a weight name of the VAE.

    Args:
        name: Name in diffusers.
        num_levels: Number of resolution levels; the original numbers those of the decoder from the
            finest.

    Returns:
        The original name, without `VAE_PREFIX`.
    """

    def decoder_level(match: re.Match[str]) -> int:
        return num_levels - 1 - int(match[1])

    name = re.sub(r"encoder\.down_blocks\.(\d+)\.resnets\.(\d+)", r"encoder.down.\1.block.\2", name)
    name = re.sub(
        r"encoder\.down_blocks\.(\d+)\.downsamplers\.0", r"encoder.down.\1.downsample", name
    )
    name = re.sub(
        r"decoder\.up_blocks\.(\d+)\.resnets\.(\d+)",
        lambda match: f"decoder.up.{decoder_level(match)}.block.{match[2]}",
        name,
    )
    name = re.sub(
        r"decoder\.up_blocks\.(\d+)\.upsamplers\.0",
        lambda match: f"decoder.up.{decoder_level(match)}.upsample",
        name,
    )
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda match: f"mid.block_{int(match[1]) + 1}", name)
    if ".mid_block.attentions.0." in name:
        head, tail = name.split(".mid_block.attentions.0.")
        layer, parameter = tail.rsplit(".", 1)
        return f"{head}.mid.attn_1.{VAE_ATTENTION[layer]}.{parameter}"
    return name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")


def open_clip_weights(weights: StateDict) -> StateDict:
    """Rename the weights of a `CLIPTextModelWithProjection` to those of OpenCLIP.

    Args:
        weights: State dict of the transformers model.

    Returns:
        State dict of OpenCLIP's text model. Query, key and value are concatenated along the first
        axis, and the text projection is transposed.
    """
    renamed: StateDict = {}
    for full_name, value in weights.items():
        name = full_name.removeprefix("text_model.")
        query = QUERY_PATTERN.fullmatch(name)
        if name == "text_projection.weight":
            renamed["text_projection"] = value.T
        elif query:
            attention = f"text_model.{query['layer']}.self_attn"
            kind = query["kind"]
            block = query["layer"].replace("encoder.layers", "transformer.resblocks")
            parts = [weights[f"{attention}.{letter}_proj.{kind}"] for letter in "qkv"]
            renamed[f"{block}.attn.in_proj_{kind}"] = torch.cat(parts)
        elif not re.search(r"self_attn\.[kv]_proj", name):
            for part, original_part in OPEN_CLIP.items():
                name = name.replace(part, original_part)
            renamed[name] = value
    return renamed


def from_open_clip(weights: StateDict) -> StateDict:
    """Rename the weights of OpenCLIP's text model; the inverse of `open_clip_weights`.

    Args:
        weights: State dict of OpenCLIP's text model.

    Returns:
        State dict of a `CLIPTextModelWithProjection`.
    """
    renamed: StateDict = {}
    for full_name, value in weights.items():
        name = full_name
        if name == "text_projection":
            renamed["text_projection.weight"] = value.T
            continue
        for part, original_part in OPEN_CLIP.items():
            name = name.replace(original_part, part)
        match = IN_PROJECTION_PATTERN.fullmatch(name)
        if match:
            for letter, chunk in zip("qkv", value.chunk(3), strict=True):
                renamed[f"text_model.{match['layer']}.self_attn.{letter}_proj.{match['kind']}"] = (
                    chunk
                )
        else:
            renamed[f"text_model.{name}"] = value
    return renamed


def _unet_state(weights: StateDict, layers_per_block: int) -> StateDict:
    blocks_with_attention = {
        name.split(".attentions")[0]
        for name in weights
        if name.startswith("up_blocks") and ".attentions." in name
    }
    return {
        UNET_PREFIX + unet_name(name, layers_per_block, blocks_with_attention): value
        for name, value in weights.items()
    }


def _vae_state(weights: StateDict, num_levels: int) -> StateDict:
    state: StateDict = {}
    for name, value in weights.items():
        original_name = vae_name(name, num_levels)
        is_attention_matrix = ".attn_1." in original_name and value.dim() == 2
        state[VAE_PREFIX + original_name] = (
            value[:, :, None, None] if is_attention_matrix else value
        )
    return state


def _read_config(folder: Path) -> dict[str, Any]:
    return read_json_object(folder / "config.json", ADVICE)


def _layer_name(kind: str, rest: str) -> str:
    """Name within a block; the layers of transformers keep their names."""
    if kind == "attentions":
        return rest
    layer, _, parameter = rest.partition(".")
    return f"{UNET_RESNET[layer]}.{parameter}"
