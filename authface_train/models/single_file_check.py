"""Checks the header of a single safetensors file: which model is in it, and is it complete.

The names of the weights are the original ones (ComfyUI, A1111, `authface export`) or those of
diffusers with the part in front (`unet.conv_in.weight`). Such a file holds no configuration: that
of SDXL base 1.0 is used, unless `authface export` stored another in the file's metadata.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import init_empty_weights

from authface_train.models.config_check import check_values
from authface_train.models.loading import NETWORKS, SDXL_NETWORKS, check_relations
from authface_train.models.noise_schedule import check_prediction_type, zero_snr_error
from authface_train.models.pixel_unshuffle import PixelUnshuffle
from authface_train.models.sdxl_config import (
    SDXL_CONFIGURATION,
    TINY_CONFIGURATION,
    Configuration,
)
from authface_train.runs import single_file
from manifests.support.errors import UserError
from manifests.support.model_folder import ADVICE, explain_loading, read_weights_header
from manifests.support.parsing import parse_json_object
from manifests.support.safetensors_header import SafetensorsHeader, TensorInfo, other_format
from manifests.support.text import excerpt

CONFIGURATION_KEY = "authface.configuration"
"""Key of the metadata in which `authface export` stores the configurations of the parts."""
UNTRAINED_KEY = "authface.untrained"
DTYPES = {"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"}
ORIGINAL_PREFIXES = {
    "unet": single_file.UNET_PREFIX,
    "vae": single_file.VAE_PREFIX,
    "text_encoder": single_file.TEXT_ENCODER_PREFIX,
    "text_encoder_2": single_file.TEXT_ENCODER_2_PREFIX,
}
DIFFUSERS_PREFIXES = {name: f"{name}." for name in SDXL_NETWORKS}
TITLES = {
    "unet": "U-Net",
    "vae": "VAE",
    "text_encoder": "first text encoder",
    "text_encoder_2": "second text encoder",
}
OTHER_MODELS = {
    ".lora_": "a LoRA",
    ".lora.": "a LoRA",
    "lora_unet_": "a LoRA",
    "lora_te": "a LoRA",
    ".hada_w1": "a LoRA",
    ".lokr_w1": "a LoRA",
    "controlnet_cond_embedding.": "a ControlNet",
    "control_model.": "a ControlNet",
    "joint_blocks.": "Stable Diffusion 3",
    "double_blocks.": "FLUX",
    "emb_params": "a textual inversion",
    "conditioner.embedders.0.model.": "the SDXL refiner",
    "scaled_fp8": "an fp8 file with scaled weights",
    "scale_weight": "an fp8 file with scaled weights",
    "edm_mean": "a model with the noise schedule of EDM",
}
"""Descriptions of files by parts of the names of their tensors."""
LONE_PARTS = {
    "encoder.conv_in.": "a VAE",
    "decoder.conv_in.": "a VAE",
    "first_stage_model.": "a VAE",
    "down_blocks.": "a U-Net",
    "input_blocks.": "a U-Net",
    "text_model.": "a text encoder",
    "embeddings.": "a text encoder",
    "transformer.": "a text encoder",
}
"""Descriptions of files that hold one part, by the beginnings of the names of their tensors."""
SDXL_CHANNELS = 4
SD2_WIDTH = 1024
"""Width of the text embeddings of SD 2; that of SD 1.5 is 768."""


@dataclass(frozen=True)
class SingleFile:
    """A single file whose header has been checked."""

    path: Path
    is_original: bool
    """Whether the names of the weights are the original ones, not those of diffusers."""
    configuration: Configuration

    @property
    def prefixes(self) -> dict[str, str]:
        """Beginnings of the names of the weights by part."""
        return ORIGINAL_PREFIXES if self.is_original else DIFFUSERS_PREFIXES

    @property
    def networks(self) -> dict[str, type[Any]]:
        """Classes of the networks by part."""
        networks = {name: NETWORKS[name] for name in SDXL_NETWORKS}
        if self.configuration["vae"].get("_class_name") == PixelUnshuffle.__name__:
            networks["vae"] = PixelUnshuffle
        return networks


def read_single_file(path: Path) -> SingleFile:
    """Check the header of a single file.

    Args:
        path: The file.

    Raises:
        UserError: If the file is damaged, holds something else than an SDXL, or lacks weights.
    """
    try:
        description = other_format(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}); {ADVICE}") from error
    if description is not None:
        raise UserError(f"{path} is {description}; use SDXL as a .safetensors file or a folder")
    header = read_weights_header(path)
    _refuse_other_models(path, header.tensors)
    if "v_pred" in header.tensors:
        check_prediction_type(str(path), "v_prediction")
    check_prediction_type(str(path), header.metadata.get("modelspec.prediction_type", "epsilon"))
    if "ztsnr" in header.tensors:
        raise zero_snr_error(str(path))

    is_original = _is_original(header.tensors)
    file = SingleFile(path, is_original, _configuration(path, header, is_original))
    _check_weights(file, header.tensors)
    return file


def is_untrained_file(path: Path) -> bool:
    """Whether a single file was exported from a model with random weights."""
    return read_weights_header(path).metadata.get(UNTRAINED_KEY) == "true"


def _is_original(names: dict[str, TensorInfo]) -> bool:
    return any(name.startswith(single_file.UNET_PREFIX) for name in names)


def _refuse_other_models(path: Path, names: dict[str, TensorInfo]) -> None:
    """Refuse files that are not a complete SDXL, and say what they are."""
    advice = "a complete SDXL is needed"
    for mark, description in OTHER_MODELS.items():
        if any(mark in name for name in names):
            raise UserError(f"{path} is {description}; {advice}")
    if any(name.startswith("cond_stage_model.") for name in names):
        width = next((names[n].shape[-1] for n in names if n.endswith("attn2.to_k.weight")), 0)
        raise UserError(f"{path} is {'SD 2' if width == SD2_WIDTH else 'SD 1.5'}; SDXL is needed")

    prefixes = ORIGINAL_PREFIXES if _is_original(names) else DIFFUSERS_PREFIXES
    missing = [
        TITLES[part]
        for part, prefix in prefixes.items()
        if not any(name.startswith(prefix) for name in names)
    ]
    if len(missing) == len(prefixes):
        kinds = (LONE_PARTS[mark] for mark in LONE_PARTS if any(n.startswith(mark) for n in names))
        raise UserError(f"{path} is {next(kinds, 'no SDXL')}; {advice}")
    if missing:
        raise UserError(f"{path} has no {' and no '.join(missing)}; {advice}")


def _configuration(path: Path, header: SafetensorsHeader, is_original: bool) -> Configuration:
    """The configuration in the metadata, or a known one whose U-Net has the file's shapes."""
    stored = header.metadata.get(CONFIGURATION_KEY)
    if stored is not None:
        try:
            configuration: Any = parse_json_object(stored, allow_infinity=True)
            for name in (*SDXL_NETWORKS, "scheduler"):
                if not isinstance(configuration.get(name), dict):
                    raise ValueError(f"it does not describe {name}")
        except ValueError as error:
            reason = excerpt(f"{CONFIGURATION_KEY}: {error}")
            raise UserError(f"{path} is damaged ({reason}); {ADVICE}") from error
        return configuration

    name = "input_blocks.0.0.weight" if is_original else "conv_in.weight"
    prefixes = ORIGINAL_PREFIXES if is_original else DIFFUSERS_PREFIXES
    conv_in = header.tensors.get(prefixes["unet"] + name)
    if conv_in is None or len(conv_in.shape) != 4:
        raise UserError(f"{path} holds no U-Net of SDXL ({name} is missing); {ADVICE}")
    width, channels = conv_in.shape[:2]
    if channels != SDXL_CHANNELS:
        raise UserError(
            f"{path} has {channels} input channels, as models for inpainting or editing; SDXL with "
            f"{SDXL_CHANNELS} is needed"
        )
    for configuration in (SDXL_CONFIGURATION, TINY_CONFIGURATION):
        if configuration["unet"]["block_out_channels"][0] == width:
            return configuration
    raise UserError(
        f"{path} does not have the shapes of SDXL (its U-Net is {width} channels wide); use SDXL "
        "or a fine-tune of it"
    )


def _check_weights(file: SingleFile, tensors: dict[str, TensorInfo]) -> None:
    """Check the configuration, then names, shapes and types of the weights."""
    complete = {
        name: check_values(file.configuration[name], network, file.path, name)
        for name, network in file.networks.items()
    }
    check_relations(complete, str(file.path))
    expected = _expected_shapes(file)
    found = {_without_wrapper(name): tensor for name, tensor in tensors.items()}
    differing = [
        name
        for name, shape in expected.items()
        if name not in found or _squeezed(found[name].shape) != _squeezed(shape)
    ]
    if differing:
        raise UserError(
            f"{file.path} does not have the weights of SDXL ({len(differing):,} of "
            f"{len(expected):,} are missing or have another shape, such as "
            f"{excerpt(differing[0], 100)}); use SDXL or a fine-tune of it"
        )
    quantised = next((name for name in expected if found[name].dtype not in DTYPES), None)
    if quantised is not None:
        raise UserError(
            f"{file.path} has quantised weights ({excerpt(quantised, 100)} is "
            f"{found[quantised].dtype}); use its fp16 or fp32 version"
        )


def _expected_shapes(file: SingleFile) -> dict[str, tuple[int, ...]]:
    """Shapes of all weights by the file's names."""
    weights = {}
    with explain_loading(file.path), init_empty_weights():
        for name, network in file.networks.items():
            config = file.configuration[name]
            if name.startswith("text_encoder"):
                config = network.config_class.from_dict(config)
                weights[name] = network(config).state_dict()
            else:
                weights[name] = network.from_config(config).state_dict()
        if file.is_original:
            state = single_file.to_original_names(
                weights,
                layers_per_block=file.configuration["unet"]["layers_per_block"],
                vae_levels=len(file.configuration["vae"]["block_out_channels"]),
            )
        else:
            state = {
                file.prefixes[part] + name: value
                for part, values in weights.items()
                for name, value in values.items()
            }
    return {_without_wrapper(name): tuple(value.shape) for name, value in state.items()}


def _without_wrapper(name: str) -> str:
    """A weight's name without the level that versions of transformers add to text encoders."""
    return name.replace("text_model.", "")


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape without the last two axes of a 1x1 convolution, which may be stored as a matrix."""
    return shape[:2] if shape[2:] == (1, 1) else shape
