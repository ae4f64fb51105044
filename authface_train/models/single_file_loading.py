"""Loads an SDXL from a single safetensors file, without the network; see `single_file_check`."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import diffusers
import torch
from safetensors import safe_open

from authface_train.models.loading import (
    PAD_TOKENS,
    SDXL_NETWORKS,
    clip_tokenizer,
    scheduler_class,
    stored_dtype,
)
from authface_train.models.pixel_unshuffle import PixelUnshuffle
from authface_train.models.sdxl_config import Configuration
from authface_train.models.single_file_check import SingleFile, read_single_file
from authface_train.runs.single_file import from_open_clip
from manifests.support.files import write_json
from manifests.support.model_folder import SCHEDULER_CONFIG_FILE, explain_loading, read_config


def load_single_file(
    path: Path, *, unet_as_stored: bool = False
) -> diffusers.StableDiffusionXLPipeline:
    """Load an SDXL from a single file in fp32 on the CPU.

    Args:
        path: The file.
        unet_as_stored: Load the U-Net in the dtype of the file, see `load_part`.

    Raises:
        UserError: If `read_single_file` refuses the file.
    """
    file = read_single_file(path)
    scheduler = file.configuration["scheduler"]
    class_of_scheduler = scheduler_class(scheduler.get("_class_name"), path)
    with TemporaryDirectory() as temporary, explain_loading(path):
        folder = Path(temporary)
        networks = {
            name: _load_network(file, name, folder, as_stored=unet_as_stored and name == "unet")
            for name in SDXL_NETWORKS
        }
        return diffusers.StableDiffusionXLPipeline(
            **networks,
            **{name: clip_tokenizer(name) for name in PAD_TOKENS},
            scheduler=class_of_scheduler.from_config(scheduler),
        )


def load_single_file_vae(path: Path) -> diffusers.AutoencoderKL | PixelUnshuffle:
    """Load the VAE of a single file in fp32 on the CPU.

    Args:
        path: The file.

    Raises:
        UserError: If `read_single_file` refuses the file.
    """
    file = read_single_file(path)
    with TemporaryDirectory() as folder, explain_loading(path):
        return _load_network(file, "vae", Path(folder))


def read_configuration(folder: Path) -> Configuration:
    """Read the configurations of the parts of a model folder, for the metadata of a single file.

    Args:
        folder: A saved SDXL.

    Raises:
        UserError: If a configuration is missing or damaged.
    """
    configuration = {name: read_config(folder / name / "config.json") for name in SDXL_NETWORKS}
    configuration["scheduler"] = read_config(folder / "scheduler" / SCHEDULER_CONFIG_FILE)
    return configuration


def _load_network(file: SingleFile, name: str, folder: Path, *, as_stored: bool = False) -> Any:
    """Load one network.

    Args:
        file: The file.
        name: Name of the network.
        folder: An empty folder; diffusers reads the configuration from it.
        as_stored: Load it in the dtype of the file if that is half precision, instead of fp32.
    """
    network = file.networks[name]
    config = file.configuration[name]
    if network is PixelUnshuffle:  # it has no weights
        return PixelUnshuffle.from_config(config)
    prefix = file.prefixes[name]
    # The file is mapped into memory: only the weights of this network are read.
    with safe_open(file.path, "pt") as opened:
        names = [key for key in opened.keys() if key.startswith(prefix)]  # noqa: SIM118
        state = {key.removeprefix(prefix): opened.get_tensor(key) for key in names}
        stored = {opened.get_slice(key).get_dtype() for key in names}
    dtype = stored_dtype(stored) if as_stored else torch.float32

    if name.startswith("text_encoder"):
        if file.is_original and name == "text_encoder_2":
            state = from_open_clip(state)
        return network.from_pretrained(
            None,
            config=network.config_class.from_dict(config),
            state_dict=state,
            dtype=dtype,
        )
    if file.is_original:  # diffusers recognises the original names with their prefix
        state = {prefix + key: value for key, value in state.items()}
    write_json(folder / name / "config.json", config)
    return network.from_single_file(state, config=str(folder), subfolder=name, dtype=dtype)
