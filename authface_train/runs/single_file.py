"""An SDXL in one safetensors file under the names of its original release, which ComfyUI, A1111 and diffusers read.

Names of diffusers are turned into those of the original by position: the original numbers blocks through, each level of L
resnets taking L + 1 places. Its second text encoder is OpenCLIP's, with query, key and value in one matrix.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import torch

Tensors = dict[str, torch.Tensor]

UNET, VAE = "model.diffusion_model.", "first_stage_model."
TEXT, TEXT_2 = "conditioner.embedders.0.transformer.", "conditioner.embedders.1.model."

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


def from_folder(folder: Path) -> Tensors:
    """All weights of a diffusers SDXL folder by their original names, in the precision they are stored in."""
    unet_config, vae_config = (
        json.loads((folder / part / "config.json").read_text()) for part in ("unet", "vae")
    )
    layers, levels = unet_config["layers_per_block"], len(vae_config["block_out_channels"])
    made: Tensors = {}
    unet = weights_in(folder / "unet")
    attended = {
        name.split(".attentions")[0]
        for name in unet
        if name.startswith("up_blocks") and ".attentions." in name
    }
    for name, value in unet.items():
        made[UNET + unet_name(name, layers, attended)] = value
    for name, value in weights_in(folder / "vae").items():
        new = vae_name(name, levels)
        # The original's attention is made of convolutions.
        is_attention = ".attn_1." in new and value.dim() == 2
        made[VAE + new] = value[:, :, None, None] if is_attention else value
    for name, value in weights_in(folder / "text_encoder").items():
        made[f"{TEXT}text_model.{name.removeprefix('text_model.')}"] = value
    made.update(
        {
            TEXT_2 + name: value
            for name, value in open_clip(weights_in(folder / "text_encoder_2")).items()
        }
    )
    return {name: value.contiguous() for name, value in made.items()}


def weights_in(folder: Path) -> Tensors:
    """The tensors of a model's folder, of one file or several."""
    from safetensors.torch import load_file

    made: Tensors = {}
    for file in sorted(folder.glob("*.safetensors")):
        made.update(load_file(file))
    return made


def unet_name(name: str, layers: int, attended: set[str]) -> str:
    """layers: resnets per level on the way down. attended: the `up_blocks.<i>` with attention."""
    for ours, theirs in UNET_TOP.items():
        if name.startswith(f"{ours}."):
            return theirs + name.removeprefix(ours)
    if match := re.fullmatch(r"mid_block\.(resnets|attentions)\.(\d)\.(.*)", name):
        place = 1 if match[1] == "attentions" else 2 * int(match[2])
        return f"middle_block.{place}.{_inner(match[1], match[3])}"
    match = re.fullmatch(
        r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.*)", name
    )
    if match is None:
        raise ValueError(f"no weight of an SDXL U-Net: {name}")
    way, kind, rest = match[1], match[3], match[5]
    first = int(match[2]) * (layers + 1)
    if kind == "downsamplers":
        return f"input_blocks.{first + layers + 1}.0.op.{rest.removeprefix('conv.')}"
    if kind == "upsamplers":
        place = 2 if f"up_blocks.{match[2]}" in attended else 1
        return f"output_blocks.{first + layers}.{place}.{rest}"
    number = first + int(match[4]) + (1 if way == "down" else 0)
    blocks = "input_blocks" if way == "down" else "output_blocks"
    return f"{blocks}.{number}.{1 if kind == 'attentions' else 0}.{_inner(kind, rest)}"


def _inner(kind: str, rest: str) -> str:
    """Within a block: transformers keep their names."""
    if kind == "attentions":
        return rest
    layer, _, what = rest.partition(".")
    return f"{UNET_RESNET[layer]}.{what}"


def vae_name(name: str, levels: int) -> str:
    """levels: of resolution; the original numbers the decoder's from the finest."""
    name = re.sub(r"encoder\.down_blocks\.(\d+)\.resnets\.(\d+)", r"encoder.down.\1.block.\2", name)
    name = re.sub(
        r"encoder\.down_blocks\.(\d+)\.downsamplers\.0", r"encoder.down.\1.downsample", name
    )
    name = re.sub(
        r"decoder\.up_blocks\.(\d+)\.resnets\.(\d+)",
        lambda m: f"decoder.up.{levels - 1 - int(m[1])}.block.{m[2]}",
        name,
    )
    name = re.sub(
        r"decoder\.up_blocks\.(\d+)\.upsamplers\.0",
        lambda m: f"decoder.up.{levels - 1 - int(m[1])}.upsample",
        name,
    )
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
    if ".mid_block.attentions.0." in name:
        head, tail = name.split(".mid_block.attentions.0.")
        layer, what = tail.rsplit(".", 1)
        return f"{head}.mid.attn_1.{VAE_ATTENTION[layer]}.{what}"
    return name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")


def open_clip(weights: Tensors) -> Tensors:
    """A CLIPTextModelWithProjection's weights under OpenCLIP's names."""
    made: Tensors = {}
    for name, value in weights.items():
        name = name.removeprefix("text_model.")
        if name == "text_projection.weight":
            made["text_projection"] = value.T
            continue
        if match := re.fullmatch(r"(encoder\.layers\.\d+)\.self_attn\.q_proj\.(weight|bias)", name):
            parts = [
                weights[f"text_model.{match[1]}.self_attn.{one}_proj.{match[2]}"] for one in "qkv"
            ]
            block = match[1].replace("encoder.layers", "transformer.resblocks")
            made[f"{block}.attn.in_proj_{match[2]}"] = torch.cat(parts)
            continue
        if re.search(r"self_attn\.[kv]_proj", name):
            continue
        for ours, theirs in OPEN_CLIP.items():
            name = name.replace(ours, theirs)
        made[name] = value
    return made
