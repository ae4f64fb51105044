"""Plans of a run before there are faces or weights: from the architecture of SDXL alone."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from authface_train.data.crops import crop_bytes
from authface_train.data.degradation import REFERENCE_PX
from authface_train.memory import dry_run
from authface_train.memory.dry_run import GB, CacheSize, Machine, Plan, StageSettings
from authface_train.memory.estimator import (
    FLOAT32_BYTES,
    USABLE_FRACTION,
    MemoryEstimator,
    count_parameters,
    memory_capacity,
)
from authface_train.memory.fake_tensor_pass import NUM_TOKENS, pooled_width
from authface_train.memory.known_peaks import load_known_peaks, make_pass
from authface_train.memory.peak_cache import PeakCache
from authface_train.models.sdxl import MetaNetworks, meta_networks
from authface_train.models.sdxl_config import SDXL_CONFIGURATION, TINY_CONFIGURATION
from authface_train.presets import card_of
from authface_train.settings import PriorSettings
from manifests.workspace import Workspace


def plan_from_architecture(
    settings: StageSettings,
    *,
    preset: str,
    is_tiny: bool,
    num_faces: int,
    folder: Path,
    workspace: Workspace | None = None,
) -> Plan:
    """Estimate memory and disk space of a run without its faces and its weights.

    The duration stays open: it is measured with the weights. Without a GPU here, the plan is for
    the GPUs that the preset is made for.

    Args:
        settings: Settings of the run.
        preset: Name of their preset.
        is_tiny: Whether the base is the random model `tiny`.
        num_faces: Number of training faces.
        folder: Where the run would be written.
        workspace: Keeps the peaks of fake passes for later, if there is one.
    """
    networks = meta_networks(TINY_CONFIGURATION if is_tiny else SDXL_CONFIGURATION)
    fake_pass = make_pass(settings, networks.unet, networks.vae_scale_factor)
    model_bytes = FLOAT32_BYTES * count_parameters(
        networks.unet, networks.vae, *networks.text_encoders
    )
    if not isinstance(settings, PriorSettings):
        model_bytes += FLOAT32_BYTES * fake_pass.num_trainable
    estimator = MemoryEstimator(
        fake_pass,
        torch.device("cpu"),
        None if workspace is None else PeakCache(workspace),
        known_peaks={} if is_tiny else load_known_peaks(),
    )
    return dry_run.plan_run(
        stage="prior" if isinstance(settings, PriorSettings) else "restorer",
        settings=settings,
        estimator=estimator,
        machine=_find_machine(preset),
        measure_step=None,
        num_faces=num_faces,
        cache_size=_cache_size(settings, networks, num_faces),
        model_bytes=model_bytes,
        folder=folder,
    )


def _find_machine(preset: str) -> Machine:
    """The GPUs of this machine, else those of the preset, else the CPU."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    card = card_of(preset)
    if torch.cuda.is_available():
        if card is not None and "WORLD_SIZE" not in os.environ:
            processes = min(card.count, torch.cuda.device_count())
        device = torch.device("cuda", 0)
        return Machine(torch.cuda.get_device_name(device), processes, memory_capacity(device))
    if card is not None:
        name = f"GPU of {card.memory_gb:g} GB (none here)"
        return Machine(name, card.count, USABLE_FRACTION * card.memory_gb * GB)
    return Machine("CPU", processes, memory_capacity(torch.device("cpu")))


def _cache_size(settings: StageSettings, networks: MetaNetworks, num_faces: int) -> CacheSize:
    """Size of the crops, latents and prompts of new faces; all of them are missing."""
    config = networks.unet.config
    side = settings.resolution_px // networks.vae_scale_factor
    # Mean and standard deviation, of the crop and of its mirror image.
    latent_values = 4 * config.in_channels * side**2
    prompt_values = NUM_TOKENS * config.cross_attention_dim + pooled_width(config)
    is_prior = isinstance(settings, PriorSettings)
    num_prompts = num_faces * settings.orders if isinstance(settings, PriorSettings) else 1
    crops = 0 if is_prior else num_faces * crop_bytes(REFERENCE_PX)
    size = FLOAT32_BYTES * (num_faces * latent_values + num_prompts * prompt_values) + crops
    return CacheSize(all_bytes=size, missing_bytes=size)
