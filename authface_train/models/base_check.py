"""Decides from configurations and headers, before weights are read, whether a base can be used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from authface_train.models.loading import (
    check_part,
    check_parts,
    part_class,
    scheduler_class,
)
from authface_train.models.noise_schedule import check_noise_schedule, check_scheduler_class
from authface_train.models.sdxl_config import PIPELINE_FILES, TINY
from authface_train.models.single_file_check import read_single_file
from manifests.run_folder import MODEL_INDEX_FILE, RUN_FILE
from manifests.support import hub
from manifests.support.errors import UserError
from manifests.support.model_folder import ADVICE, LIBRARIES, read_config, read_index
from manifests.support.text import excerpt

SD_VERSIONS = {768: "SD 1.5", 1024: "SD 2"}
"""Versions of Stable Diffusion before SDXL, by the width of their text embeddings."""
EXTRA_CHANNELS = {9: "a model for inpainting", 8: "a model for editing"}
"""Fine-tunes whose U-Net sees a picture beside the noisy latents, by its input channels."""


def check_base(base: str, weights_dir: str | None) -> None:
    """Check a base without reading its weights.

    Args:
        base: Hub id, folder or .safetensors file; `tiny` is always accepted.
        weights_dir: Folder that is searched for models before the hub.

    Raises:
        UserError: If the base is damaged or no SDXL that predicts noise.
        MissingResourceError: If the base is neither on disk nor downloadable.
    """
    if base == TINY:
        return
    path = Path(hub.resolve_model(base, weights_dir, allow_file=True))
    if path.is_file():
        scheduler = read_single_file(path).configuration["scheduler"]
        check_scheduler_class(str(path), scheduler_class(scheduler.get("_class_name"), path))
        check_noise_schedule(str(path), scheduler)
    elif path.is_dir():
        _check_folder(path, with_weights=True)
    else:
        _check_folder(hub.download_configs(base, weights_dir, PIPELINE_FILES), with_weights=False)


def _check_folder(folder: Path, *, with_weights: bool) -> None:
    _refuse_no_model(folder)
    _refuse_custom_code(folder)
    index = read_index(folder)
    _refuse_other_models(folder, index)
    check_parts(folder, with_weights=with_weights)
    check_scheduler_class(str(folder), part_class(folder, "scheduler"))
    check_noise_schedule(str(folder), check_part(folder, "scheduler"))


def _refuse_no_model(folder: Path) -> None:
    """Refuse a folder that is not in the layout of diffusers."""
    if (folder / MODEL_INDEX_FILE).exists() or (folder / "unet").is_dir():
        return
    files = sorted(path.name for path in folder.glob("*.safetensors"))
    if (folder / RUN_FILE).is_file():
        problem = "holds a run that is not finished; continue it with --resume"
    elif files:
        problem = f"is not a model folder of diffusers; use its file {excerpt(files[0], 100)}"
    else:
        problem = f"is not a model folder of diffusers (it has no model_index.json); {ADVICE}"
    raise UserError(f"{folder} {problem}")


def _refuse_custom_code(folder: Path) -> None:
    """Refuse a pipeline whose index names a custom module."""
    path = folder / MODEL_INDEX_FILE
    if not path.is_file():
        return
    for name, value in read_config(path).items():
        items = value if isinstance(value, list) else []
        names = [item for item in items if isinstance(item, str)]
        is_pair = len(names) == len(items) == 2
        if is_pair and names[0].split(".")[0] not in LIBRARIES:
            raise UserError(
                f"{folder} needs custom code ({excerpt(name, 40)} is "
                f"{excerpt('.'.join(names), 80)}), which is never run; use another model"
            )


def _refuse_other_models(folder: Path, index: dict[str, Any]) -> None:
    """Name the models that are often taken for SDXL."""
    if not (folder / "unet").is_dir():
        class_name = excerpt(str(index.get("_class_name")), 60)
        if "StableDiffusionXL" in class_name:
            raise UserError(f"{folder} has no folder unet; {ADVICE}")
        raise UserError(f"{folder} is a {class_name}; SDXL is needed")
    unet = check_part(folder, "unet")
    width = unet["cross_attention_dim"]
    if unet["addition_embed_type"] != "text_time":
        version = SD_VERSIONS.get(width) if isinstance(width, int) else None
        raise UserError(
            f"{folder} is {version or 'a model without the size conditions of SDXL'}; "
            "SDXL is needed"
        )
    if not (folder / "text_encoder").is_dir() and (folder / "text_encoder_2").is_dir():
        raise UserError(f"{folder} is the SDXL refiner; the SDXL base model is needed")
    channels = unet["in_channels"]
    if channels != unet["out_channels"]:
        kind = EXTRA_CHANNELS.get(channels, "not SDXL")
        raise UserError(
            f"{folder} is {kind} with {channels} input channels; SDXL with "
            f"{unet['out_channels']} is needed"
        )
