"""VAE latents of the training crops, computed once and kept in the workspace's cache.

Stored are the mean and the standard deviation of the VAE's posterior for each crop and for its
mirror image, so that training samples a new latent in every epoch without the VAE.
"""

from __future__ import annotations

import copy
import itertools
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator

from authface_train.data.cache import Cache, CachedSequence, ProgressFunction, Record, fill_cache
from authface_train.data.crops import Crops
from authface_train.models.digest import model_digest
from manifests.support.errors import UserError
from manifests.support.fingerprint import fingerprint
from manifests.workspace import Workspace

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

logger = logging.getLogger(__name__)

MAX_BATCH_PIXELS = 4 * 1024**2
"""Pixels of the crops that a GPU encodes at once; with their mirror images about 10 GB in bf16."""


class Latents(CachedSequence[torch.Tensor]):
    """The posterior of each face of a training view.

    An item is (2, 2, channels, height, width) float32: axis 0 is the crop and its mirror image,
    axis 1 mean and standard deviation.
    """

    def __getitem__(self, index: int) -> torch.Tensor:  # type: ignore[override]
        """The posterior of the face in row `index`."""
        return self.cache[self.keys[index]]["latents"]


def latents_cache(
    workspace: Workspace, vae: AutoencoderKL, size_px: int, device: torch.device
) -> Cache:
    """The cache of latents for a VAE and a crop size, keyed by `crop_sha256`.

    Args:
        workspace: The workspace.
        vae: The VAE; its weights and configuration decide the folder.
        size_px: Side of the crops.
        device: Where the crops are encoded. Latents in float32 and in bf16 are never mixed.
    """
    dtype = working_dtype(device)
    # The folder of float32 latents has the name that earlier versions gave it.
    precision = {} if dtype == torch.float32 else {"dtype": str(dtype)}
    key = fingerprint(vae=model_digest(vae), size_px=size_px, **precision)
    return Cache(workspace, f"cache/latents/{key}")


def cached_latents(
    workspace: Workspace,
    vae: AutoencoderKL,
    view: pd.DataFrame,
    size_px: int,
    accelerator: Accelerator,
    report: ProgressFunction,
) -> Latents:
    """The latents of a view's crops; missing ones are computed.

    On a CPU each crop is encoded alone with its mirror image in fp32. On a CUDA GPU batches are
    encoded in bf16 if the VAE returns numbers in it, which SDXL's does, and else in fp32. All
    batches have one shape, so that the latents do not depend on the other crops.

    Args:
        workspace: The workspace.
        vae: The VAE. It is moved to the accelerator's device if that computes in fp32.
        view: Training view.
        size_px: Side of the crops.
        accelerator: The run's accelerator.
        report: Is called with the number of latents done and to do.

    Returns:
        One item per row of the view.

    Raises:
        UserError: If the VAE returns NaN or infinity.
    """
    cache = latents_cache(workspace, vae, size_px, accelerator.device)
    crops = Crops(workspace, view, size_px)

    def compute(keys: list[str]) -> Iterator[Record]:
        if not keys:
            return
        loaded = crops.load_ahead(keys)
        for latents in encode_in_batches(vae, loaded, size_px, accelerator.device):
            yield {"latents": latents}

    fill_cache(cache, crops.keys, compute, accelerator, report)
    return Latents(cache, crops.keys)


def batch_size(size_px: int, device: torch.device) -> int:
    """Number of crops in a batch of the VAE.

    Args:
        size_px: Side of the crops.
        device: Where they are encoded.
    """
    if device.type != "cuda":
        return 1
    return max(MAX_BATCH_PIXELS // size_px**2, 1)


def working_dtype(device: torch.device) -> torch.dtype:
    """The dtype that a device encodes in, if the VAE allows."""
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16
    return torch.float32


def encode_in_batches(
    vae: AutoencoderKL, crops: Iterator[np.ndarray], size_px: int, device: torch.device
) -> Iterator[torch.Tensor]:
    """Encode crops in batches of one shape; the last batch is filled up.

    Args:
        vae: The VAE. It is moved to the device if that computes in fp32, and copied otherwise.
        crops: (size_px, size_px, 3) uint8 each.
        size_px: Side of the crops.
        device: Where to encode.

    Yields:
        For each crop (2, 2, channels, h, w) float32 on the CPU, see `Latents`.

    Raises:
        UserError: If the VAE returns NaN or infinity in fp32.
    """
    dtype = working_dtype(device)
    # A rounded copy, because the fingerprint of the cache follows from the weights.
    model = vae if dtype == torch.float32 else copy.deepcopy(vae)
    model.to(device, dtype).eval()
    num_crops = batch_size(size_px, device)
    while batch := list(itertools.islice(crops, num_crops)):
        padded = np.stack([*batch, *[batch[-1]] * (num_crops - len(batch))])
        latents = encode_crops(model, padded)
        if model is not vae and not torch.isfinite(latents).all():
            logger.warning("the VAE returns NaN or infinity in %s; encoding in float32", dtype)
            model = vae.to(device, torch.float32).eval()
            latents = encode_crops(model, padded)
        if not torch.isfinite(latents).all():
            raise UserError(
                "the VAE returns NaN or infinity; its weights are broken, use another --base"
            )
        yield from latents[: len(batch)]


@torch.no_grad()
def encode_crops(vae: AutoencoderKL, crops: np.ndarray) -> torch.Tensor:
    """Encode crops and their mirror images in one batch.

    Args:
        vae: The VAE; its dtype and device are used.
        crops: (batch, height, width, 3) uint8.

    Returns:
        (batch, 2, 2, channels, h, w) float32 on the CPU, see `Latents`; not scaled by
        `scaling_factor`.
    """
    images = torch.from_numpy(crops).to(vae.device).permute(0, 3, 1, 2).float() / 127.5 - 1
    mirrored = torch.stack([images, images.flip(-1)], dim=1)
    posterior = vae.encode(mirrored.flatten(0, 1).to(vae.dtype)).latent_dist
    std = torch.exp(0.5 * posterior.logvar.float())
    latents = torch.stack([posterior.mean.float(), std], dim=1)
    return latents.unflatten(0, (len(crops), 2)).cpu()


def sample_latent(
    posterior: torch.Tensor, flip: bool, generator: torch.Generator, scaling_factor: float
) -> torch.Tensor:
    """Sample a scaled latent: scaling_factor * (mean + std * noise).

    Args:
        posterior: (2, 2, channels, height, width), see `Latents`.
        flip: Whether to use the mirrored crop.
        generator: Source of the noise.
        scaling_factor: `vae.config.scaling_factor`, 0.13025 for SDXL.

    Returns:
        (channels, height, width) float32.
    """
    mean, std = posterior[int(flip)]
    return scaling_factor * (mean + std * torch.randn(mean.shape, generator=generator))
