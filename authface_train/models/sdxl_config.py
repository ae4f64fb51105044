"""Configurations of SDXL base 1.0, for single files, which hold weights only.

Source: the configuration files of
https://huggingface.co/stabilityai/stable-diffusion-xl-base-1.0; values that equal the default of
the class are left out.
"""

from __future__ import annotations

from typing import Any

SDXL = "stabilityai/stable-diffusion-xl-base-1.0"
"""Hub id of SDXL."""
TINY = "tiny"
"""Name of the random model in the setting `base`."""

PIPELINE_FILES = (
    "model_index.json and the folders unet, vae, text_encoder, text_encoder_2, tokenizer, "
    "tokenizer_2, scheduler"
)
"""The files of a base model, in words."""

CLASS_KEYS = ("_class_name", "architectures")
"""Keys that name the class of a part."""

Configuration = dict[str, dict[str, Any]]
"""Configurations of the parts of a pipeline by the names of their folders."""

SDXL_CONFIGURATION: Configuration = {
    "unet": {
        "_class_name": "UNet2DConditionModel",
        "sample_size": 128,
        "block_out_channels": (320, 640, 1280),
        "layers_per_block": 2,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 10),
        "attention_head_dim": (5, 10, 20),
        "use_linear_projection": True,
        "cross_attention_dim": 2048,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
    "vae": {
        "_class_name": "AutoencoderKL",
        "block_out_channels": (128, 256, 512, 512),
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "layers_per_block": 2,
        "sample_size": 1024,
        "scaling_factor": 0.13025,
    },
    "text_encoder": {
        "architectures": ["CLIPTextModel"],
        "hidden_size": 768,
        "intermediate_size": 3072,
        "projection_dim": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "hidden_act": "quick_gelu",
        "bos_token_id": 0,
        "eos_token_id": 2,
    },
    "text_encoder_2": {
        "architectures": ["CLIPTextModelWithProjection"],
        "hidden_size": 1280,
        "intermediate_size": 5120,
        "projection_dim": 1280,
        "num_hidden_layers": 32,
        "num_attention_heads": 20,
        "hidden_act": "gelu",
        "bos_token_id": 0,
        "eos_token_id": 2,
    },
    "scheduler": {
        "_class_name": "EulerDiscreteScheduler",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "steps_offset": 1,
        "timestep_spacing": "leading",
    },
}

TINY_CONFIGURATION: Configuration = {
    "unet": {
        "_class_name": "UNet2DConditionModel",
        "sample_size": 16,
        "block_out_channels": (32, 64),
        "layers_per_block": 1,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "attention_head_dim": (2, 4),
        "use_linear_projection": True,
        "norm_num_groups": 8,
        "cross_attention_dim": 64,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 80,
    },
    "vae": {
        "_class_name": "AutoencoderKL",
        "block_out_channels": (16, 16, 32, 32),
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "norm_num_groups": 8,
        "latent_channels": 4,
        "sample_size": 128,
        "scaling_factor": 0.13025,
    },
    "text_encoder": {
        "architectures": ["CLIPTextModel"],
        "hidden_size": 32,
        "intermediate_size": 64,
        "projection_dim": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
    },
    "scheduler": SDXL_CONFIGURATION["scheduler"],
}
TINY_CONFIGURATION["text_encoder_2"] = {
    **TINY_CONFIGURATION["text_encoder"],
    "architectures": ["CLIPTextModelWithProjection"],
}
"""Configuration of the random model `tiny`: the classes of SDXL with small sizes."""


def arguments(configuration: Configuration, name: str) -> dict[str, Any]:
    """The arguments of the constructor of a part: its configuration without the class.

    Args:
        configuration: Configurations of the parts of a pipeline.
        name: Name of the part.
    """
    return {key: value for key, value in configuration[name].items() if key not in CLASS_KEYS}
